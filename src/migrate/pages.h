/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pages.h - which pages travel when: the source's account of its pages
 *
 * Two kinds of ranges: *lazy* ones (VMA_CONTENT_ANON), whose pages may arrive after the resume, and *eager* ones (modified private file pages,
 * explicit huge pages), whose pages must all be there before it. Memory that mappings share is neither: see image/shared.h. One bit a page says: the
 * destination has this page as it is now (or it travels in a frame that is already under way). Write tracking turns bits off again.
 */
#ifndef GODWIT_MIGRATE_PAGES_H
#define GODWIT_MIGRATE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/abi.h"
#include "base/err.h"
#include "image/vma.h"
#include "kern/pagemap.h"
#include "migrate/agent.h"

struct run_list {
	struct page_run *v;
	size_t n, allocated;
	uint64_t pages; /* of all runs without RUN_ZERO */
};

#define PAGES_RECENT_MAX 128u

/* What the worker knows of a range, beside struct page_range. */
struct page_range_info {
	bool lazy, writable;
};

struct pages {
	pid_t pid;
	int pagemap_fd;
	struct agent *agent;
	struct vma_list *vmas;
	struct page_range *ranges; /* in the scratch: every range with content, sorted */
	uint64_t ranges_address, bitmap_address;
	size_t nranges;
	struct page_range_info *infos; /* one for each range */
	uint64_t *bitmap;          /* in the scratch */
	uint64_t *summary;         /* one bit for GROUP_BITS of the bitmap: some may be on */
	uint64_t npages;
	bool tracking;
	struct range_list lost; /* lazy pages of which the destination has an older version that were armed again by pages_written */
	struct range_list forgotten; /* the destination has lost what it had of these: to be sent again whether written or not */
	struct agent_counters sent; /* what rounds have sent */
	struct run_list recent; /* lazy pages that the last round has sent, while they are at most PAGES_RECENT_MAX */
	uint64_t skipped_file;
	/* what others do in the freeze beside the worker (source_beside.c) */
	struct pagemap_planned planned; /* a part of what is scanned */
	int (*wait_planned)(void *arg, struct err *e);
	void *wait_arg;
	const uint64_t *ahead;     /* pages that are compared, whatever write tracking says; ascending */
	size_t nahead;
	struct stream_frame *frames[2]; /* in the scratch: what is being built and what is being sent */
	uint64_t frames_address[2];
};

int run_list_add(struct run_list *l, uint64_t address, uint64_t npages, uint32_t flags);
void run_list_free(struct run_list *l);

/* Memory that the scratch needs for the account of these mappings. */
size_t pages_arena_bytes(const struct vma_list *l);

/* Starts the account, or starts it anew after the layout has changed (bits of pages in ranges that are still there are kept). */
int pages_layout(struct pages *p, struct vma_list *l, struct err *e);
void pages_free(struct pages *p);

/*
 * The layout changes from `old` to `new`: pages of mappings that the destination will make anew (vma_plan_sync), and those that lay under guards there, are taken off
 * the account. Call it after pages_layout for `new`; the lists must still exist.
 */
int pages_forget_remapped(struct pages *p, const struct vma_list *old, const struct vma_list *new, uint32_t n_files, struct err *e);

/* Registers all ranges for write tracking. Until a page is first looked at by a round or by pages_written it counts as written. */
int pages_track(struct pages *p, struct err *e);
void pages_untrack(struct pages *p);

/*
 * One round: sends every page of the given kinds whose bit is off or that was written since the last call, over the bulk connection by the agent.
 * ret_sent counts pages. The process may run.
 */
#define PAGES_LAZY 1
#define PAGES_EAGER 2
int pages_round(struct pages *p, int kinds, uint64_t *ret_sent, struct err *e);
int pages_barrier(struct pages *p, struct err *e);

/* Lazy pages written since the last call of this or pages_round, at most max; their bits stay off. For finding the working set. */
int pages_written(struct pages *p, uint64_t max, struct run_list *ret, struct err *e);

/*
 * Inside the freeze: pages of which the destination has an older version (bit on, written since): bits are turned off and runs added (RUN_ZERO: the page
 * is gone or zero). Eager pages that were never sent are added too, with PAGES_UNSENT lazy ones as well.
 */
#define PAGES_UNSENT 4
int pages_stale(struct pages *p, int kinds, struct run_list *ret, struct err *e);

/* Plans a part of the scan of lazy pages that pages_stale makes, where there is much to scan; wait_planned is called before it is needed. */
void pages_plan_scan(struct pages *p, struct batch *b);

/*
 * Inside the freeze: eager pages that the destination has, and that are what the file says at the source again, or nothing: the program has given its own version
 * back (madvise(2), MADV_DONTNEED). In a mapping of a file the kernel keeps the mark "not written" of such a page, so that only its absence shows. Bits are turned off.
 */
int pages_gone(struct pages *p, struct run_list *ret_list, struct err *e);
/* pages_stale with PAGES_EAGER, and pages_gone: one look at the page tables for both, where that is possible. */
int pages_settle_eager(struct pages *p, struct run_list *ret_stale, struct run_list *ret_gone, struct err *e);

/* Turns the bits of a run on, or off. */
void pages_mark(struct pages *p, uint64_t address, uint64_t npages);
void pages_unmark(struct pages *p, uint64_t address, uint64_t npages);
bool pages_sent_bit(const struct pages *p, uint64_t address);
bool pages_is_lazy(const struct pages *p, uint64_t address);
/* Whether it is in a range of the account. */
bool pages_has(const struct pages *p, uint64_t address);
/* Whether a page exists at the source; -errno on failure. */
int pages_exists(const struct pages *p, uint64_t address);

/* Puts the account into the header for COMMAND_SERVE; eager ranges are marked as sent. */
void pages_hand_over(struct pages *p, bool push);

/* Counts the pages that exist: all, those that need not travel because they are in files, and lazy ones; these by place too, small gaps closed. */
struct page_count {
	uint64_t total, in_file, lazy;
	struct range_list lazy_ranges;
};
int pages_count(struct pages *p, struct page_count *ret, struct err *e);

#endif
