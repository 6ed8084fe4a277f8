// SPDX-License-Identifier: GPL-2.0-or-later
/* metrics.c - godwit metrics: what godwitd counts and measures, as Prometheus reads it */
#include <getopt.h>

#include "cli/cli.h"

static void show(const json_t *result)
{
	fputs(text_of(result, "text"), stdout);
}

int verb_metrics(int argc, char **argv)
{
	static const struct option options[] = { { 0 } };
	int o;

	optind = 1;
	o = getopt_long(argc, argv, ":", options, NULL);
	if (o != -1)
		return option_error("metrics", o, argv);
	if (optind < argc)
		return usage_error("metrics", "'%s': no argument is expected", argv[optind]);
	return ask_and_show(json_pack("{s:s}", "verb", "metrics"), false, show);
}
