// SPDX-License-Identifier: GPL-2.0-or-later
/* nodes.c - godwit nodes: the nodes of the cluster, how they are, and how old that is */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

/* An index of the load vector, and how it is written. */
static const struct {
	const char *name;
	enum { PLAIN, PART, WHOLE, MINUTES, MIB } form;
} indices[] = {
	{ "cores", PLAIN }, { "speed", PLAIN }, { "r15s", PLAIN }, { "r1m", PLAIN }, { "r15m", PLAIN }, { "ut", PART }, { "pg", PLAIN }, { "io", WHOLE },
	{ "ls", WHOLE }, { "it", MINUTES }, { "tmp", MIB }, { "swp", MIB }, { "mem", MIB },
	{ "psicpu", PART }, { "psimem", PART }, { "psiio", PART },
};

#define FIRST_COLUMNS 4
#define COLUMNS (FIRST_COLUMNS + ARRAY_SIZE(indices) + 2)

struct row {
	char age[24], units[32], index[ARRAY_SIZE(indices)][24];
};

static void write_index(size_t i, double v, char text[24])
{
	static const char units[] = "MGTP";
	size_t unit = 0;

	switch (indices[i].form) {
	case PART:
		snprintf(text, 24, "%.0f%%", 100 * v);
		break;
	case WHOLE:
		snprintf(text, 24, "%.0f", v);
		break;
	case MINUTES:
		if (v < 1440)
			snprintf(text, 24, "%.0fm", v);
		else
			snprintf(text, 24, "%.0fd", v / 1440);
		break;
	case MIB:
		for (; v >= 9999 && unit + 2 < sizeof(units); unit++)
			v /= 1024;
		snprintf(text, 24, v < 10 && unit ? "%.1f%c" : "%.0f%c", v, units[unit]);
		break;
	default:
		snprintf(text, 24, v < 10 ? "%.2f" : "%.1f", v);
	}
}

static void write_age(double s, char text[24])
{
	if (s < 100)
		snprintf(text, 24, "%.1fs", s);
	else if (s < 6000)
		snprintf(text, 24, "%.0fm", s / 60);
	else
		snprintf(text, 24, "%.0fh", s / 3600);
}

/* "-" for what a node does not say. */
static void fill(const json_t *node, struct row *row)
{
	const json_t *all = json_object_get(node, "indices");

	strcpy(row->units, "-");
	strcpy(row->age, "-");
	if (all) {
		snprintf(row->units, sizeof(row->units), "%lld", number_of(node, "units"));
		write_age((double)number_of(node, "age_ms") / 1000, row->age);
	}
	for (size_t i = 0; i < ARRAY_SIZE(indices); i++) {
		const json_t *v = json_object_get(all, indices[i].name);

		strcpy(row->index[i], "-");
		if (json_is_number(v))
			write_index(i, json_number_value(v), row->index[i]);
	}
}

static void show(const json_t *result)
{
	const json_t *nodes = json_object_get(result, "nodes"), *node;
	size_t i, n = json_array_size(nodes), cell = 0;
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free struct row *rows = calloc(n + 1, sizeof(*rows));

	if (!cells || !rows)
		return;
	cells[cell++] = "NODE";
	cells[cell++] = "STATE";
	cells[cell++] = "AGE";
	cells[cell++] = "UNITS";
	for (i = 0; i < ARRAY_SIZE(indices); i++)
		cells[cell++] = (char *)indices[i].name;
	cells[cell++] = "ADDRESS";
	cells[cell++] = "LABELS";
	json_array_foreach(nodes, i, node) {
		fill(node, &rows[i]);
		cells[cell++] = (char *)text_of(node, "name");
		cells[cell++] = (char *)text_of(node, "state");
		cells[cell++] = rows[i].age;
		cells[cell++] = rows[i].units;
		for (size_t j = 0; j < ARRAY_SIZE(indices); j++)
			cells[cell++] = rows[i].index[j];
		cells[cell++] = (char *)text_of(node, "address");
		cells[cell++] = (char *)text_of(node, "labels");
	}
	show_table_in_parts(cells, cell, COLUMNS);
	json_array_foreach(nodes, i, node)
		if (*text_of(node, "error"))
			complain("%s: %s", text_of(node, "name"), text_of(node, "error"));
}

int verb_nodes(int argc, char **argv)
{
	return show_list(argc, argv, show);
}
