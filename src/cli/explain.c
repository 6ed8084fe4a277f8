// SPDX-License-Identifier: GPL-2.0-or-later
/* explain.c - godwit explain: what the code of a refusal means, and what helps. godwitd is not asked */
#include "cli/explain.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* Whether all words of `code`, which points separate, begin `longer`. */
static bool begins(const char *longer, const char *code)
{
	size_t len = strlen(code);

	return !strncmp(longer, code, len) && (!longer[len] || longer[len] == '.');
}

/* That of this code, or of the longest that it begins with: some codes end with a number. NULL: there is none. */
static const struct explanation *find(const char *code)
{
	const struct explanation *best = NULL;

	for (size_t i = 0; i < n_explanations; i++)
		if (begins(code, explanations[i].code) && (!best || strlen(explanations[i].code) > strlen(best->code)))
			best = &explanations[i];
	return best;
}

static bool is_wanted(const struct explanation *x, const char *code, const struct explanation *found)
{
	return !code || x == found || begins(x->code, code);
}

static int show_all(const char *code, bool json)
{
	const struct explanation *found = code ? find(code) : NULL;
	json_t *list = json_array();
	size_t n = 0;

	for (size_t i = 0; i < n_explanations; i++) {
		const struct explanation *x = &explanations[i];

		if (!is_wanted(x, code, found))
			continue;
		if (json)
			json_array_append_new(list, json_pack("{s:s, s:s}", "code", x->code, "text", x->text));
		else if (code)
			printf("%s%s\n%s\n", n ? "\n" : "", x->code, x->text);
		else
			puts(x->code);
		n++;
	}
	if (json && n)
		show_json(list);
	json_decref(list);
	if (!n)
		complain("there is no code '%s'; `godwit explain` lists all", code);
	return n ? EXIT_OK : EXIT_FAILED;
}

int verb_explain(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	bool json = false;
	int o;

	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o != 'j')
			return option_error("explain", o, argv);
		json = true;
	}
	if (argc - optind > 1)
		return usage_error("explain", "expected one code at most");
	return show_all(argv[optind], json);
}
