// SPDX-License-Identifier: GPL-2.0-or-later
/* top_once.c - godwit top --once: the same as text, for scripts and mail; see top.h */
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "cli/top.h"

#define NODE_COLUMNS 6
#define MOVE_COLUMNS 7

/* Cells of text that end with the table. */
struct cells {
	char **v;
	char (*text)[400];
	size_t n;
};

static bool cells_begin(struct cells *c, size_t n)
{
	*c = (struct cells){ .v = calloc(n, sizeof(char *)), .text = calloc(n, sizeof(*c->text)) };
	return c->v && c->text;
}

static void add(struct cells *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct cells *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(c->text[c->n], sizeof(*c->text), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	c->v[c->n] = c->text[c->n];
	c->n++;
}

static void cells_show(struct cells *c, size_t columns)
{
	if (c->n)
		show_table(c->v, c->n, columns);
	free(c->v);
	free(c->text);
}

static void add_part(struct cells *c, double part)
{
	if (part < 0)
		add(c, "-");
	else
		add(c, "%.0f%%", 100 * part);
}

static void show_nodes(const json_t *result)
{
	const json_t *nodes = json_object_get(result, "nodes"), *node;
	struct cells c;
	size_t i;

	if (cells_begin(&c, (json_array_size(nodes) + 1) * NODE_COLUMNS)) {
		static const char *const heading[] = { "NODE", "STATE", "UNITS", "PROCESSORS", "MEMORY", "LOAD" };

		for (i = 0; i < NODE_COLUMNS; i++)
			add(&c, "%s", heading[i]);
		json_array_foreach(nodes, i, node) {
			add(&c, "%s", text_of(node, "name"));
			add(&c, "%s", text_of(node, "state"));
			add(&c, "%lld", number_of(node, "units"));
			add_part(&c, top_cpu(node));
			add_part(&c, top_memory(node));
			add(&c, "%.2f", MAX(top_index_of(node, "r1m"), 0));
		}
	}
	cells_show(&c, NODE_COLUMNS);
}

static void show_units(const json_t *result)
{
	const json_t *units = json_object_get(result, "units"), *unit;
	struct cells c;
	size_t i;

	putchar('\n');
	if (cells_begin(&c, (json_array_size(units) + 1) * NODE_COLUMNS)) {
		static const char *const heading[] = { "UNIT", "ON", "STATE", "MOVES", "SINCE", "COMMAND" };

		for (i = 0; i < NODE_COLUMNS; i++)
			add(&c, "%s", heading[i]);
		json_array_foreach(units, i, unit) {
			char since[32];

			since_text(number_of(unit, "since"), since);
			add(&c, "%s", text_of(unit, "unit"));
			add(&c, "%s", text_of(unit, "on"));
			add(&c, "%s", text_of(unit, "state"));
			add(&c, "%lld", number_of(unit, "moves"));
			add(&c, "%s", since);
			add(&c, "%s", text_of(unit, "command"));
		}
	}
	cells_show(&c, NODE_COLUMNS);
}

static void show_moves(const json_t *result)
{
	const json_t *moves = json_object_get(result, "running"), *move;
	struct cells c;
	size_t i;

	if (!json_array_size(moves))
		return;
	putchar('\n');
	if (cells_begin(&c, (json_array_size(moves) + 1) * MOVE_COLUMNS)) {
		static const char *const heading[] = { "UNDER WAY", "FROM", "TO", "STRATEGY", "STEP", "SENT", "FOR" };

		for (i = 0; i < MOVE_COLUMNS; i++)
			add(&c, "%s", heading[i]);
		json_array_foreach(moves, i, move) {
			char sent[16], took[24];

			bytes_text((double)number_of(move, "bytes_sent"), sent);
			elapsed_text(json_number_value(json_object_get(move, "total_ms")) * 1e6, took);
			add(&c, "%s", text_of(move, "unit"));
			add(&c, "%s", text_of(move, "from"));
			add(&c, "%s", text_of(move, "to"));
			add(&c, "%s", text_of(move, "strategy"));
			add(&c, "%s", text_of(move, "phase"));
			add(&c, "%s", sent);
			add(&c, "%s", took);
		}
	}
	cells_show(&c, MOVE_COLUMNS);
}

int top_once(void)
{
	static const struct {
		const char *verb;
		void (*show)(const json_t *result);
	} parts[] = { { "nodes", show_nodes }, { "ps", show_units }, { "history", show_moves } };
	int status = EXIT_OK;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && !status; i++)
		status = ask_and_show(json_pack("{s:s}", "verb", parts[i].verb), false, parts[i].show);
	return status;
}
