// SPDX-License-Identifier: LGPL-2.1-or-later
/* list.c - lists of units, nodes and refusals, out of godwitd's answers; whether a unit can move */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"

/* Of n structures of that size, which the caller fills; NULL: no memory. */
static struct list *list_new(json_t *array, size_t size, char **ret_first)
{
	size_t n = json_array_size(array), pointers = sizeof(struct list) + (n + 1) * sizeof(void *);
	struct list *list;

	pointers = (pointers + 15) & ~(size_t)15;
	list = calloc(1, pointers + n * size);
	if (!list)
		return NULL;
	list->texts = json_incref(array);
	*ret_first = (char *)list + pointers;
	for (size_t i = 0; i < n; i++)
		list->items[i] = *ret_first + i * size;
	return list;
}

EXPORT void godwit_free(const void *items)
{
	struct list *list = items ? (struct list *)((uintptr_t)items - offsetof(struct list, items)) : NULL;

	if (!list)
		return;
	json_decref(list->texts);
	free(list);
}

const void *const *units_list(json_t *array)
{
	char *first = NULL;
	struct list *list = list_new(array, sizeof(struct godwit_unit), &first);
	json_t *o = NULL;
	size_t i;

	if (!list)
		return NULL;
	json_array_foreach(array, i, o)
		((struct godwit_unit *)first)[i] = (struct godwit_unit){
			.name = answer_text(o, "unit"), .on = answer_text(o, "on"), .home = answer_text(o, "home"), .command = answer_text(o, "command"), .state = answer_text(o, "state"),
			.reason = answer_text(o, "reason"), .pid = (int)number_of(o, "pid", 0), .moves = (int)number_of(o, "moves", 0), .since = number_of(o, "since", 0),
		};
	return list->items;
}

static double index_of(const json_t *node, const char *key)
{
	const json_t *v = json_object_get(json_object_get(node, "indices"), key);

	return json_is_number(v) ? json_number_value(v) : -1;
}

const void *const *nodes_list(json_t *array)
{
	char *first = NULL;
	struct list *list = list_new(array, sizeof(struct godwit_node), &first);
	json_t *o = NULL;
	size_t i;

	if (!list)
		return NULL;
	json_array_foreach(array, i, o)
		((struct godwit_node *)first)[i] = (struct godwit_node){
			.name = answer_text(o, "name"), .address = answer_text(o, "address"), .state = answer_text(o, "state"), .labels = answer_text(o, "labels"), .error = answer_text(o, "error"),
			.self = json_is_true(json_object_get(o, "self")), .units = (int)number_of(o, "units", -1), .age_ms = number_of(o, "age_ms", -1),
			.cores = index_of(o, "cores"), .load = index_of(o, "r1m"), .mem_mib = index_of(o, "mem"),
		};
	return list->items;
}

const void *const *refusals_list(json_t *array)
{
	char *first = NULL;
	struct list *list = list_new(array, sizeof(struct godwit_refusal), &first);
	json_t *o = NULL;
	size_t i;

	if (!list)
		return NULL;
	json_array_foreach(array, i, o)
		((struct godwit_refusal *)first)[i] = (struct godwit_refusal){ .code = answer_text(o, "code"), .thing = answer_text(o, "thing"), .cause = answer_text(o, "cause"), .way_out = answer_text(o, "way_out") };
	return list->items;
}

/* Asks a question whose answer has a list; returns how long it is. */
static int ask_list(struct godwit *g, json_t *request, const char *key, const void *const *(*make)(json_t *), const void *const **ret, struct godwit_error *e)
{
	const void *const *list;
	json_t *answer = NULL;
	int r = question(g, request, &answer, e);

	if (r < 0)
		return r;
	r = (int)json_array_size(json_object_get(answer, key));
	list = make(json_object_get(answer, key));
	json_decref(answer);
	if (!list)
		return fail(e, -ENOMEM, "failed", "no memory");
	*ret = list;
	return r;
}

EXPORT int godwit_units(struct godwit *g, const struct godwit_unit *const **ret, struct godwit_error *e)
{
	const void *const *list = NULL;
	int r = ask_list(g, json_pack("{s:s}", "verb", "ps"), "units", units_list, &list, e);

	if (r >= 0)
		*ret = (const struct godwit_unit *const *)list;
	return r;
}

EXPORT int godwit_nodes(struct godwit *g, const struct godwit_node *const **ret, struct godwit_error *e)
{
	const void *const *list = NULL;
	int r = ask_list(g, json_pack("{s:s}", "verb", "nodes"), "nodes", nodes_list, &list, e);

	if (r >= 0)
		*ret = (const struct godwit_node *const *)list;
	return r;
}

/* The number that a unit which is here has here: godwitd is asked about processes. */
static int find_here(struct godwit *g, json_t *request, const char *unit, struct godwit_error *e)
{
	json_t *answer = NULL, *one;
	int64_t pid = 0;
	size_t i;
	int r = question(g, json_pack("{s:s, s:b}", "verb", "ps", "here", 1), &answer, e);

	if (r < 0)
		return r;
	json_array_foreach(json_object_get(answer, "units"), i, one)
		if (!strcmp(answer_text(one, "unit"), unit) && !strcmp(answer_text(one, "on"), answer_text(answer, "node")))
			pid = number_of(one, "pid", 0);
	json_decref(answer);
	if (!pid)
		return fail(e, -ENOENT, "unknown-unit", "no such unit is on this host: ask the node where it is, or name a process by its number");
	json_object_del(request, "unit");
	json_object_set_new(request, "pid", json_integer(pid));
	return 0;
}

EXPORT int godwit_check(struct godwit *g, const char *unit, const char *host, const struct godwit_refusal *const **ret, struct godwit_error *e)
{
	json_t *request = json_pack("{s:s, s:s*}", "verb", "check", "host", host);
	const void *const *list = NULL;
	int r = request ? name_unit(request, unit, e) : fail(e, -EINVAL, "bad-request", "the host's name is not UTF-8");

	if (r == 0 && strchr(unit, ':'))
		r = find_here(g, request, unit, e);
	if (r < 0) {
		json_decref(request);
		return r;
	}
	r = ask_list(g, request, "refusals", refusals_list, &list, e);
	if (r >= 0)
		*ret = (const struct godwit_refusal *const *)list;
	return r < 0 ? r : !r;
}
