/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_restore.c - what the go message says is made true in the skeleton
 *
 * Theory of operation: pages that come with the message are put in place, then every thread of the skeleton runs its list of calls, all at the same time; registers follow. Nothing is
 * asked of the source.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_other.h"
#include "image/ns_user.h"
#include "image/aio.h"
#include "image/uring.h"
#include "image/file_kernel.h"
#include "image/keyring.h"
#include "image/membarrier.h"
#include "image/ns_net.h"
#include "image/pty_session.h"
#include "image/seccomp.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/arrival.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/timeline.h"

/* --- memory --- */

static int drop_stale(struct dest_process *p, struct err *e)
{
	const struct page_run *r = (const struct page_run *)p->go->msg->stale.data;
	struct batch *b = p->skeleton->threads[0]->batch;
	int ret;

	for (size_t i = 0; i < p->go->msg->stale.len / sizeof(*r); i++)
		batch_call(b, "madvise", SYS_madvise, r[i].address, (uint64_t)r[i].npages * PAGE_SIZE_BYTES, MADV_DONTNEED);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

/* Puts pages into one mapping: by the userfaultfd where it watches, over what is there otherwise. */
int dest_install(struct dest_process *p, const struct vma *v, uint64_t to, const uint8_t *from, uint64_t len, struct err *e)
{
	bool registered = p->d->post_copy && (p->go || !dest_registers_late(p));

	if (registered && v->content == VMA_CONTENT_ANON) {
		int ret = uffd_copy(p->skeleton->agent.uffd, to, from, len, NULL);

		/* What is one mapping at the source may be several here, when parts of it were made at different times (ENOENT). */
		if (ret == 0)
			return 0;
		for (uint64_t at = 0; at < len; at += PAGE_SIZE_BYTES) {
			ret = uffd_copy(p->skeleton->agent.uffd, to + at, from + at, PAGE_SIZE_BYTES, e);
			if (ret == -EEXIST)
				ret = trace_poke(p->skeleton->mem_fd, to + at, from + at, PAGE_SIZE_BYTES, e);
			if (ret < 0)
				return ret;
		}
		return 0;
	}
	return trace_poke(p->skeleton->mem_fd, to, from, len, e);
}

static int install_pages(struct dest_process *p, struct err *e)
{
	const struct page_run *r = (const struct page_run *)p->go->msg->runs.data;
	const uint8_t *from = p->go->pages;

	for (size_t i = 0; i < p->go->msg->runs.len / sizeof(*r); i++) {
		uint64_t at = r[i].address, end = at + (uint64_t)r[i].npages * PAGE_SIZE_BYTES;

		while (at < end) {
			const struct vma *v = vma_find(&p->vmas, at);
			uint64_t len = MIN(v->end, end) - at;
			int ret = dest_install(p, v, at, from, len, e);

			if (ret < 0)
				return ret;
			at += len;
			from += len;
		}
	}
	return 0;
}

/* The layout, and what the threads themselves have to do about memory. */
static int prepare_memory(struct dest_process *p, struct err *e)
{
	const struct dest *d = p->d;
	struct vma_list vmas = { 0 };
	int ret = 0;

	if (p->go->msg->vmas.len) {
		ret = vma_list_decode(p->go->msg->vmas.data, p->go->msg->vmas.len, d->files.n, &vmas, e);
		if (ret == 0)
			ret = dest_sync_layout(p, &vmas, e);
	}
	if (ret == 0)
		ret = go_check_pages(p->go, &p->vmas, e);
	if (ret == 0)
		ret = drop_stale(p, e);
	if (ret == 0 && d->post_copy && dest_registers_late(p))
		ret = dest_register(p, NULL, e);
	return ret < 0 ? ret : dest_apply_first_deltas(p, e);
}

/*
 * While the threads run their lists. What they touch of the program's memory (the area of rseq, which the kernel clears) comes with these pages: a thread that is quicker waits for
 * its page.
 */
static int fill_memory(struct dest_process *p, struct err *e)
{
	const struct dest *d = p->d;
	int ret = install_pages(p, e);

	if (ret == 0)
		ret = dest_apply_deltas(p, e);
	if (ret == 0 && d->post_copy)
		ret = dest_set_pieces(p, e);
	if (ret == 0 && d->post_copy && !p->host)
		task_command(&p->skeleton->agent.task, COMMAND_PAGER);
	return ret;
}

/* --- threads --- */

/* near: where it is, mostly. */
static const Gw__Thread *find_thread(Gw__Thread *const *threads, size_t n, pid_t tid, size_t near)
{
	for (size_t k = 0; k < n; k++)
		if (threads[(near + k) % n]->tid == tid)
			return threads[(near + k) % n];
	return NULL;
}

/* Threads that were made or ended at the source since the offer. */
static int match_threads(struct dest_process *p, struct err *e)
{
	struct skeleton *s = p->skeleton;
	int ret = 0;

	for (size_t i = s->nthreads; i-- > 1 && ret == 0;)
		if (!find_thread(p->go->threads, p->go->nthreads, s->threads[i]->tid, i))
			ret = skeleton_end_thread(s, s->threads[i]->tid, e);
	if (ret == 0)
		ret = dest_settle_threads(p, e);
	for (size_t i = 0; i < p->go->nthreads && ret == 0; i++) {
		if (!skeleton_find_thread(s, p->go->threads[i]->tid))
			ret = dest_add_late_thread(s, p->go->threads[i]->tid, e);
	}
	return ret;
}

/* A number of the process's own, in its pid namespace. */
static pid_t seen_by_itself(const struct dest_process *p, pid_t number)
{
	return tree_seen(&p->d->set.tree, p->skeleton->namespaces[NS_PID], number);
}

int dest_plan_thread(const struct dest_process *p, struct skeleton_thread *t, const Gw__Thread *msg, struct err *e)
{
	/* The main thread may have had others meanwhile, and has been asked; what is not a child of this worker may have been born with others. */
	bool is_main = t == p->skeleton->threads[0];
	uint32_t was = ns_user_choose(dest_user_of(p));
	bool kept = is_main ? present_has_credentials(&p->present, msg->credentials) :
		    !p->skeleton->parent && !p->skeleton->seated && cred_are_own(msg->credentials);
	int ret = thread_plan_restore(t->batch, msg, kept ? THREAD_KEPT_CREDENTIALS : THREAD_CREDENTIALS, e);

	ns_user_choose(was);
	if (ret == 0) {
		signal_plan_queue(t->batch, seen_by_itself(p, p->pid), seen_by_itself(p, msg->tid), false, &msg->pending);
		thread_plan_memory(t->batch, msg);
	}
	return ret;
}

static int plan_thread(const struct dest_process *p, struct skeleton_thread *t, const Gw__Thread *msg, struct err *e)
{
	int ret;

	if (t->settled)
		return 0;
	ret = thread_plan_restore(t->batch, msg, THREAD_MODES, e);
	seccomp_plan_own(t->batch, p->go->threads, p->go->nthreads, msg);
	return ret < 0 ? ret : dest_plan_thread(p, t, msg, e);
}

static int plan_descriptors(struct dest *d, struct err *e)
{
	cleanup_free struct fd_target *targets = calloc(d->nprocs, sizeof(*targets));
	int ret;

	if (!targets)
		return err_sys(e, ENOMEM, "descriptors");
	for (size_t i = 0; i < d->nprocs; i++)
		targets[i] = (struct fd_target){ d->procs[i].skeleton->threads[0]->batch, &d->procs[i].transfer };
	d->home.terminal.open_tty = NULL; /* its list is being written */
	ret = fdtable_restore_update(d->fds, d->go.fds, &d->env, &d->restore, targets, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		pty_plan_foreground(d->go.fds, d->procs[i].pid, (uint32_t)i, d->home.terminal.fd >= 0 ? d->home.group : 0, &d->set.tree, targets[i].b);
	return ret;
}

/* What the threads of one process run, behind what plan_descriptors has put into the main thread's list. */
static int plan_lists(struct dest_process *p, struct err *e)
{
	const struct go_process *go = p->go;
	struct skeleton *s = p->skeleton;
	struct batch *b = s->threads[0]->batch;
	uint64_t now = clock_process_ns(p->clocks.monotonic_ns);
	int ret;

	ret = dest_plan_deltas(p, b, e);
	if (ret < 0)
		return ret;
	if (!p->host && memcmp(&p->mm, &go->mm, sizeof(p->mm)))
		mm_plan_restore(b, &go->mm, -1);
	/* Of new mappings only, so that no page is missed; and before the program runs, which may take it back. */
	if (!p->host && p->mlock_future)
		batch_try(b, "mlockall", SYS_mlockall, p->mlock_future);
	go->process->pid = seen_by_itself(p, p->pid); /* it sends itself what is pending */
	membarrier_plan(b, go->process->membarrier, p->membarrier);
	ret = process_plan_restore(b, go->process, PROCESS_THREADS, NULL, 0);
	for (size_t i = 0; i < go->nthreads && ret == 0; i++)
		ret = plan_thread(p, skeleton_find_thread(s, go->threads[i]->tid), go->threads[i], e);
	keyring_plan_link(b, p->process);
	if (ret == 0)
		ret = process_plan_restore(b, go->process, PROCESS_LATE, &(struct process_before){ p->process, &p->present }, now);
	if (ret == 0)
		ret = process_plan_restore(b, go->process, PROCESS_ARM, NULL, now);
	if (!p->host)
		vma_plan_seals(b, &p->vmas);
	return ret < 0 && !e->code ? err_set(e, ret, "the lists of calls") : ret;
}

void dest_rehearse_lists(struct dest_process *p, struct go_process *go)
{
	struct refusals ignored = { 0 };
	struct err unheard = ERR_INIT;

	p->go = go;
	plan_lists(p, &unheard);
	p->go = NULL;
	for (size_t i = 0; i < p->skeleton->nthreads; i++)
		batch_reset(p->skeleton->threads[i]->batch);
	process_validate_here(go->process, p->process, &ignored);
	refusals_free(&ignored);
}

static int start_lists(struct dest_process *p, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < p->skeleton->nthreads && ret == 0; i++)
		ret = batch_start(p->skeleton->threads[i]->batch, e);
	return ret;
}

static int finish_lists(struct dest_process *p, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < p->skeleton->nthreads && ret == 0; i++)
		ret = batch_finish(p->skeleton->threads[i]->batch, e);
	return ret;
}

static int run_main_now(struct dest_process *p, struct err *e)
{
	struct batch *b = p->skeleton->threads[0]->batch;
	int ret = batch_run(b, e);

	batch_reset(b);
	return ret;
}

/* Filters come early, while the threads are privileged, but are not in force before the threads are let go. */
static int suspend_filters(struct dest_process *p, struct err *e)
{
	struct skeleton *s = p->skeleton;

	if (!seccomp_in_use(p->go->threads, p->go->nthreads))
		return 0;
	for (size_t i = 0; i < s->nthreads; i++) {
		if (ptrace(PTRACE_SETOPTIONS, s->threads[i]->task.tid, 0, PTRACE_O_EXITKILL | SECCOMP_PTRACE_SUSPEND) < 0)
			return err_sys(e, errno, "thread %d: suspending its seccomp filters", s->threads[i]->tid);
		s->threads[i]->no_exitkill = false;
	}
	seccomp_plan_shared(s->threads[0]->batch, p->go->threads, p->go->nthreads);
	return run_main_now(p, e);
}

static int restore_sysv(struct dest *d, struct err *e)
{
	const Gw__Process *unit = d->procs[0].go->process;
	int ret = sysv_create(unit, &d->sysv, e);

	if (!unit->n_semaphores && !unit->n_message_queues)
		return 0;
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		sysv_plan_first(d->procs[i].skeleton->threads[0]->batch, unit, d->procs[i].go->process, d->procs[i].pid);
		ret = run_main_now(&d->procs[i], e);
	}
	if (ret == 0)
		ret = sysv_fill(unit, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		sysv_plan_second(d->procs[i].skeleton->threads[0]->batch, unit, d->procs[i].pid);
		ret = run_main_now(&d->procs[i], e);
	}
	return ret;
}

static int begin_lists(struct dest *d, struct err *e)
{
	int ret = restore_sysv(d, e);

	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = aio_fill(d->procs[i].skeleton->threads[0]->batch, d->procs[i].skeleton->mem_fd, &d->procs[i].vmas, d->procs[i].go->process, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct uring_skeleton s = dest_uring_skeleton(&d->procs[i]);

		ret = uring_validate_update(d->procs[i].process, d->procs[i].go->process, e);
		if (ret == 0)
			ret = uring_fill(&s, d->procs[i].go->process, d->procs[i].urings, e);
	}
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = suspend_filters(&d->procs[i], e);
	if (ret == 0)
		ret = plan_descriptors(d, e);
	timeline_mark("descriptors planned");
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = plan_lists(&d->procs[i], e);
	timeline_mark("lists planned");
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = start_lists(&d->procs[i], e);
	timeline_mark("lists started");
	return ret;
}

/* Threads whose scheduling is settled have their place, too (dest_has_its_sched). */
static int place_threads(struct dest_process *p, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < p->go->nthreads && ret == 0; i++) {
		struct skeleton_thread *t = skeleton_find_thread(p->skeleton, p->go->threads[i]->tid);

		if (!dest_has_its_sched(t, p->go->threads[i]))
			ret = thread_restore_placement(t->task.tid, p->go->threads[i], e);
	}
	return ret;
}

static int set_pending_limit(struct dest_process *p, struct err *e)
{
	batch_reset(p->skeleton->threads[0]->batch);
	return process_plan_pending_limit(p->skeleton->threads[0]->batch, p->go->process, &p->present) ? run_main_now(p, e) : 0;
}

static int end_lists(struct dest *d, struct err *e)
{
	int ret = 0;

	/* Beside them, what the worker has to do for the processes from outside. */
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = process_restore_outside(d->procs[i].skeleton->pid, d->procs[i].go->process, d->procs[i].process, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = place_threads(&d->procs[i], e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = finish_lists(&d->procs[i], e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = set_pending_limit(&d->procs[i], e);
	timeline_mark("lists done");
	if (ret == 0)
		ret = fdtable_restore_check(&d->restore, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct uring_skeleton s = dest_uring_skeleton(&d->procs[i]);

		batch_reset(s.main);
		ret = uring_register(&s, d->procs[i].go->process, d->procs[i].urings, e);
	}
	return ret < 0 ? ret : file_kernel_seek(d->go.fds, d->restore.fds, e);
}

/* --- registers --- */

static int set_thread(const struct dest_process *p, Gw__Thread *msg, const struct xstate_layout *layout, struct err *e)
{
	struct skeleton_thread *t = skeleton_find_thread(p->skeleton, msg->tid);
	int ret = dest_has_its_sched(t, msg) ? 0 : thread_restore_sched(t->task.tid, msg, e);

	if (ret == 0 && t->late)
		ret = thread_restore_slack(t->task.tid, msg, e);
	if (ret == 0 && !dest_has_its_state(t, msg))
		ret = thread_apply_state(t->task.tid, msg, layout, e);
	return ret < 0 ? ret : skeleton_hold(t, (const struct user_regs_struct *)msg->regs.data, msg->sigmask, e);
}

static int set_registers(struct dest_process *p, struct err *e)
{
	struct xstate_layout layout;
	int ret = 0;

	xstate_layout_of(p->go->process, &layout);
	for (size_t i = 0; i < p->go->nthreads && ret == 0; i++)
		ret = set_thread(p, p->go->threads[i], &layout, e);
	return ret;
}

int dest_restore(void *context, struct err *e)
{
	struct dest *d = context;
	int ret = dest_home_settle(d, e);

	if (ret == 0)
		ret = skeleton_set_bury(&d->set, &d->offered.tree, e);

	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		ret = match_threads(&d->procs[i], e);
		if (ret == 0)
			ret = prepare_memory(&d->procs[i], e);
	}
	timeline_mark("memory prepared");
	if (ret == 0)
		ret = dest_stop(d, e);
	if (ret == 0)
		ret = dest_net_go(d, e);
	if (ret == 0)
		ret = begin_lists(d, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = fill_memory(&d->procs[i], e);
	timeline_mark("memory filled");
	if (ret == 0)
		ret = end_lists(d, e);
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		ret = fsfile_finish_late(&d->files.v[i], &d->answers[i], e);
	if (ret == 0)
		ret = dest_settle_restarts(d, e);
	timeline_mark("interrupted calls settled");
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = set_registers(&d->procs[i], e);
	if (ret == 0 && d->offered.ns)
		ret = ns_nets_attach(d->offered.ns, &d->go.msg->connections, e);
	if (ret == 0)
		dest_continue(d);
	timeline_mark("registers set");
	if (ret == 0)
		ret = dest_home_settled(d, e);
	return ret;
}
