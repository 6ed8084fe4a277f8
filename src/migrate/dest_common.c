/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_common.c - pages that processes of the unit share copy-on-write; see source_common.c
 *
 * Theory of operation: the pages come before any process of the skeleton exists, and wait in a memfd. The first process maps what the program's mappings
 * will be at their places, and gets the pages; the others are forked from it, and so all share them. Each then makes its own layout out of that
 * (vma_plan_sync), and drops what it has not in common. What could not be mapped there, or is made anew, is copied: shared by nobody, but there.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/vdso.h"
#include "image/vma_restore.h"
#include "kern/fdpass.h"
#include "migrate/dest.h"

#define MADV_DROP 24 /* MADV_DONTNEED_LOCKED */
#define MAP_BATCH 64u

static int take_pages(struct dest *d, const Gw__Content *m, struct err *e)
{
	struct dest_common *c = &d->common;
	uint64_t npages = m->data.len / PAGE_SIZE_BYTES;

	if (m->address % PAGE_SIZE_BYTES || !npages || m->data.len % PAGE_SIZE_BYTES || m->address >= VMA_TASK_SIZE || m->data.len > VMA_TASK_SIZE - m->address ||
	    (c->runs.n && m->address < c->runs.v[c->runs.n - 1].address + c->runs.v[c->runs.n - 1].npages * PAGE_SIZE_BYTES))
		return err_set(e, -EPROTO, "common pages out of order");
	if (!c->runs.n) {
		c->memfd = memfd_create("godwit-common", MFD_CLOEXEC);
		if (c->memfd < 0)
			return err_sys(e, errno, "common pages");
	}
	if (pwrite(c->memfd, m->data.data, m->data.len, (off_t)(c->runs.pages * PAGE_SIZE_BYTES)) != (ssize_t)m->data.len)
		return err_sys(e, errno ? errno : ENOSPC, "common pages");
	return run_list_add(&c->runs, m->address, npages, 0) < 0 ? err_sys(e, ENOMEM, "common pages") : 0;
}

static int take_shares(struct dest *d, const Gw__Content *m, struct err *e)
{
	struct run_list *l;

	if (m->process >= d->nprocs || m->data.len % sizeof(struct page_run))
		return err_set(e, -EPROTO, "common pages of no process");
	l = &d->procs[m->process].common;
	for (size_t i = 0; i < m->data.len / sizeof(struct page_run); i++) {
		struct page_run r;

		memcpy(&r, m->data.data + i * sizeof(r), sizeof(r));
		if (r.address % PAGE_SIZE_BYTES || !r.npages || r.address >= VMA_TASK_SIZE || r.npages > (VMA_TASK_SIZE - r.address) / PAGE_SIZE_BYTES || r.flags ||
		    (l->n && r.address < l->v[l->n - 1].address + l->v[l->n - 1].npages * PAGE_SIZE_BYTES))
			return err_set(e, -EPROTO, "common pages of a process out of order");
		if (run_list_add(l, r.address, r.npages, 0) < 0)
			return err_sys(e, ENOMEM, "common pages");
	}
	return 0;
}

int dest_take_common(struct dest *d, const Gw__Content *m, struct err *e)
{
	if (d->set.v)
		return err_set(e, -EPROTO, "common pages when the processes are made already");
	switch (m->common) {
	case GW__COMMON__PAGES:
		return take_pages(d, m, e);
	case GW__COMMON__OF_PROCESS:
		return take_shares(d, m, e);
	default:
		return err_set(e, -EPROTO, "common pages of an unknown kind");
	}
}

void dest_common_free(struct dest *d)
{
	struct dest_common *c = &d->common;

	if (c->data)
		munmap(c->data, c->runs.pages * PAGE_SIZE_BYTES);
	c->data = NULL;
	if (c->runs.n)
		close(c->memfd);
	run_list_free(&c->runs);
	vma_list_free(&c->places);
	for (size_t i = 0; i < d->nprocs; i++)
		run_list_free(&d->procs[i].common);
}

/* --- the first process --- */

static bool overlaps(const struct vma_list *l, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].start < end && start < l->v[i].end)
			return true;
	return false;
}

/* Whether any process has its scratch there. */
static bool meets_scratch(const struct dest *d, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < d->nprocs; i++) {
		const struct dest_process *p = &d->procs[i];
		uint64_t size = scratch_size((unsigned)p->nthreads + THREADS_SPARE, pages_arena_bytes(&p->vmas));

		if (p->scratch_base < end && start < p->scratch_base + size)
			return true;
	}
	return false;
}

/* A file that the first process has open for a moment. */
struct given {
	int32_t file;
	int number;
};

static int compare_places(const void *a, const void *b)
{
	const struct vma *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static bool has_file(const struct dest *d, const struct vma *v)
{
	return v->file >= 0 && (uint32_t)v->file < d->files.n && d->answers[v->file].fd >= 0;
}

/* The mappings with common pages, as the first process has them that has any there. */
static int choose_places(struct dest *d, struct err *e)
{
	struct vma_list *places = &d->common.places;

	for (size_t i = 0; i < d->nprocs; i++) {
		const struct dest_process *p = &d->procs[i];
		const struct vma *last = NULL;

		for (size_t k = 0; k < p->common.n; k++) {
			const struct vma *v = vma_find(&p->vmas, p->common.v[k].address);
			struct vma place;

			if (!v || v == last)
				continue;
			last = v;
			if (!vma_may_be_common(v) || v->bits & VMA_GROWSDOWN || (v->kind == VMA_FILE_PRIVATE && !has_file(d, v)) || overlaps(places, v->start, v->end) || meets_scratch(d, v->start, v->end))
				continue;
			place = (struct vma){ .start = v->start, .end = v->end, .offset = v->offset, .prot = PROT_READ | PROT_WRITE, .kind = v->kind, .content = v->content,
					      .bits = v->bits & VMA_NORESERVE ? VMA_NORESERVE : VMA_ACCOUNT, .file = v->kind == VMA_FILE_PRIVATE ? v->file : -1 };
			if (vma_list_append(places, &place) < 0)
				return err_sys(e, ENOMEM, "common pages");
		}
	}
	if (places->n)
		qsort(places->v, places->n, sizeof(*places->v), compare_places);
	return 0;
}

/* The number of the place's file in the first process; -1: memory without one. *last: the one of before, which is closed unless it is the same. */
static int give_file(struct dest *d, struct skeleton *first, int32_t file, struct given *last, struct err *e)
{
	struct batch *b = first->threads[0]->batch;
	int ret = 0;

	if (last->file == file)
		return 0;
	if (last->number >= 0) {
		batch_call(b, "close", SYS_close, (uint64_t)last->number);
		ret = batch_run(b, e);
		batch_reset(b);
	}
	*last = (struct given){ file, -1 };
	if (ret == 0 && file >= 0)
		ret = fd_send(first->transfer, &d->answers[file].fd, 1, e);
	return ret < 0 || file < 0 ? ret : batch_receive_fds(b, first->transfer_end, &last->number, 1, e);
}

/* Places where something of the skeleton's own lies are left out. */
static int map_places(struct dest *d, struct skeleton *first, struct err *e)
{
	struct vma_list *places = &d->common.places;
	struct batch *b = first->threads[0]->batch;
	struct given given = { -1, -1 };
	struct remote_call *calls[MAP_BATCH];
	size_t kept = 0;

	for (size_t i = 0; i < places->n;) {
		size_t n = 0;
		int ret = give_file(d, first, places->v[i].file, &given, e);

		for (; ret == 0 && n < MAP_BATCH && i + n < places->n && places->v[i + n].file == given.file; n++) {
			const struct vma *v = &places->v[i + n];

			calls[n] = batch_try(b, "mmap", SYS_mmap, v->start, v->end - v->start, PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | (v->file < 0 ? MAP_ANONYMOUS : 0) | MAP_FIXED_NOREPLACE | (v->bits & VMA_NORESERVE ? MAP_NORESERVE : 0),
					     (uint64_t)(int64_t)given.number, v->offset);
		}
		ret = ret < 0 ? ret : batch_run(b, e);
		for (size_t k = 0; k < n && ret == 0; k++)
			if (calls[k]->ret == (int64_t)places->v[i + k].start)
				places->v[kept++] = places->v[i + k];
		batch_reset(b);
		if (ret < 0)
			return ret;
		i += n;
	}
	places->n = kept;
	return give_file(d, first, -1, &given, e);
}

/* Puts what is common and in [start, end) into a process. */
static int put(const struct dest_common *c, int mem_fd, uint64_t start, uint64_t end, struct err *e)
{
	const uint8_t *from = c->data;

	for (size_t i = 0; i < c->runs.n && c->runs.v[i].address < end; i++) {
		uint64_t first = c->runs.v[i].address, len = c->runs.v[i].npages * PAGE_SIZE_BYTES;
		uint64_t at = MAX(first, start), stop = MIN(first + len, end);

		while (at < stop) {
			ssize_t n = pwrite(mem_fd, from + (at - first), stop - at, (off_t)at);

			if (n <= 0)
				return err_sys(e, n ? errno : EIO, "common page at %#llx", (unsigned long long)at);
			at += (uint64_t)n;
		}
		from += len;
	}
	return 0;
}

int dest_common_begin(struct skeleton *first, void *arg, struct err *e)
{
	struct dest *d = arg;
	struct dest_common *c = &d->common;
	int ret;

	if (!c->runs.n)
		return 0;
	c->places.n = 0;
	if (!c->data)
		c->data = mmap(NULL, c->runs.pages * PAGE_SIZE_BYTES, PROT_READ, MAP_SHARED, c->memfd, 0);
	if (c->data == MAP_FAILED) {
		c->data = NULL;
		return err_sys(e, errno, "common pages");
	}
	ret = choose_places(d, e);
	if (ret == 0)
		ret = map_places(d, first, e);
	for (size_t i = 0; i < c->places.n && ret == 0; i++)
		ret = put(c, first->mem_fd, c->places.v[i].start, c->places.v[i].end, e);
	return ret;
}

/* --- every process --- */

static bool meets_vdso(const struct vma_list *l, const struct vma *v)
{
	for (size_t i = 0; i < l->n; i++)
		if ((l->v[i].kind == VMA_VDSO || l->v[i].kind == VMA_VVAR) && l->v[i].start < v->end && v->start < l->v[i].end)
			return true;
	return false;
}

int dest_common_inherited(const struct dest_process *p, struct vma_list *ret, struct err *e)
{
	const struct vma_list *places = &p->d->common.places;

	for (size_t i = 0; i < places->n; i++) {
		const struct vma *v = &places->v[i], *own = vma_find(&p->own, v->start);

		/* One that was made later has inherited nothing. */
		if (!own || own->kind != v->kind || own->end < v->end || meets_vdso(&p->vmas, v))
			continue;
		if (vma_list_append(ret, v) < 0)
			return err_sys(e, ENOMEM, "common pages");
	}
	return 0;
}

/* Whether [start, end) was kept as it was inherited. */
static bool is_kept(const struct vma_list *inherited, const struct range_list *mapped, uint64_t at)
{
	if (!vma_find(inherited, at))
		return false;
	for (size_t i = 0; i < mapped->n; i++)
		if (mapped->v[i].start <= at && at < mapped->v[i].end)
			return false;
	return true;
}

static bool has(const struct run_list *l, uint64_t at)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (at < l->v[mid].address)
			hi = mid;
		else if (at >= l->v[mid].address + l->v[mid].npages * PAGE_SIZE_BYTES)
			lo = mid + 1;
		else
			return true;
	}
	return false;
}

/* Drops what the process has inherited and has not in common. */
static int drop_others(struct dest_process *p, struct batch *b, const struct vma_list *inherited, const struct range_list *mapped, struct err *e)
{
	struct range_list drop = { 0 };
	const struct run_list *l = &p->d->common.runs;
	int ret = 0;

	for (size_t i = 0; i < l->n && ret == 0; i++)
		for (uint64_t k = 0; k < l->v[i].npages && ret == 0; k++) {
			uint64_t at = l->v[i].address + k * PAGE_SIZE_BYTES;

			if (vma_find(&p->vmas, at) && !has(&p->common, at) && is_kept(inherited, mapped, at))
				ret = range_list_add(&drop, at, at + PAGE_SIZE_BYTES);
		}
	for (size_t i = 0; i < drop.n && ret == 0; i++)
		batch_call(b, "madvise", SYS_madvise, drop.v[i].start, drop.v[i].end - drop.v[i].start, MADV_DROP);
	range_list_free(&drop);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

int dest_common_settle(struct dest_process *p, const struct vma_list *inherited, const struct range_list *mapped, struct err *e)
{
	struct batch *b = p->skeleton->threads[0]->batch;
	const struct dest_common *c = &p->d->common;
	int ret = c->runs.n ? drop_others(p, b, inherited, mapped, e) : 0;

	for (size_t i = 0; i < p->common.n && ret == 0; i++)
		for (uint64_t k = 0; k < p->common.v[i].npages && ret == 0; k++) {
			uint64_t at = p->common.v[i].address + k * PAGE_SIZE_BYTES;

			if (!has(&c->runs, at) || !vma_find(&p->vmas, at) || !vma_may_be_common(vma_find(&p->vmas, at)))
				ret = err_set(e, -EPROTO, "process %d has a common page that has not come", p->pid);
			else if (!is_kept(inherited, mapped, at))
				ret = put(c, p->skeleton->mem_fd, at, at + PAGE_SIZE_BYTES, e);
		}
	if (p->common.n) {
		p->has_common = true;
		p->lazy_ranges.n = 0;       /* making pages exist would copy those that are shared */
		range_list_free(&p->vmas.huge); /* and so would making them huge */
	}
	return ret;
}
