// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * top_draw.c - the screen of godwit top; see top.h
 *
 * From above: a title, the nodes (at most a third of the screen), the units, the moves under way, and a line for what was said, what is asked, or the keys. All is drawn anew each time; ncurses sends what differs.
 */
#include <curses.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/top.h"

#define MOVES_SHOWN 5
#define BAR_MAX 40
#define PAGE_BYTES 4096

enum { COLOR_PLAIN, COLOR_TITLE, COLOR_GOOD, COLOR_WARM, COLOR_HOT };

static SCREEN *screen;
static bool colors;

bool top_screen_begin(void)
{
	const char *no_color = getenv("NO_COLOR");

	setlocale(LC_ALL, "");
	screen = newterm(NULL, stdout, stdin);
	if (!screen) {
		complain("top: the terminal '%s' is not known here: set TERM, or use --once", getenv("TERM") ? getenv("TERM") : "");
		return false;
	}
	cbreak();
	noecho();
	nodelay(stdscr, TRUE);
	keypad(stdscr, TRUE);
	set_escdelay(50);
	curs_set(0);
	colors = has_colors() && !(no_color && *no_color);
	if (!colors)
		return true;
	start_color();
	use_default_colors();
	init_pair(COLOR_TITLE, COLOR_CYAN, -1);
	init_pair(COLOR_GOOD, COLOR_GREEN, -1);
	init_pair(COLOR_WARM, COLOR_YELLOW, -1);
	init_pair(COLOR_HOT, COLOR_RED, -1);
	return true;
}

void top_screen_end(void)
{
	if (!screen)
		return;
	endwin();
	delscreen(screen);
	screen = NULL;
}

static int color(int which)
{
	return colors ? (int)COLOR_PAIR(which) : 0;
}

/* At most `width` columns; what is no ASCII, and what is more than there is room for, is replaced. Ends at the edge of the screen. */
static void put(int y, int x, int width, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void put(int y, int x, int width, const char *format, ...)
{
	char text[600];
	va_list ap;

	width = MIN(width, COLS - x);
	if (y < 0 || y >= LINES || width <= 0)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?';
	if ((int)strlen(text) > width)
		text[width - 1] = '~';
	mvaddnstr(y, x, text, width);
}

static void head(int y)
{
	attron(A_BOLD | A_UNDERLINE);
	mvhline(y, 0, ' ', COLS);
}

static void row(int y, bool chosen)
{
	if (chosen)
		attron(A_REVERSE);
	mvhline(y, 0, ' ', COLS);
}

static void plain(void)
{
	attrset(A_NORMAL);
}

/* --- nodes --- */

static void put_bar(int y, int x, int width, double part)
{
	int full = part < 0 ? 0 : (int)(part * width + 0.5);
	int which = part > 0.9 ? COLOR_HOT : part > 0.7 ? COLOR_WARM : COLOR_GOOD;

	if (width < 1 || x + width + 7 > COLS)
		return;
	mvaddch(y, x, '[');
	attron(color(which));
	for (int i = 0; i < width; i++)
		addch(i < full ? '|' : ' ');
	attroff(color(which));
	if (part < 0)
		addstr("]   -");
	else
		printw("]%4.0f%%", 100 * part);
}

static void put_node(const struct top *t, int y, const json_t *node, int bar)
{
	const char *state = text_of(node, "state");
	double load = top_index_of(node, "r1m");
	int x = 31;

	row(y, t->in_nodes && !strcmp(t->node, text_of(node, "name")));
	put(y, 0, 12, "%s%s", text_of(node, "name"), json_is_true(json_object_get(node, "self")) ? " *" : "");
	attron(color(!strcmp(state, "ok") ? COLOR_GOOD : !strcmp(state, "unreachable") ? COLOR_HOT : COLOR_WARM));
	put(y, 13, 11, "%s", state);
	attroff(color(!strcmp(state, "ok") ? COLOR_GOOD : !strcmp(state, "unreachable") ? COLOR_HOT : COLOR_WARM));
	if (json_object_get(node, "indices"))
		put(y, 25, 5, "%5lld", number_of(node, "units"));
	put_bar(y, x, bar, top_cpu(node));
	put_bar(y, x + bar + 8, bar, top_memory(node));
	if (load >= 0)
		put(y, x + 2 * (bar + 8), 6, "%6.2f", load);
	plain();
}

static int draw_nodes(struct top *t, int y, int room)
{
	const json_t *nodes = t->lists[TOP_NODES];
	size_t n = json_array_size(nodes), shown = MIN(n, (size_t)MAX(room, 1)), at = top_index(nodes, "name", t->node);
	int bar = MIN(MAX((COLS - 31 - 2 * 8 - 6) / 2, 4), BAR_MAX);

	if (at != SIZE_MAX)
		t->first_node = MIN(MAX(t->first_node, at + 1 > shown ? at + 1 - shown : 0), at);
	t->first_node = MIN(t->first_node, n - shown);
	head(y);
	put(y, 0, 12, "NODE");
	put(y, 13, 11, "STATE");
	put(y, 25, 5, "UNITS");
	put(y, 31, bar + 7, "PROCESSORS");
	put(y, 31 + bar + 8, bar + 7, "MEMORY");
	put(y, 31 + 2 * (bar + 8), 6, "  LOAD");
	plain();
	for (size_t i = 0; i < shown; i++)
		put_node(t, ++y, json_array_get(nodes, t->first_node + i), bar);
	return y + 1;
}

/* --- units --- */

static void put_unit(const struct top *t, int y, const json_t *unit)
{
	bool leaving = !strcmp(text_of(unit, "state"), "leaving");
	char since[32];

	since_text(number_of(unit, "since"), since);
	row(y, !t->in_nodes && !strcmp(t->unit, text_of(unit, "unit")));
	put(y, 0, 18, "%s", text_of(unit, "unit"));
	put(y, 19, 10, "%s", text_of(unit, "on"));
	attron(leaving ? color(COLOR_WARM) : 0);
	put(y, 30, 8, "%s", text_of(unit, "state"));
	attroff(leaving ? color(COLOR_WARM) : 0);
	put(y, 39, 5, "%5lld", number_of(unit, "moves"));
	put(y, 46, 10, "%s", since);
	put(y, 57, COLS - 57, "%s", text_of(unit, "command"));
	plain();
}

static void put_unit_heading(const struct top *t, int y)
{
	static const struct {
		int x, width;
		const char *text;
		size_t sort;
	} columns[] = { { 0, 18, "UNIT", 0 }, { 19, 10, "ON", 1 }, { 30, 8, "STATE", TOP_SORTS }, { 39, 5, "MOVES", 2 }, { 46, 10, "SINCE", 3 }, { 57, 20, "COMMAND", 4 } };

	head(y);
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
		if (columns[i].sort == t->sort)
			attron(A_REVERSE);
		put(y, columns[i].x, columns[i].width, "%s", columns[i].text);
		attroff(A_REVERSE);
	}
	plain();
}

static int draw_units(struct top *t, int y, int until)
{
	size_t n = json_array_size(t->shown), room = (size_t)MAX(until - y - 1, 1), at = top_index(t->shown, "unit", t->unit);

	t->page = room;
	if (at != SIZE_MAX)
		t->first_unit = MIN(MAX(t->first_unit, at + 1 > room ? at + 1 - room : 0), at);
	t->first_unit = MIN(t->first_unit, n > room ? n - room : 0);
	put_unit_heading(t, y);
	if (!n)
		put(y + 1, 2, COLS, json_array_size(t->lists[TOP_UNITS]) ? "no unit matches the filter" : "no unit: `godwit run`, `godwit migrate`");
	for (size_t i = 0; i < room && t->first_unit + i < n; i++)
		put_unit(t, ++y, json_array_get(t->shown, t->first_unit + i));
	return until;
}

/* --- moves --- */

static void put_move(const struct top *t, int y, const json_t *move)
{
	double sent = (double)number_of(move, "bytes_sent"), rate = top_rate_of(t, move);
	double all = (double)(number_of(move, "pages_total") - number_of(move, "pages_skipped_file")) * PAGE_BYTES;
	char sent_text[16], rate_text[16], part[16] = "";

	bytes_text(sent, sent_text);
	bytes_text(rate, rate_text);
	if (all > 0)
		snprintf(part, sizeof(part), "%3.0f%%", MIN(100 * sent / all, 100));
	put(y, 0, 16, "%s", text_of(move, "unit"));
	put(y, 17, 18, "%s -> %s", text_of(move, "from"), text_of(move, "to"));
	attron(color(COLOR_TITLE));
	put(y, 36, 8, "%s", *text_of(move, "outcome") ? text_of(move, "outcome") : text_of(move, "phase"));
	attroff(color(COLOR_TITLE));
	put(y, 45, 10, "%10s", sent_text);
	put(y, 56, 4, "%4s", part);
	put(y, 61, 12, "%10s/s", rate_text);
	put(y, 74, 6, "%5.1fs", json_number_value(json_object_get(move, "total_ms")) / 1e3);
	plain();
}

static size_t moves_shown(const struct top *t)
{
	return MIN(json_array_size(t->lists[TOP_MOVES]), (size_t)MOVES_SHOWN);
}

static void draw_moves(const struct top *t, int y)
{
	size_t n = json_array_size(t->lists[TOP_MOVES]), shown = moves_shown(t);

	if (!shown)
		return;
	head(y);
	put(y, 0, 16, "UNDER WAY %zu", n);
	put(y, 17, 18, "FROM -> TO");
	put(y, 36, 8, "STEP");
	put(y, 45, 15, "      SENT");
	put(y, 61, 12, "        RATE");
	put(y, 74, 6, "   FOR");
	plain();
	for (size_t i = 0; i < shown; i++)
		put_move(t, ++y, json_array_get(t->lists[TOP_MOVES], i));
}

/* --- the rest --- */

static void draw_title(const struct top *t)
{
	const json_t *node;
	size_t i, answer = 0, n = json_array_size(t->lists[TOP_NODES]);
	time_t now = time(NULL);
	char clock[16] = "";
	int x = 14 + (int)MIN(strlen(t->self), 16u);
	struct tm tm;

	json_array_foreach(t->lists[TOP_NODES], i, node)
		answer += strcmp(text_of(node, "state"), "unreachable") != 0;
	if (localtime_r(&now, &tm))
		strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	attron(A_BOLD | color(COLOR_TITLE));
	put(0, 0, x - 2, "godwit top  %s", t->self);
	attroff(A_BOLD | color(COLOR_TITLE));
	put(0, x, COLS - x - 9, "nodes %zu/%zu  units %zu/%zu  moving %zu  by %s%s%s%s", answer, n, json_array_size(t->shown), json_array_size(t->lists[TOP_UNITS]), json_array_size(t->lists[TOP_MOVES]),
	    t->reverse ? "-" : "", top_sort_name(t->sort), t->filter[0] ? "  /" : "", t->filter);
	put(0, COLS - 8, 8, "%8s", clock);
}

static void draw_last_line(const struct top *t)
{
	int y = LINES - 1;

	switch (t->mode) {
	case MODE_HOST:
		put(y, 0, COLS, "move %s to (Tab: next node): %s_", t->unit, t->input);
		return;
	case MODE_FILTER:
		put(y, 0, COLS, "show units with: %s_", t->input);
		return;
	case MODE_DRAIN:
		put(y, 0, COLS, "drain %s: move everything away from it, and let nothing come? (y/n)", t->node);
		return;
	case MODE_UNDRAIN:
		put(y, 0, COLS, "let %s take units again? (y/n)", t->node);
		return;
	case MODE_QUIT:
		put(y, 0, COLS, "%zu orders from here are under way and would be interrupted: quit? (y/n)", top_orders_running(t));
		return;
	default:
		break;
	}
	if (t->trouble[0] || t->said[0]) {
		attron(color(t->trouble[0] || t->said_wrong ? COLOR_HOT : COLOR_GOOD));
		put(y, 0, COLS, "%s", t->trouble[0] ? t->trouble : t->said);
		plain();
		return;
	}
	put(y, 0, COLS, "m move  d drain  u undrain  / filter  s sort  r reverse  Tab  ? help  q quit");
}

static void draw_help(void)
{
	static const char *const lines[] = {
		"Up, Down, k, j, PgUp, PgDn, Home, End   the cursor",
		"Tab      between nodes and units",
		"m        move the unit under the cursor: a node's name, or home",
		"d, u     drain, undrain the node under the cursor",
		"c        interrupt what was begun from here; what has been committed goes on",
		"/        show only units with this in name, node, command or state; Esc: all",
		"s, r     sort by the next column; the other way round",
		"q        quit",
		"",
		"PROCESSORS, MEMORY: what is in use",
		"LOAD     how many want a processor, in the last minute",
		"* is this node. Any key goes back.",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		put(2 + (int)i, 2, COLS - 2, "%s", lines[i]);
}

void top_draw(struct top *t)
{
	int until, y;

	erase();
	draw_title(t);
	if (t->mode == MODE_HELP) {
		draw_help();
		refresh();
		return;
	}
	until = LINES - 1 - (moves_shown(t) ? (int)moves_shown(t) + 1 : 0);
	y = draw_nodes(t, 1, MAX((LINES - 6) / 3, 1));
	y = draw_units(t, y, until);
	draw_moves(t, y);
	draw_last_line(t);
	refresh();
}
