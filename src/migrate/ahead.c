/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ahead.c - the formats of pages that go ahead, and of differences; see ahead.h */
#include "migrate/ahead.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define WORDS (PAGE_SIZE_BYTES / 8)
#define BLOCK 8 /* words that are compared at once */
#define SAME_MAX 2 /* words that have not changed, between two that have, cost no more than a difference of their own */

int ahead_decode(const void *payload, size_t len, uint32_t nprocs, struct ahead *ret, struct err *e)
{
	const uint8_t *at = payload;
	uint64_t before = 0, address;

	if (len < sizeof(ret->head))
		return err_set(e, -EPROTO, "pages that go ahead: %zu bytes", len);
	memcpy(&ret->head, at, sizeof(ret->head));
	len -= sizeof(ret->head);
	if (ret->head.process >= nprocs || !ret->head.npages || len % (sizeof(address) + PAGE_SIZE_BYTES) || len / (sizeof(address) + PAGE_SIZE_BYTES) != ret->head.npages)
		return err_set(e, -EPROTO, "pages that go ahead: process %u, %u pages in %zu bytes", ret->head.process, ret->head.npages, len);
	ret->addresses = at + sizeof(ret->head);
	ret->pages = ret->addresses + ret->head.npages * sizeof(address);
	for (uint32_t i = 0; i < ret->head.npages; i++, before = address) {
		memcpy(&address, ret->addresses + i * sizeof(address), sizeof(address));
		if (address % PAGE_SIZE_BYTES || address <= before)
			return err_set(e, -EPROTO, "pages that go ahead are not in order");
	}
	return 0;
}

static bool same_block(const uint64_t *a, const uint64_t *b)
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
	size_t used = 0;

	for (size_t i = 0; i < WORDS; i++) {
		struct delta d = { .address = address + i * 8 };
		size_t end;

		if (i % BLOCK == 0 && same_block(before + i, now + i)) {
			i += BLOCK - 1;
			continue;
		}
		if (before[i] == now[i])
			continue;
		end = end_of(before, now, i);
		d.len = (uint32_t)((end - i) * 8);
		memcpy(to + used, &d, sizeof(d));
		memcpy(to + used + sizeof(d), now + i, d.len);
		used += sizeof(d) + d.len;
		i = end;
	}
	return used;
}

int delta_next(const uint8_t **at, size_t *left, struct delta *ret, const uint8_t **ret_data, struct err *e)
{
	if (!*left)
		return 0;
	if (*left < sizeof(*ret))
		return err_set(e, -EPROTO, "differences of pages that cannot be read");
	memcpy(ret, *at, sizeof(*ret));
	*left -= sizeof(*ret);
	if (!ret->len || ret->len % 8 || ret->address % 8 || ret->len > *left || ret->len > PAGE_SIZE_BYTES - ret->address % PAGE_SIZE_BYTES)
		return err_set(e, -EPROTO, "differences of pages that cannot be read");
	*ret_data = *at + sizeof(*ret);
	*at = *ret_data + ret->len;
	*left -= ret->len;
	return 1;
}

int ahead_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void ahead_leave_out(uint64_t *addresses, size_t n, uint64_t from, uint64_t to)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (addresses[mid] < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && addresses[lo] < to; lo++)
		addresses[lo] |= AHEAD_LEFT_OUT;
}
