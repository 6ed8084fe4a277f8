/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pages_internal.h - what the files of pages share */
#ifndef GODWIT_MIGRATE_PAGES_INTERNAL_H
#define GODWIT_MIGRATE_PAGES_INTERNAL_H

#include "base/util.h"
#include "kern/pagemap.h"
#include "migrate/pages.h"

#define REGISTER_TRIES 16 /* for a region in which the program maps something new again and again */
#define PAGES_FRAMES 32u /* in one half of the buffer of frames */

/*
 * What was written; what of mappings that have been made anew that query does not find; what exists, re-arming the write protection in the same pass; what
 * exists.
 */
extern const struct pagemap_query pages_query_written, pages_query_anew, pages_query_exists_rearm, pages_query_exists;

/* The range that an address is in, or NULL. */
struct page_range *pages_range_find(const struct pages *p, uint64_t address);
void pages_bit_set(struct pages *p, uint64_t bit, bool on);
/* The next page of [address, end) in r whose bit is on; end when there is none. */
uint64_t pages_next_sent(const struct pages *p, const struct page_range *r, uint64_t address, uint64_t end);
/* Scans a range in chunks; what is not registered for tracking is registered first. */
int pages_scan_range(struct pages *p, const struct page_range *r, const struct pagemap_query *query,
		     int (*found)(const struct pagemap_region *, void *), void *arg, struct err *e);

static inline uint64_t pages_bit_of(const struct page_range *r, uint64_t address)
{
	return r->first_bit + (address - r->start) / PAGE_SIZE_BYTES;
}

/* Of a private file mapping only modified pages travel. */
static inline bool pages_travels(const struct page_range_info *info, uint64_t categories)
{
	return info->lazy || !(categories & PAGE_CATEGORY_FILE);
}

#endif
