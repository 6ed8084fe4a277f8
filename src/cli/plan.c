// SPDX-License-Identifier: GPL-2.0-or-later
/* plan.c - what a command would do, for people (--dry-run) */
#include "base/util.h"
#include "cli/cli.h"

static double real_of(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

/* "  name  sentence" for each. */
static void show_sentences(const char *heading, const json_t *list)
{
	const json_t *one;
	size_t i;

	if (json_array_size(list))
		printf("%s\n", heading);
	json_array_foreach(list, i, one) {
		fputs("  ", stdout);
		put_text(stdout, json_string_value(one));
		putchar('\n');
	}
}

static void show_memory(const json_t *memory)
{
	char resident[16], own[16], most[16];

	bytes_text(real_of(memory, "resident_bytes"), resident);
	bytes_text(real_of(memory, "own_bytes") + real_of(memory, "swapped_bytes"), own);
	bytes_text(real_of(memory, "send_bytes_max"), most);
	printf("Memory: %s resident, of which %s are in no file; at most %s are sent, less where pages are zero or still there from a former visit.\n", resident, own, most);
}

static void show_files(const json_t *files)
{
	char bytes[16];

	bytes_text(real_of(files, "sent_bytes_max"), bytes);
	printf("Files (mapped or open): %lld are there, %lld served from home, %lld sent (at most %s).\n", number_of(files, "there"), number_of(files, "from_home"), number_of(files, "sent"), bytes);
}

static void show_descriptors(const json_t *list)
{
	const json_t *d;
	size_t i;

	puts(json_array_size(list) ? "Open descriptions:" : "Open descriptions: none.");
	json_array_foreach(list, i, d)
		printf("  %4lld %-14s %s\n", number_of(d, "n"), text_of(d, "kind"), text_of(d, "means"));
}

static void show_namespaces(const json_t *list)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
		printf("%s%s", i ? ", " : "Namespaces of its own, made there: ", json_string_value(one));
	if (json_array_size(list))
		puts(".");
}

static void show_estimate(const json_t *estimate)
{
	char low[24], high[24];

	elapsed_text(real_of(estimate, "low_ms") * 1e6, low);
	elapsed_text(real_of(estimate, "high_ms") * 1e6, high);
	printf("It would take about %s to %s (from %s).\n", low, high, text_of(estimate, "basis"));
}

void show_plan(const json_t *plan)
{
	put_text(stdout, text_of(plan, "unit"));
	fputs(" would move to ", stdout);
	put_text(stdout, text_of(plan, "to"));
	printf(" by %s (%s). Nothing has been touched.\n", text_of(plan, "strategy"), text_of(plan, "strategy_why"));
	if (json_object_get(plan, "memory")) {
		printf("Processes: %lld, with %lld thread%s.\n", number_of(plan, "processes"), number_of(plan, "threads"), number_of(plan, "threads") == 1 ? "" : "s");
		show_memory(json_object_get(plan, "memory"));
		show_files(json_object_get(plan, "files"));
		show_descriptors(json_object_get(plan, "descriptors"));
		show_namespaces(json_object_get(plan, "namespaces"));
		show_estimate(json_object_get(plan, "estimate"));
	}
	show_sentences("If a host or the link dies:", json_object_get(plan, "promises"));
	show_sentences("What may come otherwise:", json_object_get(plan, "risks"));
}
