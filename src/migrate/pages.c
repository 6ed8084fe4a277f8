/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pages.c - which pages travel when; see pages.h
 *
 * A round is two scans: a fast one for what was written, and for every region that it finds a precise one for what exists there, which re-arms the write
 * protection in the same pass, before the pages are read. Frames are built in one half of a buffer in the scratch while the agent sends the other half.
 */
#include "migrate/pages.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/vma_restore.h"
#include "kern/pagemap.h"

#define FRAMES 32u             /* in one half of the buffer */
#define CHUNK_BYTES (32ull << 20) /* scanned under one hold of the address space's lock */
#define PROBE 256              /* pages looked at for zeros in one call */
#define PROBE_BYTES 64
#define REGISTER_TRIES 16    /* for a region in which the program maps something new again and again */
#define SPANS_START 0x10000ull  /* the lowest address at which programs may map */
#define GROUP_BITS 4096u      /* pages for which one bit of the summary stands */

/* What the worker knows of a range, beside struct page_range. */
struct range_info {
	bool lazy, writable, shared;
};

static struct range_info *infos; /* of the one migration that this process does, as many as ranges */

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

static uint64_t content_pages(const struct vma_list *l)
{
	uint64_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].content != VMA_CONTENT_NONE)
			n += (l->v[i].end - l->v[i].start) / PAGE_SIZE_BYTES;
	return n;
}

size_t pages_arena_bytes(const struct vma_list *l)
{
	/* Twice for layouts that change, with some growth; pages of the arena that are never touched cost nothing. */
	return 8 * (content_pages(l) / 8 + l->n * (sizeof(struct page_range) + 2 * sizeof(struct pager_piece))) + 2 * FRAMES * sizeof(struct stream_frame) + (64 << 20);
}

static struct page_range *range_find(const struct pages *p, uint64_t address)
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

static void bit_set(struct pages *p, uint64_t bit, bool on)
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
		bit_set(p, bit++, true);
	memset(&p->bitmap[bit / 64], 0xff, n / 64 * 8);
	for (bit += n / 64 * 64, n %= 64; n; n--)
		bit_set(p, bit++, true);
}

static uint64_t bit_of(const struct page_range *r, uint64_t address)
{
	return r->first_bit + (address - r->start) / PAGE_SIZE_BYTES;
}

/*
 * The next page of [address, end) in r whose bit is on; end when there is none. The summary keeps huge reservations, of which next to nothing
 * exists, from costing time and memory.
 */
static uint64_t next_sent(const struct pages *p, const struct page_range *r, uint64_t address, uint64_t end)
{
	while (address < end) {
		uint64_t bit = bit_of(r, address), word;

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
			const struct page_range *o = range_find(old, at);
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
			for (uint64_t page = next_sent(old, o, at, end); page < end; page = next_sent(old, o, page + PAGE_SIZE_BYTES, end))
				bit_set(p, bit_of(r, page), true);
			at = end;
		}
	}
}

int pages_layout(struct pages *p, struct vma_list *l, struct err *e)
{
	struct pages old = *p;
	struct range_info *info = calloc(l->n + 1, sizeof(*info));
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

		if (v->content == VMA_CONTENT_NONE)
			continue;
		info[p->nranges] = (struct range_info){ v->content == VMA_CONTENT_ANON, v->prot & 2, v->content == VMA_CONTENT_SHARED };
		p->ranges[p->nranges++] = (struct page_range){ v->start, v->end, bit, v->prot & 1 ? 0 : RANGE_UNREADABLE, 0 };
		bit += (v->end - v->start) / PAGE_SIZE_BYTES;
	}
	p->npages = pages;
	free(infos);
	infos = info;
	if (old.nranges)
		keep_bits(p, &old);
	free(old.summary);
	return 0;
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
	for (size_t i = 0; i < mapped.n && ret == 0; i++) {
		for (size_t k = 0; k < p->nranges; k++) {
			const struct page_range *r = &p->ranges[k];
			uint64_t start = MAX(r->start, mapped.v[i].start), end = MIN(r->end, mapped.v[i].end);

			for (uint64_t at = next_sent(p, r, start, end); at < end; at = next_sent(p, r, at + PAGE_SIZE_BYTES, end))
				bit_set(p, bit_of(r, at), false);
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
	free(p->summary);
	p->summary = NULL;
	free(infos);
	infos = NULL;
	close_fdp(&p->pagemap_fd);
}

static const struct pagemap_query query_written = { .all_of = PAGE_CATEGORY_WRITTEN, .want = PAGE_CATEGORY_WRITTEN };
/*
 * Write-protects again only pages that exist. (Protecting what is not there leaves markers in the page tables, which look like swapped pages.)
 */
static const struct pagemap_query query_exists_rearm = { .all_of = PAGE_CATEGORY_WRITTEN, .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
							 .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE | PAGE_CATEGORY_PFNZERO,
							 .rearm = 1 };
static const struct pagemap_query query_exists = { .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
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
 * while this worker looks, ranges are registered together with the free addresses between them: a span ends only where something lies that is not tracked.
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
		if (v && v->content != VMA_CONTENT_NONE)
			continue;
		ret = start < (v ? v->start : VMA_TASK_SIZE) ? f(p, start, v ? v->start : VMA_TASK_SIZE, e) : 0;
		if (ret < 0)
			return ret;
		start = v ? v->end : start;
	}
	return 0;
}

static int track_span(struct pages *p, uint64_t start, uint64_t end, struct err *e)
{
	int ret = uffd_register(p->agent->uffd, start, end, UFFD_TRACK, NULL);

	if (ret == 0 || ret == -EINVAL)
		ret = 0;
	/* Something that cannot be tracked has been mapped there since: what is known, one by one. */
	for (size_t i = 0; i < p->nranges && ret < 0; i++) {
		const struct page_range *r = &p->ranges[i];
		int code = r->start < end && r->end > start ? track_range(p, r->start, r->end, e) : 0;

		if (code < 0)
			return code;
	}
	return 0;
}

/* A scan over a range in chunks; a range (or a part of one) that is not registered for tracking is registered first. */
static int scan_range(struct pages *p, const struct page_range *r, const struct pagemap_query *query,
		      int (*found)(const struct pagemap_region *, void *), void *arg, struct err *e)
{
	for (uint64_t at = r->start; at < r->end; at = chunk_end(r, at)) {
		int ret = pagemap_scan(p->pagemap_fd, at, chunk_end(r, at), query, found, arg, e);

		if (ret == -EPERM && query->rearm) {
			ret = pages_track(p, e);
			if (ret == 0)
				ret = pagemap_scan(p->pagemap_fd, at, chunk_end(r, at), query, found, arg, e);
		}
		if (ret < 0)
			return ret;
	}
	return 0;
}

int pages_track(struct pages *p, struct err *e)
{
	int ret = each_span(p, track_span, e);

	p->tracking = ret == 0;
	return ret;
}

static int untrack_span(struct pages *p, uint64_t start, uint64_t end, struct err *e)
{
	(void)e;
	uffd_unregister(p->agent->uffd, start, end, NULL);
	return 0;
}

void pages_untrack(struct pages *p)
{
	if (p->tracking)
		each_span(p, untrack_span, NULL);
	p->tracking = false;
}

/* --- sending --- */

struct sender {
	struct pages *p;
	const struct page_range *range;
	const struct range_info *info;
	struct stream_frame *half[2];
	uint64_t half_address[2];
	unsigned which, nframes; /* frames begun in this half */
	bool busy;               /* the agent sends the other half */
	uint64_t sent;
	struct err *e;
};

static int sender_start(struct sender *s, struct pages *p, struct err *e)
{
	*s = (struct sender){ .p = p, .e = e };
	for (int i = 0; i < 2; i++) {
		if (!p->frames[i])
			p->frames[i] = scratch_alloc(&p->agent->scratch, FRAMES * sizeof(struct stream_frame), &p->frames_address[i]);
		if (!p->frames[i])
			return err_set(e, -ENOMEM, "no room for frames in the scratch");
		s->half[i] = p->frames[i];
		s->half_address[i] = p->frames_address[i];
	}
	return 0;
}

static int sender_wait(struct sender *s)
{
	int ret;

	if (!s->busy)
		return 0;
	s->busy = false;
	ret = task_wait(&s->p->agent->task, -1, s->e);
	if (ret == 0 && scratch_slot(&s->p->agent->scratch, 0)->result < 0)
		ret = err_sys(s->e, (int)scratch_slot(&s->p->agent->scratch, 0)->result, "sending pages");
	return ret;
}

/* Gives the frames built so far to the agent. */
static int sender_flush(struct sender *s)
{
	struct scratch_header *h = scratch_header(&s->p->agent->scratch);
	int ret = sender_wait(s);

	if (ret < 0 || !s->nframes)
		return ret;
	for (unsigned i = 0; i < s->nframes; i++) {
		const struct stream_frame *f = &s->half[s->which][i];

		s->p->sent.bytes_sent += sizeof(f->frame) + f->frame.nruns * sizeof(f->runs[0]) + f->frame.npages * PAGE_SIZE_BYTES;
	}
	h->frames = s->half_address[s->which];
	h->nframes = s->nframes;
	task_command(&s->p->agent->task, COMMAND_SEND);
	ret = task_wake(&s->p->agent->task, s->e);
	s->busy = ret == 0;
	s->which ^= 1;
	s->nframes = 0;
	return ret;
}

static int sender_add(struct sender *s, uint64_t address, uint32_t npages, uint32_t flags)
{
	while (npages) {
		struct stream_frame *f = s->nframes ? &s->half[s->which][s->nframes - 1] : NULL;
		uint32_t take = npages;
		struct page_run *last;

		if (!f || f->frame.nruns == STREAM_RUNS_MAX || (!(flags & RUN_ZERO) && f->frame.npages == STREAM_PAGES_MAX)) {
			int ret = s->nframes == FRAMES ? sender_flush(s) : 0;

			if (ret < 0)
				return ret;
			f = &s->half[s->which][s->nframes++];
			f->frame = (struct page_frame){ STREAM_MAGIC, STREAM_PAGES, 0, 0 };
		}
		if (!(flags & RUN_ZERO)) {
			take = MIN(take, STREAM_PAGES_MAX - f->frame.npages);
			f->frame.npages += take;
			s->p->sent.pages_sent += take;
		} else {
			s->p->sent.pages_zero += take;
		}
		last = f->frame.nruns ? &f->runs[f->frame.nruns - 1] : NULL;
		if (last && last->flags == flags && last->address + last->npages * PAGE_SIZE_BYTES == address)
			last->npages += take;
		else
			f->runs[f->frame.nruns++] = (struct page_run){ address, take, flags };
		address += take * PAGE_SIZE_BYTES;
		npages -= take;
		s->sent += take;
	}
	return 0;
}

static bool all_zero(const uint64_t *p, size_t words)
{
	for (size_t i = 0; i < words; i++)
		if (p[i])
			return false;
	return true;
}

/* Which of n pages (n <= PROBE) hold only zeros: a look at their beginnings, and at the whole of those that begin with zeros. */
static void probe_zero(pid_t pid, uint64_t address, unsigned n, bool *ret_zero)
{
	static uint64_t head[PROBE][PROBE_BYTES / 8], page[512];
	static struct iovec remote[PROBE];
	struct iovec local = { head, n * PROBE_BYTES };

	for (unsigned i = 0; i < n; i++)
		remote[i] = (struct iovec){ (void *)(address + i * PAGE_SIZE_BYTES), PROBE_BYTES };
	memset(ret_zero, 0, n * sizeof(*ret_zero));
	if (process_vm_readv(pid, &local, 1, remote, n, 0) != (ssize_t)n * PROBE_BYTES)
		return;
	for (unsigned i = 0; i < n; i++) {
		struct iovec whole = { page, sizeof(page) }, at = { (void *)(address + i * PAGE_SIZE_BYTES), sizeof(page) };

		if (all_zero(head[i], PROBE_BYTES / 8) && process_vm_readv(pid, &whole, 1, &at, 1, 0) == sizeof(page))
			ret_zero[i] = all_zero(page, 512);
	}
}

static int send_existing(struct sender *s, const struct pagemap_region *region)
{
	uint32_t place = s->info->lazy && s->info->writable ? RUN_IN_PLACE : 0;
	bool zero[PROBE];
	int ret = 0;

	for (uint64_t at = region->start; at < region->end && ret == 0;) {
		unsigned n = (unsigned)MIN((region->end - at) / PAGE_SIZE_BYTES, (uint64_t)PROBE);

		if (region->categories & PAGE_CATEGORY_PFNZERO)
			memset(zero, 1, n);
		else if (s->info->lazy)
			probe_zero(s->p->pid, at, n, zero);
		else
			memset(zero, 0, n);
		for (unsigned i = 0, k; i < n && ret == 0; i = k) {
			for (k = i + 1; k < n && zero[k] == zero[i]; k++)
				;
			if (!zero[i] || s->info->lazy)
				ret = sender_add(s, at + i * PAGE_SIZE_BYTES, k - i, zero[i] ? RUN_ZERO : place);
		}
		at += n * PAGE_SIZE_BYTES;
	}
	pages_mark(s->p, region->start, (region->end - region->start) / PAGE_SIZE_BYTES);
	return ret;
}

/* Pages that were sent and are gone now: the destination drops them. */
static int send_gone(struct sender *s, uint64_t start, uint64_t end)
{
	if (!s->info->lazy)
		return 0;
	for (uint64_t at = next_sent(s->p, s->range, start, end); at < end; at = next_sent(s->p, s->range, at + PAGE_SIZE_BYTES, end)) {
		int ret = sender_add(s, at, 1, RUN_ZERO);

		if (ret < 0)
			return ret;
	}
	return 0;
}

struct exists_scan {
	struct sender *s;
	uint64_t at; /* up to here everything has been treated */
};

static bool travels(const struct range_info *info, uint64_t categories)
{
	/* Of a private file mapping only modified pages; of memory shared with itself all. */
	return info->lazy || info->shared || !(categories & PAGE_CATEGORY_FILE);
}

static int on_existing(const struct pagemap_region *region, void *arg)
{
	struct exists_scan *x = arg;
	int ret = send_gone(x->s, x->at, region->start);

	x->at = region->end;
	if (ret == 0 && travels(x->s->info, region->categories))
		ret = send_existing(x->s, region);
	else if (ret == 0)
		x->s->p->skipped_file += (region->end - region->start) / PAGE_SIZE_BYTES;
	return ret;
}

static int on_written(const struct pagemap_region *region, void *arg)
{
	struct exists_scan x = { arg, region->start };
	struct pages *p = x.s->p;
	const struct pagemap_query *query = p->tracking ? &query_exists_rearm : &query_exists;
	int ret = pagemap_scan_existing(p->pagemap_fd, x.at, region->end, query, on_existing, &x, x.s->e);

	/* A part is mapped anew and not registered yet; what was before it has been treated and re-armed. */
	for (int tries = 0; ret == -EPERM && tries < REGISTER_TRIES; tries++) {
		ret = pages_track(p, x.s->e);
		if (ret == 0)
			ret = pagemap_scan_existing(p->pagemap_fd, x.at, region->end, query, on_existing, &x, x.s->e);
	}
	return ret < 0 ? ret : send_gone(x.s, x.at, region->end);
}

/* What the destination has lost is sent whether it was written or not. */
static int send_forgotten(struct sender *s)
{
	for (size_t i = 0; i < s->p->forgotten.n; i++) {
		struct pagemap_region part = { MAX(s->range->start, s->p->forgotten.v[i].start), MIN(s->range->end, s->p->forgotten.v[i].end), 0 };
		struct exists_scan x = { s, part.start };
		int ret;

		if (part.start >= part.end)
			continue;
		ret = pagemap_scan_existing(s->p->pagemap_fd, part.start, part.end, &query_exists, on_existing, &x, s->e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int pages_round(struct pages *p, int kinds, uint64_t *ret_sent, struct err *e)
{
	struct sender s;
	int ret = sender_start(&s, p, e);

	for (size_t i = 0; i < p->nranges && ret == 0; i++) {
		if (!(kinds & (infos[i].lazy ? PAGES_LAZY : PAGES_EAGER)))
			continue;
		s.range = &p->ranges[i];
		s.info = &infos[i];
		ret = send_forgotten(&s);
		if (ret < 0)
			break;
		if (p->tracking)
			ret = scan_range(p, s.range, &query_written, on_written, &s, e);
		else
			ret = on_written(&(struct pagemap_region){ s.range->start, s.range->end, 0 }, &s);
	}
	if (ret == 0)
		ret = sender_flush(&s);
	if (sender_wait(&s) < 0 && ret == 0)
		ret = e ? e->code : -EIO;
	if (ret == 0 && kinds == (PAGES_LAZY | PAGES_EAGER))
		range_list_free(&p->forgotten);
	if (ret == 0 && ret_sent)
		*ret_sent = s.sent;
	return ret;
}

int pages_barrier(struct pages *p, struct err *e)
{
	struct sender s;
	int ret = sender_start(&s, p, e);

	if (ret < 0)
		return ret;
	s.half[0][0].frame = (struct page_frame){ STREAM_MAGIC, STREAM_BARRIER, 0, 0 };
	s.nframes = 1;
	ret = sender_flush(&s);
	return ret < 0 ? ret : sender_wait(&s);
}

/* --- the working set, and what is stale --- */

struct written_scan {
	struct pages *p;
	const struct page_range *range;
	const struct range_info *info;
	struct run_list *list;
	uint64_t max;
	uint64_t at;
	bool unsent; /* lazy pages that were never sent, too */
	struct err *e;
};

static int add_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	uint64_t n = (region->end - region->start) / PAGE_SIZE_BYTES;

	n = MIN(n, w->max - MIN(w->max, w->list->pages));
	return n ? run_list_add(w->list, region->start, n, 0) : 0;
}

int pages_written(struct pages *p, uint64_t max, struct run_list *ret_list, struct err *e)
{
	struct written_scan w = { .p = p, .list = ret_list, .max = max, .e = e };
	int ret = 0;

	for (size_t i = 0; i < p->nranges && ret == 0; i++)
		if (infos[i].lazy)
			ret = scan_range(p, &p->ranges[i], &query_exists_rearm, add_written, &w, e);
	return ret;
}

/* Adds [start, end), which holds nothing at the source, where the destination has something. */
static int stale_gone(struct written_scan *w, uint64_t start, uint64_t end)
{
	for (uint64_t at = next_sent(w->p, w->range, start, end); at < end; at = next_sent(w->p, w->range, at + PAGE_SIZE_BYTES, end)) {
		int ret = w->info->lazy ? run_list_add(w->list, at, 1, RUN_ZERO) : 0;

		if (ret < 0)
			return ret;
		bit_set(w->p, bit_of(w->range, at), false);
	}
	return 0;
}

static int stale_existing(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	int ret = stale_gone(w, w->at, region->start);

	w->at = region->end;
	if (!travels(w->info, region->categories))
		return ret;
	if (!w->info->lazy || w->unsent) {
		for (uint64_t at = region->start; w->unsent && at < region->end; at += PAGE_SIZE_BYTES)
			bit_set(w->p, bit_of(w->range, at), false);
		return ret < 0 ? ret : run_list_add(w->list, region->start, (region->end - region->start) / PAGE_SIZE_BYTES, 0);
	}
	for (uint64_t at = next_sent(w->p, w->range, region->start, region->end); at < region->end && ret == 0;
	     at = next_sent(w->p, w->range, at + PAGE_SIZE_BYTES, region->end)) {
		ret = run_list_add(w->list, at, 1, 0);
		bit_set(w->p, bit_of(w->range, at), false);
	}
	return ret;
}

static int stale_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;
	int ret;

	/* Nothing of it was sent: nothing to do. */
	if (w->info->lazy && !w->unsent && next_sent(w->p, w->range, region->start, region->end) == region->end)
		return 0;
	w->at = region->start;
	ret = pagemap_scan_existing(w->p->pagemap_fd, region->start, region->end, &query_exists, stale_existing, w, w->e);
	return ret < 0 ? ret : stale_gone(w, w->at, region->end);
}

/* Eager pages that the destination has lost; lazy ones are off the account already, and come later unless all must come now. */
static int stale_forgotten(struct written_scan *w)
{
	for (size_t i = 0; i < w->p->forgotten.n && (!w->info->lazy || w->unsent); i++) {
		uint64_t start = MAX(w->range->start, w->p->forgotten.v[i].start), end = MIN(w->range->end, w->p->forgotten.v[i].end);
		int ret;

		w->at = start;
		ret = start < end ? pagemap_scan_existing(w->p->pagemap_fd, start, end, &query_exists, stale_existing, w, w->e) : 0;
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* A region of several adjoining eager ranges: what was modified there travels. */
static int eager_written(const struct pagemap_region *region, void *arg)
{
	struct written_scan *w = arg;

	for (uint64_t at = region->start; at < region->end;) {
		const struct page_range *r = range_find(w->p, at);
		uint64_t end = MIN(r->end, region->end);
		int ret = travels(&infos[r - w->p->ranges], region->categories) ? run_list_add(w->list, at, (end - at) / PAGE_SIZE_BYTES, 0) : 0;

		if (ret < 0)
			return ret;
		at = end;
	}
	return 0;
}

/* One scan for all that adjoin (a library has five mappings or so): in the freeze each scan counts. Sets *i to the last one. */
static int stale_eager(struct written_scan *w, size_t *i)
{
	static const struct pagemap_query query = { .all_of = PAGE_CATEGORY_WRITTEN, .any_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED,
						    .want = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_SWAPPED | PAGE_CATEGORY_FILE };
	const struct page_range *first = &w->p->ranges[*i];

	while (*i + 1 < w->p->nranges && !infos[*i + 1].lazy && w->p->ranges[*i + 1].start == w->p->ranges[*i].end)
		++*i;
	return pagemap_scan_existing(w->p->pagemap_fd, first->start, w->p->ranges[*i].end, &query, eager_written, w, w->e);
}

int pages_stale(struct pages *p, int kinds, struct run_list *ret_list, struct err *e)
{
	struct written_scan w = { .p = p, .list = ret_list, .unsent = kinds & PAGES_UNSENT, .e = e };
	int ret = 0;

	for (size_t i = 0; i < p->nranges && ret == 0; i++) {
		w.range = &p->ranges[i];
		w.info = &infos[i];
		if (!(kinds & (w.info->lazy ? PAGES_LAZY : PAGES_EAGER)))
			continue;
		ret = stale_forgotten(&w);
		if (ret == 0 && !w.info->lazy && !p->forgotten.n)
			ret = stale_eager(&w, &i);
		else if (ret == 0)
			ret = pagemap_scan(p->pagemap_fd, w.range->start, w.range->end, &query_written, stale_written, &w, e);
	}
	return ret;
}

void pages_mark(struct pages *p, uint64_t address, uint64_t npages)
{
	for (; npages; npages--, address += PAGE_SIZE_BYTES) {
		const struct page_range *r = range_find(p, address);

		if (r)
			bit_set(p, bit_of(r, address), true);
	}
}

bool pages_sent_bit(const struct pages *p, uint64_t address)
{
	const struct page_range *r = range_find(p, address);

	return r && bit_get(p, bit_of(r, address));
}

bool pages_is_lazy(const struct pages *p, uint64_t address)
{
	const struct page_range *r = range_find(p, address);

	return r && infos[r - p->ranges].lazy;
}

static int count_region(const struct pagemap_region *region, void *arg)
{
	*(uint64_t *)arg += (region->end - region->start) / PAGE_SIZE_BYTES;
	return 0;
}

int pages_exists(const struct pages *p, uint64_t address)
{
	uint64_t n = 0;
	int ret = pagemap_scan_existing(p->pagemap_fd, address, address + PAGE_SIZE_BYTES, &query_exists, count_region, &n, NULL);

	return ret < 0 ? ret : n > 0;
}

void pages_hand_over(struct pages *p, bool push)
{
	struct scratch_header *h = scratch_header(&p->agent->scratch);

	for (size_t i = 0; i < p->nranges; i++)
		if (!infos[i].lazy)
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

		if (v->kind == VMA_VDSO || v->kind == VMA_VVAR)
			continue;
		if (v->content == VMA_CONTENT_ANON) {
			code = pagemap_scan_existing(p->pagemap_fd, v->start, v->end, &query_exists, count_lazy, &lazy, e);
			if (code < 0)
				return code;
			continue;
		}
		code = pagemap_scan_existing(p->pagemap_fd, v->start, v->end, &query_exists, count_region, &ret->total, e);
		if (code == 0 && v->content != VMA_CONTENT_SHARED)
			code = pagemap_scan(p->pagemap_fd, v->start, v->end, &file, count_region, &ret->in_file, e);
		if (code < 0)
			return code;
	}
	ret->total += ret->lazy;
	return 0;
}
