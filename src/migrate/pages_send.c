/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pages_send.c - rounds: sending pages while the process runs, or in the freeze; see pages.h
 *
 * A round is two scans: a fast one for what was written, and for every region that it finds a precise one for what exists there, which re-arms the write
 * protection in the same pass, before the pages are read. Frames are built in one half of a buffer in the scratch while the agent sends the other half.
 */
#include "migrate/pages_internal.h"

#include <errno.h>
#include <sys/uio.h>

#include "base/util.h"

#define PROBE 256              /* pages looked at for zeros in one call */
#define PROBE_BYTES 64

struct sender {
	struct pages *p;
	const struct page_range *range;
	const struct page_range_info *info;
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
			p->frames[i] = scratch_alloc(&p->agent->scratch, PAGES_FRAMES * sizeof(struct stream_frame), &p->frames_address[i]);
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
			int ret = s->nframes == PAGES_FRAMES ? sender_flush(s) : 0;

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

/* Of more than a few nothing is remembered: it is no working set. */
static int remember(struct run_list *recent, uint64_t address, uint64_t npages)
{
	return recent->pages > PAGES_RECENT_MAX ? 0 : run_list_add(recent, address, npages, 0);
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
			if (ret == 0 && !zero[i] && s->info->lazy)
				ret = remember(&s->p->recent, at + i * PAGE_SIZE_BYTES, k - i);
		}
		at += n * PAGE_SIZE_BYTES;
	}
	pages_mark(s->p, region->start, (region->end - region->start) / PAGE_SIZE_BYTES);
	return ret;
}

/*
 * Where the layout that the destination has says guard, it could put nothing. When that layout is followed by one that says no guard there, the page is among
 * the forgotten (pages_forget_remapped).
 */
static int send_unguarded(struct sender *s, const struct pagemap_region *region)
{
	const struct range_list *guards = &s->p->vmas->guards;
	uint64_t at = region->start;
	int ret = 0;

	for (size_t i = range_list_behind(guards, at); ret == 0 && at < region->end; i++) {
		uint64_t end = i < guards->n ? MIN(guards->v[i].start, region->end) : region->end;

		if (end > at)
			ret = send_existing(s, &(struct pagemap_region){ at, end, region->categories });
		at = i < guards->n ? guards->v[i].end : end;
	}
	return ret;
}

/* Pages that were sent and are gone now: the destination drops them. */
static int send_gone(struct sender *s, uint64_t start, uint64_t end)
{
	if (!s->info->lazy)
		return 0;
	for (uint64_t at = pages_next_sent(s->p, s->range, start, end); at < end; at = pages_next_sent(s->p, s->range, at + PAGE_SIZE_BYTES, end)) {
		int ret = sender_add(s, at, 1, RUN_ZERO);

		if (ret < 0)
			return ret;
		pages_bit_set(s->p, pages_bit_of(s->range, at), false);
	}
	return 0;
}

struct exists_scan {
	struct sender *s;
	uint64_t at; /* up to here everything has been treated */
};

static int on_existing(const struct pagemap_region *region, void *arg)
{
	struct exists_scan *x = arg;
	int ret = send_gone(x->s, x->at, region->start);

	x->at = region->end;
	if (ret == 0 && pages_travels(x->s->info, region->categories))
		ret = send_unguarded(x->s, region);
	else if (ret == 0)
		x->s->p->skipped_file += (region->end - region->start) / PAGE_SIZE_BYTES;
	return ret;
}

static int on_written(const struct pagemap_region *region, void *arg)
{
	struct exists_scan x = { arg, region->start };
	struct pages *p = x.s->p;
	const struct pagemap_query *query = p->tracking ? &pages_query_exists_rearm : &pages_query_exists;
	int ret = pagemap_scan_existing(p->pagemap_fd, x.at, region->end, query, on_existing, &x, x.s->e);

	/*
	 * A part is mapped anew and not registered yet; what was before it has been treated and re-armed. Where the program is quicker each time, nothing is armed:
	 * all of it counts as written the next time.
	 */
	for (int tries = 0; ret == -EPERM && tries <= REGISTER_TRIES; tries++) {
		ret = pages_track(p, x.s->e);
		if (ret == 0)
			ret = pagemap_scan_existing(p->pagemap_fd, x.at, region->end, tries < REGISTER_TRIES ? query : &pages_query_exists, on_existing, &x, x.s->e);
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
		ret = pagemap_scan_existing(s->p->pagemap_fd, part.start, part.end, &pages_query_exists, on_existing, &x, s->e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int pages_round(struct pages *p, int kinds, uint64_t *ret_sent, struct err *e)
{
	struct sender s;
	int ret = sender_start(&s, p, e);

	run_list_free(&p->recent);
	for (size_t i = 0; i < p->nranges && ret == 0; i++) {
		if (!(kinds & (p->infos[i].lazy ? PAGES_LAZY : PAGES_EAGER)))
			continue;
		s.range = &p->ranges[i];
		s.info = &p->infos[i];
		ret = send_forgotten(&s);
		if (ret < 0)
			break;
		if (p->tracking)
			ret = pages_scan_range(p, s.range, &pages_query_anew, on_written, &s, e);
		if (p->tracking && ret == 0)
			ret = pages_scan_range(p, s.range, &pages_query_written, on_written, &s, e);
		else if (!p->tracking)
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
