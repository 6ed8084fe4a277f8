/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_memory.c - the skeleton's mappings, as they are at the source and as they change, what of them the agent fills, and the memory for it */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/aio.h"
#include "image/uring.h"
#include "image/file_owner.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/pages.h"

#define POOL_PAGES_MAX (1ull << 34)
#define POOL_STEP (64ull << 20)
#define POOL_SPARE 512 /* pages, and a part of the whole: for alignment (agent/pager.c) */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* --- files for mappings --- */

static int give_files(struct dest_process *p, struct err *e)
{
	int fds[FDPASS_MAX], got[FDPASS_MAX];
	uint32_t index[FDPASS_MAX];
	size_t n = 0;

	p->file_fds = realloc(p->file_fds, (p->d->files.n + 1) * sizeof(*p->file_fds));
	if (!p->file_fds)
		return err_sys(e, ENOMEM, "files");
	p->nfile_fds = p->d->files.n;
	for (uint32_t i = 0; i < p->d->files.n; i++)
		p->file_fds[i] = -1;
	for (uint32_t i = 0; i <= p->d->files.n; i++) {
		if (n && (i == p->d->files.n || n == 128)) {
			int ret = fd_send(p->transfer.worker_end, fds, n, e);

			if (ret == 0)
				ret = batch_receive_fds(dest_main_batch(p), p->transfer.task_number, got, n, e);
			if (ret)
				return ret;
			for (size_t k = 0; k < n; k++)
				p->file_fds[index[k]] = got[k];
			n = 0;
		}
		if (i < p->d->files.n && p->d->files.v[i].type == FSFILE_SYSV) {
			p->file_fds[i] = p->d->files.v[i].sysv.id; /* no descriptor, but what is attached */
		} else if (i < p->d->files.n && p->d->answers[i].fd >= 0) {
			fds[n] = p->d->answers[i].fd;
			index[n++] = i;
		}
	}
	return 0;
}

static int take_files_back(struct dest_process *p, struct err *e)
{
	struct batch *b = dest_main_batch(p);
	int ret;

	for (uint32_t i = 0; i < p->nfile_fds; i++)
		if (p->file_fds[i] >= 0 && p->d->files.v[i].type != FSFILE_SYSV)
			batch_call(b, "close", SYS_close, (uint64_t)p->file_fds[i]);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

/* --- layout --- */

/* Takes down what the skeleton has but for what it shares with others, and moves the vdso. */
static int empty_layout(struct dest_process *p, struct vma_list *ret_inherited, struct err *e)
{
	struct batch *b = dest_main_batch(p);
	struct range_list keep = { 0 };
	int ret = dest_common_inherited(p, ret_inherited, e);

	for (size_t i = 0; i < ret_inherited->n && ret == 0; i++)
		if (range_list_add(&keep, ret_inherited->v[i].start, ret_inherited->v[i].end) < 0)
			ret = err_sys(e, ENOMEM, "common pages");
	if (ret == 0) {
		vma_plan_empty(b, &p->own, &keep);
		ret = vdso_plan_move(b, &p->vmas, &p->own, e);
	}
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	range_list_free(&keep);
	return ret;
}

int dest_build_layout(struct dest_process *p, struct err *e)
{
	struct batch *b = dest_main_batch(p);
	struct vma_list inherited = { 0 };
	struct range_list mapped = { 0 };
	struct fsfile_table none = { 0 };
	struct refusals ignored = { 0 };
	int exe, ret = vma_list_read(p->skeleton->pid, &none, &ignored, &p->own, e);

	refusals_free(&ignored);
	fsfile_table_free(&none);
	if (ret < 0)
		return ret;
	ret = empty_layout(p, &inherited, e);
	if (ret == 0)
		ret = give_files(p, e);
	if (ret == 0)
		ret = vma_plan_build(b, &inherited, &p->vmas, p->file_fds, p->nfile_fds, &mapped, e);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = dest_common_settle(p, &inherited, &mapped, e);
	vma_list_free(&inherited);
	range_list_free(&mapped);
	if (ret < 0)
		return ret;
	exe = p->mm.exe_file >= 0 ? p->file_fds[p->mm.exe_file] : -1;
	/*
	 * Arguments and environment come in the freeze. If ps(1) read them here, the kernel would map a page of zeros where nothing is registered with the
	 * userfaultfd yet, and the agent would take that for the page's content.
	 */
	p->mm.arg_end = p->mm.arg_start;
	p->mm.env_end = p->mm.env_start;
	mm_plan_restore(b, &p->mm, exe);
	ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = aio_make(b, p->skeleton->mem_fd, &p->vmas, e);
	return ret < 0 ? ret : take_files_back(p, e);
}

/* munmap of what a userfaultfd watches waits until its events have been read, by an agent that does not read them yet. */
static void unregister_lazy(struct dest_process *p)
{
	for (size_t i = 0; i < p->vmas.n; i++) {
		uint64_t start = p->vmas.v[i].start, end = p->vmas.v[i].end;

		if (p->vmas.v[i].content != VMA_CONTENT_ANON)
			continue;
		while (i + 1 < p->vmas.n && p->vmas.v[i + 1].content == VMA_CONTENT_ANON && p->vmas.v[i + 1].start == end)
			end = p->vmas.v[++i].end;
		uffd_unregister(p->skeleton->agent.uffd, start, end, NULL);
	}
}

void dest_plan_finish(struct dest_process *p)
{
	struct scratch_header *h = scratch_header(&p->skeleton->agent.scratch);

	if (!p->finish)
		p->finish = batch_new(&p->skeleton->agent.task);
	batch_reset(p->finish);
	vma_plan_finish(p->finish, &p->vmas);
	h->finish_list = batch_list(p->finish, &h->nfinish);
}

int dest_sync_layout(struct dest_process *p, struct vma_list *new, struct err *e)
{
	bool registered = p->go && p->d->post_copy && !dest_registers_late(p);
	struct batch *b = dest_main_batch(p);
	struct range_list mapped = { 0 };
	int ret;

	if (registered)
		unregister_lazy(p);
	p->lazy_pieces = (struct piece_list){ 0 };
	vma_list_apply_answers(new, p->d->answers, p->d->files.n);
	ret = give_files(p, e);
	if (ret == 0)
		ret = vma_plan_sync(b, &p->vmas, new, p->file_fds, p->nfile_fds, &mapped, e);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = take_files_back(p, e);
	vma_list_free(&p->vmas);
	p->vmas = *new;
	*new = (struct vma_list){ 0 };
	if (p->finish)
		dest_plan_finish(p);
	if (ret == 0 && registered)
		ret = dest_register(p, NULL, e);
	range_list_free(&mapped);
	return ret;
}

int dest_register(struct dest_process *p, const struct range_list *ranges, struct err *e)
{
	struct range_list lazy = { 0 };
	int ret = 0;

	for (size_t i = 0; i < p->vmas.n && ret == 0; i++) {
		const struct vma *v = &p->vmas.v[i];

		if (v->content != VMA_CONTENT_ANON)
			continue;
		for (size_t k = 0; k < (ranges ? ranges->n : 1) && ret == 0; k++) {
			uint64_t start = ranges ? MAX(v->start, ranges->v[k].start) : v->start, end = ranges ? MIN(v->end, ranges->v[k].end) : v->end;

			if (start < end)
				ret = range_list_add(&lazy, start, end);
		}
	}
	for (size_t i = 0; i < lazy.n && ret == 0; i++)
		ret = uffd_register(p->skeleton->agent.uffd, lazy.v[i].start, lazy.v[i].end, UFFD_MISSING, e);
	range_list_free(&lazy);
	return ret;
}

/* Writes the list of mappings with content into the scratch. */
static int write_pieces(struct dest_process *p, bool lazy_only, struct piece_list *ret, struct err *e)
{
	struct piece_list l = { 0 };
	struct pager_piece *v = scratch_alloc(&p->skeleton->agent.scratch, (2 * p->vmas.n + 64) * sizeof(*v), &l.address);

	if (!v)
		return err_set(e, -ENOMEM, "no room for the list of mappings in the scratch");
	for (size_t i = 0; i < p->vmas.n; i++) {
		const struct vma *m = &p->vmas.v[i];

		if (m->content != VMA_CONTENT_ANON && (m->content != VMA_CONTENT_PRIVATE || lazy_only))
			continue;
		/* Before the go message runs may go over the border of two mappings. */
		if (!lazy_only && l.n && v[l.n - 1].original + v[l.n - 1].len == m->start)
			v[l.n - 1].len += m->end - m->start;
		else
			v[l.n++] = (struct pager_piece){ m->start, m->start, m->end - m->start };
	}
	*ret = l;
	return 0;
}

int dest_prepare_pieces(struct dest_process *p, struct err *e)
{
	return write_pieces(p, true, &p->lazy_pieces, e);
}

int dest_set_pieces(struct dest_process *p, struct err *e)
{
	struct scratch_header *h = scratch_header(&p->skeleton->agent.scratch);
	struct piece_list l = p->lazy_pieces;
	int ret = p->go && l.address ? 0 : write_pieces(p, p->go != NULL, &l, e);

	if (ret < 0)
		return ret;
	h->npieces = 0;
	__atomic_store_n(&h->pieces, l.address, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->npieces, l.n, __ATOMIC_SEQ_CST);
	return 0;
}

/* --- memory that must be there --- */

int dest_make_pool(struct dest_process *p, struct err *e)
{
	struct scratch_header *h = scratch_header(&p->skeleton->agent.scratch);
	struct batch *b = dest_main_batch(p);
	uint64_t expected = MIN(p->lazy_pages, POOL_PAGES_MAX), spare = MIN(POOL_SPARE, expected / 16) + expected / 128;
	uint64_t len = (expected + spare) * PAGE_SIZE_BYTES;
	int64_t at;

	if (p->d->offer->strategy != STRATEGY_FREEZE_FREE || !len)
		return 0;
	at = remote_do(b, e, "mmap", SYS_mmap, 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, ~0ull, 0);
	if (at < 0)
		return 0;
	h->pool = (uint64_t)at;
	batch_call(b, "madvise", SYS_madvise, h->pool, len, MADV_DONTFORK);
	batch_try(b, "madvise", SYS_madvise, h->pool, len, MADV_NOHUGEPAGE);
	for (uint64_t done = 0; done < len; done += POOL_STEP)
		batch_call(b, "memory for the process", SYS_madvise, h->pool + done, MIN(POOL_STEP, len - done), MADV_POPULATE_WRITE);
	if (batch_run(b, e) < 0)
		return e ? e->code : -ENOMEM;
	batch_reset(b);
	h->pool_pages = len / PAGE_SIZE_BYTES;
	h->pool_spare = spare;
	return 0;
}

int dest_populate_ranges(struct dest_process *p, struct err *e)
{
	struct batch *b = dest_main_batch(p);
	int ret;

	for (size_t i = 0; i < p->lazy_ranges.n; i++)
		for (uint64_t at = p->lazy_ranges.v[i].start; at < p->lazy_ranges.v[i].end; at += POOL_STEP) {
			const struct vma *v = vma_find(&p->vmas, at);

			if (v && v->content == VMA_CONTENT_ANON && v->prot & PROT_WRITE)
				batch_try(b, "madvise", SYS_madvise, at, MIN(POOL_STEP, MIN(v->end, p->lazy_ranges.v[i].end) - at), MADV_POPULATE_WRITE);
		}
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}
