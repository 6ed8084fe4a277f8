// SPDX-License-Identifier: GPL-2.0-or-later
/* ps_merge.c - see ps_merge.h */
#include "daemon/ps_merge.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "migrate/registry.h"
#include "wire/hello.h"

/* A member of a unit: a text of at most `max` bytes, or with max 0 a number that is not negative. */
static const struct member {
	const char *key;
	size_t max;
	bool required;
} members[] = {
	{ "unit", 299, true }, { "on", HELLO_NAME_MAX, true }, { "pid", 0, true }, { "command", 511, false }, { "home", HELLO_NAME_MAX, false }, { "from", 255, false },
	{ "state", 32, false }, { "strategy", 31, false }, { "reason", REGISTRY_REASON_MAX, false }, { "moves", 0, false }, { "since", 0, false }, { "freeze_us", 0, false },
	{ "stub", 0, false }, { "uid", 0, false }, { "protect_every_ms", 0, false }, { "protect_copies", 0, false }, { "protect_have", 0, false }, { "protect_complete_ms", 0, false }, { "protect_newest_ms", 0, false },
	{ "protect_made", 0, false }, { "protect_late", 0, false }, { "protect_failed", 0, false }, { "protect_freeze_us", 0, false }, { "protect_bytes", 0, false }, { "protect_error", 399, false },
};

static bool is_good(const struct member *m, const json_t *v)
{
	if (!m->max)
		return json_is_integer(v) && json_integer_value(v) >= 0;
	return json_is_string(v) && json_string_length(v) <= m->max && strlen(json_string_value(v)) == json_string_length(v);
}

static json_t *check_unit(const json_t *said)
{
	json_t *unit = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		json_t *v = json_object_get(said, members[i].key);

		if (v ? is_good(&members[i], v) : !members[i].required) {
			if (v)
				json_object_set(unit, members[i].key, v);
			continue;
		}
		json_decref(unit);
		return NULL;
	}
	return unit;
}

int ps_units_check(const json_t *said, json_t **ret, struct err *e)
{
	json_t *list, *unit;
	const json_t *v;
	size_t i;

	if (!json_is_array(said) || json_array_size(said) > PS_UNITS_MAX)
		return err_set(e, -EPROTO, "an answer without a list of at most %d units", PS_UNITS_MAX);
	list = json_array();
	json_array_foreach(said, i, v) {
		unit = check_unit(v);
		if (!unit) {
			json_decref(list);
			return err_set(e, -EPROTO, "unit %zu of an answer is none", i);
		}
		json_array_append_new(list, unit);
	}
	*ret = list;
	return 0;
}

static const char *text_of(const json_t *unit, const char *key)
{
	const char *text = json_string_value(json_object_get(unit, key));

	return text ? text : "";
}

/* Home stands for it: it is elsewhere. */
static bool is_hearsay(const json_t *unit)
{
	return json_object_get(unit, "stub") && !json_object_get(unit, "moves");
}

static json_int_t moves_of(const json_t *unit)
{
	return is_hearsay(unit) ? -1 : json_integer_value(json_object_get(unit, "moves"));
}

/* The one that knows less gives what it alone knows: the number of the stub. */
static void take_stub(json_t *better, const json_t *other)
{
	if (is_hearsay(other))
		json_object_set(better, "stub", json_object_get(other, "stub"));
}

void ps_merge(json_t *by_name, const json_t *list)
{
	json_t *v, *known;
	size_t i;

	json_array_foreach(list, i, v) {
		const char *name = text_of(v, "unit");

		known = json_object_get(by_name, name);
		if (known && moves_of(v) <= moves_of(known)) {
			take_stub(known, v);
			continue;
		}
		if (known)
			take_stub(v, known);
		json_object_set(by_name, name, v);
	}
}

static bool may_see(const json_t *unit, const struct caller *caller)
{
	const json_t *uid = json_object_get(unit, "uid");

	return !caller->limited || (uid && json_integer_value(uid) == (json_int_t)caller->uid);
}

json_t *ps_list(json_t *by_name, const struct caller *caller)
{
	json_t *list = json_array(), *unit;
	const char *name;

	json_object_foreach(by_name, name, unit)
		if (may_see(unit, caller))
			json_array_append(list, unit);
	return list;
}
