// SPDX-License-Identifier: GPL-2.0-or-later
/* trace.c - godwit trace: what happened in the last moves, step by step; also as a file for Perfetto and chrome://tracing (trace_chrome.c) */
#include <getopt.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/trace.h"

#define COLUMNS 10
#define BAR 40
#define LAST_DEFAULT 20
#define LAST_MAX 1024
#define PAGE_BYTES 4096

struct wish {
	const char *unit;   /* NULL: all */
	const char *chrome; /* the file; NULL: none */
	bool all, marks, as_json;
	long last;
};

static void time_text(long long ns, char text[40])
{
	time_t s = (time_t)(ns / 1000000000);
	char day[32] = "";
	struct tm tm;

	if (localtime_r(&s, &tm))
		strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(text, 40, "%s.%03lld", day, ns / 1000000 % 1000);
}

/* What is said of a move: why it was made. */
static const char *reason_of(const json_t *move)
{
	const char *reason = text_of(move, "reason");

	return *reason ? reason : "somebody said so";
}

/* --- one move --- */

/* Where [start, end) lies within [from, to). */
static void put_bar(long long start, long long end, long long from, long long to)
{
	double whole = (double)MAX(to - from, 1);
	int at = (int)((double)(start - from) / whole * BAR), until = (int)((double)(end - from) / whole * BAR + 0.5);

	at = MIN(MAX(at, 0), BAR - 1);
	until = MIN(MAX(until, at + 1), BAR);
	printf("  |%*s", at, "");
	for (int i = at; i < until; i++)
		putchar('#');
	printf("%*s|\n", BAR - until, "");
}

static void show_span(const json_t *span, long long from, long long to)
{
	long long start = time_of(span, "start_ns"), end = time_of(span, "end_ns");
	char at[24], took[24];

	elapsed_text((double)(start - from), at);
	elapsed_text((double)(end - start), took);
	fputs("  ", stdout);
	put_text(stdout, text_of(span, "name"));
	printf("%*s%12s  %12s", (int)MAX(10 - (int)strlen(text_of(span, "name")), 1), "", at, took);
	put_bar(start, end, from, to);
}

static void show_events(const json_t *events, long long after, long long before, long long from)
{
	const json_t *event;
	size_t i;

	json_array_foreach(events, i, event) {
		long long at_ns = time_of(event, "at_ns");
		char at[24];

		if (at_ns < after || at_ns >= before)
			continue;
		elapsed_text((double)(at_ns - from), at);
		printf("  %-10s%12s    . ", "", at);
		put_text(stdout, text_of(event, "name"));
		putchar('\n');
	}
}

static void show_steps(const json_t *move, bool marks)
{
	const json_t *spans = json_object_get(move, "spans"), *span;
	long long from = time_of(move, "began_ns"), to = MAX(time_of(move, "ended_ns"), from + 1);
	size_t i;

	printf("\n  %-10s%12s  %12s\n", "STEP", "AT", "TOOK");
	json_array_foreach(spans, i, span) {
		if (!*text_of(span, "parent_span_id"))
			continue;
		show_span(span, from, to);
		if (marks && strcmp(text_of(span, "name"), "frozen") != 0)
			show_events(json_object_get(move, "events"), time_of(span, "start_ns"), time_of(span, "end_ns"), from);
	}
}

static void show_figures(const json_t *move)
{
	char sent[16], in_files[16], zero[16], pages[32], faulted[32];

	bytes_text((double)number_of(move, "bytes_sent"), sent);
	bytes_text((double)number_of(move, "pages_skipped_file") * PAGE_BYTES, in_files);
	bytes_text((double)number_of(move, "pages_skipped_zero") * PAGE_BYTES, zero);
	count_text(number_of(move, "pages_sent"), pages);
	count_text(number_of(move, "pages_faulted"), faulted);
	printf("  sent %s (%s pages), not sent %s that are in files and %s of zeros; %s pages on demand", sent, pages, in_files, zero, faulted);
	if (number_of(move, "rounds"))
		printf("; %lld rounds", number_of(move, "rounds"));
	if (number_of(move, "attempts") > 1)
		printf("; begun %lld times, since the unit changed", number_of(move, "attempts"));
	putchar('\n');
}

static void show_move(const json_t *move, bool marks)
{
	char when[40], freeze[24], total[24];
	bool running = !time_of(move, "ended_ns");

	time_text(time_of(move, "began_ns"), when);
	elapsed_text((double)number_of(move, "freeze_us") * 1e3, freeze);
	elapsed_text(json_number_value(json_object_get(move, "total_ms")) * 1e6, total);
	put_text(stdout, text_of(move, "unit"));
	fputs(": ", stdout);
	put_text(stdout, text_of(move, "from"));
	fputs(" -> ", stdout);
	put_text(stdout, text_of(move, "to"));
	printf(", %s, %s, %s\n  why: ", text_of(move, "strategy"), running ? "under way" : text_of(move, "outcome"), when);
	put_text(stdout, reason_of(move));
	printf("\n  frozen %s of %s; trace %s\n", freeze, total, text_of(move, "trace_id"));
	show_figures(move);
	if (*text_of(move, "error")) {
		fputs("  ", stdout);
		put_text(stdout, text_of(move, "error"));
		putchar('\n');
	}
	if (running) {
		fputs("  in step ", stdout);
		put_text(stdout, text_of(move, "phase"));
		putchar('\n');
	} else {
		show_steps(move, marks);
	}
}

/* --- many --- */

struct row {
	char began[40], freeze[24], total[24], sent[16];
};

static void add_rows(char **cells, size_t *cell, struct row *rows, const json_t *list)
{
	const json_t *move;
	size_t i;

	json_array_foreach(list, i, move) {
		struct row *row = &rows[*cell / COLUMNS];
		bool running = !time_of(move, "ended_ns");

		time_text(time_of(move, "began_ns"), row->began);
		elapsed_text((double)number_of(move, "freeze_us") * 1e3, row->freeze);
		elapsed_text(json_number_value(json_object_get(move, "total_ms")) * 1e6, row->total);
		bytes_text((double)number_of(move, "bytes_sent"), row->sent);
		cells[(*cell)++] = row->began;
		cells[(*cell)++] = (char *)text_of(move, "unit");
		cells[(*cell)++] = (char *)text_of(move, "from");
		cells[(*cell)++] = (char *)text_of(move, "to");
		cells[(*cell)++] = (char *)text_of(move, "strategy");
		cells[(*cell)++] = (char *)(running ? text_of(move, "phase") : text_of(move, "outcome"));
		cells[(*cell)++] = number_of(move, "freeze_us") ? row->freeze : "-";
		cells[(*cell)++] = row->total;
		cells[(*cell)++] = row->sent;
		cells[(*cell)++] = (char *)reason_of(move);
	}
}

static void show_table_of(const json_t *moves, const json_t *running)
{
	static char *const heading[COLUMNS] = { "BEGAN", "UNIT", "FROM", "TO", "STRATEGY", "OUTCOME", "FREEZE", "TOTAL", "SENT", "WHY" };
	size_t n = json_array_size(moves) + json_array_size(running), cell = COLUMNS;
	cleanup_free char **cells = calloc((n + 1) * COLUMNS, sizeof(*cells));
	cleanup_free struct row *rows = calloc(n + 1, sizeof(*rows));

	if (!cells || !rows)
		return;
	memcpy(cells, heading, sizeof(heading));
	add_rows(cells, &cell, rows, moves);
	add_rows(cells, &cell, rows, running);
	show_table(cells, cell, COLUMNS);
}

/* Of what is under way only that of which nobody has an answer yet: the rest is among those that have ended. */
static json_t *unanswered(const json_t *running)
{
	json_t *list = json_array(), *move;
	size_t i;

	json_array_foreach(running, i, move)
		if (!number_of(move, "number"))
			json_array_append(list, move);
	return list;
}

static void show_all(const json_t *list, bool marks, bool *first)
{
	const json_t *move;
	size_t i;

	json_array_foreach(list, i, move) {
		if (!*first)
			putchar('\n');
		*first = false;
		show_move(move, marks);
	}
}

static void show(const struct wish *wish, const json_t *result)
{
	const json_t *moves = json_object_get(result, "moves"), *silent = json_object_get(result, "silent"), *node;
	json_t *running = unanswered(json_object_get(result, "running"));
	bool first = true;
	size_t i;

	if (!wish->unit) {
		show_table_of(moves, running);
	} else {
		show_all(moves, wish->marks, &first);
		show_all(running, wish->marks, &first);
	}
	json_decref(running);
	json_array_foreach(silent, i, node)
		complain("%s: %s; moves that began there are missing", text_of(node, "node"), text_of(node, "error"));
}

/* --- the verb --- */

static int read_options(int argc, char **argv, struct wish *wish)
{
	static const struct option options[] = { { "all", no_argument, NULL, 'a' },          { "chrome", required_argument, NULL, 'c' }, { "last", required_argument, NULL, 'l' },
						 { "marks", no_argument, NULL, 'm' },        { "json", no_argument, NULL, 'j' },         { 0 } };
	char *end;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (o) {
		case 'a':
			wish->all = true;
			break;
		case 'c':
			wish->chrome = optarg;
			break;
		case 'l':
			wish->last = strtol(optarg, &end, 10);
			if (*end || wish->last < 1 || wish->last > LAST_MAX)
				return usage_error("trace", "--last: '%s' is no number from 1 to %d", optarg, LAST_MAX);
			break;
		case 'm':
			wish->marks = true;
			break;
		case 'j':
			wish->as_json = true;
			break;
		default:
			return option_error("trace", o, argv);
		}
	}
	if (argc - optind > 1)
		return usage_error("trace", "'%s': one unit is expected", argv[optind + 1]);
	wish->unit = argv[optind];
	return EXIT_OK;
}

/* NULL: what is no unit, which has been said. */
static json_t *request_of(const struct wish *wish)
{
	long last = wish->last ? wish->last : !wish->unit ? LAST_DEFAULT : wish->all ? LAST_MAX : 1;
	json_t *o = json_pack("{s:s, s:i}", "verb", "history", "last", (int)last);
	struct err e = ERR_INIT;
	int pid;

	if (!wish->unit)
		return o;
	if (strchr(wish->unit, ':')) {
		json_object_set_new(o, "unit", json_string(wish->unit));
	} else if (pid_parse(wish->unit, &pid, &e) == 0) {
		json_object_set_new(o, "pid", json_integer(pid));
	} else {
		usage_error("trace", "%s", e.message);
		json_decref(o);
		return NULL;
	}
	return o;
}

int verb_trace(int argc, char **argv)
{
	struct wish wish = { 0 };
	json_t *request, *result = NULL;
	int status = read_options(argc, argv, &wish);

	if (status)
		return status;
	request = request_of(&wish);
	if (!request)
		return EXIT_USAGE;
	status = ask_result(request, wish.as_json, &result);
	if (status)
		return status;
	if (wish.unit && !json_array_size(json_object_get(result, "moves")) && !json_array_size(json_object_get(result, "running"))) {
		complain("no move of %s is remembered: each node knows the last 256 that began on it since its godwitd did; `godwit trace` lists those that there are", wish.unit);
		status = EXIT_FAILED;
	} else if (wish.chrome) {
		status = trace_write_chrome(result, wish.chrome);
	}
	if (wish.as_json)
		show_json(result);
	else if (!wish.chrome && !status)
		show(&wish, result);
	json_decref(result);
	return status;
}
