/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* delta.c - finding what differs between two versions of a page; see delta.h. Compiled for the agent and for the worker. */
#include "delta.h"

#define WORDS (4096 / 8)
#define BLOCK 8 /* words that are compared at once */
#define SAME_MAX 2 /* words that have not changed, between two that have, cost no more than a difference of their own */

static int same_block(const uint64_t *a, const uint64_t *b)
{
	uint64_t differ = 0;

	for (size_t i = 0; i < BLOCK; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

/* The end of a difference that begins at word i. */
static size_t end_of(const uint64_t *before, const uint64_t *now, size_t i)
{
	size_t end = i + 1;

	for (size_t k = end; k < WORDS && k - end <= SAME_MAX; k++)
		if (before[k] != now[k])
			end = k + 1;
	return end;
}

size_t delta_make(const uint64_t *before, const uint64_t *now, uint64_t address, uint8_t *to)
{
	uint64_t *at = (uint64_t *)to;

	for (size_t i = 0; i < WORDS; i++) {
		size_t end;

		if (i % BLOCK == 0 && same_block(before + i, now + i)) {
			i += BLOCK - 1;
			continue;
		}
		if (before[i] == now[i])
			continue;
		end = end_of(before, now, i);
		*(struct delta *)at = (struct delta){ .address = address + i * 8, .len = (uint32_t)((end - i) * 8) };
		at += sizeof(struct delta) / 8;
		for (; i < end; i++)
			*at++ = now[i];
		i = end;
	}
	return (size_t)((uint8_t *)at - to);
}
