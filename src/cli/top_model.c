// SPDX-License-Identifier: GPL-2.0-or-later
/* top_model.c - what godwit top knows, sorted and filtered; see top.h */
#include <string.h>
#include <strings.h>

#include "base/util.h"
#include "cli/top.h"

#define FORGET_NS 10000000000ull

static const struct {
	const char *name, *key;
	bool is_number;
} sorts[TOP_SORTS] = { { "unit", "unit", false }, { "node", "on", false }, { "moves", "moves", true }, { "since", "since", true }, { "command", "command", false } };

const char *top_sort_name(size_t sort)
{
	return sorts[sort].name;
}

/* --- rates --- */

static struct top_rate *rate_for(struct top *t, const char *trace, uint64_t now)
{
	struct top_rate *r = NULL;

	for (size_t i = 0; i < TOP_RATES; i++) {
		if (!strcmp(t->rates[i].trace, trace))
			return &t->rates[i];
		if (!r && (!t->rates[i].trace[0] || now - t->rates[i].seen_ns > FORGET_NS))
			r = &t->rates[i];
	}
	if (r) {
		*r = (struct top_rate){ .ns = now };
		snprintf(r->trace, sizeof(r->trace), "%s", trace);
	}
	return r;
}

static void take_rates(struct top *t, const json_t *moves)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	const json_t *move;
	size_t i;

	json_array_foreach(moves, i, move) {
		struct top_rate *r = rate_for(t, text_of(move, "trace_id"), now);
		double bytes = (double)number_of(move, "bytes_sent");

		if (!r)
			continue;
		if (r->seen_ns && now > r->ns)
			r->per_s = MAX(bytes - r->bytes, 0) * 1e9 / (double)(now - r->ns);
		r->bytes = bytes;
		r->ns = r->seen_ns = now;
	}
}

double top_rate_of(const struct top *t, const json_t *move)
{
	for (size_t i = 0; i < TOP_RATES; i++)
		if (*t->rates[i].trace && !strcmp(t->rates[i].trace, text_of(move, "trace_id")))
			return t->rates[i].per_s;
	return 0;
}

/* --- lists --- */

void top_take(struct top *t, enum top_answer which, const json_t *result)
{
	static const char *const keys[] = { "nodes", "units", "running" };
	json_t *list = json_object_get(result, keys[which]);

	if (!json_is_array(list))
		return;
	json_decref(t->lists[which]);
	t->lists[which] = json_incref(list);
	t->trouble[0] = 0;
	if (which == TOP_NODES)
		snprintf(t->self, sizeof(t->self), "%s", text_of(result, "node"));
	if (which == TOP_MOVES)
		take_rates(t, list);
	top_arrange(t);
}

static size_t sorted_by;

/* The same order each time: names decide where the rest is equal. */
static int compare(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	const char *key = sorts[sorted_by].key;
	int order;

	if (sorts[sorted_by].is_number)
		order = (number_of(x, key) < number_of(y, key)) - (number_of(x, key) > number_of(y, key)); /* the most first */
	else
		order = strverscmp(text_of(x, key), text_of(y, key));
	return order ? order : strverscmp(text_of(x, "unit"), text_of(y, "unit"));
}

static bool passes(const struct top *t, const json_t *unit)
{
	static const char *const keys[] = { "unit", "on", "command", "state", "home" };

	if (!t->filter[0])
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcasestr(text_of(unit, keys[i]), t->filter))
			return true;
	return false;
}

size_t top_index(const json_t *list, const char *key, const char *value)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
		if (!strcmp(text_of(v, key), value))
			return i;
	return SIZE_MAX;
}

/* The cursor in a list that was `before`: where it was, as far as possible. */
static void follow(const json_t *before, const json_t *list, const char *key, char *at, size_t size)
{
	size_t n = json_array_size(list), i = top_index(list, key, at);

	if (i != SIZE_MAX)
		return;
	i = top_index(before, key, at);
	i = i == SIZE_MAX ? 0 : MIN(i, n ? n - 1 : 0);
	snprintf(at, size, "%s", n ? text_of(json_array_get(list, i), key) : "");
}

void top_arrange(struct top *t)
{
	json_t *units = t->lists[TOP_UNITS], *before = t->shown, *unit;
	size_t n = json_array_size(units), count = 0, i;
	cleanup_free json_t **v = calloc(n + 1, sizeof(json_t *));

	t->shown = json_array();
	json_array_foreach(units, i, unit)
		if (v && passes(t, unit))
			v[count++] = unit;
	sorted_by = t->sort;
	if (v)
		qsort(v, count, sizeof(json_t *), compare);
	for (i = 0; i < count; i++)
		json_array_append(t->shown, v[t->reverse ? count - 1 - i : i]);
	follow(before, t->shown, "unit", t->unit, sizeof(t->unit));
	follow(NULL, t->lists[TOP_NODES], "name", t->node, sizeof(t->node));
	json_decref(before);
}

void top_step(struct top *t, long rows)
{
	const json_t *list = t->in_nodes ? t->lists[TOP_NODES] : t->shown;
	const char *key = t->in_nodes ? "name" : "unit";
	char *at = t->in_nodes ? t->node : t->unit;
	long n = (long)json_array_size(list), i = (long)top_index(list, key, at);

	if (!n)
		return;
	i = MIN(MAX(i + rows, 0), n - 1);
	snprintf(at, t->in_nodes ? sizeof(t->node) : sizeof(t->unit), "%s", text_of(json_array_get(list, (size_t)i), key));
}

const json_t *top_unit(const struct top *t)
{
	return json_array_get(t->shown, top_index(t->shown, "unit", t->unit));
}

const json_t *top_node(const struct top *t)
{
	return json_array_get(t->lists[TOP_NODES], top_index(t->lists[TOP_NODES], "name", t->node));
}

double top_index_of(const json_t *node, const char *name)
{
	const json_t *v = json_object_get(json_object_get(node, "indices"), name);

	return json_is_number(v) ? json_number_value(v) : -1;
}

double top_cpu(const json_t *node)
{
	return MIN(top_index_of(node, "ut"), 1.0);
}

double top_memory(const json_t *node)
{
	double free_mib = top_index_of(node, "mem"), all_mib = top_index_of(node, "maxmem");

	return free_mib < 0 || all_mib <= 0 ? -1 : MIN(MAX(1 - free_mib / all_mib, 0), 1);
}

void top_free(struct top *t)
{
	for (size_t i = 0; i < TOP_ANSWERS; i++)
		json_decref(t->lists[i]);
	json_decref(t->shown);
	for (size_t i = 0; i < TOP_ORDERS; i++)
		ask_close(&t->orders[i].ask);
}
