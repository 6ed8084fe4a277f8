// SPDX-License-Identifier: GPL-2.0-or-later
/* history_json.c - see history_json.h */
#include "daemon/history_json.h"

#include <errno.h>
#include <inttypes.h>

#include "base/util.h"
#include "daemon/reply.h"
#include "wire/hello.h"

#define SPANS_MAX 64u
#define EVENTS_MAX 256u

/* --- ours --- */

/* The span of that index in its trace: never 0, which is none. */
static void span_id(const struct history_move *m, unsigned index, char ret[17])
{
	uint64_t base;

	memcpy(&base, m->trace, sizeof(base));
	snprintf(ret, 17, "%016" PRIx64, (base | 1u << 8) + index);
}

static void add_span(json_t *spans, const struct history_move *m, const char *name, uint64_t start_ns, uint64_t end_ns)
{
	unsigned index = (unsigned)json_array_size(spans);
	char id[17], root[17];

	span_id(m, index, id);
	span_id(m, 0, root);
	json_array_append_new(spans, json_pack("{s:s, s:s, s:s, s:I, s:I}", "span_id", id, "parent_span_id", index ? root : "", "name", name, "start_ns", (json_int_t)start_ns, "end_ns",
					       (json_int_t)MAX(end_ns, start_ns)));
}

/* Each step lasts until the next one begins; what is before the first one, attempts that were given up included, has the name "begin". */
static json_t *spans_of(const struct history_move *m)
{
	json_t *spans = json_array();

	add_span(spans, m, "migrate", m->began_ns, m->ended_ns);
	if (m->n_marks)
		add_span(spans, m, "begin", m->began_ns, m->marks[0].ns);
	for (unsigned i = 0; i < m->n_marks; i++) {
		unsigned next = i + 1;

		if (!m->marks[i].is_step)
			continue;
		while (next < m->n_marks && !m->marks[next].is_step)
			next++;
		add_span(spans, m, m->marks[i].what, m->marks[i].ns, next < m->n_marks ? m->marks[next].ns : m->ended_ns);
	}
	if (m->report.freeze_us)
		add_span(spans, m, "frozen", m->report.stopped_at_ns, m->report.stopped_at_ns + m->report.freeze_us * 1000);
	return spans;
}

static json_t *events_of(const struct history_move *m)
{
	json_t *events = json_array();

	for (unsigned i = 0; i < m->n_marks; i++)
		if (!m->marks[i].is_step)
			json_array_append_new(events, json_pack("{s:s, s:I}", "name", m->marks[i].what, "at_ns", (json_int_t)m->marks[i].ns));
	return events;
}

static void add_figures(json_t *o, const struct migrate_report *r)
{
	const struct {
		const char *key;
		uint64_t value;
	} figures[] = { { "freeze_us", r->freeze_us },
			{ "stopped_at_ns", r->stopped_at_ns },
			{ "bytes_sent", r->bytes_sent },
			{ "pages_total", r->pages_total },
			{ "pages_sent", r->pages_sent },
			{ "pages_skipped_file", r->pages_skipped_file },
			{ "pages_skipped_zero", r->pages_skipped_zero },
			{ "pages_faulted", r->pages_faulted },
			{ "rounds", r->rounds },
			{ "attempts", r->attempts } };

	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		json_object_set_new(o, figures[i].key, json_integer((json_int_t)figures[i].value));
}

json_t *history_json(const struct history_move *m, const char *node, bool running)
{
	const struct migrate_report *r = &m->report;
	uint64_t until_ns = running ? clock_ns(CLOCK_REALTIME) : m->ended_ns;
	char trace[2 * HISTORY_TRACE_BYTES + 1];
	json_t *o;

	for (size_t i = 0; i < HISTORY_TRACE_BYTES; i++)
		snprintf(trace + 2 * i, 3, "%02x", m->trace[i]);
	o = json_pack("{s:s, s:I, s:s, s:o, s:i, s:o, s:o, s:s, s:o, s:s, s:o, s:I, s:I, s:f}", "node", node, "number", (json_int_t)m->number, "trace_id", trace, "unit", reply_text(r->unit), "pid",
		      (int)m->pid, "from", reply_text(r->from), "to", reply_text(r->to), "strategy", r->portable ? "portable" : strategy_name(r->strategy), "reason", reply_text(m->reason), "outcome",
		      m->outcome ? m->outcome : "", "error", reply_text(m->error), "began_ns", (json_int_t)m->began_ns, "ended_ns", (json_int_t)m->ended_ns, "total_ms",
		      (double)(until_ns - MIN(m->began_ns, until_ns)) / 1e6);
	if (m->has_uid)
		json_object_set_new(o, "uid", json_integer(m->uid));
	add_figures(o, r);
	if (running) {
		json_object_set_new(o, "phase", json_string(r->phase ? r->phase : ""));
		return o;
	}
	json_object_set_new(o, "spans", spans_of(m));
	json_object_set_new(o, "events", events_of(m));
	return o;
}

/* --- others' --- */

enum kind { NUMBER, REAL, TEXT, HEX };

struct member {
	const char *key;
	size_t max; /* bytes of a text, digits of a number in hex */
	enum kind kind;
	bool required;
};

static const struct member move_members[] = {
	{ "node", HELLO_NAME_MAX, TEXT, true }, { "number", 0, NUMBER, true }, { "trace_id", 2 * HISTORY_TRACE_BYTES, HEX, true }, { "unit", 299, TEXT, true }, { "pid", 0, NUMBER, true },
	{ "uid", 0, NUMBER, false }, { "from", 255, TEXT, true }, { "to", 255, TEXT, true }, { "strategy", 31, TEXT, true }, { "reason", REGISTRY_REASON_MAX, TEXT, true },
	{ "outcome", 31, TEXT, true }, { "error", 239, TEXT, true }, { "phase", 31, TEXT, false }, { "began_ns", 0, NUMBER, true }, { "ended_ns", 0, NUMBER, true }, { "total_ms", 0, REAL, true },
	{ "freeze_us", 0, NUMBER, true }, { "stopped_at_ns", 0, NUMBER, true }, { "bytes_sent", 0, NUMBER, true }, { "pages_total", 0, NUMBER, true }, { "pages_sent", 0, NUMBER, true },
	{ "pages_skipped_file", 0, NUMBER, true }, { "pages_skipped_zero", 0, NUMBER, true }, { "pages_faulted", 0, NUMBER, true }, { "rounds", 0, NUMBER, true }, { "attempts", 0, NUMBER, true },
};

static const struct member span_members[] = {
	{ "span_id", 16, HEX, true }, { "parent_span_id", 16, HEX, true }, { "name", 63, TEXT, true }, { "start_ns", 0, NUMBER, true }, { "end_ns", 0, NUMBER, true },
};

static const struct member event_members[] = { { "name", 63, TEXT, true }, { "at_ns", 0, NUMBER, true } };

static bool is_good(const struct member *m, const json_t *v)
{
	const char *text = json_string_value(v);
	size_t len = json_string_length(v);

	switch (m->kind) {
	case NUMBER:
		return json_is_integer(v) && json_integer_value(v) >= 0;
	case REAL:
		return json_is_number(v) && json_number_value(v) >= 0;
	case TEXT:
		return text && len <= m->max && strlen(text) == len;
	case HEX: /* or nothing */
		return text && (!len || len == m->max) && strspn(text, "0123456789abcdef") == len;
	}
	return false;
}

/* NULL: it is none. */
static json_t *check_object(const json_t *said, const struct member *members, size_t n)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n; i++) {
		json_t *v = json_object_get(said, members[i].key);

		if (v ? is_good(&members[i], v) : !members[i].required) {
			if (v)
				json_object_set(o, members[i].key, v);
			continue;
		}
		json_decref(o);
		return NULL;
	}
	return o;
}

/* A list within a move; without one there is none. */
static bool take_list(json_t *move, const json_t *said, const char *key, const struct member *members, size_t n, size_t max)
{
	const json_t *list = json_object_get(said, key), *v;
	json_t *good;
	size_t i;

	if (!list)
		return true;
	if (!json_is_array(list) || json_array_size(list) > max)
		return false;
	good = json_array();
	json_object_set_new(move, key, good);
	json_array_foreach(list, i, v)
		if (json_array_append_new(good, check_object(v, members, n)) < 0)
			return false;
	return true;
}

static json_t *check_move(const json_t *said)
{
	json_t *move = check_object(said, move_members, ARRAY_SIZE(move_members));

	if (move && take_list(move, said, "spans", span_members, ARRAY_SIZE(span_members), SPANS_MAX) && take_list(move, said, "events", event_members, ARRAY_SIZE(event_members), EVENTS_MAX))
		return move;
	json_decref(move);
	return NULL;
}

int history_check(const json_t *said, json_t **ret, struct err *e)
{
	json_t *list, *move;
	const json_t *v;
	size_t i;

	if (!json_is_array(said) || json_array_size(said) > HISTORY_LIST_MAX)
		return err_set(e, -EPROTO, "an answer without a list of at most %u moves", HISTORY_LIST_MAX);
	list = json_array();
	json_array_foreach(said, i, v) {
		move = check_move(v);
		if (!move) {
			json_decref(list);
			return err_set(e, -EPROTO, "move %zu of an answer is none", i);
		}
		json_array_append_new(list, move);
	}
	*ret = list;
	return 0;
}

/* --- all --- */

static int by_beginning(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "began_ns")), y = json_integer_value(json_object_get(*(json_t *const *)b, "began_ns"));

	return (x > y) - (x < y);
}

json_t *history_sorted(const json_t *list, size_t max)
{
	size_t n = json_array_size(list), i;
	cleanup_free json_t **v = calloc(n + 1, sizeof(json_t *));
	json_t *sorted = json_array();

	for (i = 0; v && i < n; i++)
		v[i] = json_array_get(list, i);
	if (v)
		qsort(v, n, sizeof(json_t *), by_beginning);
	for (i = n > max ? n - max : 0; v && i < n; i++)
		json_array_append(sorted, v[i]);
	return sorted;
}
