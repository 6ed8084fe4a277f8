// SPDX-License-Identifier: GPL-2.0-or-later
/* balance.c - godwit balance: on, off, status, explain */
#include <getopt.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define COLUMNS 7

static void put_number(char text[32], const char *format, double x)
{
	if (x < 0)
		strcpy(text, "-");
	else
		snprintf(text, 32, format, x); // NOLINT(clang-diagnostic-format-nonliteral): the callers' are literals
}

static double real_of(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static void show_units(const json_t *units)
{
	size_t i, n = json_array_size(units), cell = COLUMNS;
	static char *const heading[COLUMNS] = { "UNIT", "PID", "CPU_S", "RUN", "MEM_MIB", "GOES", "WHY" };
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free char(*text)[4][32] = calloc(n + 1, sizeof(*text));
	const json_t *u;

	if (!cells || !text || !n)
		return;
	memcpy(cells, heading, sizeof(heading));
	json_array_foreach(units, i, u) {
		put_number(text[i][0], "%.0f", real_of(u, "pid"));
		put_number(text[i][1], "%.1f", real_of(u, "cpu_s"));
		put_number(text[i][2], "%.2f", real_of(u, "run"));
		put_number(text[i][3], "%.1f", real_of(u, "mem_mib"));
		cells[cell++] = (char *)text_of(u, "unit");
		for (size_t k = 0; k < 4; k++)
			cells[cell++] = text[i][k];
		cells[cell++] = json_is_true(json_object_get(u, "goes")) ? (char *)text_of(u, "to") : "stays";
		cells[cell++] = (char *)text_of(u, "why");
	}
	show_table(cells, cell, COLUMNS);
}

static void show_state(const json_t *o)
{
	printf("%s: balancing is %s; the node is %s; %lld moved, %lld failed since godwitd began.\n", text_of(o, "node"),
	       json_is_true(json_object_get(o, "balance")) ? "on" : "off", text_of(o, "state"), number_of(o, "moves"), number_of(o, "failures"));
	show_units(json_object_get(o, "units"));
}

/* Of `status`: what it would begin now. */
static void show_moves(const json_t *o)
{
	const json_t *moves = json_object_get(o, "plan"), *m;
	size_t i;

	printf("%s: balancing is %s; %s\n", text_of(o, "node"), json_is_true(json_object_get(o, "balance")) ? "on" : "off", json_array_size(moves) ? "it would move now:" : "it would move nothing now.");
	json_array_foreach(moves, i, m) {
		printf("  %s to %s (", text_of(m, "unit"), text_of(m, "to"));
		put_text(stdout, text_of(m, "command"));
		fputs("): ", stdout);
		put_text(stdout, text_of(m, "why"));
		putchar('\n');
	}
}

static void show_explained(const json_t *o)
{
	const json_t *node;
	bool goes = json_is_true(json_object_get(o, "goes"));
	size_t i;

	printf("%s (process %lld on %s, ", text_of(o, "unit"), number_of(o, "pid"), text_of(o, "node"));
	put_text(stdout, text_of(o, "command"));
	printf(")\n%s", goes ? "goes to " : "stays: ");
	put_text(stdout, goes ? text_of(o, "to") : text_of(o, "why"));
	if (goes) {
		fputs(": ", stdout);
		put_text(stdout, text_of(o, "why"));
	}
	printf("\n%s", json_is_true(json_object_get(o, "balance")) ? "" : "(balancing is off on this node: nothing moves by itself)\n");
	printf("used %.1f s of CPU, wants %.2f CPUs now, has %.1f MiB, moved %lld times", real_of(o, "cpu_s"), real_of(o, "run"), real_of(o, "mem_mib"), number_of(o, "moves"));
	if (*text_of(o, "last_reason")) {
		fputs("; the last time: ", stdout);
		put_text(stdout, text_of(o, "last_reason"));
	}
	putchar('\n');
	json_array_foreach(json_object_get(o, "nodes"), i, node)
		printf("  %-12s %-12s %.2f tasks want %.2f CPUs of speed %.2f%s; %.0f MiB free of %.0f\n", text_of(node, "name"), text_of(node, "state"),
		       real_of(node, "run") + real_of(node, "sent_run"), real_of(node, "cores"), real_of(node, "speed"), real_of(node, "sent_run") ? " (with what is on its way)" : "",
		       real_of(node, "mem_mib"), real_of(node, "maxmem_mib"));
}

static int explain(const char *unit, bool as_json)
{
	json_t *request = json_pack("{s:s, s:s}", "verb", "balance", "action", "explain"), *result;
	int pid, status;

	if (strchr(unit, ':'))
		json_object_set_new(request, "unit", json_string(unit));
	else if (pid_parse(unit, &pid, NULL) == 0)
		json_object_set_new(request, "pid", json_integer(pid));
	status = ask_result(request, as_json, &result);
	if (status)
		return status;
	if (as_json)
		show_json(result);
	else
		show_explained(result);
	json_decref(result);
	return EXIT_OK;
}

/* One node, NULL: this one. */
static int one(const char *action, const char *node, bool as_json, bool dry_run, json_t *all)
{
	json_t *request = json_pack("{s:s, s:s}", "verb", "balance", "action", action), *result;
	int status;

	if (node)
		json_object_set_new(request, "host", json_string(node));
	status = ask_result(request, as_json, &result);
	if (status)
		return status;
	if (!as_json)
		(dry_run ? show_moves : show_state)(result);
	json_array_append_new(all, result);
	return EXIT_OK;
}

/* Goes on with the others when one fails. */
static int several(const char *action, char *const *nodes, bool every, bool as_json, bool dry_run)
{
	json_t *all = json_array(), *list = NULL;
	const json_t *node;
	int status = EXIT_OK, r;
	size_t i;

	if (every && ask_result(json_pack("{s:s}", "verb", "nodes"), as_json, &list) != EXIT_OK)
		status = EXIT_FAILED;
	json_array_foreach(json_object_get(list, "nodes"), i, node) {
		r = one(action, text_of(node, "name"), as_json, dry_run, all);
		status = r ? r : status;
	}
	for (i = 0; !every && (i == 0 || nodes[i]); i++) {
		r = one(action, nodes[i], as_json, dry_run, all);
		status = r ? r : status;
		if (!nodes[i])
			break;
	}
	if (as_json)
		show_json(json_array_size(all) == 1 && !every ? json_array_get(all, 0) : all);
	json_decref(all);
	json_decref(list);
	return status;
}

int verb_balance(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { "all", no_argument, NULL, 'a' }, { "dry-run", no_argument, NULL, 'n' }, { 0 } };
	bool as_json = false, every = false, dry_run = false;
	const char *action;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'j')
			as_json = true;
		else if (o == 'a')
			every = true;
		else if (o == 'n')
			dry_run = true;
		else
			return option_error("balance", o, argv);
	}
	action = argv[optind];
	if (dry_run && action && (!strcmp(action, "off") || !strcmp(action, "status") || !strcmp(action, "explain")))
		return usage_error("balance", "--dry-run goes with on, or with nodes alone");
	if (dry_run) /* what is looked at is what the state says */
		return several("status", argv + optind + (action && !strcmp(action, "on")), every, as_json, true);
	if (!action)
		return usage_error("balance", "on, off, status or explain is expected");
	if (!strcmp(action, "explain")) {
		if (argc - optind != 2 || every || (!strchr(argv[optind + 1], ':') && pid_parse(argv[optind + 1], &o, NULL) < 0))
			return usage_error("balance", "explain: one unit is expected, PID or HOME:PID");
		return explain(argv[optind + 1], as_json);
	}
	if (strcmp(action, "on") != 0 && strcmp(action, "off") != 0 && strcmp(action, "status") != 0)
		return usage_error("balance", "there is no '%s': on, off, status or explain", action);
	return several(action, argv + optind + 1, every, as_json, false);
}
