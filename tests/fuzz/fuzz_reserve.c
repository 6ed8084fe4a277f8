// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_reserve.c - what a node says of a unit that it wants to send */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/reserve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__Reserve *q;

	if (reserve_decode(data, len, &q, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	if (!q->unit[0] || strlen(q->unit) >= 300 || !isfinite(q->run) || q->run < 0 || !isfinite(q->here) || q->mem_mib < 0)
		abort();
	gw__reserve__free_unpacked(q, NULL);
	return 0;
}
