/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pagemap.h - which pages exist and which were written: the PAGEMAP_SCAN ioctl (Documentation/admin-guide/mm/pagemap.rst)
 *
 * Write tracking needs the ranges registered with a userfaultfd that has WP_ASYNC and WP_UNPOPULATED. On a range that is not registered every page
 * counts as written, except where it has no page table: that is not reported at all (in a registered one it is, as written).
 */
#ifndef GODWIT_KERN_PAGEMAP_H
#define GODWIT_KERN_PAGEMAP_H

#include <stdint.h>

#include "base/err.h"
#include "kern/remote.h"

#define PAGE_CATEGORY_WPALLOWED (1u << 0)
#define PAGE_CATEGORY_WRITTEN (1u << 1)
#define PAGE_CATEGORY_FILE (1u << 2)
#define PAGE_CATEGORY_PRESENT (1u << 3)
#define PAGE_CATEGORY_SWAPPED (1u << 4)
#define PAGE_CATEGORY_PFNZERO (1u << 5)
#define PAGE_CATEGORY_HUGE (1u << 6)

struct pagemap_region {
	uint64_t start, end, categories;
};

struct pagemap_query {
	uint64_t all_of, any_of, inverted, want; /* PAGE_CATEGORY_*: see category_mask and friends in pagemap.rst */
	int rearm;                               /* write-protect again what matches */
};

/* Calls `found` for every region of [start, end) that matches, in order; a negative return of `found` ends the scan and is returned. */
int pagemap_scan(int pagemap_fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
		 int (*found)(const struct pagemap_region *region, void *arg), void *arg, struct err *e);

/* A scan that another task of the process makes, which holds pagemap as `fd`: planned into its list, and read when that has run. */
struct pagemap_planned {
	uint64_t start, end;
	const struct remote_call *call; /* NULL: there is none */
	const void *argument;
	const struct pagemap_region *regions;
};

void pagemap_plan_scan(struct batch *b, int fd, uint64_t start, uint64_t end, const struct pagemap_query *query, struct pagemap_planned *ret);
/* As pagemap_scan. *ret_reached: up to where it has looked; `start` when it could not. */
int pagemap_planned_report(const struct pagemap_planned *planned, int (*found)(const struct pagemap_region *region, void *arg), void *arg, uint64_t *ret_reached);

/*
 * The same for a query whose any_of is PRESENT or SWAPPED, and whose want has SWAPPED. The page tables keep markers ("was write-protected while nothing was there", guards), which PAGEMAP_SCAN
 * calls swapped: those are left out, where the kernel lets them be told from pages in swap.
 */
int pagemap_scan_existing(int pagemap_fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
			  int (*found)(const struct pagemap_region *region, void *arg), void *arg, struct err *e);
/* The swap type that pagemap entries of markers have; 0: it is not known. */
unsigned pagemap_marker_type(void);

/* A userfaultfd in this process's own address space is of no use here: it is made by the agent. These work on a duplicate of it. */
int uffd_enable(int uffd, uint64_t features, struct err *e);
#define UFFD_TRACK 1  /* asynchronous write protection */
#define UFFD_MISSING 2
int uffd_register(int uffd, uint64_t start, uint64_t end, int mode, struct err *e);
int uffd_unregister(int uffd, uint64_t start, uint64_t end, struct err *e);
/* Takes the marks of write protection off registered memory: its pages count as written. */
int uffd_unprotect(int uffd, uint64_t start, uint64_t end, struct err *e);
/* 0, or -EEXIST when the first page is there already. */
int uffd_copy(int uffd, uint64_t to, const void *from, size_t len, struct err *e);

#define UFFD_FEATURES_TRACK ((1ull << 13) | (1ull << 15))                                 /* WP_UNPOPULATED, WP_ASYNC */
#define UFFD_FEATURES_TRACK_SHARED (UFFD_FEATURES_TRACK | 1ull << 2 | 1ull << 6)          /* REMAP, UNMAP */
#define UFFD_FEATURES_PAGER ((1ull << 1) | (1ull << 2) | (1ull << 3) | (1ull << 6)) /* FORK, REMAP, REMOVE, UNMAP */

#endif
