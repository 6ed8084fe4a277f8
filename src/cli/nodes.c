// SPDX-License-Identifier: GPL-2.0-or-later
/* nodes.c - godwit nodes: the configured nodes and how they are */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define COLUMNS 7

/* The numbers of one node as text; "-" for a node that does not answer. */
struct row {
	char units[32], load[64], memory[40];
};

static void fill(const json_t *node, struct row *row)
{
	const json_t *load = json_object_get(node, "load");
	char free_text[16], total_text[16];

	strcpy(row->units, "-");
	strcpy(row->load, "-");
	strcpy(row->memory, "-");
	if (strcmp(text_of(node, "state"), "ok"))
		return;
	bytes_text((double)number_of(node, "mem_available_bytes"), free_text);
	bytes_text((double)number_of(node, "mem_total_bytes"), total_text);
	snprintf(row->units, sizeof(row->units), "%lld", number_of(node, "units"));
	snprintf(row->load, sizeof(row->load), "%.2f %.2f %.2f", json_number_value(json_array_get(load, 0)),
		 json_number_value(json_array_get(load, 1)), json_number_value(json_array_get(load, 2)));
	snprintf(row->memory, sizeof(row->memory), "%s of %s", free_text, total_text);
}

static void show(const json_t *result)
{
	const json_t *nodes = json_object_get(result, "nodes"), *node;
	size_t i, n = json_array_size(nodes), cell = COLUMNS;
	static char *const heading[COLUMNS] = { "NODE", "ADDRESS", "STATE", "KERNEL", "UNITS", "LOAD", "MEMORY FREE" };
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free struct row *rows = calloc(n + 1, sizeof(*rows));

	if (!cells || !rows)
		return;
	memcpy(cells, heading, sizeof(heading));
	json_array_foreach(nodes, i, node) {
		const char *kernel = text_of(node, "kernel");

		fill(node, &rows[i]);
		cells[cell++] = (char *)text_of(node, "name");
		cells[cell++] = (char *)text_of(node, "address");
		cells[cell++] = (char *)text_of(node, "state");
		cells[cell++] = *kernel ? (char *)kernel : "-";
		cells[cell++] = rows[i].units;
		cells[cell++] = rows[i].load;
		cells[cell++] = rows[i].memory;
	}
	show_table(cells, cell, COLUMNS);
	json_array_foreach(nodes, i, node)
		if (*text_of(node, "error"))
			complain("%s: %s", text_of(node, "name"), text_of(node, "error"));
}

int verb_nodes(int argc, char **argv)
{
	return show_list(argc, argv, show);
}
