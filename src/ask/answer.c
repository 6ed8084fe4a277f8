// SPDX-License-Identifier: LGPL-2.1-or-later
/* answer.c - see answer.h */
#include "ask/answer.h"

#include <string.h>

const char *answer_text(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

json_t *answer_by_name(const json_t *list, const char *key)
{
	json_t *o = json_object(), *one;
	size_t i;

	json_array_foreach(list, i, one)
		json_object_set(o, answer_text(one, key), one);
	return o;
}

bool answer_is_silent(const json_t *silent, const char *node)
{
	const json_t *one;
	size_t i;

	json_array_foreach(silent, i, one)
		if (!strcmp(answer_text(one, "node"), node))
			return true;
	return false;
}
