// SPDX-License-Identifier: GPL-2.0-or-later
/* drain.c - godwit drain, godwit undrain: a node gives everything away and takes nothing; and does again */
#include <getopt.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define PARALLEL_MAX 32

struct options {
	bool as_json, quiet, dry_run;
	unsigned timeout_ms;
	int parallel;
	json_t *also;
	const char *node;
};

static int read_options(int argc, char **argv, struct options *ret)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' }, { "quiet", no_argument, NULL, 'q' }, { "timeout", required_argument, NULL, 't' },
		{ "parallel", required_argument, NULL, 'p' }, { "also", required_argument, NULL, 'a' },
		{ "dry-run", no_argument, NULL, 'n' }, { 0 },
	};
	struct err e = ERR_INIT;
	int o, pid;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":qt:p:", options, NULL)) != -1) {
		if (o == 'j')
			ret->as_json = true;
		else if (o == 'q')
			ret->quiet = true;
		else if (o == 'n')
			ret->dry_run = true;
		else if (o == 't' && duration_parse(optarg, &ret->timeout_ms, &e) < 0)
			return usage_error("drain", "--timeout: %s", e.message);
		else if (o == 'p' && (pid_parse(optarg, &ret->parallel, NULL) < 0 || ret->parallel > PARALLEL_MAX))
			return usage_error("drain", "--parallel: '%s' is no number from 1 to %d", optarg, PARALLEL_MAX);
		else if (o == 'a' && pid_parse(optarg, &pid, &e) < 0)
			return usage_error("drain", "--also: %s", e.message);
		else if (o == 'a')
			json_array_append_new(ret->also, json_integer(pid));
		else if (o != 't' && o != 'p')
			return option_error("drain", o, argv);
	}
	if (argc - optind > 1)
		return usage_error("drain", "one node is expected, or none for this one");
	ret->node = argv[optind];
	return EXIT_OK;
}

static void show_unit(const json_t *line)
{
	const json_t *error = json_object_get(line, "error"), *refusals = json_object_get(error, "refusals");

	put_text(stdout, text_of(line, "unit"));
	if (!error)
		printf(" to %s (%.2f ms)", text_of(line, "to"), (double)number_of(json_object_get(line, "result"), "freeze_us") / 1000);
	else
		printf(" not to %s: ", text_of(line, "to"));
	if (error)
		put_text(stdout, json_array_size(refusals) ? "refused" : text_of(error, "message"));
	putchar('\n');
	show_refusals(stdout, refusals);
	fflush(stdout);
}

static void show_progress(const json_t *line, bool *shown)
{
	fprintf(stderr, "\r\033[K%lld moved, %lld moving, %lld left, %lld cannot", number_of(line, "moved"), number_of(line, "moving"),
		number_of(line, "left") - number_of(line, "moving"), number_of(line, "stay"));
	fflush(stderr);
	*shown = true;
}

/* What stays, and what needs the node. */
static void show_rest(const json_t *result)
{
	const json_t *stayed = json_object_get(result, "stayed"), *needed = json_object_get(result, "needed"), *u;
	size_t i;

	json_array_foreach(stayed, i, u) {
		const json_t *error = json_object_get(u, "error"), *refusals = json_object_get(error, "refusals");

		printf("%s (process %lld, ", text_of(u, "unit"), number_of(u, "pid"));
		put_text(stdout, text_of(u, "command"));
		fputs(") stays: ", stdout);
		put_text(stdout, json_array_size(refusals) ? "" : text_of(error, "message"));
		putchar('\n');
		show_refusals(stdout, refusals);
	}
	if (json_array_size(needed))
		printf("Units elsewhere that still need this node (their parents, terminals or files are here): %zu\n", json_array_size(needed));
	json_array_foreach(needed, i, u) {
		printf("  %s on %s: ", text_of(u, "unit"), text_of(u, "on"));
		put_text(stdout, text_of(u, "command"));
		putchar('\n');
	}
}

static void show_result(const json_t *result)
{
	printf("%s is %s: %zu moved, %zu cannot.\n", text_of(result, "node"), text_of(result, "state"), json_array_size(json_object_get(result, "moved")),
	       json_array_size(json_object_get(result, "stayed")));
	show_rest(result);
}

static void show_times(const json_t *estimate)
{
	char low[24], high[24];

	elapsed_text(json_number_value(json_object_get(estimate, "low_ms")) * 1e6, low);
	elapsed_text(json_number_value(json_object_get(estimate, "high_ms")) * 1e6, high);
	printf("about %s to %s", low, high);
}

static void show_dry_run(const json_t *result)
{
	const json_t *moves = json_object_get(result, "moves"), *m;
	size_t i;

	printf("%s would be drained: %zu would move, %zu cannot. Nothing has been touched.\n", text_of(result, "node"), json_array_size(moves), json_array_size(json_object_get(result, "stayed")));
	json_array_foreach(moves, i, m) {
		const json_t *plan = json_object_get(m, "plan");
		char bytes[16];

		bytes_text(json_number_value(json_object_get(json_object_get(plan, "memory"), "send_bytes_max")), bytes);
		printf("%s to %s by %s, at most %s, ", text_of(m, "unit"), text_of(m, "to"), text_of(plan, "strategy"), bytes);
		show_times(json_object_get(plan, "estimate"));
		fputs(": ", stdout);
		put_text(stdout, text_of(m, "command"));
		putchar('\n');
	}
	if (json_array_size(moves) > 1) {
		fputs("All of it would take ", stdout);
		show_times(json_object_get(result, "estimate"));
		puts(".");
	}
	show_rest(result);
}

/* The last line: what became of it. */
static int finish(const struct options *o, const json_t *line)
{
	const json_t *error = json_object_get(line, "error"), *result = json_object_get(line, "result");

	if (o->as_json && error)
		show_json(line);
	else if (o->as_json)
		show_json(result);
	if (!o->as_json && !o->quiet && result)
		(o->dry_run ? show_dry_run : show_result)(result);
	if (error && !o->as_json)
		complain("%s", text_of(error, "message"));
	if (error)
		return strcmp(text_of(error, "code"), "bad-request") ? EXIT_FAILED : EXIT_USAGE;
	return json_array_size(json_object_get(result, "stayed")) ? EXIT_REFUSED : EXIT_OK;
}

static int converse(const struct options *o, struct ask *ask)
{
	bool plain = !o->as_json && !o->quiet, shown = false;
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int status = -1;

	while (status < 0) {
		const char *event;

		if (ask_next(ask, true, &line, &e) < 0) {
			complain("%s", e.message);
			return EXIT_FAILED;
		}
		event = text_of(line, "event");
		if (!strcmp(event, "progress") && plain && isatty(STDERR_FILENO)) {
			show_progress(line, &shown);
		} else if (strcmp(event, "progress") != 0) {
			if (shown)
				fputs("\r\033[K", stderr);
			shown = false;
			if (!strcmp(event, "unit") && plain)
				show_unit(line);
			else if (strcmp(event, "unit") != 0)
				status = finish(o, line);
		}
		json_decref(line);
	}
	return status;
}

int verb_drain(int argc, char **argv)
{
	struct options o = { .also = json_array() };
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err e = ERR_INIT;
	int status = read_options(argc, argv, &o);
	json_t *request;

	if (status) {
		json_decref(o.also);
		return status;
	}
	request = json_pack("{s:s, s:I, s:o}", "verb", "drain", "timeout_ms", (json_int_t)o.timeout_ms, "also", o.also);
	if (o.dry_run) /* a verb of its own: a godwitd that does not know it must not drain anything */
		json_object_update_new(request, json_pack("{s:s, s:b}", "verb", "plan", "drain", 1));
	if (o.parallel)
		json_object_set_new(request, "parallel", json_integer(o.parallel));
	if (o.node)
		json_object_set_new(request, "host", json_string(o.node));
	if (ask_open(&ask, request, &e) < 0) {
		complain("%s", e.message);
		return EXIT_FAILED;
	}
	return converse(&o, &ask);
}

int verb_undrain(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	json_t *request = json_pack("{s:s}", "verb", "undrain"), *result;
	bool as_json = false;
	int o, status;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		as_json = true;
		if (o == 'j')
			continue;
		json_decref(request);
		return option_error("undrain", o, argv);
	}
	if (argc - optind > 1) {
		json_decref(request);
		return usage_error("undrain", "one node is expected, or none for this one");
	}
	if (argv[optind])
		json_object_set_new(request, "host", json_string(argv[optind]));
	status = ask_result(request, as_json, &result);
	if (status)
		return status;
	if (as_json)
		show_json(result);
	else
		printf("%s is %s.\n", text_of(result, "node"), text_of(result, "state"));
	json_decref(result);
	return EXIT_OK;
}
