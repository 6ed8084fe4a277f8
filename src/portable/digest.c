/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* digest.c - 64 bits that tell a damaged state from a sound one: four lanes of multiplications, nothing against someone who means it */
#include <string.h>

#include "portable/state.h"

#define FACTOR 0x9e3779b97f4a7c15ull

static inline uint64_t load(const uint8_t *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof(x));
	return own_order() == 1 ? x : __builtin_bswap64(x);
}

static inline uint64_t mix(uint64_t lane, uint64_t x)
{
	x = (lane ^ x) * FACTOR;
	return x ^ (x >> 29);
}

void digest_begin(struct digest *d)
{
	*d = (struct digest){ .lane = { 1, 2, 3, 4 } };
}

static void blocks(struct digest *d, const uint8_t *p, size_t n)
{
	uint64_t a = d->lane[0], b = d->lane[1], c = d->lane[2], f = d->lane[3];

	for (; n; n--, p += 32) {
		a = mix(a, load(p));
		b = mix(b, load(p + 8));
		c = mix(c, load(p + 16));
		f = mix(f, load(p + 24));
	}
	d->lane[0] = a;
	d->lane[1] = b;
	d->lane[2] = c;
	d->lane[3] = f;
}

void digest_add(struct digest *d, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t have = d->bytes % 32;

	if (!len)
		return;
	d->bytes += len;
	if (have) {
		size_t n = len < 32 - have ? len : 32 - have;

		memcpy(d->rest + have, p, n);
		p += n;
		len -= n;
		if (have + n < 32)
			return;
		blocks(d, d->rest, 1);
	}
	blocks(d, p, len / 32);
	memcpy(d->rest, p + len / 32 * 32, len % 32);
}

uint64_t digest_end(const struct digest *d)
{
	struct digest last = *d;
	size_t have = last.bytes % 32;

	memset(last.rest + have, 0, 32 - have);
	blocks(&last, last.rest, 1);
	return mix(mix(mix(mix(last.bytes, last.lane[0]), last.lane[1]), last.lane[2]), last.lane[3]);
}
