// SPDX-License-Identifier: GPL-2.0-or-later
/* check.c - godwit check: the kernel's features, or one process's obstacles */
#include <getopt.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

static void show_features(const json_t *result)
{
	const json_t *f;
	size_t i;

	json_array_foreach(json_object_get(result, "features"), i, f) {
		bool ok = json_is_true(json_object_get(f, "ok")), required = json_is_true(json_object_get(f, "required"));

		printf("%-8s %-21s %s\n", ok ? "ok" : required ? "MISSING" : "absent", text_of(f, "name"), text_of(f, "purpose"));
		if (ok)
			continue;
		printf("%-30s ", "");
		put_text(stdout, text_of(f, "error"));
		printf("%s\n%-30s what to do: %s\n", required ? "" : " (optional)", "", text_of(f, "way_out"));
	}
	puts(json_is_true(json_object_get(result, "ok")) ? "This host can send and receive processes." :
							    "This host cannot move processes: something required is missing.");
}

static void show_process(const json_t *result, const char *to)
{
	const json_t *refusals = json_object_get(result, "refusals");
	size_t n = json_array_size(refusals);

	if (!n) {
		printf("Process %lld can move%s%s.\n", number_of(result, "pid"), to ? " to " : "", to ? to : "");
		return;
	}
	printf("Process %lld cannot move%s%s, for %zu reason%s:\n", number_of(result, "pid"), to ? " to " : "", to ? to : "", n, n == 1 ? "" : "s");
	show_refusals(stdout, refusals);
}

int verb_check(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { "to", required_argument, NULL, 't' }, { 0 } };
	const char *to = NULL;
	bool as_json = false, ok;
	json_t *request = json_pack("{s:s}", "verb", "check"), *result = NULL;
	struct err e = ERR_INIT;
	int o, status, pid = 0;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'j')
			as_json = true;
		else if (o == 't')
			to = optarg;
		else
			return option_error("check", o, argv);
	}
	if (argc - optind > 1)
		return usage_error("check", "'%s': at most one process is expected, or several with commas between", argv[optind + 1]);
	if (optind < argc && pids_parse(argv[optind], &pid, request, &e) < 0)
		return usage_error("check", "%s", e.message);
	if (to && !pid)
		return usage_error("check", "--to needs a process");
	if (to)
		json_object_set_new(request, "host", json_string(to));
	if (pid)
		json_object_set_new(request, "pid", json_integer(pid));
	status = ask_result(request, as_json, &result);
	if (status)
		return status;
	if (as_json)
		show_json(result);
	else if (pid)
		show_process(result, to);
	else
		show_features(result);
	ok = json_is_true(json_object_get(result, "ok"));
	json_decref(result);
	return ok ? EXIT_OK : EXIT_FAILED;
}
