// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_moves.c - what another node answers when it is asked for its last moves */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/history_json.h"
#include "daemon/order_all.h"

#define SHOWN 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	json_t *result = NULL, *list = NULL, *sorted, *move;
	struct err e = ERR_INIT;
	json_int_t before = 0;
	size_t i;

	if (order_answer_decode((const char *)data, len, &result, &e) < 0 || history_check(json_object_get(result, "moves"), &list, &e) < 0) {
		if (!e.message[0])
			abort();
	} else {
		sorted = history_sorted(list, SHOWN);
		if (json_array_size(sorted) != MIN(json_array_size(list), SHOWN))
			abort();
		json_array_foreach(sorted, i, move) {
			json_int_t began = json_integer_value(json_object_get(move, "began_ns"));

			if (!json_is_string(json_object_get(move, "unit")) || !json_is_number(json_object_get(move, "total_ms")) || began < before)
				abort();
			before = began;
		}
		json_decref(sorted);
	}
	json_decref(list);
	json_decref(result);
	return 0;
}
