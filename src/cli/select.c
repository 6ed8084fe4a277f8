// SPDX-License-Identifier: GPL-2.0-or-later
/* select.c - godwit select: the nodes that match a requirement, the best one first */
#include <getopt.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

int select_nodes(const char *require, bool take, bool as_json, json_t **ret)
{
	return ask_result(json_pack("{s:s, s:s, s:b}", "verb", "select", "require", require, "take", take), as_json, ret);
}

int verb_select(int argc, char **argv)
{
	static const struct option options[] = { { "require", required_argument, NULL, 'R' }, { "json", no_argument, NULL, 'j' }, { 0 } };
	const char *require = "";
	bool as_json = false;
	json_t *result = NULL;
	const json_t *nodes, *node;
	size_t i;
	int o, ret;

	optind = 1;
	while ((o = getopt_long(argc, argv, "+:R:", options, NULL)) != -1) {
		if (o == 'R')
			require = optarg;
		else if (o == 'j')
			as_json = true;
		else
			return option_error("select", o, argv);
	}
	if (optind < argc)
		return usage_error("select", "'%s': no argument is expected; a requirement goes behind -R", argv[optind]);
	ret = select_nodes(require, false, as_json, &result);
	if (ret != EXIT_OK)
		return ret;
	nodes = json_object_get(result, "nodes");
	if (as_json)
		show_json(result);
	else
		json_array_foreach(nodes, i, node) {
			put_text(stdout, json_string_value(node));
			putchar('\n');
		}
	if (!json_array_size(nodes)) {
		if (!as_json)
			complain("no node matches '%s'; `godwit nodes` shows how they are", require);
		ret = EXIT_FAILED;
	}
	json_decref(result);
	return ret;
}
