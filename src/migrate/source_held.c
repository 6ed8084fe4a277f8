/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_held.c - parked threads that stay tracees of the worker
 *
 * Theory of operation: ordinarily a parked thread is let go and runs the stub by itself. Two kinds of threads could not: those of a process that is
 * stopped by a signal (let go, the kernel stops them again), and those with a seccomp filter (which may forbid what the stub does; as tracees with
 * PTRACE_O_SUSPEND_SECCOMP they have none). They run the stub as tracees instead, and are sent on whenever they stop (TASK_HELD). When nothing
 * comes of the move they get their registers back by ptrace, and a stopped process is stopped again by the kernel, without anybody being told. After the commit
 * the worker ends them itself.
 *
 * A process that becomes a stub is a tracee until it is one, stopped or not: a signal that stops it meanwhile does not keep it from making calls, and what the kernel keeps
 * of its being stopped and continued is true all the time. Stopping it once more afterwards would throw away a SIGCONT that has come meanwhile.
 *
 * When the worker dies meanwhile, the agent gives them back to their program as it does with others. A stopped process then does this when it is continued.
 * Filters are in force from then on: a thread whose filter forbids rt_sigprocmask, by which its signal mask is set, meets its filter.
 */
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "home/stub_abi.h"
#include "image/clocks.h"
#include "image/process_check.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "kern/trace.h"
#include "migrate/late.h"
#include "migrate/source.h"

#define DIE_MS 2000
#define END_THREADS_MAX 64u /* the death of more of them would compete with the push for CPUs: the agent does it when there is a pause */

int source_held_go(struct source_process *p, struct parked *t, struct err *e)
{
	t->task.wake = TASK_HELD;
	/* From here on it runs nothing of the program any more: now its filters may be out of force. */
	if (seccomp_in_use(p->u->threads, p->u->nthreads) && ptrace(PTRACE_SETOPTIONS, t->tid, 0, SECCOMP_PTRACE_SUSPEND) < 0)
		return err_sys(e, errno, "thread %d: suspending its seccomp filters", t->tid);
	if (ptrace(PTRACE_CONT, t->tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: parking", t->tid);
	return 0;
}

/* From a stop of the kind that PTRACE_INTERRUPT makes the kernel itself goes on with interrupted calls. */
static int give_back(struct source_process *p, struct parked *t, struct err *e)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	struct restart_now now = restart_now_read(clocks->monotonic_offset_ns, clocks->boottime_offset_ns);
	struct user_regs_struct regs;
	int ret = trace_interrupt(t->tid, e);

	if (ret == 0)
		ret = trace_wait_stop(t->tid, e);
	memcpy(&regs, t->msg->regs.data, sizeof(regs));
	/* With a filter the call itself is made again: restart_syscall may be forbidden. */
	if (t->msg->restart && (t->msg->seccomp_mode || restart_is_unfinished(t->msg->restart)))
		restart_finish_in(p->u->pid, &regs, t->msg->restart, &now);
	if (ret == 0)
		ret = trace_set_regs(t->tid, &regs, e);
	if (ret == 0)
		ret = trace_set_mask(t->tid, t->msg->sigmask, e);
	return ret < 0 ? ret : trace_detach(t->tid, e);
}

static void seize_again(struct parked *t)
{
	if (t->parked && !t->traced && trace_seize(t->tid, 0, NULL) == 0) {
		t->traced = true;
		t->task.wake = TASK_HELD; /* sends it on from the stop that it is in */
	}
}

/* A signal has stopped the process since it was parked: its threads cannot even be given back before they are tracees again. */
void source_held_again(struct source_process *p)
{
	struct process_stat stat;

	if (p->held || !p->nparked || process_stat_read(p->u->pid, &stat, NULL) < 0 || stat.state != 'T')
		return;
	for (size_t i = 0; i < p->nparked; i++)
		seize_again(&p->parked[i]);
}

void source_held_thaw(struct source_process *p, struct parked *t)
{
	struct err e = ERR_INIT;

	task_wait(&t->task, 5000, NULL);
	if (give_back(p, t, &e) < 0)
		log_error("event=not-given-back pid=%d tid=%d text=\"%s\"", p->u->pid, t->tid, e.message);
	t->traced = false;
}

/* The main thread is to become the stub (docs/home.md), which ends the others: source_home.c goes on. */
static void hold_stub(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++)
		seize_again(&p->parked[i]);
	p->s->home.home.traced = seccomp_in_use(p->u->threads, p->u->nthreads);
	p->held = false; /* this one is not ended */
}

static void set_home(struct source_process *p, enum home_state state)
{
	__atomic_store_n(&scratch_header(&p->agent.scratch)->home, state, __ATOMIC_RELEASE);
}

void source_end_later(struct source_process *p)
{
	set_home(p, HOME_PENDING);
}

static bool has_stub(const struct source_process *p)
{
	return p == &p->s->procs[0] && p->s->home.kind == HOME_STUB;
}

/* They forget what the kernel would write at their death. */
static void calm_threads(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++)
		task_command(&p->parked[i].task, COMMAND_DIE);
	for (size_t i = 0; i < p->nparked; i++)
		task_wake(&p->parked[i].task, NULL);
	for (size_t i = 0; i < p->nparked; i++)
		task_wait(&p->parked[i].task, DIE_MS, NULL);
}

static bool ends_here(const struct source_process *p)
{
	return p->held || p->nparked <= END_THREADS_MAX;
}

/* One's end is told to its parent and children: so all are looked at before the first one ends. */
void source_end_copies(struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++) {
		struct source_process *p = &s->procs[i];

		source_plain_release(p);
		if (has_stub(p)) {
			hold_stub(p);
			continue;
		}
		late_look(p);
		if (ends_here(p))
			calm_threads(p);
	}
	for (size_t i = 0; i < s->nprocs; i++)
		if (!has_stub(&s->procs[i]) && ends_here(&s->procs[i]))
			late_look(&s->procs[i]); /* what has been sent to them until now goes along */
	for (size_t i = 0; i < s->nprocs; i++) {
		struct source_process *p = &s->procs[i];

		if (has_stub(p)) /* source_home.c goes on with it */
			continue;
		if (ends_here(p) && !scratch_header(&p->agent.scratch)->ends_namespace) { /* with the first of a pid namespace the agents would end: source.c, end_namespaces */
			kill(p->u->pid, SIGKILL);
			scratch_header(&p->agent.scratch)->tgid = 0; /* the agent need not */
		}
		set_home(p, HOME_OFF);
	}
}

/* Until its tracer has waited for it, the process's parent cannot. The main thread's end is reported last. */
void source_held_reap(struct source_process *p)
{
	for (size_t i = p->nparked; i-- > 0 && p->held;) {
		int status;

		while (waitpid(p->parked[i].tid, &status, __WALL) == p->parked[i].tid && WIFSTOPPED(status))
			;
	}
}
