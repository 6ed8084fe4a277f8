// SPDX-License-Identifier: GPL-2.0-or-later
/* connections.c - godwit connections: what has moved, where it is, and how packets get there */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define COLUMNS 7

struct row {
	char route[96], moves[32];
};

static void show(const json_t *result)
{
	const json_t *list = json_object_get(result, "connections"), *o;
	size_t i, n = json_array_size(list), cell = COLUMNS;
	static char *const heading[COLUMNS] = { "PROTOCOL", "ADDRESS", "PEER", "ON", "PEER ON", "ROUTE", "MOVES" };
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free struct row *rows = calloc(n + 1, sizeof(*rows));

	if (!cells || !rows)
		return;
	memcpy(cells, heading, sizeof(heading));
	json_array_foreach(list, i, o) {
		bool listener = strcmp(text_of(o, "kind"), "connection") != 0;

		const char *route = text_of(o, "route");

		/* That is all that is to be said of it: no other host is needed. */
		snprintf(rows[i].route, sizeof(rows[i].route), "%s%s%s", !strcmp(route, "owned") ? "owned address" : route, *text_of(o, "through") ? " " : "", text_of(o, "through"));
		snprintf(rows[i].moves, sizeof(rows[i].moves), "%lld", number_of(o, "moves"));
		cells[cell++] = (char *)text_of(o, "protocol");
		cells[cell++] = (char *)text_of(o, "address");
		cells[cell++] = listener ? "(any)" : (char *)text_of(o, "peer");
		cells[cell++] = (char *)text_of(o, "on");
		cells[cell++] = listener ? "-" : (char *)text_of(o, "peer_on");
		cells[cell++] = rows[i].route;
		cells[cell++] = rows[i].moves;
	}
	show_table(cells, cell, COLUMNS);
}

int verb_connections(int argc, char **argv)
{
	return show_list(argc, argv, show);
}
