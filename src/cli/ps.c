// SPDX-License-Identifier: GPL-2.0-or-later
/* ps.c - godwit ps: the processes that came to this host, and those that left it and are waited for here */
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"

#define COLUMNS 8
#define COMMAND_MAX 40

static void since_text(long long since, char text[32])
{
	time_t then = (time_t)since, now = time(NULL);
	struct tm tm;

	text[0] = 0;
	if (localtime_r(&then, &tm))
		strftime(text, 32, now - then < 86400 ? "%H:%M:%S" : "%Y-%m-%d", &tm);
}

static void show(const json_t *result)
{
	const json_t *units = json_object_get(result, "units"), *u;
	size_t i, n = json_array_size(units), cell = COLUMNS;
	static char *const heading[COLUMNS] = { "UNIT", "ON", "PID", "COMMAND", "HOME", "MOVES", "SINCE", "STATE" };
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free char(*text)[3][64] = calloc(n + 1, sizeof(*text));

	if (!cells || !text)
		return;
	memcpy(cells, heading, sizeof(heading));
	json_array_foreach(units, i, u) {
		snprintf(text[i][0], sizeof(text[i][0]), "%lld", number_of(u, "pid"));
		if (json_object_get(u, "moves"))
			snprintf(text[i][1], sizeof(text[i][1]), "%lld", number_of(u, "moves"));
		if (json_object_get(u, "since"))
			since_text(number_of(u, "since"), text[i][2]);
		cells[cell++] = (char *)text_of(u, "unit");
		cells[cell++] = (char *)text_of(u, "on");
		cells[cell++] = text[i][0];
		cells[cell++] = (char *)text_of(u, "command");
		cells[cell++] = (char *)text_of(u, "home");
		cells[cell++] = text[i][1];
		cells[cell++] = text[i][2];
		cells[cell++] = (char *)text_of(u, "state");
		if (strlen(cells[cell - 5]) > COMMAND_MAX)
			cells[cell - 5][COMMAND_MAX] = 0; /* jansson's copy, which nobody reads afterwards */
	}
	show_table(cells, cell, COLUMNS);
}

int verb_ps(int argc, char **argv)
{
	return show_list(argc, argv, show);
}
