// SPDX-License-Identifier: GPL-2.0-or-later
/* ps.c - godwit ps: the units of the cluster, where they are, how often they moved and why */
#include <getopt.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"

#define COLUMNS 10
#define COMMAND_MAX 40

/* Why it moved last. */
static const char *why_of(const json_t *unit)
{
	const char *reason = text_of(unit, "reason");

	return *reason || !number_of(unit, "moves") ? reason : "somebody said so";
}

static void age_text(long long then_ms, char text[24])
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, 24, "%.1f s", (double)MAX((long long)now.tv_sec * 1000 + now.tv_nsec / 1000000 - then_ms, 0) / 1000);
}

/* "2 of 2, 3.1 s old": nodes that have the last copy, and its age; behind it, where it has not come to all, that of the last one that has. */
static void protected_text(const json_t *u, char text[64])
{
	long long newest_ms = number_of(u, "protect_newest_ms"), complete_ms = number_of(u, "protect_complete_ms");
	char age[24], whole[24] = "none";

	text[0] = 0;
	if (!number_of(u, "protect_every_ms"))
		return;
	age_text(newest_ms, age);
	if (complete_ms)
		age_text(complete_ms, whole);
	if (!newest_ms)
		snprintf(text, 64, "no copy");
	else if (newest_ms == complete_ms)
		snprintf(text, 64, "%lld of %lld, %s old", number_of(u, "protect_have"), number_of(u, "protect_copies"), age);
	else
		snprintf(text, 64, "%lld of %lld, %s old; on all: %s", number_of(u, "protect_have"), number_of(u, "protect_copies"), age, whole);
}

static void show(const json_t *result)
{
	const json_t *units = json_object_get(result, "units"), *silent = json_object_get(result, "silent"), *u;
	size_t i, n = json_array_size(units), cell = COLUMNS;
	static char *const heading[COLUMNS] = { "UNIT", "ON", "PID", "COMMAND", "HOME", "MOVES", "SINCE", "STATE", "PROTECTED", "WHY" };
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free char(*text)[4][64] = calloc(n + 1, sizeof(*text));

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
		protected_text(u, text[i][3]);
		cells[cell++] = text[i][3];
		cells[cell++] = (char *)why_of(u);
		if (strlen(cells[cell - 7]) > COMMAND_MAX)
			cells[cell - 7][COMMAND_MAX] = 0; /* jansson's copy, which nobody reads afterwards */
	}
	show_table(cells, cell, COLUMNS);
	json_array_foreach(units, i, u)
		if (json_object_get(u, "protect_error"))
			complain("the last copy of %s failed: %s", text_of(u, "unit"), text_of(u, "protect_error"));
	json_array_foreach(silent, i, u)
		complain("%s: %s; its units are missing, but for what their homes know", text_of(u, "node"), text_of(u, "error"));
}

int verb_ps(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { "here", no_argument, NULL, 'H' }, { 0 } };
	bool as_json = false, here = false;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'j')
			as_json = true;
		else if (o == 'H')
			here = true;
		else
			return option_error("ps", o, argv);
	}
	if (optind < argc)
		return usage_error("ps", "'%s': no argument is expected", argv[optind]);
	return ask_and_show(json_pack("{s:s, s:b}", "verb", "ps", "here", here), as_json, show);
}
