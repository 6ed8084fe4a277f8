/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_threads.c - threads that are told ahead of the go message; see source_threads.c
 *
 * Theory of operation: a thread of the skeleton runs the list of calls for what was told at once, gets its scheduling and its processor state, and rests again. With the go message the list
 * is planned anew; where it is the very same there is nothing left to do but the registers, otherwise another thread takes its place. While it rests the kernel does
 * not touch the program's memory; what it wrote there for rseq(2) meanwhile is put back, so that the page is as it came, which is what the source's differences are against.
 * The kernel writes its part of that area again when the thread is let go (tests/facts/rseq_restore.c).
 */
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "image/bytes.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/timeline.h"

#define RSEQ_CS_AT 8 /* offsetof(struct rseq, rseq_cs) */

/* Whether all that the kernel writes to for this thread is there. */
static bool has_its_pages(const struct dest_process *p, const Gw__Thread *msg)
{
	return (!msg->rseq || (dest_has_ahead(p, msg->rseq) && dest_has_ahead(p, msg->rseq + SKELETON_RSEQ_AREA - 1))) && (!msg->clear_tid || dest_has_ahead(p, msg->clear_tid)) &&
	       (!msg->robust_list || dest_has_ahead(p, msg->robust_list));
}

/* All that a thread without system call filters runs. */
static int plan(const struct dest_process *p, struct skeleton_thread *t, const Gw__Thread *msg, struct err *e)
{
	int ret = thread_plan_restore(t->batch, msg, THREAD_MODES, e);

	return ret < 0 ? ret : dest_plan_thread(p, t, msg, e);
}

/*
 * One that seems to be in a restartable sequence is not told ahead: the kernel looks at what its area points to whenever it runs, and would wait for a page that nobody brings yet.
 */
static bool is_in_sequence(const struct skeleton_thread *t, const Gw__Thread *msg)
{
	uint64_t at = 0;

	memcpy(&at, t->area + RSEQ_CS_AT, sizeof(at));
	return msg->rseq && at;
}

static int begin_thread(struct dest_process *p, struct skeleton_thread *t, Gw__Thread *msg, struct err *e)
{
	int ret = msg->rseq ? trace_peek(p->skeleton->mem_fd, msg->rseq, t->area, sizeof(t->area), e) : 0;

	if (ret < 0 || is_in_sequence(t, msg))
		return ret;
	ret = plan(p, t, msg, e);
	if (ret < 0)
		return ret;
	t->ahead = msg;
	batch_keep(t->batch);
	return batch_start(t->batch, e);
}

/* A list that fails is no reason to give up: the thread is replaced when the go message has come. */
static int finish_thread(const struct dest_process *p, struct skeleton_thread *t, const struct xstate_layout *layout, struct err *e)
{
	const Gw__Thread *msg = t->ahead;
	struct err why = ERR_INIT;
	int ret = batch_finish(t->batch, &why);

	batch_reset(t->batch);
	if (ret == 0)
		ret = thread_restore_placement(t->task.tid, msg, &why);
	if (ret == 0)
		ret = thread_restore_sched(t->task.tid, msg, &why);
	if (ret == 0)
		ret = thread_apply_state(t->task.tid, msg, layout, &why);
	t->spoilt = ret < 0;
	if (ret < 0)
		log_debug("event=not-ahead tid=%d text=\"%s\"", t->tid, why.message);
	/* The main thread keeps EXITKILL until the commit: with it all of them die. */
	t->no_exitkill = ptrace(PTRACE_SETOPTIONS, t->task.tid, 0, 0) == 0;
	return msg->rseq ? trace_poke(p->skeleton->mem_fd, msg->rseq, t->area, sizeof(t->area), e) : 0;
}

int dest_take_threads(struct dest *d, const void *payload, size_t len, struct err *e)
{
	struct threads_ahead a;
	struct xstate_layout layout;
	struct dest_process *p;
	int ret = threads_ahead_decode(payload, len, d->nprocs, &a, e);

	if (ret < 0)
		return ret;
	p = &d->procs[a.process];
	xstate_layout_of(p->process, &layout);
	for (size_t i = 0; i < a.n && ret == 0 && !p->host && !p->has_guests && !p->skeleton->seated; i++) {
		struct skeleton_thread *t = skeleton_find_thread(p->skeleton, a.v[i]->tid);

		if (!t || t == p->skeleton->threads[0] || t->ahead || !has_its_pages(p, a.v[i]) || a.v[i]->seccomp_mode || a.v[i]->pending.len || a.v[i]->syscall_dispatch.len)
			continue;
		ret = begin_thread(p, t, a.v[i], e);
		if (t->ahead)
			a.v[i] = NULL;
	}
	for (size_t i = 1; i < p->skeleton->nthreads && ret == 0; i++)
		if (p->skeleton->threads[i]->ahead && !p->skeleton->threads[i]->no_exitkill)
			ret = finish_thread(p, p->skeleton->threads[i], &layout, e);
	threads_ahead_free(&a);
	timeline_mark("threads ahead");
	return ret;
}

int dest_add_late_thread(struct skeleton *s, pid_t tid, struct err *e)
{
	int ret = skeleton_add_thread(s, tid, e);

	if (ret == 0)
		skeleton_find_thread(s, tid)->late = true;
	return ret;
}

int dest_settle_threads(struct dest_process *p, struct err *e)
{
	struct skeleton *s = p->skeleton;
	int ret = 0;

	for (size_t i = 0; i < p->go->nthreads && ret == 0; i++) {
		const Gw__Thread *msg = p->go->threads[i];
		struct skeleton_thread *t = skeleton_find_thread(s, msg->tid);

		if (!t || !t->ahead)
			continue;
		ret = plan(p, t, msg, e);
		t->settled = ret == 0 && !t->spoilt && !msg->seccomp_mode && batch_is_kept(t->batch);
		batch_reset(t->batch);
		if (ret < 0 || t->settled)
			continue;
		ret = skeleton_end_thread(s, msg->tid, e);
		if (ret == 0)
			ret = dest_add_late_thread(s, msg->tid, e);
	}
	return ret;
}

bool dest_has_its_sched(const struct skeleton_thread *t, const Gw__Thread *msg)
{
	return t->settled && bytes_equal(t->ahead->sched_attr, msg->sched_attr) && bytes_equal(t->ahead->affinity, msg->affinity) && t->ahead->ioprio >> 13 == msg->ioprio >> 13 &&
	       t->ahead->timer_slack_ns == msg->timer_slack_ns;
}

bool dest_has_its_state(const struct skeleton_thread *t, const Gw__Thread *msg)
{
	return t->settled && !msg->syscall_dispatch.len && bytes_equal(t->ahead->xstate, msg->xstate);
}
