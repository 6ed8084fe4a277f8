/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ahead.h - pages that travel before the freeze although they are being written, and what has changed in them by then
 *
 * The working set is written all the time; but of each page little changes within the milliseconds around the freeze. So its pages go ahead of the go message, the source keeps what it
 * has sent, and the go message has the differences only. Both formats are those of docs/wire.md; pure functions.
 */
#ifndef GODWIT_MIGRATE_AHEAD_H
#define GODWIT_MIGRATE_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#include "agent/delta.h"
#include "base/err.h"

/* The payload of an AHEAD frame: this, the addresses of the pages (u64, ascending), the pages. */
struct ahead_head {
	uint32_t process, npages;
};

/* A decoded one; points into the payload. */
struct ahead {
	struct ahead_head head;
	const uint8_t *addresses, *pages;
};

int ahead_decode(const void *payload, size_t len, uint32_t nprocs, struct ahead *ret, struct err *e);

/* Orders addresses (u64) for qsort(3) and bsearch(3). */
int ahead_compare(const void *a, const void *b);

#define AHEAD_LEFT_OUT 1u /* in the low bits of an address of a page: it is not there any more, and not found by ahead_compare */

/* Marks those of n ascending addresses that lie in [from, to). */
void ahead_leave_out(uint64_t *addresses, size_t n, uint64_t from, uint64_t to);

/* Takes the next difference from *at, of which there are *left bytes; its bytes are at *ret_data. 1, 0 at the end, -EPROTO. */
int delta_next(const uint8_t **at, size_t *left, struct delta *ret, const uint8_t **ret_data, struct err *e);

#endif
