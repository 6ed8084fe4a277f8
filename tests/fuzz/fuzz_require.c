// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_require.c - requirement strings, and what they say of a node */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cluster/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	cleanup_free char *text = malloc(len + 1);
	struct load a = { { 1, 2, 3 } }, b = { { 3, 2, 1 } };
	struct require_node node = { "n1", "gpu zone=east", &a };
	struct require r;
	struct err e = ERR_INIT;

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = 0;
	if (require_parse(&r, text, &e) < 0)
		return e.message[0] ? 0 : (abort(), 0);
	require_match(&r, &node);
	if (require_compare(&r, &a, &b) != -require_compare(&r, &b, &a))
		abort();
	require_reserve(&r, &a);
	if (load_check(&a, NULL) < 0 && r.usage[0] < 1e14)
		for (int i = 0; i < LOAD_INDICES; i++)
			if (a.v[i] < 0)
				abort();
	return 0;
}
