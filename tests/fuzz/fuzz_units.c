// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_units.c - what another node answers when it is asked for its units */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/order_all.h"
#include "daemon/ps_merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	json_t *result = NULL, *list = NULL, *units = json_object(), *all, *unit;
	struct err e = ERR_INIT;
	size_t i;

	if (order_answer_decode((const char *)data, len, &result, &e) < 0 || ps_units_check(json_object_get(result, "units"), &list, &e) < 0) {
		if (!e.message[0])
			abort();
	} else {
		ps_merge(units, list);
		ps_merge(units, list);
		all = ps_list(units, &(struct caller){ 0 });
		if (json_array_size(all) > json_array_size(list))
			abort();
		json_array_foreach(all, i, unit)
			if (!json_is_string(json_object_get(unit, "unit")) || !json_is_string(json_object_get(unit, "on")) || !json_is_integer(json_object_get(unit, "pid")))
				abort();
		json_decref(all);
	}
	json_decref(units);
	json_decref(list);
	json_decref(result);
	return 0;
}
