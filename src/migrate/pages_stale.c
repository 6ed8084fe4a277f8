/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pages_stale.c - the working set, and of which pages the destination has an older version; see pages.h */
#include "migrate/pages_internal.h"

#include <errno.h>

#include "base/util.h"
#include "migrate/ahead.h"

#define HUGE_BYTES (2ull << 20)
#define SHARE_MIN_BYTES (64ull << 20) /* what takes some 15 us */
#define GROUP_GAP_BYTES (2ull << 20) /* what lies between ranges costs a look at its page tables */

struct written_scan {
	struct pages *p;
	const struct page_range *range;
	const struct page_range_info *info;
	struct run_list *list;
	struct range_list alive; /* pages_gone: what exists, and is not in the file */
	uint64_t max;
	uint64_t at;
	bool unsent; /* lazy pages that were never sent, too */
	/* ranges that are scanned together: the next one that may be met, and what is done with each part that is found */
	size_t next, group_end;
	int (*each)(const struct pagemap_region *region, void *arg);
	struct err *e;
};

/* The region has been armed again: that the destination's version of its pages is old must not be forgotten. */
static int note_lost(struct pages *p, uint64_t start, uint64_t end)
{
	while (start < end) {
		const struct page_range *r = pages_range_find(p, start);
		uint64_t stop = r ? MIN(end, r->end) : end;

		for (uint64_t at = r ? pages_next_sent(p, r, start, stop) : stop; at < stop; at = pages_next_sent(p, r, at + PAGE_SIZE_BYTES, stop)) {
			if (range_list_add(&p->lost, at, at + PAGE_SIZE_BYTES) < 0)
				return -ENOMEM;
			pages_bit_set(p, pages_bit_of(r, at), false);
		}
		start = stop;
	}
	return 0;
}

static int add_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	uint64_t n = (region->end - region->start) / PAGE_SIZE_BYTES;
	int ret = note_lost(w->p, region->start, region->end);

	if (ret < 0)
		return ret;
	n = MIN(n, w->max - MIN(w->max, w->list->pages));
	return n ? run_list_add(w->list, region->start, n, 0) : 0;
}

/* Ranges of one kind that are not further apart than gap_bytes, from i on. Returns the end of the group: each scan counts. */
static size_t group_from(const struct pages *p, size_t i, uint64_t gap_bytes)
{
	size_t end = i + 1;

	while (end < p->nranges && p->infos[end].lazy == p->infos[i].lazy && p->ranges[end].start - p->ranges[end - 1].end <= gap_bytes)
		end++;
	return end;
}

/* Those that do not travel with the registers come first after the resume. */
static void push_first(struct pages *p, const struct run_list *l)
{
	struct scratch_header *h = scratch_header(&p->agent->scratch);
	struct page_run *first = l->n ? scratch_alloc(&p->agent->scratch, l->n * sizeof(*first), &h->first) : NULL;

	if (first)
		memcpy(first, l->v, l->n * sizeof(*first));
	h->nfirst = first ? l->n : 0;
}

int pages_written(struct pages *p, uint64_t max, struct run_list *ret_list, struct err *e)
{
	struct written_scan w = { .p = p, .list = ret_list, .max = max, .e = e };
	int ret = 0;

	for (size_t i = 0, end; i < p->nranges && ret == 0; i = end) {
		struct page_range all;

		end = group_from(p, i, 0);
		all = (struct page_range){ .start = p->ranges[i].start, .end = p->ranges[end - 1].end };
		if (p->infos[i].lazy)
			ret = pages_scan_range(p, &all, &pages_query_exists_rearm, add_written, &w, e);
	}
	push_first(p, ret_list);
	return ret;
}

/* Adds [start, end), which holds nothing at the source, where the destination has something. */
static int stale_gone(struct written_scan *w, uint64_t start, uint64_t end)
{
	for (uint64_t at = pages_next_sent(w->p, w->range, start, end); at < end; at = pages_next_sent(w->p, w->range, at + PAGE_SIZE_BYTES, end)) {
		int ret = w->info->lazy ? run_list_add(w->list, at, 1, RUN_ZERO) : 0;

		if (ret < 0)
			return ret;
		pages_bit_set(w->p, pages_bit_of(w->range, at), false);
	}
	return 0;
}

static int stale_existing(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	int ret = stale_gone(w, w->at, region->start);

	w->at = region->end;
	if (!pages_travels(w->info, region->categories))
		return ret;
	if (!w->info->lazy || w->unsent) {
		for (uint64_t at = region->start; w->unsent && at < region->end; at += PAGE_SIZE_BYTES)
			pages_bit_set(w->p, pages_bit_of(w->range, at), false);
		return ret < 0 ? ret : run_list_add(w->list, region->start, (region->end - region->start) / PAGE_SIZE_BYTES, 0);
	}
	for (uint64_t at = pages_next_sent(w->p, w->range, region->start, region->end); at < region->end && ret == 0;
	     at = pages_next_sent(w->p, w->range, at + PAGE_SIZE_BYTES, region->end)) {
		ret = run_list_add(w->list, at, 1, 0);
		pages_bit_set(w->p, pages_bit_of(w->range, at), false);
	}
	return ret;
}

/* What went ahead, and is still there, is compared. */
static bool all_compared(const struct pages *p, const struct pagemap_region *region)
{
	for (uint64_t at = region->start; at < region->end; at += PAGE_SIZE_BYTES)
		if (!p->nahead || !bsearch(&at, p->ahead, p->nahead, sizeof(at), ahead_compare) || !pages_sent_bit(p, at))
			return false;
	return true;
}

static int stale_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	int ret;

	if (all_compared(w->p, region))
		return 0;

	/* Nothing of it was sent: nothing to do. */
	if (w->info->lazy && !w->unsent && pages_next_sent(w->p, w->range, region->start, region->end) == region->end)
		return 0;
	w->at = region->start;
	ret = pagemap_scan_existing(w->p->pagemap_fd, region->start, region->end, &pages_query_exists, stale_existing, w, w->e);
	return ret < 0 ? ret : stale_gone(w, w->at, region->end);
}

/* Eager pages that the destination has lost; lazy ones are off the account already, and come later unless all must come now. */
static int stale_forgotten(struct written_scan *w)
{
	for (size_t i = 0; i < w->p->forgotten.n && (!w->info->lazy || w->unsent); i++) {
		uint64_t start = MAX(w->range->start, w->p->forgotten.v[i].start), end = MIN(w->range->end, w->p->forgotten.v[i].end);
		int ret;

		w->at = start;
		ret = start < end ? pagemap_scan_existing(w->p->pagemap_fd, start, end, &pages_query_exists, stale_existing, w, w->e) : 0;
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int eager_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;

	return pages_travels(w->info, region->categories) ? run_list_add(w->list, region->start, (region->end - region->start) / PAGE_SIZE_BYTES, 0) : 0;
}

/* A region found in a group of ranges: to `each` range its part. Between them may be what is in no account. */
static int split_region(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;

	while (w->next < w->group_end && w->p->ranges[w->next].end <= region->start)
		w->next++;
	for (size_t i = w->next; i < w->group_end && w->p->ranges[i].start < region->end; i++) {
		const struct page_range *r = &w->p->ranges[i];
		struct pagemap_region part = { MAX(region->start, r->start), MIN(region->end, r->end), region->categories };
		int ret;

		w->range = r;
		w->info = &w->p->infos[i];
		ret = w->each(&part, w);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* The part that is planned has been looked at meanwhile. The layout may be another one since. */
static int scan_written(struct written_scan *w, uint64_t start, uint64_t end)
{
	struct pages *p = w->p;
	const struct pagemap_planned *planned = &p->planned;
	uint64_t reached = start;
	int ret;

	if (planned->call && planned->start >= start && planned->end <= end) {
		ret = pagemap_scan(p->pagemap_fd, start, planned->start, &pages_query_written, split_region, w, w->e);
		if (ret == 0)
			ret = p->wait_planned(p->wait_arg, w->e);
		if (ret == 0)
			ret = pagemap_planned_report(planned, split_region, w, &reached);
		if (ret < 0)
			return ret;
	}
	return pagemap_scan(p->pagemap_fd, reached, end, &pages_query_written, split_region, w, w->e);
}

static int stale_group(struct written_scan *w, size_t from, size_t to)
{
	static const struct pagemap_query eager = { .all_of = PAGE_CATEGORY_WRITTEN, .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
						    .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE };
	bool simple = !w->p->infos[from].lazy && !w->p->forgotten.n;
	uint64_t start = w->p->ranges[from].start, end = w->p->ranges[to - 1].end;
	int ret = 0;

	for (size_t i = from; i < to && w->p->forgotten.n && ret == 0; i++) {
		w->range = &w->p->ranges[i];
		w->info = &w->p->infos[i];
		ret = stale_forgotten(w);
	}
	if (ret < 0)
		return ret;
	w->next = from;
	w->group_end = to;
	w->each = simple ? eager_written : stale_written;
	if (simple)
		return pagemap_scan_existing(w->p->pagemap_fd, start, end, &eager, split_region, w, w->e);
	if (w->p->tracking) {
		ret = pagemap_scan(w->p->pagemap_fd, start, end, &pages_query_anew, split_region, w, w->e);
		w->next = from;
	}
	return ret < 0 ? ret : scan_written(w, start, end);
}

void pages_plan_scan(struct pages *p, struct batch *b)
{
	uint64_t start = 0, end = 0, half;

	p->planned = (struct pagemap_planned){ 0 };
	for (size_t i = 0, to; i < p->nranges; i = to) {
		to = group_from(p, i, GROUP_GAP_BYTES);
		if (!p->infos[i].lazy || p->ranges[to - 1].end - p->ranges[i].start <= end - start)
			continue;
		start = p->ranges[i].start;
		end = p->ranges[to - 1].end;
	}
	half = (start + end) / 2 / HUGE_BYTES * HUGE_BYTES;
	if (end - start >= SHARE_MIN_BYTES)
		pagemap_plan_scan(b, scratch_header(&p->agent->scratch)->pagemap_fd, half, end, &pages_query_written, &p->planned);
}

int pages_stale(struct pages *p, int kinds, struct run_list *ret_list, struct err *e)
{
	struct written_scan w = { .p = p, .list = ret_list, .unsent = kinds & PAGES_UNSENT, .e = e };
	int ret = 0;

	for (size_t i = 0, end; i < p->nranges && ret == 0; i = end) {
		end = group_from(p, i, GROUP_GAP_BYTES);
		if (kinds & (p->infos[i].lazy ? PAGES_LAZY : PAGES_EAGER))
			ret = stale_group(&w, i, end);
	}
	return ret;
}

/* --- eager pages that were given back --- */

static int note_alive(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;

	return pages_travels(w->info, region->categories) ? range_list_add(&w->alive, region->start, region->end) : 0;
}

static bool any_sent(const struct pages *p, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (pages_next_sent(p, &p->ranges[i], p->ranges[i].start, p->ranges[i].end) != p->ranges[i].end)
			return true;
	return false;
}

/* The same, and what of it was written to w->list. */
static int note_both(const struct pagemap_region *region, void *arg)
{
	int ret = region->categories & PAGE_CATEGORY_WRITTEN ? eager_written(region, arg) : 0;

	return ret < 0 ? ret : note_alive(region, arg);
}

/* What the destination has of ranges, and is not alive. */
static int add_dead(struct written_scan *w, size_t from, size_t to, struct run_list *ret_list)
{
	size_t k = 0;
	int ret = 0;

	for (size_t i = from; i < to && ret == 0; i++) {
		const struct page_range *r = &w->p->ranges[i];

		for (uint64_t at = pages_next_sent(w->p, r, r->start, r->end); at < r->end && ret == 0; at = pages_next_sent(w->p, r, at + PAGE_SIZE_BYTES, r->end)) {
			while (k < w->alive.n && w->alive.v[k].end <= at)
				k++;
			if (k < w->alive.n && w->alive.v[k].start <= at)
				continue;
			ret = run_list_add(ret_list, at, 1, 0);
			pages_bit_set(w->p, pages_bit_of(r, at), false);
		}
	}
	return ret;
}

static int gone_group(struct written_scan *w, size_t from, size_t to, const struct pagemap_query *query, int (*each)(const struct pagemap_region *region, void *arg))
{
	w->alive.n = 0;
	w->next = from;
	w->group_end = to;
	w->each = each;
	return pagemap_scan_existing(w->p->pagemap_fd, w->p->ranges[from].start, w->p->ranges[to - 1].end, query, split_region, w, w->e);
}

int pages_gone(struct pages *p, struct run_list *ret_list, struct err *e)
{
	struct written_scan w = { .p = p, .e = e };
	int ret = 0;

	for (size_t i = 0, end; i < p->nranges && ret == 0; i = end) {
		end = group_from(p, i, GROUP_GAP_BYTES);
		if (p->infos[i].lazy || !any_sent(p, i, end))
			continue;
		ret = gone_group(&w, i, end, &pages_query_exists, note_alive);
		if (ret == 0)
			ret = add_dead(&w, i, end, ret_list);
	}
	range_list_free(&w.alive);
	return ret;
}

int pages_settle_eager(struct pages *p, struct run_list *ret_stale, struct run_list *ret_gone, struct err *e)
{
	static const struct pagemap_query both = { .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
						   .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE | PAGE_CATEGORY_WRITTEN };
	struct written_scan w = { .p = p, .list = ret_stale, .e = e };
	int ret = 0;

	if (p->forgotten.n) {
		ret = pages_stale(p, PAGES_EAGER, ret_stale, e);
		return ret < 0 ? ret : pages_gone(p, ret_gone, e);
	}
	for (size_t i = 0, end; i < p->nranges && ret == 0; i = end) {
		end = group_from(p, i, GROUP_GAP_BYTES);
		if (p->infos[i].lazy)
			continue;
		if (!any_sent(p, i, end)) {
			ret = stale_group(&w, i, end);
			continue;
		}
		ret = gone_group(&w, i, end, &both, note_both);
		if (ret == 0)
			ret = add_dead(&w, i, end, ret_gone);
	}
	range_list_free(&w.alive);
	return ret;
}
