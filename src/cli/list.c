// SPDX-License-Identifier: GPL-2.0-or-later
/* list.c - what the verbs that show a list have in common (nodes, connections) */
#include <getopt.h>

#include "cli/cli.h"

int show_list(int argc, char **argv, void (*show)(const json_t *result))
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	bool as_json = false;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o != 'j')
			return option_error(argv[0], o, argv);
		as_json = true;
	}
	if (optind < argc)
		return usage_error(argv[0], "'%s': no argument is expected", argv[optind]);
	return ask_and_show(json_pack("{s:s}", "verb", argv[0]), as_json, show);
}
