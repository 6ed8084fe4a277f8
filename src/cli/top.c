// SPDX-License-Identifier: GPL-2.0-or-later
/* top.c - godwit top: the cluster on a screen; see top.h */
#include <curses.h>
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/top.h"

#define INTERVAL_MS 1000
#define INTERVAL_MIN_MS 200
#define INTERVAL_MAX_MS 60000
#define ESCAPE 27

struct question {
	struct ask ask; /* fd -1: none is under way */
	uint64_t due_ns;
};

struct watch {
	struct top top;
	struct question questions[TOP_ANSWERS];
	unsigned interval_ms;
	bool over;
};

static json_t *request_for(enum top_answer which)
{
	switch (which) {
	case TOP_NODES:
		return json_pack("{s:s}", "verb", "nodes");
	case TOP_UNITS:
		return json_pack("{s:s}", "verb", "ps");
	default:
		return json_pack("{s:s, s:i}", "verb", "history", "last", 0);
	}
}

/* --- asking --- */

static void lament(struct top *t, const char *message)
{
	snprintf(t->trouble, sizeof(t->trouble), "%.199s", message);
}

/* Begins what is due; returns in how many ms the next one is. */
static int ask_due(struct watch *w)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), next = now + (uint64_t)w->interval_ms * 1000000;
	struct err e = ERR_INIT;

	for (size_t i = 0; i < TOP_ANSWERS; i++) {
		struct question *q = &w->questions[i];

		if (q->ask.fd < 0 && now >= q->due_ns) {
			q->due_ns = now + (uint64_t)w->interval_ms * 1000000;
			if (ask_open(&q->ask, request_for((enum top_answer)i), &e) < 0)
				lament(&w->top, e.message);
		}
		if (q->ask.fd < 0)
			next = MIN(next, q->due_ns);
	}
	return (int)((next - MIN(now, next)) / 1000000) + 1;
}

static void take_answer(struct watch *w, enum top_answer which)
{
	struct question *q = &w->questions[which];
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int r = ask_next(&q->ask, false, &line, &e);

	if (!r)
		return;
	if (r < 0)
		lament(&w->top, e.message);
	else if (!strcmp(text_of(line, "event"), "error"))
		lament(&w->top, text_of(json_object_get(line, "error"), "message"));
	else
		top_take(&w->top, which, json_object_get(line, "result"));
	json_decref(line);
	ask_close(&q->ask);
}

/* --- keys --- */

static void ask_user(struct top *t, int mode, const char *input)
{
	t->mode = mode;
	t->said[0] = 0;
	snprintf(t->input, sizeof(t->input), "%s", input);
}

/* The next node after the one that has been typed, but the one where the unit is. */
static void next_host(struct top *t)
{
	const json_t *nodes = t->lists[TOP_NODES];
	size_t n = json_array_size(nodes), at = top_index(nodes, "name", t->input);

	for (size_t i = 0; i < n; i++) {
		const json_t *node = json_array_get(nodes, (at == SIZE_MAX ? i : at + 1 + i) % n);

		if (!strcmp(text_of(node, "name"), text_of(top_unit(t), "on")) || !strcmp(text_of(node, "state"), "unreachable"))
			continue;
		snprintf(t->input, sizeof(t->input), "%s", text_of(node, "name"));
		return;
	}
}

static void begin_move(struct top *t)
{
	char what[400];

	snprintf(what, sizeof(what), "%s to %s", t->unit, t->input);
	top_order(t, json_pack("{s:s, s:s, s:s}", "verb", "migrate", "unit", t->unit, "host", t->input), false, what);
}

static void begin_drain(struct top *t, const char *verb)
{
	char what[120];

	snprintf(what, sizeof(what), "%s %s", verb, t->node);
	top_order(t, json_pack("{s:s, s:s}", "verb", verb, "host", t->node), true, what);
}

/* A letter of a text that is asked for; true: it is complete. */
static bool type(struct top *t, int key)
{
	size_t len = strlen(t->input);

	if ((key == KEY_BACKSPACE || key == 127 || key == '\b') && len)
		t->input[len - 1] = 0;
	else if (key >= ' ' && key <= '~' && len + 1 < sizeof(t->input))
		snprintf(t->input + len, sizeof(t->input) - len, "%c", key);
	return key == '\n' || key == '\r' || key == KEY_ENTER;
}

static void answer_text(struct top *t, int key)
{
	bool filters = t->mode == MODE_FILTER;

	if (key == ESCAPE) {
		if (filters)
			t->filter[0] = 0;
		t->mode = MODE_LIST;
	} else if (key == '\t' && !filters) {
		next_host(t);
	} else if (type(t, key)) {
		t->mode = MODE_LIST;
		if (!filters && t->input[0])
			begin_move(t);
	} else if (filters) {
		snprintf(t->filter, sizeof(t->filter), "%s", t->input);
	}
	top_arrange(t);
}

static void answer_yes_no(struct watch *w, int key)
{
	struct top *t = &w->top;
	int mode = t->mode;

	t->mode = MODE_LIST;
	if (key != 'y' && key != 'Y')
		return;
	if (mode == MODE_QUIT)
		w->over = true;
	else
		begin_drain(t, mode == MODE_DRAIN ? "drain" : "undrain");
}

static void command(struct watch *w, int key)
{
	struct top *t = &w->top;

	switch (key) {
	case 'm':
		if (top_unit(t) && !t->in_nodes)
			ask_user(t, MODE_HOST, "");
		else
			top_say(t, true, "the cursor is on no unit (Tab goes there)");
		break;
	case 'd':
	case 'u':
		if (!t->in_nodes && top_unit(t)) /* the node where the unit is */
			snprintf(t->node, sizeof(t->node), "%s", text_of(top_unit(t), "on"));
		if (top_node(t))
			ask_user(t, key == 'd' ? MODE_DRAIN : MODE_UNDRAIN, "");
		break;
	case 'c':
		top_orders_cancel(t);
		break;
	case '/':
		ask_user(t, MODE_FILTER, t->filter);
		break;
	case ESCAPE:
		t->filter[0] = t->said[0] = 0;
		break;
	case 's':
		t->sort = (t->sort + 1) % TOP_SORTS;
		break;
	case 'r':
		t->reverse = !t->reverse;
		break;
	case '?':
	case 'h':
		ask_user(t, MODE_HELP, "");
		break;
	case 'q':
		if (top_orders_running(t))
			ask_user(t, MODE_QUIT, "");
		else
			w->over = true;
		break;
	default:
		break;
	}
	top_arrange(t);
}

static void move_cursor(struct top *t, int key)
{
	long page = (long)MAX(t->page, 1u);

	switch (key) {
	case KEY_UP:
	case 'k':
		top_step(t, -1);
		break;
	case KEY_DOWN:
	case 'j':
		top_step(t, 1);
		break;
	case KEY_PPAGE:
		top_step(t, -page);
		break;
	case KEY_NPAGE:
		top_step(t, page);
		break;
	case KEY_HOME:
		top_step(t, -1000000);
		break;
	case KEY_END:
		top_step(t, 1000000);
		break;
	case '\t':
		t->in_nodes = !t->in_nodes;
		break;
	default:
		break;
	}
}

static void on_key(struct watch *w, int key)
{
	struct top *t = &w->top;

	if (key == KEY_RESIZE)
		return;
	switch (t->mode) {
	case MODE_HELP:
		t->mode = MODE_LIST;
		break;
	case MODE_HOST:
	case MODE_FILTER:
		answer_text(t, key);
		break;
	case MODE_DRAIN:
	case MODE_UNDRAIN:
	case MODE_QUIT:
		answer_yes_no(w, key);
		break;
	case MODE_LIST:
		move_cursor(t, key);
		command(w, key);
		break;
	}
}

/* --- the loop --- */

static void look(struct watch *w)
{
	struct pollfd p[1 + TOP_ANSWERS + TOP_ORDERS];
	int timeout_ms = ask_due(w), key;
	size_t n = 1;

	top_draw(&w->top);
	p[0] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	for (size_t i = 0; i < TOP_ANSWERS; i++)
		p[n++] = (struct pollfd){ .fd = w->questions[i].ask.fd, .events = POLLIN };
	n += top_orders_poll(&w->top, p + n);
	if (poll(p, n, timeout_ms) < 0 && errno != EINTR)
		w->over = true;
	if (p[0].revents & (POLLHUP | POLLERR))
		w->over = true;
	for (size_t i = 0; i < TOP_ANSWERS; i++)
		if (p[1 + i].revents)
			take_answer(w, (enum top_answer)i);
	top_orders_read(&w->top);
	while (!w->over && (key = getch()) != ERR)
		on_key(w, key);
}

static int run(unsigned interval_ms)
{
	struct watch w = { .interval_ms = interval_ms };

	for (size_t i = 0; i < TOP_ANSWERS; i++)
		w.questions[i].ask.fd = -1;
	for (size_t i = 0; i < TOP_ORDERS; i++)
		w.top.orders[i].ask.fd = -1;
	if (!top_screen_begin())
		return EXIT_FAILED;
	while (!w.over)
		look(&w);
	top_screen_end();
	for (size_t i = 0; i < TOP_ANSWERS; i++)
		ask_close(&w.questions[i].ask);
	top_free(&w.top);
	return EXIT_OK;
}

static int read_options(int argc, char **argv, bool *once, unsigned *interval_ms)
{
	static const struct option options[] = { { "once", no_argument, NULL, 'o' }, { "interval", required_argument, NULL, 'i' }, { 0 } };
	struct err e = ERR_INIT;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'o')
			*once = true;
		else if (o != 'i')
			return option_error("top", o, argv);
		else if (duration_parse(optarg, interval_ms, &e) < 0)
			return usage_error("top", "--interval: %s", e.message);
		else if (*interval_ms < INTERVAL_MIN_MS || *interval_ms > INTERVAL_MAX_MS)
			return usage_error("top", "--interval: from 200ms to 1m");
	}
	return optind < argc ? usage_error("top", "'%s': no argument is expected", argv[optind]) : EXIT_OK;
}

int verb_top(int argc, char **argv)
{
	unsigned interval_ms = INTERVAL_MS;
	bool once = false;
	int status = read_options(argc, argv, &once, &interval_ms);

	if (status)
		return status;
	if (once)
		return top_once();
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		complain("top: this is no terminal: `godwit top --once` prints what there is once");
		return EXIT_FAILED;
	}
	return run(interval_ms);
}
