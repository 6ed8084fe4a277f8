/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_stop.c - processes that a signal has stopped, at the destination
 *
 * Theory of operation: they are stopped while they are skeletons still; as tracees they run their lists all the same, and are stopped when they are let go. So
 * the stop is over before their parents get their own pending signals: the SIGCHLD that it causes is taken out again, and where the parent at the source had been
 * told of the stop, the parent here is told, too (waitid), so that it does not hear of it twice. One that was continued and whose parent has not waited for that is stopped
 * and continued.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/signal.h"
#include "migrate/dest.h"
#include "migrate/skeleton_set_internal.h"

/* SIGSTOP cannot be queued while it is blocked, as the others are: one that was on its way stops the process now. */
static bool is_to_stop(const struct dest_process *p)
{
	bool stop = p->go->process->stopped_by || signal_has_stop(&p->go->process->pending);

	for (size_t i = 0; i < p->go->nthreads; i++)
		stop |= signal_has_stop(&p->go->threads[i]->pending);
	return stop;
}

/* What its parent will hear. */
static int stop_signal(const struct dest_process *p)
{
	int signal = (int)p->go->process->stopped_by;

	return signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU ? signal : SIGSTOP;
}

/* Every thread takes part in the stop when it goes on. */
static int join_all(struct skeleton *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 1; i < s->nthreads && ret == 0; i++)
		ret = (int)MIN(remote_do(s->threads[i]->batch, e, "getpid", SYS_getpid), 0);
	return ret;
}

static int tell_parent(struct dest *d, const struct dest_process *p, struct err *e)
{
	uint32_t i = tree_find(&d->set.tree, p->pid), up = i == TREE_NONE ? TREE_NONE : tree_parent(&d->set.tree, i);
	struct skeleton *parent = up == TREE_NONE ? NULL : d->set.v[up];
	int ret;

	if (!parent || !parent->nthreads)
		return 0;
	if (p->go->process->stopped_by && !p->go->process->stop_unreported)
		batch_try(parent->threads[0]->batch, "waitid", SYS_waitid, P_PID, (uint64_t)tree_seen(&d->set.tree, d->set.tree.v[up].space, p->pid), 0, WSTOPPED | WNOHANG | __WALL, 0);
	ret = batch_run(parent->threads[0]->batch, e);
	batch_reset(parent->threads[0]->batch);
	return ret < 0 ? ret : skeleton_take_signal(parent, SIGCHLD, e);
}

/* Whoever goes on tells the parent: the main thread, with a call. */
static int stop_and_continue(const struct dest_process *p, struct err *e)
{
	struct skeleton *s = p->skeleton;
	int ret = skeleton_stop(s, SIGSTOP, e);

	if (ret == 0 && kill(s->pid, SIGCONT) < 0)
		ret = err_sys(e, errno, "process %d: SIGCONT", s->pid);
	for (size_t i = 0; i < s->nthreads && ret == 0; i++)
		ret = (int)MIN(remote_do(s->threads[i]->batch, e, "getpid", SYS_getpid), 0);
	return ret < 0 ? ret : skeleton_take_signal(s, SIGCONT, e);
}

/* Of the root its parent at home knows, or has yet to ask. */
static bool is_to_be_continued(const struct dest *d, const struct dest_process *p)
{
	uint32_t i = tree_find(&d->set.tree, p->pid);

	return p->go->process->continue_unreported && i != TREE_NONE && tree_parent(&d->set.tree, i) != TREE_NONE;
}

int dest_stop(struct dest *d, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct dest_process *p = &d->procs[i];

		if (is_to_stop(p)) {
			ret = skeleton_stop(p->skeleton, stop_signal(p), e);
			if (ret == 0)
				ret = join_all(p->skeleton, e);
		} else if (is_to_be_continued(d, p)) {
			ret = stop_and_continue(p, e);
		} else {
			continue;
		}
		if (ret == 0)
			ret = tell_parent(d, p, e);
	}
	return ret;
}

/* A pending SIGCONT is queued when all lists have run. */
static void send_continue(const struct dest_process *p)
{
	signal_send_continue(p->skeleton->pid, 0, &p->go->process->pending);
	for (size_t i = 0; i < p->go->nthreads; i++) {
		const struct skeleton_thread *t = skeleton_find_thread(p->skeleton, p->go->threads[i]->tid);

		if (t)
			signal_send_continue(p->skeleton->pid, t->task.tid, &p->go->threads[i]->pending);
	}
}

void dest_continue(struct dest *d)
{
	for (size_t i = 0; i < d->nprocs; i++)
		send_continue(&d->procs[i]);
}
