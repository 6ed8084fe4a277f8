/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_restart.c - system calls that the freeze interrupted, at the destination; see image/restart.h
 *
 * Theory of operation: a thread that slept is *primed*: it issues the call anew, with the time that is left, and is stopped in it, so that the kernel's own restart
 * block is set. All threads are sent into their calls at once, and all are stopped together then: one after another would cost 0.15 ms each. On a busy host a thread needs
 * time to get a CPU; one that was stopped before it came to its call is sent on, and stopped again a little later.
 */
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/restart.h"
#include "kern/trace.h"
#include "migrate/dest.h"

#define PRIME_TRIES 200
#define ENTER_US 10u
#define ENTER_EACH_US 3u

/* A thread that is sent into its call. */
struct primed {
	struct skeleton_thread *t;
	Gw__Thread *msg;
	struct restart_prime prime;
	struct remote_call *call;
	bool inside; /* it has been stopped in the call, or the call has ended */
};

struct primed_list {
	struct primed *v;
	size_t n;
};

static int begin(struct primed *p, struct err *e)
{
	uint64_t arg[6];

	batch_reset(p->t->batch);
	memcpy(arg, p->prime.arg, sizeof(arg));
	if (p->prime.request_arg >= 0)
		arg[p->prime.request_arg] = batch_data(p->t->batch, p->prime.request, sizeof(p->prime.request));
	p->call = batch_call_array(p->t->batch, "primed call", p->prime.nr, CALL_MAY_FAIL, arg);
	batch_prepare(p->t->batch);
	if (ptrace(PTRACE_CONT, p->t->task.tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: priming", p->t->tid);
	return 0;
}

/* The call has ended; the thread must come to its rest, or the SIGSTOP by which it rests would still be on its way when it is let go. */
static int rest_again(struct skeleton_thread *t, int status, struct err *e)
{
	if (WSTOPSIG(status) == SIGSTOP && status >> 16 == 0)
		return 0;
	if (ptrace(PTRACE_CONT, t->task.tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: priming", t->tid);
	return task_wait(&t->task, -1, e);
}

/* Takes the stop of one that has been interrupted, and sends it on where it has not come to its call yet. */
static int look(struct primed *p, struct err *e)
{
	const struct task *task = &p->t->task;
	struct slot *slot = scratch_slot(task->scratch, task->slot);
	struct user_regs_struct *to = (struct user_regs_struct *)p->msg->regs.data, regs;
	int status, ret;

	if (waitpid(task->tid, &status, __WALL) < 0)
		return err_sys(e, errno, "thread %d: priming", p->t->tid);
	if (!WIFSTOPPED(status))
		return err_set(e, -ESRCH, "thread %d ended while it was primed", p->t->tid);
	if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == slot->seq) {
		restart_prime_done(to, p->call->ret);
		p->inside = true;
		return rest_again(p->t, status, e);
	}
	ret = trace_get_regs(task->tid, &regs, e);
	if (ret < 0)
		return ret;
	if (regs.orig_rax == p->prime.nr && (int64_t)regs.rax < 0) {
		restart_prime_done(to, (int64_t)regs.rax);
		p->inside = true;
		return 0;
	}
	return ptrace(PTRACE_CONT, task->tid, 0, 0) < 0 ? err_sys(e, errno, "thread %d: priming", p->t->tid) : 0;
}

static int prime_all(const struct primed_list *l, struct err *e)
{
	size_t left = l->n;
	int ret = 0;

	for (size_t i = 0; i < l->n && ret == 0; i++)
		ret = begin(&l->v[i], e);
	for (int round = 0; round < PRIME_TRIES && left && ret == 0; round++) {
		/* The first time long enough for all to get there: stopping one in vain costs more. */
		usleep(round ? 10u << MIN(round / 16, 9) : ENTER_US + ENTER_EACH_US * (unsigned)MIN(l->n, 4096ul));
		for (size_t i = 0; i < l->n && ret == 0; i++)
			if (!l->v[i].inside)
				ret = trace_interrupt(l->v[i].t->task.tid, e);
		left = 0;
		for (size_t i = 0; i < l->n && ret == 0; i++) {
			if (!l->v[i].inside)
				ret = look(&l->v[i], e);
			left += !l->v[i].inside;
		}
	}
	return ret == 0 && left ? err_set(e, -ETIMEDOUT, "%zu threads did not enter their interrupted calls", left) : ret;
}

/* Calls that need no restart block: registers, and at most a few bytes of memory. */
static int finish(const struct dest_process *p, Gw__Thread *msg, const struct restart_now *now, struct err *e)
{
	struct restart_patch patch = { 0 };

	restart_finish((struct user_regs_struct *)msg->regs.data, msg->restart, now, &patch);
	return patch.len ? trace_poke(p->skeleton->mem_fd, patch.address, patch.data, patch.len, e) : 0;
}

static int sort_out(const struct dest_process *p, struct primed_list *l, struct err *e)
{
	const struct restart_now now = restart_now_read(p->clocks.monotonic_ns, p->clocks.boottime_ns);
	int ret = 0;

	for (size_t i = 0; i < p->go->nthreads && ret == 0; i++) {
		Gw__Thread *msg = p->go->threads[i];
		struct primed *next = &l->v[l->n];

		if (!msg->restart || msg->restart->kind == GW__RESTART__KIND__NONE)
			continue;
		*next = (struct primed){ .t = skeleton_find_thread(p->skeleton, msg->tid), .msg = msg };
		if (restart_prime_call(msg, &now, &next->prime))
			l->n++;
		else
			ret = finish(p, msg, &now, e);
	}
	return ret;
}

int dest_settle_restarts(struct dest *d, struct err *e)
{
	struct primed_list l = { 0 };
	size_t n = 0;
	int ret = 0;

	for (size_t i = 0; i < d->nprocs; i++)
		n += d->procs[i].go->nthreads;
	l.v = malloc((n + 1) * sizeof(*l.v));
	if (!l.v)
		return err_sys(e, ENOMEM, "interrupted calls");
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = sort_out(&d->procs[i], &l, e);
	if (ret == 0)
		ret = prime_all(&l, e);
	free(l.v);
	return ret;
}
