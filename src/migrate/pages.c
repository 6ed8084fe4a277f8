/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pages.c - the account of pages: ranges, one bit a page, write tracking; see pages.h
 *
 * Rounds are in pages_send.c, what is looked at in the freeze in pages_stale.c.
 */
#include "migrate/pages_internal.h"

#include <errno.h>
#include <inttypes.h>

#include "base/util.h"
#include "image/vma_restore.h"
#include "kern/pagemap.h"

#define CHUNK_BYTES (32ull << 20) /* scanned under one hold of the address space's lock */
#define SPANS_START 0x10000ull  /* the lowest address at which programs may map */
#define GROUP_BITS 4096u      /* pages for which one bit of the summary stands */

int run_list_add(struct run_list *l, uint64_t address, uint64_t npages, uint32_t flags)
{
	struct page_run *last = l->n ? &l->v[l->n - 1] : NULL;

	if (!(flags & RUN_ZERO))
		l->pages += npages;
	if (last && last->flags == flags && last->address + last->npages * PAGE_SIZE_BYTES == address && last->npages + npages < UINT32_MAX) {
		last->npages += (uint32_t)npages;
		return 0;
	}
	if (!l->v || l->n == l->allocated) {
		size_t allocated = l->allocated ? l->allocated * 2 : 256;
		struct page_run *grown = realloc(l->v, allocated * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		l->v = grown;
		l->allocated = allocated;
	}
	l->v[l->n++] = (struct page_run){ address, (uint32_t)npages, flags };
	return 0;
}

void run_list_free(struct run_list *l)
{
	free(l->v);
	*l = (struct run_list){ 0 };
}

/* Memory that mappings share travels as the content of its file (image/shared.h), and is tracked apart from the rest. */
static bool is_accounted(const struct vma *v)
{
	return v->content == VMA_CONTENT_ANON || v->content == VMA_CONTENT_PRIVATE;
}

static uint64_t content_pages(const struct vma_list *l)
{
	uint64_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		if (is_accounted(&l->v[i]))
			n += (l->v[i].end - l->v[i].start) / PAGE_SIZE_BYTES;
	return n;
}

size_t pages_arena_bytes(const struct vma_list *l)
{
	/* Twice for layouts that change, with some growth; pages of the arena that are never touched cost nothing. */
	return 8 * (content_pages(l) / 8 + l->n * (sizeof(struct page_range) + 2 * sizeof(struct pager_piece))) + 2 * PAGES_FRAMES * sizeof(struct stream_frame) + (64 << 20);
}

struct page_range *pages_range_find(const struct pages *p, uint64_t address)
{
	size_t lo = 0, hi = p->nranges;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (address < p->ranges[mid].start)
			hi = mid;
		else if (address >= p->ranges[mid].end)
			lo = mid + 1;
		else
			return &p->ranges[mid];
	}
	return NULL;
}

static bool bit_get(const struct pages *p, uint64_t bit)
{
	return p->bitmap[bit / 64] >> (bit % 64) & 1;
}

void pages_bit_set(struct pages *p, uint64_t bit, bool on)
{
	if (on) {
		p->bitmap[bit / 64] |= 1ull << (bit % 64);
		p->summary[bit / GROUP_BITS / 64] |= 1ull << (bit / GROUP_BITS % 64);
	} else {
		p->bitmap[bit / 64] &= ~(1ull << (bit % 64));
	}
}

/* Many at once; the ends bit by bit. */
static void bits_set(struct pages *p, uint64_t bit, uint64_t n)
{
	for (; n && bit % 64; n--)
		pages_bit_set(p, bit++, true);
	memset(&p->bitmap[bit / 64], 0xff, n / 64 * 8);
	for (bit += n / 64 * 64, n %= 64; n; n--)
		pages_bit_set(p, bit++, true);
}

/*
 * The next page of [address, end) in r whose bit is on; end when there is none. The summary keeps huge reservations, of which next to nothing
 * exists, from costing time and memory.
 */
uint64_t pages_next_sent(const struct pages *p, const struct page_range *r, uint64_t address, uint64_t end)
{
	while (address < end) {
		uint64_t bit = pages_bit_of(r, address), word;

		if (!(p->summary[bit / GROUP_BITS / 64] >> (bit / GROUP_BITS % 64) & 1)) {
			address += (GROUP_BITS - bit % GROUP_BITS) * PAGE_SIZE_BYTES;
			continue;
		}
		word = p->bitmap[bit / 64] >> (bit % 64);

		if (word)
			return MIN(end, address + (uint64_t)__builtin_ctzll(word) * PAGE_SIZE_BYTES);
		address += (64 - bit % 64) * PAGE_SIZE_BYTES;
	}
	return end;
}

static void keep_bits(struct pages *p, const struct pages *old)
{
	for (size_t i = 0; i < p->nranges; i++) {
		struct page_range *r = &p->ranges[i];

		for (uint64_t at = r->start; at < r->end;) {
			const struct page_range *o = pages_range_find(old, at);
			uint64_t end;

			if (!o) {
				/* on to the next old range, if it begins inside of r */
				size_t k = 0;

				while (k < old->nranges && old->ranges[k].start <= at)
					k++;
				if (k == old->nranges || old->ranges[k].start >= r->end)
					break;
				at = old->ranges[k].start;
				continue;
			}
			end = MIN(r->end, o->end);
			for (uint64_t page = pages_next_sent(old, o, at, end); page < end; page = pages_next_sent(old, o, page + PAGE_SIZE_BYTES, end))
				pages_bit_set(p, pages_bit_of(r, page), true);
			at = end;
		}
	}
}

int pages_layout(struct pages *p, struct vma_list *l, struct err *e)
{
	struct pages old = *p;
	struct page_range_info *info = calloc(l->n + 1, sizeof(*info));
	uint64_t pages = content_pages(l), bit = 0;
	uint64_t *summary = calloc(pages / GROUP_BITS / 64 + 2, sizeof(*summary));

	if (!info || !summary)
		return err_sys(e, ENOMEM, "account of pages");
	p->vmas = l;
	p->ranges = scratch_alloc(&p->agent->scratch, (l->n + 1) * sizeof(*p->ranges), &p->ranges_address);
	p->bitmap = scratch_alloc(&p->agent->scratch, pages / 8 + 16, &p->bitmap_address);
	if (!p->ranges || !p->bitmap) {
		free(info);
		free(summary);
		*p = old;
		return err_set(e, -ENOMEM, "the account of %" PRIu64 " pages does not fit the scratch (the layout changes too often)", pages);
	}
	p->summary = summary;
	p->nranges = 0;
	for (size_t i = 0; i < l->n; i++) {
		const struct vma *v = &l->v[i];

		if (!is_accounted(v))
			continue;
		info[p->nranges] = (struct page_range_info){ v->content == VMA_CONTENT_ANON, v->prot & 2 };
		p->ranges[p->nranges++] = (struct page_range){ v->start, v->end, bit, v->prot & 1 ? 0 : RANGE_UNREADABLE, 0 };
		bit += (v->end - v->start) / PAGE_SIZE_BYTES;
	}
	p->npages = pages;
	free(p->infos);
	p->infos = info;
	if (old.nranges)
		keep_bits(p, &old);
	free(old.summary);
	return 0;
}

/* Where there is no guard any more: the destination has had nothing under it. */
static int add_unguarded(const struct range_list *old, const struct range_list *new, struct range_list *ret)
{
	int rc = 0;

	for (size_t i = 0; i < old->n && rc == 0; i++) {
		uint64_t at = old->v[i].start;

		for (size_t k = range_list_behind(new, at); rc == 0 && at < old->v[i].end; k++) {
			uint64_t end = k < new->n ? MIN(new->v[k].start, old->v[i].end) : old->v[i].end;

			rc = range_list_add(ret, at, end);
			at = k < new->n ? new->v[k].end : end;
		}
	}
	return rc;
}

int pages_forget_remapped(struct pages *p, const struct vma_list *old, const struct vma_list *new, uint32_t n_files, struct err *e)
{
	cleanup_free int *fds = calloc(n_files + 1, sizeof(*fds));
	struct range_list mapped = { 0 };
	int ret;

	if (!fds)
		return err_sys(e, ENOMEM, "comparing layouts");
	/* The very plan that the destination will make, for what it says of new mappings; it is not run. */
	ret = vma_plan_sync(p->agent->batch, old, new, fds, n_files, &mapped, e);
	batch_reset(p->agent->batch);
	if (ret == 0 && add_unguarded(&old->guards, &new->guards, &mapped) < 0)
		ret = err_sys(e, ENOMEM, "comparing layouts");
	for (size_t i = 0; i < mapped.n && ret == 0; i++) {
		for (size_t k = 0; k < p->nranges; k++) {
			const struct page_range *r = &p->ranges[k];
			uint64_t start = MAX(r->start, mapped.v[i].start), end = MIN(r->end, mapped.v[i].end);

			for (uint64_t at = pages_next_sent(p, r, start, end); at < end; at = pages_next_sent(p, r, at + PAGE_SIZE_BYTES, end))
				pages_bit_set(p, pages_bit_of(r, at), false);
		}
		if (range_list_add(&p->forgotten, mapped.v[i].start, mapped.v[i].end) < 0)
			ret = err_sys(e, ENOMEM, "comparing layouts");
	}
	range_list_free(&mapped);
	return ret;
}

void pages_free(struct pages *p)
{
	range_list_free(&p->forgotten);
	range_list_free(&p->lost);
	run_list_free(&p->recent);
	free(p->summary);
	p->summary = NULL;
	free(p->infos);
	p->infos = NULL;
	close_fdp(&p->pagemap_fd);
}

const struct pagemap_query pages_query_written = { .all_of = PAGE_CATEGORY_WRITTEN, .want = PAGE_CATEGORY_WRITTEN };
/*
 * A mapping that has been made anew in the place of another is not registered for tracking. What lies in it counts as written, but where it has not even page
 * tables, the kernel reports nothing, although what was there before is gone. Mappings that are registered are passed over as a whole.
 */
const struct pagemap_query pages_query_anew = { .all_of = PAGE_CATEGORY_WPALLOWED | PAGE_CATEGORY_WRITTEN, .inverted = PAGE_CATEGORY_WPALLOWED | PAGE_CATEGORY_WRITTEN,
						.want = PAGE_CATEGORY_PRESENT };
/*
 * Write-protects again only pages that exist. (Protecting what is not there leaves markers in the page tables, which look like swapped pages.)
 */
const struct pagemap_query pages_query_exists_rearm = { .all_of = PAGE_CATEGORY_WRITTEN, .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
							 .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE | PAGE_CATEGORY_PFNZERO,
							 .rearm = 1 };
const struct pagemap_query pages_query_exists = { .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
						   .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE | PAGE_CATEGORY_PFNZERO };

static uint64_t chunk_end(const struct page_range *r, uint64_t at)
{
	uint64_t chunk = MAX(CHUNK_BYTES, (r->end - r->start) / 1024 & ~(CHUNK_BYTES - 1));

	return MIN(r->end, at + chunk);
}

/* --- write tracking --- */

/* The program may have unmapped all of it meanwhile: then there is nothing to track. */
static int track_range(struct pages *p, uint64_t start, uint64_t end, struct err *e)
{
	int ret = uffd_register(p->agent->uffd, start, end, UFFD_TRACK, NULL);

	return ret == 0 || ret == -EINVAL ? 0 : err_sys(e, ret, "tracking writes to %#" PRIx64 "-%#" PRIx64, start, end);
}

/*
 * The kernel splits a mapping of which only a part is registered, and then the program can no longer mremap(2) it as a whole. As the program goes on mapping
 * while this worker looks, ranges are registered together with the free addresses between them: a span ends only where something lies that is not tracked, or
 * shared: that is registered by itself, so that a mapping made anew in its place is noticed, with the free addresses behind it, into which it may grow. So
 * are huge pages, which do not grow: the kernel takes no span whose first mapping is of them but begins or ends within what would be a huge page.
 */
static int each_span(struct pages *p, int (*f)(struct pages *p, uint64_t start, uint64_t end, struct err *e), struct err *e)
{
	const struct scratch *scratch = &p->agent->scratch;
	uint64_t start = SPANS_START;
	bool below = true; /* the scratch is still to come */

	for (size_t i = 0; i <= p->vmas->n; i++) {
		const struct vma *v = i < p->vmas->n ? &p->vmas->v[i] : NULL;
		int ret;

		if (below && (!v || v->start > scratch->base)) {
			below = false;
			ret = start < scratch->base ? f(p, start, scratch->base, e) : 0;
			if (ret < 0)
				return ret;
			start = scratch->base + scratch->size;
		}
		if (v && v->kind != VMA_HUGE && is_accounted(v))
			continue;
		ret = start < (v ? v->start : VMA_TASK_SIZE) ? f(p, start, v ? v->start : VMA_TASK_SIZE, e) : 0;
		if (ret == 0 && v && is_accounted(v))
			ret = f(p, v->start, v->end, e);
		if (ret < 0)
			return ret;
		start = !v ? start : v->content != VMA_CONTENT_SHARED ? v->end : i + 1 < p->vmas->n ? v[1].start : VMA_TASK_SIZE;
	}
	return 0;
}

static int track_span(struct pages *p, uint64_t start, uint64_t end, struct err *e)
{
	int ret = uffd_register(p->agent->uffd, start, end, UFFD_TRACK, NULL);

	/* Nothing is mapped there, or something that cannot be tracked has been since: what is known, one by one. */
	for (size_t i = 0; i < p->nranges && ret < 0; i++) {
		const struct page_range *r = &p->ranges[i];
		int code = r->start < end && r->end > start ? track_range(p, r->start, r->end, e) : 0;

		if (code < 0)
			return code;
	}
	return 0;
}

/*
 * A scan over a range in chunks; a range (or a part of one) that is not registered for tracking is registered first. Where the program maps anew quicker than
 * that, the rest of the chunk is left: it stays written.
 */
int pages_scan_range(struct pages *p, const struct page_range *r, const struct pagemap_query *query,
		      int (*found)(const struct pagemap_region *, void *), void *arg, struct err *e)
{
	for (uint64_t at = r->start; at < r->end; at = chunk_end(r, at)) {
		int ret = pagemap_scan(p->pagemap_fd, at, chunk_end(r, at), query, found, arg, e);

		for (int tries = 0; ret == -EPERM && query->rearm && tries < REGISTER_TRIES; tries++) {
			ret = pages_track(p, e);
			if (ret == 0)
				ret = pagemap_scan(p->pagemap_fd, at, chunk_end(r, at), query, found, arg, e);
		}
		if (ret < 0 && !(ret == -EPERM && query->rearm))
			return ret;
	}
	return 0;
}

/*
 * Where mremap puts what it moved back to its old place, the kernel joins it with the mappings around, and none of them is registered any more, but their marks stay in the
 * page tables: what is written from then on looks as if it had not been, for good (tests/facts/pagemap_scan.c). So such pages are found before they are registered again,
 * and lose their marks.
 */
static const struct pagemap_query query_marked = { .all_of = PAGE_CATEGORY_WPALLOWED | PAGE_CATEGORY_WRITTEN, .inverted = PAGE_CATEGORY_WPALLOWED | PAGE_CATEGORY_WRITTEN,
						   .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED, .want = PAGE_CATEGORY_PRESENT };

static int note_marked(const struct pagemap_region *region, void *arg)
{
	return range_list_add(arg, region->start, region->end);
}

static void unmark(const struct pages *p, const struct range_list *marked)
{
	for (size_t i = 0; i < marked->n; i++) {
		if (uffd_unprotect(p->agent->uffd, marked->v[i].start, marked->v[i].end, NULL) == 0)
			continue;
		/* What has been mapped anew meanwhile has no marks. */
		for (uint64_t at = marked->v[i].start; at < marked->v[i].end; at += PAGE_SIZE_BYTES)
			uffd_unprotect(p->agent->uffd, at, at + PAGE_SIZE_BYTES, NULL);
	}
}

int pages_track(struct pages *p, struct err *e)
{
	struct range_list marked = { 0 };
	int ret = 0;

	for (size_t i = 0; p->tracking && i < p->nranges && ret == 0; i++)
		ret = pagemap_scan(p->pagemap_fd, p->ranges[i].start, p->ranges[i].end, &query_marked, note_marked, &marked, e);
	if (ret == 0)
		ret = each_span(p, track_span, e);
	if (ret == 0)
		unmark(p, &marked);
	range_list_free(&marked);
	p->tracking = ret == 0;
	return ret;
}

static int untrack_span(struct pages *p, uint64_t start, uint64_t end, struct err *e)
{
	(void)e;
	if (uffd_unregister(p->agent->uffd, start, end, NULL) == 0)
		return 0;
	for (size_t i = 0; i < p->nranges; i++)
		if (p->ranges[i].start < end && p->ranges[i].end > start)
			uffd_unregister(p->agent->uffd, p->ranges[i].start, p->ranges[i].end, NULL);
	return 0;
}

void pages_untrack(struct pages *p)
{
	if (p->tracking)
		each_span(p, untrack_span, NULL);
	for (size_t i = 0; p->vmas && i < p->vmas->n; i++)
		if (p->vmas->v[i].content == VMA_CONTENT_SHARED)
			uffd_unregister(p->agent->uffd, p->vmas->v[i].start, p->vmas->v[i].end, NULL);
	p->tracking = false;
}

static void set_bits(struct pages *p, uint64_t address, uint64_t npages, bool on)
{
	for (; npages; npages--, address += PAGE_SIZE_BYTES) {
		const struct page_range *r = pages_range_find(p, address);

		if (r)
			pages_bit_set(p, pages_bit_of(r, address), on);
	}
}

void pages_mark(struct pages *p, uint64_t address, uint64_t npages)
{
	set_bits(p, address, npages, true);
}

void pages_unmark(struct pages *p, uint64_t address, uint64_t npages)
{
	set_bits(p, address, npages, false);
}

bool pages_sent_bit(const struct pages *p, uint64_t address)
{
	const struct page_range *r = pages_range_find(p, address);

	return r && bit_get(p, pages_bit_of(r, address));
}

bool pages_is_lazy(const struct pages *p, uint64_t address)
{
	const struct page_range *r = pages_range_find(p, address);

	return r && p->infos[r - p->ranges].lazy;
}

bool pages_has(const struct pages *p, uint64_t address)
{
	return pages_range_find(p, address) != NULL;
}

static int count_region(const struct pagemap_region *region, void *arg)
{
	*(uint64_t *)arg += (region->end - region->start) / PAGE_SIZE_BYTES;
	return 0;
}

int pages_exists(const struct pages *p, uint64_t address)
{
	uint64_t n = 0;
	int ret = pagemap_scan_existing(p->pagemap_fd, address, address + PAGE_SIZE_BYTES, &pages_query_exists, count_region, &n, NULL);

	return ret < 0 ? ret : n > 0;
}

void pages_hand_over(struct pages *p, bool push)
{
	struct scratch_header *h = scratch_header(&p->agent->scratch);

	for (size_t i = 0; i < p->nranges; i++)
		if (!p->infos[i].lazy)
			bits_set(p, p->ranges[i].first_bit, (p->ranges[i].end - p->ranges[i].start) / PAGE_SIZE_BYTES);
	h->ranges = p->ranges_address;
	h->nranges = p->nranges;
	h->bitmap = p->bitmap_address;
	h->push = push;
	h->marker_type = pagemap_marker_type();
}

struct lazy_count {
	struct page_count *count;
	uint64_t gap_bytes;
};

static int count_lazy(const struct pagemap_region *region, void *arg)
{
	struct lazy_count *l = arg;
	struct range_list *r = &l->count->lazy_ranges;

	l->count->lazy += (region->end - region->start) / PAGE_SIZE_BYTES;
	if (r->n && region->start - r->v[r->n - 1].end <= l->gap_bytes) {
		r->v[r->n - 1].end = region->end;
		return 0;
	}
	return range_list_add(r, region->start, region->end);
}

int pages_count(struct pages *p, struct page_count *ret, struct err *e)
{
	static const struct pagemap_query file = { .all_of = PAGE_CATEGORY_FILE, .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED, .want = PAGE_CATEGORY_FILE };
	struct lazy_count lazy = { ret, 16 * PAGE_SIZE_BYTES };

	*ret = (struct page_count){ 0 };
	for (size_t i = 0; i < p->vmas->n; i++) {
		const struct vma *v = &p->vmas->v[i];
		int code;

		if (vma_is_kernels(v))
			continue;
		if (v->content == VMA_CONTENT_ANON) {
			code = pagemap_scan_existing(p->pagemap_fd, v->start, v->end, &pages_query_exists, count_lazy, &lazy, e);
			if (code < 0)
				return code;
			continue;
		}
		code = pagemap_scan_existing(p->pagemap_fd, v->start, v->end, &pages_query_exists, count_region, &ret->total, e);
		if (code == 0 && v->content != VMA_CONTENT_SHARED)
			code = pagemap_scan(p->pagemap_fd, v->start, v->end, &file, count_region, &ret->in_file, e);
		if (code < 0)
			return code;
	}
	ret->total += ret->lazy;
	return 0;
}
