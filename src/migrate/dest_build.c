/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_build.c - building the skeleton while the process still runs at the source: layout, threads, descriptors, agent */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/arrival.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/pages.h"

#define THREADS_SPARE 64u
#define POOL_PAGES_MAX (1ull << 34)
#define POOL_STEP (64ull << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static struct batch *main_batch(struct dest *d)
{
	return d->skeleton.threads[0]->batch;
}

/* --- files for mappings --- */

static int give_files(struct dest *d, struct err *e)
{
	struct skeleton *s = &d->skeleton;
	int transfer = d->restore.transfer_task >= 0 ? d->restore.transfer_task : s->transfer_end;
	int fds[FDPASS_MAX], got[FDPASS_MAX];
	uint32_t index[FDPASS_MAX];
	size_t n = 0;

	d->file_fds = realloc(d->file_fds, (d->files.n + 1) * sizeof(*d->file_fds));
	if (!d->file_fds)
		return err_sys(e, ENOMEM, "files");
	d->nfile_fds = d->files.n;
	for (uint32_t i = 0; i < d->files.n; i++)
		d->file_fds[i] = -1;
	for (uint32_t i = 0; i <= d->files.n; i++) {
		if (n && (i == d->files.n || n == 128)) {
			int ret = fd_send(s->transfer, fds, n, e);

			if (ret == 0)
				ret = batch_receive_fds(main_batch(d), transfer, got, n, e);
			if (ret)
				return ret;
			for (size_t k = 0; k < n; k++)
				d->file_fds[index[k]] = got[k];
			n = 0;
		}
		if (i < d->files.n && d->answers[i].fd >= 0) {
			fds[n] = d->answers[i].fd;
			index[n++] = i;
		}
	}
	return 0;
}

static int take_files_back(struct dest *d, struct err *e)
{
	struct batch *b = main_batch(d);
	int ret;

	for (uint32_t i = 0; i < d->nfile_fds; i++)
		if (d->file_fds[i] >= 0)
			batch_call(b, "close", SYS_close, (uint64_t)d->file_fds[i]);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

/* --- layout --- */

static int build_layout(struct dest *d, struct err *e)
{
	struct batch *b = main_batch(d);
	struct fsfile_table none = { 0 };
	struct refusals ignored = { 0 };
	int exe, ret = vma_list_read(d->skeleton.pid, &none, &ignored, &d->own, e);

	refusals_free(&ignored);
	fsfile_table_free(&none);
	if (ret < 0)
		return ret;
	vma_plan_empty(b, &d->own, NULL);
	ret = vdso_plan_move(b, &d->vmas, &d->own, e);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = give_files(d, e);
	if (ret == 0)
		ret = vma_plan_build(b, &d->vmas, d->file_fds, d->nfile_fds, e);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	if (ret < 0)
		return ret;
	exe = d->mm.exe_file >= 0 ? d->file_fds[d->mm.exe_file] : -1;
	/*
	 * Arguments and environment come in the freeze. If ps(1) read them here, the kernel would map a page of zeros where nothing is registered with the
	 * userfaultfd yet, and the agent would take that for the page's content.
	 */
	d->mm.arg_end = d->mm.arg_start;
	d->mm.env_end = d->mm.env_start;
	mm_plan_restore(b, &d->mm, exe);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret < 0 ? ret : take_files_back(d, e);
}

/* munmap of what a userfaultfd watches waits until its events have been read, by an agent that does not read them yet. */
static void unregister_lazy(struct dest *d)
{
	for (size_t i = 0; i < d->vmas.n; i++) {
		uint64_t start = d->vmas.v[i].start, end = d->vmas.v[i].end;

		if (d->vmas.v[i].content != VMA_CONTENT_ANON)
			continue;
		while (i + 1 < d->vmas.n && d->vmas.v[i + 1].content == VMA_CONTENT_ANON && d->vmas.v[i + 1].start == end)
			end = d->vmas.v[++i].end;
		uffd_unregister(d->skeleton.agent.uffd, start, end, NULL);
	}
}

int dest_sync_layout(struct dest *d, struct vma_list *new, struct err *e)
{
	bool registered = d->go && d->post_copy && d->offer->strategy != STRATEGY_HYBRID;
	struct batch *b = main_batch(d);
	struct range_list mapped = { 0 };
	int ret;

	if (registered)
		unregister_lazy(d);
	vma_list_apply_answers(new, d->answers, d->files.n);
	ret = give_files(d, e);
	if (ret == 0)
		ret = vma_plan_sync(b, &d->vmas, new, d->file_fds, d->nfile_fds, &mapped, e);
	if (ret == 0)
		ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = take_files_back(d, e);
	vma_list_free(&d->vmas);
	d->vmas = *new;
	*new = (struct vma_list){ 0 };
	if (ret == 0 && registered)
		ret = dest_register(d, NULL, e);
	range_list_free(&mapped);
	return ret;
}

int dest_register(struct dest *d, const struct range_list *ranges, struct err *e)
{
	struct range_list lazy = { 0 };
	int ret = 0;

	for (size_t i = 0; i < d->vmas.n && ret == 0; i++) {
		const struct vma *v = &d->vmas.v[i];

		if (v->content != VMA_CONTENT_ANON)
			continue;
		for (size_t k = 0; k < (ranges ? ranges->n : 1) && ret == 0; k++) {
			uint64_t start = ranges ? MAX(v->start, ranges->v[k].start) : v->start, end = ranges ? MIN(v->end, ranges->v[k].end) : v->end;

			if (start < end)
				ret = range_list_add(&lazy, start, end);
		}
	}
	for (size_t i = 0; i < lazy.n && ret == 0; i++)
		ret = uffd_register(d->skeleton.agent.uffd, lazy.v[i].start, lazy.v[i].end, UFFD_MISSING, e);
	range_list_free(&lazy);
	return ret;
}

int dest_set_pieces(struct dest *d, struct err *e)
{
	struct scratch_header *h = scratch_header(&d->skeleton.agent.scratch);
	bool lazy_only = d->go != NULL;
	uint64_t address, n = 0;
	struct pager_piece *p = scratch_alloc(&d->skeleton.agent.scratch, (2 * d->vmas.n + 64) * sizeof(*p), &address);

	if (!p)
		return err_set(e, -ENOMEM, "no room for the list of mappings in the scratch");
	for (size_t i = 0; i < d->vmas.n; i++) {
		const struct vma *v = &d->vmas.v[i];

		if (v->content == VMA_CONTENT_NONE || (lazy_only && v->content != VMA_CONTENT_ANON))
			continue;
		/* Before the go message runs may go over the border of two mappings. */
		if (!lazy_only && n && p[n - 1].original + p[n - 1].len == v->start)
			p[n - 1].len += v->end - v->start;
		else
			p[n++] = (struct pager_piece){ v->start, v->start, v->end - v->start };
	}
	h->npieces = 0;
	__atomic_store_n(&h->pieces, address, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->npieces, n, __ATOMIC_SEQ_CST);
	return 0;
}

/* --- agent --- */

/*
 * Makes the memory exist that the process will need, before anything is committed to. Only where pages are pushed after the resume in bulk: in pre-copy
 * they come in place. Not getting it is no failure yet: the pages are copied then, and the kernel finds memory when each comes.
 */
static int make_pool(struct dest *d, struct err *e)
{
	struct scratch_header *h = scratch_header(&d->skeleton.agent.scratch);
	struct batch *b = main_batch(d);
	uint64_t len = MIN(d->lazy_pages, POOL_PAGES_MAX) * PAGE_SIZE_BYTES;
	int64_t at;

	if (d->offer->strategy != STRATEGY_FREEZE_FREE || !len)
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
	return 0;
}

/* Where pages are received in place: the same, in place. Mappings that cannot be written are left out. */
static int populate_ranges(struct dest *d, struct err *e)
{
	struct batch *b = main_batch(d);
	int ret;

	for (size_t i = 0; i < d->lazy_ranges.n; i++)
		for (uint64_t at = d->lazy_ranges.v[i].start; at < d->lazy_ranges.v[i].end; at += POOL_STEP) {
			const struct vma *v = vma_find(&d->vmas, at);

			if (v && v->content == VMA_CONTENT_ANON && v->prot & PROT_WRITE)
				batch_try(b, "madvise", SYS_madvise, at, MIN(POOL_STEP, MIN(v->end, d->lazy_ranges.v[i].end) - at), MADV_POPULATE_WRITE);
		}
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

static int equip_agent(struct dest *d, struct err *e)
{
	struct agent *a = &d->skeleton.agent;
	struct scratch_header *h = scratch_header(&a->scratch);
	cleanup_close int self = pidfd_open_process(getpid(), e);
	struct agent_fds fds = { d->link.fd[ROLE_GO], d->link.fd[ROLE_FAULT], d->link.fd[ROLE_BULK], -1, d->skeleton.mem_fd, d->skeleton.pidfd, self };
	struct remote_call *map, *uffd;
	int ret;

	if (self < 0)
		return self;
	map = batch_call(a->batch, "mmap", SYS_mmap, 0, STAGING_PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, ~0ull, 0);
	uffd = batch_call(a->batch, "userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ret = batch_run(a->batch, e);
	if (ret < 0)
		return ret;
	h->staging = (uint64_t)map->ret;
	h->uffd = (int32_t)uffd->ret;
	batch_reset(a->batch);
	ret = (int)remote_do(a->batch, e, "madvise", SYS_madvise, h->staging, STAGING_PAGES * PAGE_SIZE_BYTES, MADV_DONTFORK);
	if (ret == 0)
		a->uffd = ret = pidfd_get(a->pidfd, h->uffd, e);
	if (ret >= 0)
		ret = uffd_enable(a->uffd, UFFD_FEATURES_PAGER, e);
	if (ret == 0)
		ret = agent_equip(a, d->skeleton.agent_end, &fds, e);
	pace_calm_beside(a->pid, d->nthreads); /* the program goes first when the agent and it want the same CPU */
	return ret;
}

/* What is done when all pages are there is a list that the agent can run by itself; a very long one is run by the worker. */
static int plan_finish(struct dest *d, struct err *e)
{
	struct scratch_header *h = scratch_header(&d->skeleton.agent.scratch);

	d->finish = batch_new(&d->skeleton.agent.task);
	vma_plan_finish(d->finish, &d->vmas);
	if (d->mlock_future)
		batch_try(d->finish, "mlockall", SYS_mlockall, d->mlock_future);
	h->finish_list = batch_list(d->finish, &h->nfinish);
	if (h->nfinish && d->post_copy) {
		batch_free(d->finish);
		d->finish = NULL;
	}
	return 0;
}

/* --- threads and descriptors --- */

static int build_threads(struct dest *d, struct err *e)
{
	struct skeleton *s = &d->skeleton;
	int ret = process_plan_restore(main_batch(d), d->process, PROCESS_EARLY, NULL, 0);

	if (ret == 0)
		ret = batch_run(main_batch(d), e);
	batch_reset(main_batch(d));
	for (size_t i = 1; i < d->nthreads && ret == 0; i++)
		ret = skeleton_add_thread(s, d->threads[i]->tid, e);
	return ret;
}

static int build_descriptors(struct dest *d, struct err *e)
{
	int ret;

	d->env = (struct fd_env){ .answers = d->answers, .n_files = d->files.n, .self_pid = d->offer->pid,
				  .clocks = { d->clocks.monotonic_ns, d->clocks.boottime_ns } };
	ret = fdtable_restore_open(d->fds, &d->env, &d->restore, e);
	if (ret < 0)
		return ret;
	d->restore.transfer_worker = d->skeleton.transfer;
	d->restore.transfer_task = d->skeleton.transfer_end;
	ret = fdtable_restore_place(d->fds, &d->restore, main_batch(d), e);
	batch_reset(main_batch(d));
	if (ret == 0)
		ret = fdtable_restore_late(d->fds, &d->env, &d->restore, main_batch(d), e);
	batch_reset(main_batch(d));
	return ret;
}

/* Whether the number of one of the threads (not the main one: skeleton_create sees to that) belongs to somebody here. */
static bool some_thread_is_taken(const struct dest *d)
{
	char path[64];

	for (size_t i = 1; i < d->nthreads; i++) {
		snprintf(path, sizeof(path), "/proc/%d", d->threads[i]->tid);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

int dest_prepare(void *context, struct err *e)
{
	struct dest *d = context;
	int ret;

	d->outcome_fd = ret = outcome_begin(d->mig_id, e);
	if (ret >= 0)
		ret = clock_enter_namespace(&d->clocks, e);
	if (ret == 0)
		ret = skeleton_create(&d->skeleton, d->offer->pid, some_thread_is_taken(d), d->offer->scratch_base, (unsigned)d->nthreads + THREADS_SPARE,
				      pages_arena_bytes(&d->vmas), e);
	if (ret == 0)
		ret = build_layout(d, e);
	if (ret == 0)
		ret = skeleton_place_trampoline(&d->skeleton, e);
	if (ret == 0)
		ret = build_threads(d, e);
	if (ret == 0)
		ret = build_descriptors(d, e);
	if (ret == 0)
		ret = equip_agent(d, e);
	if (ret == 0)
		ret = plan_finish(d, e);
	if (ret == 0)
		ret = scratch_warm(&d->skeleton.agent.scratch, (unsigned)d->nthreads, d->skeleton.threads[0]->batch, e);
	if (ret == 0)
		d->arrival_fd = ret = arrival_begin(d->skeleton.pid, e);
	if (ret >= 0)
		ret = make_pool(d, e);
	if (ret == 0)
		ret = populate_ranges(d, e);
	if (ret == 0)
		ret = process_restore_outside(d->skeleton.pid, d->process, NULL, e);
	return ret < 0 ? ret : dest_set_pieces(d, e);
}

void dest_prepare_undo(void *context)
{
	struct dest *d = context;

	batch_free(d->finish);
	fdtable_restore_undo(&d->restore);
	skeleton_destroy(&d->skeleton);
}
