// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * events.c - what happens, found by asking once a second what there is
 *
 * godwitd has no feed of its own: godwit-api makes its events in the same way. What is different from the time before becomes a queue of objects {kind, unit or node, from, to};
 * units of nodes that have not answered are as they were.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "client/client.h"

#define ROUND_MS 1000u
#define MS 1000000ull

struct godwit_events {
	struct godwit *g;
	json_t *units, *nodes;     /* by name */
	json_t *queue;
	json_t *current;           /* what the event below has its texts from */
	const void *const *units_of, *const *nodes_of;
	struct godwit_event event;
	uint64_t next_ns;          /* when godwitd is asked again */
};

static void push(struct godwit_events *v, enum godwit_event_kind kind, const char *what, json_t *thing, const char *from, const char *to)
{
	json_array_append_new(v->queue, json_pack("{s:i, s:[O], s:s, s:s}", "kind", (int)kind, what, thing, "from", from, "to", to));
}

static bool same(const json_t *a, const json_t *b, const char *const *keys)
{
	for (; *keys; keys++) {
		const json_t *x = json_object_get(a, *keys), *y = json_object_get(b, *keys);

		if (x != y && (!x || !y || !json_equal(x, y)))
			return false;
	}
	return true;
}

static void compare_nodes(struct godwit_events *v, json_t *now)
{
	static const char *const keys[] = { "state", "address", "labels", NULL };
	const char *name;
	json_t *node;

	json_object_foreach(now, name, node) {
		const json_t *was = json_object_get(v->nodes, name);

		if (!was)
			push(v, GODWIT_NODE_APPEARED, "node", node, "", "");
		else if (!same(was, node, keys))
			push(v, GODWIT_NODE_CHANGED, "node", node, "", "");
	}
	json_object_foreach(v->nodes, name, node)
		if (!json_object_get(now, name))
			push(v, GODWIT_NODE_GONE, "node", node, "", "");
}

static void compare_units(struct godwit_events *v, json_t *now, const json_t *silent)
{
	static const char *const keys[] = { "pid", "command", "moves", NULL };
	const char *name;
	json_t *unit;

	json_object_foreach(now, name, unit) {
		const json_t *was = json_object_get(v->units, name);

		if (!was)
			push(v, GODWIT_UNIT_APPEARED, "unit", unit, "", "");
		else if (strcmp(answer_text(was, "on"), answer_text(unit, "on")) != 0)
			push(v, GODWIT_UNIT_MOVED, "unit", unit, answer_text(was, "on"), answer_text(unit, "on"));
		else if (!same(was, unit, keys))
			push(v, GODWIT_UNIT_CHANGED, "unit", unit, "", "");
	}
	json_object_foreach(v->units, name, unit) {
		if (json_object_get(now, name))
			continue;
		if (answer_is_silent(silent, answer_text(unit, "on")))
			json_object_set(now, name, unit);
		else
			push(v, GODWIT_UNIT_ENDED, "unit", unit, "", "");
	}
}

static void set(json_t **where, json_t *value)
{
	json_decref(*where);
	*where = value;
}

/* One round. Nothing has changed when it fails. */
static int look(struct godwit_events *v, struct godwit_error *e)
{
	json_t *nodes = NULL, *units = NULL, *nodes_now, *units_now;
	bool first = !v->nodes;
	int r = question(v->g, json_pack("{s:s}", "verb", "nodes"), &nodes, e);

	if (r == 0)
		r = question(v->g, json_pack("{s:s}", "verb", "ps"), &units, e);
	v->next_ns = clock_ns(CLOCK_MONOTONIC) + ROUND_MS * MS;
	if (r == 0) {
		nodes_now = answer_by_name(json_object_get(nodes, "nodes"), "name");
		units_now = answer_by_name(json_object_get(units, "units"), "unit");
		if (!first) {
			compare_nodes(v, nodes_now);
			compare_units(v, units_now, json_object_get(units, "silent"));
		}
		set(&v->nodes, nodes_now);
		set(&v->units, units_now);
	}
	json_decref(nodes);
	json_decref(units);
	return r;
}

EXPORT int godwit_events_open(struct godwit *g, struct godwit_events **ret, struct godwit_error *e)
{
	struct godwit_events *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return fail(e, -ENOMEM, "failed", "no memory");
	v->g = g;
	v->queue = json_array();
	r = look(v, e);
	if (r < 0)
		godwit_events_close(v);
	else
		*ret = v;
	return r;
}

static void forget(struct godwit_events *v)
{
	godwit_free(v->units_of);
	godwit_free(v->nodes_of);
	v->units_of = v->nodes_of = NULL;
	set(&v->current, NULL);
}

/* The first of the queue becomes the event. */
static int give(struct godwit_events *v, const struct godwit_event **ret, struct godwit_error *e)
{
	json_t *o = json_incref(json_array_get(v->queue, 0)), *unit = json_object_get(o, "unit"), *node = json_object_get(o, "node");

	json_array_remove(v->queue, 0);
	forget(v);
	v->current = o;
	v->units_of = units_list(unit);
	v->nodes_of = nodes_list(node);
	if (!v->units_of || !v->nodes_of)
		return fail(e, -ENOMEM, "failed", "no memory");
	v->event = (struct godwit_event){ (enum godwit_event_kind)number_of(o, "kind", 0), v->units_of[0], v->nodes_of[0], answer_text(o, "from"), answer_text(o, "to") };
	*ret = &v->event;
	return 1;
}

EXPORT int godwit_events_next(struct godwit_events *v, int timeout_ms, const struct godwit_event **ret, struct godwit_error *e)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), until = timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)timeout_ms * MS;
	int r = 0;

	for (; !json_array_size(v->queue); now = clock_ns(CLOCK_MONOTONIC)) {
		uint64_t rest = MIN(v->next_ns, until) > now ? MIN(v->next_ns, until) - now : 0;
		struct timespec pause = { (time_t)(rest / 1000000000), (long)(rest % 1000000000) };

		if (rest)
			nanosleep(&pause, NULL);
		else if (now >= v->next_ns)
			r = look(v, e);
		else
			return 0;
		if (r < 0)
			return r;
	}
	return give(v, ret, e);
}

EXPORT void godwit_events_close(struct godwit_events *v)
{
	if (!v)
		return;
	forget(v);
	json_decref(v->queue);
	json_decref(v->units);
	json_decref(v->nodes);
	free(v);
}
