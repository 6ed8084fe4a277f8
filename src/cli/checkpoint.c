// SPDX-License-Identifier: GPL-2.0-or-later
/* checkpoint.c - godwit checkpoint, godwit restore: a unit becomes a file, and a file a unit; Ctrl-C cancels */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

/* Of a failure. Prints it, as JSON on stdout when asked for. */
static int show_error(const char *verb, const json_t *line, bool as_json)
{
	const json_t *error = json_object_get(line, "error"), *refusals = json_object_get(error, "refusals");
	const char *code = text_of(error, "code");

	if (as_json)
		show_json(line);
	else if (json_array_size(refusals)) {
		complain("%s: refused, nothing has been done:", verb);
		show_refusals(stderr, refusals);
	} else {
		complain("%s: %s", verb, text_of(error, "message"));
	}
	if (!strcmp(code, "refused") || !strcmp(code, "busy") || !strcmp(code, "namespace"))
		return EXIT_REFUSED;
	if (!strcmp(code, "bad-request"))
		return EXIT_USAGE;
	return !strcmp(code, "cancelled") ? EXIT_CANCELLED : !strcmp(code, "in-doubt") ? EXIT_IN_DOUBT : EXIT_FAILED;
}

static int converse(const char *verb, json_t *request, bool as_json, bool quiet, void (*show)(const json_t *result))
{
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int status = EXIT_OK;

	if (ask_open(&ask, request, &e) < 0 || ask_next(&ask, true, &line, &e) < 0) {
		complain("%s: %s", verb, e.message);
		return EXIT_FAILED;
	}
	if (strcmp(text_of(line, "event"), "result") != 0)
		status = show_error(verb, line, as_json);
	else if (as_json)
		show_json(json_object_get(line, "result"));
	else if (!quiet)
		show(json_object_get(line, "result"));
	json_decref(line);
	return status;
}

/* godwitd has another working directory. */
static int set_path(json_t *request, const char *path, struct err *e)
{
	char directory[PATH_MAX], whole[2 * PATH_MAX];

	if (path[0] == '/')
		snprintf(whole, sizeof(whole), "%s", path);
	else if (!getcwd(directory, sizeof(directory)))
		return err_sys(e, -errno, "the working directory");
	else
		snprintf(whole, sizeof(whole), "%s/%s", directory, path);
	return json_object_set_new(request, "path", json_string(whole)) < 0 ? err_set(e, -EINVAL, "%s: its name is not UTF-8", path) : 0;
}

static void show_taken(const json_t *r)
{
	bool goes_on = json_is_true(json_object_get(r, "keep_running"));
	char bytes[16];

	bytes_text((double)number_of(r, "file_bytes"), bytes);
	if (*text_of(r, "whole_because")) {
		fputs("A whole image: ", stdout);
		put_text(stdout, text_of(r, "whole_because"));
		fputs(".\n", stdout);
	}
	put_text(stdout, text_of(r, "unit"));
	fputs(goes_on ? " goes on; it is also in " : " has ended; it is in ", stdout);
	put_text(stdout, text_of(r, "path"));
	if (goes_on)
		printf(" (%s).\nIt stood still for %.2f ms.\n", bytes, (double)number_of(r, "freeze_us") / 1000.0);
	else
		printf(" (%s): `godwit restore` lets it go on.\n", bytes);
}

int verb_checkpoint(int argc, char **argv)
{
	static const struct option options[] = {
		{ "keep-running", no_argument, NULL, 'k' }, { "no-compress", no_argument, NULL, 'n' }, { "strategy", required_argument, NULL, 's' },
		{ "files", required_argument, NULL, 'f' },  { "tcp", required_argument, NULL, 'c' },   { "timeout", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },         { "quiet", no_argument, NULL, 'q' },       { "key", required_argument, NULL, 'K' },
		{ "incremental", no_argument, NULL, 'i' }, { 0 },
	};
	json_t *request = json_pack("{s:s}", "verb", "checkpoint");
	bool as_json = false, quiet = false;
	struct err e = ERR_INIT;
	int o, pid = 0, status = 0;
	unsigned timeout_ms = 0;

	optind = 1;
	while (!status && (o = getopt_long(argc, argv, ":ks:t:q", options, NULL)) != -1) {
		if (o == 'k' || o == 'n')
			json_object_set_new(request, o == 'k' ? "keep_running" : "store", json_true());
		else if (o == 'i')
			json_object_set_new(request, "incremental", json_true());
		else if (o == 's' || o == 'f' || o == 'c')
			json_object_set_new(request, o == 's' ? "strategy" : o == 'f' ? "files" : "tcp", json_string(optarg));
		else if (o == 'j')
			as_json = true;
		else if (o == 'q')
			quiet = true;
		else if (o == 'K')
			status = key_set(request, optarg, &e) < 0 ? usage_error("checkpoint", "--key: %s", e.message) : 0;
		else if (o != 't')
			status = option_error("checkpoint", o, argv);
		else if (duration_parse(optarg, &timeout_ms, &e) < 0)
			status = usage_error("checkpoint", "--timeout: %s", e.message);
	}
	if (!status && argc - optind != 2)
		status = usage_error("checkpoint", "expected a process and a file (or directory), got %d argument%s", argc - optind, argc - optind == 1 ? "" : "s");
	if (!status && !strchr(argv[optind], ':') && pids_parse(argv[optind], &pid, request, &e) < 0)
		status = usage_error("checkpoint", "%s, and no HOME:PID", e.message);
	if (!status && set_path(request, argv[optind + 1], &e) < 0)
		status = usage_error("checkpoint", "%s", e.message);
	if (status) {
		json_decref(request);
		return status;
	}
	json_object_set_new(request, "timeout_ms", json_integer(timeout_ms));
	json_object_set_new(request, pid ? "pid" : "unit", pid ? json_integer(pid) : json_string(argv[optind]));
	return converse("checkpoint", request, as_json, quiet, show_taken);
}

static void show_restored(const json_t *r)
{
	put_text(stdout, text_of(r, "path"));
	fputs(" runs on ", stdout);
	put_text(stdout, text_of(r, "node"));
	printf(" as process %lld.\n", number_of(r, "pid"));
}

int verb_restore(int argc, char **argv)
{
	static const struct option options[] = {
		{ "on", required_argument, NULL, 'o' }, { "changed-files", required_argument, NULL, 'c' }, { "json", no_argument, NULL, 'j' }, { "quiet", no_argument, NULL, 'q' },
		{ "key", required_argument, NULL, 'K' }, { 0 },
	};
	json_t *request = json_pack("{s:s}", "verb", "restore");
	bool as_json = false, quiet = false;
	struct err e = ERR_INIT;
	int o, status = 0;

	optind = 1;
	while (!status && (o = getopt_long(argc, argv, ":q", options, NULL)) != -1) {
		if (o == 'o')
			json_object_set_new(request, "host", json_string(optarg));
		else if (o == 'c' && strcmp(optarg, "accept") != 0 && strcmp(optarg, "refuse") != 0)
			status = usage_error("restore", "--changed-files: accept or refuse");
		else if (o == 'c')
			json_object_set_new(request, "accept_changed", json_boolean(!strcmp(optarg, "accept")));
		else if (o == 'j')
			as_json = true;
		else if (o == 'q')
			quiet = true;
		else if (o == 'K')
			status = key_set(request, optarg, &e) < 0 ? usage_error("restore", "--key: %s", e.message) : 0;
		else
			status = option_error("restore", o, argv);
	}
	if (!status && argc - optind != 1)
		status = usage_error("restore", "expected a file, got %d arguments", argc - optind);
	if (!status && set_path(request, argv[optind], &e) < 0)
		status = usage_error("restore", "%s", e.message);
	if (status) {
		json_decref(request);
		return status;
	}
	return converse("restore", request, as_json, quiet, show_restored);
}
