/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ahead.c - the formats of pages that go ahead, and of differences; see ahead.h */
#include "migrate/ahead.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

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
