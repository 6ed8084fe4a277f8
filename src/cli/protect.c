// SPDX-License-Identifier: GPL-2.0-or-later
/* protect.c - godwit protect, godwit unprotect, godwit failover: copies of a unit on other nodes, and what is made of them when its node has failed */
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define EVERY_DEFAULT_MS 5000u

static int set_unit(json_t *request, const char *unit, struct err *e)
{
	int pid;

	if (strchr(unit, ':')) {
		json_object_set_new(request, "unit", json_string(unit));
		return 0;
	}
	if (pid_parse(unit, &pid, e) < 0)
		return e->code;
	json_object_set_new(request, "pid", json_integer(pid));
	return 0;
}

static void show_protected(const json_t *r)
{
	char bytes[16];

	bytes_text((double)number_of(r, "protect_bytes"), bytes);
	put_text(stdout, text_of(r, "unit"));
	printf(" is protected: a copy every %.4g s on %lld %s. The first one is there (%s; it stood still for %.2f ms).\n", (double)number_of(r, "protect_every_ms") / 1000,
	       number_of(r, "protect_copies"), number_of(r, "protect_copies") == 1 ? "node" : "nodes", bytes, (double)number_of(r, "protect_freeze_us") / 1000);
}

static void show_unprotected(const json_t *r)
{
	if (!json_is_true(json_object_get(r, "was_protected"))) {
		puts("It was not protected.");
		return;
	}
	put_text(stdout, text_of(r, "unit"));
	puts(" is not protected any more.");
}

int verb_protect(int argc, char **argv)
{
	static const struct option options[] = {
		{ "every", required_argument, NULL, 'e' }, { "copies", required_argument, NULL, 'c' }, { "to", required_argument, NULL, 't' }, { "files", required_argument, NULL, 'f' },
		{ "tcp", required_argument, NULL, 'T' },   { "json", no_argument, NULL, 'j' },         { 0 },
	};
	json_t *request = json_pack("{s:s}", "verb", "protect"), *to = json_array();
	unsigned every_ms = EVERY_DEFAULT_MS;
	struct err e = ERR_INIT;
	bool as_json = false;
	int o, copies = 0;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'e' && duration_parse(optarg, &every_ms, &e) < 0)
			return usage_error("protect", "--every: %s", e.message);
		if (o == 'c' && (copies = atoi(optarg)) < 1)
			return usage_error("protect", "--copies: a number from 1 on is expected");
		if (o == 't')
			json_array_append_new(to, json_string(optarg));
		if (o == 'f' || o == 'T')
			json_object_set_new(request, o == 'f' ? "files" : "tcp", json_string(optarg));
		as_json |= o == 'j';
		if (o == '?' || o == ':')
			return option_error("protect", o, argv);
	}
	if (argc - optind != 1)
		return usage_error("protect", "one unit is expected, PID or HOME:PID");
	if (set_unit(request, argv[optind], &e) < 0)
		return usage_error("protect", "%s", e.message);
	json_object_set_new(request, "every_ms", json_integer(every_ms));
	if (copies)
		json_object_set_new(request, "copies", json_integer(copies));
	json_object_set_new(request, "to", to);
	return ask_and_show(request, as_json, show_protected);
}

int verb_unprotect(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	json_t *request = json_pack("{s:s}", "verb", "unprotect");
	struct err e = ERR_INIT;
	bool as_json = false;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o != 'j')
			return option_error("unprotect", o, argv);
		as_json = true;
	}
	if (argc - optind != 1)
		return usage_error("unprotect", "one unit is expected, PID or HOME:PID");
	if (set_unit(request, argv[optind], &e) < 0)
		return usage_error("unprotect", "%s", e.message);
	return ask_and_show(request, as_json, show_unprotected);
}

/* --- failover --- */

static void show_restored(const json_t *u)
{
	put_text(stdout, text_of(u, "unit"));
	fputs(" runs on ", stdout);
	put_text(stdout, text_of(u, "node"));
	printf(" (process %lld), as it was %.1f s ago.\n", number_of(u, "pid"), (double)number_of(u, "age_ms") / 1000);
	fflush(stdout);
}

static void show_left(const json_t *u)
{
	fputs("godwit: ", stderr);
	put_text(stderr, text_of(u, "unit"));
	fputs(" has not been restored: ", stderr);
	put_text(stderr, text_of(u, "why"));
	fputc('\n', stderr);
}

static int finish(const json_t *line, bool as_json)
{
	const json_t *result = json_object_get(line, "result"), *error = json_object_get(line, "error"), *u;
	size_t i, n = json_array_size(json_object_get(result, "restored")), n_left = json_array_size(json_object_get(result, "left"));

	if (as_json)
		show_json(error ? line : result);
	if (error) {
		if (!as_json)
			complain("failover: %s", text_of(error, "message"));
		return EXIT_FAILED;
	}
	if (!as_json) {
		json_array_foreach(json_object_get(result, "left"), i, u)
			show_left(u);
		if (!n && !n_left)
			puts("Nothing was protected there, as far as anybody knows.");
	}
	return n_left ? EXIT_REFUSED : EXIT_OK;
}

static int converse(json_t *request, bool as_json)
{
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int status = -1;

	if (ask_open(&ask, request, &e) < 0) {
		complain("failover: %s", e.message);
		return EXIT_FAILED;
	}
	while (status < 0) {
		if (ask_next(&ask, true, &line, &e) < 0) {
			complain("failover: %s", e.message);
			return EXIT_FAILED;
		}
		if (strcmp(text_of(line, "event"), "unit") != 0)
			status = finish(line, as_json);
		else if (!as_json)
			show_restored(json_object_get(line, "unit"));
		json_decref(line);
	}
	return status;
}

/* Nobody but a person can know. */
static bool confirm(char *const *nodes)
{
	char answer[16] = "";
	int i;

	fputs("What was protected on", stderr);
	for (i = 0; nodes[i]; i++)
		fprintf(stderr, " %s", nodes[i]);
	fputs(" will be started elsewhere, as it was when it was last copied.\n"
	      "That must be done only when the machine is off, or can reach nobody and never will before it has been restarted:\n"
	      "if it lives, its units run twice until it is reachable again. Is it really dead? Type yes: ", stderr);
	return fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n");
}

int verb_failover(int argc, char **argv)
{
	static const struct option options[] = { { "yes", no_argument, NULL, 'y' }, { "json", no_argument, NULL, 'j' }, { 0 } };
	bool as_json = false, yes = false;
	json_t *nodes;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o != 'j' && o != 'y')
			return option_error("failover", o, argv);
		as_json |= o == 'j';
		yes |= o == 'y';
	}
	if (optind >= argc)
		return usage_error("failover", "a node is expected: the one that is dead");
	if (!yes && !isatty(STDIN_FILENO))
		return usage_error("failover", "nobody can be asked whether it is really dead: say --yes");
	if (!yes && !confirm(argv + optind)) {
		complain("failover: nothing has been done");
		return EXIT_CANCELLED;
	}
	nodes = json_array();
	for (int i = optind; i < argc; i++)
		json_array_append_new(nodes, json_string(argv[i]));
	return converse(json_pack("{s:s, s:o}", "verb", "failover", "nodes", nodes), as_json);
}
