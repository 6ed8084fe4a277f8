// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * trace_chrome.c - moves in the Trace Event Format; see trace.h
 *
 * Each unit is a process there, with two threads: the steps of its moves with their marks, and when it was frozen. Times are microseconds from the beginning of the first move, which otherData names.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/trace.h"

enum { THREAD_STEPS = 1, THREAD_FROZEN = 2 };

struct writing {
	json_t *events;
	json_t *numbers; /* by the unit's name */
	long long from_ns;
};

static double us_of(const struct writing *w, long long ns)
{
	return (double)(ns - w->from_ns) / 1e3;
}

static void add_name(struct writing *w, const char *what, int process, int thread, const char *name)
{
	json_array_append_new(w->events, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", what, "ph", "M", "pid", process, "tid", thread, "args", "name", name));
}

static int number_of_unit(struct writing *w, const char *unit)
{
	int number = (int)json_integer_value(json_object_get(w->numbers, unit));

	if (number)
		return number;
	number = (int)json_object_size(w->numbers) + 1;
	json_object_set_new(w->numbers, unit, json_integer(number));
	add_name(w, "process_name", number, THREAD_STEPS, unit);
	add_name(w, "thread_name", number, THREAD_STEPS, "steps");
	add_name(w, "thread_name", number, THREAD_FROZEN, "frozen");
	return number;
}

static json_t *arguments_of(const json_t *move)
{
	static const char *const shown[] = { "trace_id", "node", "from", "to", "strategy", "outcome", "reason", "error", "freeze_us", "bytes_sent", "pages_sent", "pages_skipped_file", "pages_skipped_zero", "pages_faulted", "rounds", "attempts" };
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		json_object_set(o, shown[i], json_object_get(move, shown[i]));
	return o;
}

static void add_span(struct writing *w, const json_t *move, const json_t *span, int process)
{
	long long start = time_of(span, "start_ns"), end = time_of(span, "end_ns");
	bool is_root = !*text_of(span, "parent_span_id");
	const char *name = text_of(span, "name");
	char title[700];

	snprintf(title, sizeof(title), "%s -> %s", text_of(move, "from"), text_of(move, "to"));
	json_array_append_new(w->events, json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:o*}", "name", is_root ? title : name, "cat", "godwit", "ph", "X", "ts", us_of(w, start), "dur",
						   (double)(end - start) / 1e3, "pid", process, "tid", strcmp(name, "frozen") ? THREAD_STEPS : THREAD_FROZEN, "args", is_root ? arguments_of(move) : NULL));
}

static void add_move(struct writing *w, const json_t *move)
{
	const json_t *list = json_object_get(move, "spans"), *v;
	int process = number_of_unit(w, text_of(move, "unit"));
	size_t i;

	json_array_foreach(list, i, v)
		add_span(w, move, v, process);
	list = json_object_get(move, "events");
	json_array_foreach(list, i, v)
		json_array_append_new(w->events, json_pack("{s:s, s:s, s:s, s:s, s:f, s:i, s:i}", "name", text_of(v, "name"), "cat", "godwit", "ph", "i", "s", "t", "ts", us_of(w, time_of(v, "at_ns")), "pid",
							   process, "tid", THREAD_STEPS));
}

static json_t *trace_of(const json_t *moves)
{
	struct writing w = { json_array(), json_object(), 0 };
	const json_t *move;
	json_t *trace;
	size_t i;

	json_array_foreach(moves, i, move)
		if (!i || time_of(move, "began_ns") < w.from_ns)
			w.from_ns = time_of(move, "began_ns");
	json_array_foreach(moves, i, move)
		add_move(&w, move);
	trace = json_pack("{s:o, s:s, s:{s:I}}", "traceEvents", w.events, "displayTimeUnit", "ms", "otherData", "realtime_ns", (json_int_t)w.from_ns);
	json_decref(w.numbers);
	return trace;
}

int trace_write_chrome(const json_t *result, const char *path)
{
	json_t *trace = trace_of(json_object_get(result, "moves"));
	FILE *f = strcmp(path, "-") ? fopen(path, "we") : stdout;
	bool good = f && json_dumpf(trace, f, JSON_INDENT(1)) == 0;

	json_decref(trace);
	if (f && f != stdout)
		good = fclose(f) == 0 && good;
	else if (f)
		putchar('\n');
	if (!good)
		complain("%s: %s", path, strerror(errno));
	return good ? EXIT_OK : EXIT_FAILED;
}
