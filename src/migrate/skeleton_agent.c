/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_agent.c - the agent of a process at the destination; see skeleton.h
 *
 * Theory of operation: the agent of the unit's root is made with CLONE_PARENT: godwitd is its parent. That of any other process would become a child of another process of the
 * unit that way; so a helper makes it and ends, and it is an orphan. It is adopted by godwitd, or by the first process of its pid namespace: no process of the unit is a
 * subreaper as yet.
 */
#include <errno.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/process_check.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"

#define NUMBERS_TRIED 512
#define NUMBER_HIGHEST 32000 /* the kernel lets pid_max be lower, but nobody does */

/*
 * In a pid namespace of the unit's own the kernel gives out low numbers, one of which a thread of the unit may need in a moment; so the agent gets a high one there.
 */
static int64_t clone_agent(struct skeleton *s, struct task *by, struct batch *b, uint64_t flags, pid_t *ret_outer, struct err *e)
{
	const uint64_t stack = s->agent.scratch.base + SCRATCH_AGENT_STACK;
	unsigned depth = s->tree ? tree_depth(s->tree, s->namespaces[NS_PID]) : 0;
	cleanup_close int ns = s->namespaces[NS_USER] ? ns_open(s->pid, NS_PID) : -1;
	pid_t number = NUMBER_HIGHEST, numbers[TREE_LEVELS_MAX + 1];
	int64_t made = -EEXIST;

	for (int tries = 0; made == -EEXIST && tries < NUMBERS_TRIED; tries++, number--) {
		uint64_t at, number_at;
		struct clone_args *args = batch_space(b, sizeof(*args), &at);
		size_t n, wanted = depth + s->own_pid_namespace;

		for (n = 0; n < wanted; n++)
			numbers[n] = number;
		n = skeleton_numbers_chosen(s, ns, false, wanted);
		if (n < wanted && skeleton_lead_to(ns, false, numbers, n, wanted, e) < 0)
			return e ? e->code : -EIO;
		number_at = batch_data(b, numbers, n * sizeof(*numbers));
		*args = (struct clone_args){ .flags = flags, .stack = stack, .stack_size = SCRATCH_AGENT_STACK_TOP - SCRATCH_AGENT_STACK - 64 };
		if (n) {
			args->set_tid = number_at;
			args->set_tid_size = n;
		}
		made = skeleton_spawn(by, b, SYS_clone3, (const uint64_t[6]){ at, sizeof(*args) }, 0, ret_outer, e);
		skeleton_lead_back();
	}
	return made < 0 ? err_sys(e, (int)made, "making the agent") : made;
}

/* A task that shares everything with the process and ends when it has made the agent. */
static int make_orphan(struct skeleton *s, uint64_t flags, pid_t *ret_outer, struct err *e)
{
	struct task *main_task = &s->threads[0]->task, helper;
	struct batch *b = s->threads[0]->batch, *helper_batch;
	uint64_t at;
	struct clone_args *args;
	unsigned slot;
	pid_t outer;
	int64_t number, made;
	int status, ret = skeleton_take_slot(&s->agent.scratch, &slot, e);

	if (ret < 0)
		return ret;
	args = batch_space(b, sizeof(*args), &at);
	*args = (struct clone_args){ .flags = flags, .stack = scratch_slot_address(&s->agent.scratch, slot) + SLOT_STACK, .stack_size = SLOT_STACK_BYTES };
	number = skeleton_spawn(main_task, b, SYS_clone3, (const uint64_t[6]){ at, sizeof(*args) }, slot, &outer, e);
	if (number < 0)
		return err_sys(e, (int)number, "making the agent's helper");
	ret = skeleton_first_rest(outer, e);
	if (ret < 0)
		return ret;
	helper = (struct task){ .scratch = &s->agent.scratch, .slot = slot, .tid = outer, .wake = TASK_PTRACE, .bell_fd = -1 };
	helper_batch = batch_new(&helper);
	made = clone_agent(s, &helper, helper_batch, flags, ret_outer, e);
	batch_call(helper_batch, "exit", SYS_exit, 0);
	batch_prepare(helper_batch);
	if (task_wake(&helper, NULL) < 0)
		kill(outer, SIGKILL);
	while (waitpid(outer, &status, __WALL) == outer && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, outer, 0, 0);
	batch_free(helper_batch);
	scratch_slot(&s->agent.scratch, slot)->flags = 0;
	if (made < 0)
		return (int)made;
	s->agent.seen = (pid_t)made;
	return (int)remote_do(b, e, "wait4", SYS_wait4, (uint64_t)number, 0, __WALL, 0) < 0 ? -ECHILD : 0;
}

int skeleton_make_agent(struct skeleton *s, bool orphan, struct err *e)
{
	struct agent *a = &s->agent;
	const uint64_t flags = CLONE_VM | CLONE_FILES;
	const uint64_t end = (uint64_t)s->agent_end;
	/* Who is the first in a pid namespace cannot have siblings: its agent, and those that are adopted by it, are waited for in it at last (dest.c). */
	bool first = s->world && s->world->msg && s->world->msg->owned & NS_BIT(NS_PID);
	struct process_stat stat;
	int64_t made;
	int ret = 0;

	scratch_slot(&a->scratch, 0)->flags = SLOT_AGENT;
	if (orphan)
		ret = make_orphan(s, flags, &a->pid, e);
	else if ((made = clone_agent(s, &s->threads[0]->task, s->threads[0]->batch, flags | (first ? 0 : CLONE_PARENT), &a->pid, e)) < 0)
		ret = (int)made;
	else if (first)
		a->seen = (pid_t)made;
	if (ret == 0 && process_stat_read(a->pid, &stat, NULL) == 0)
		a->reaper = stat.ppid;
	/* Traced, and so killed with this worker, until it has been equipped to notice this worker's death by itself. */
	if (ret == 0 && ptrace(PTRACE_SETOPTIONS, a->pid, 0, PTRACE_O_EXITKILL) < 0)
		ret = err_sys(e, errno, "agent: options");
	if (ret == 0 && ptrace(PTRACE_CONT, a->pid, 0, 0) < 0)
		ret = err_sys(e, errno, "agent: starting");
	if (ret < 0)
		return ret;
	a->task = (struct task){ .scratch = &a->scratch, .slot = 0, .tid = a->pid, .wake = TASK_FUTEX, .bell_fd = -1 };
	a->batch = batch_new(&a->task);
	a->pidfd = ret = pidfd_open_process(a->pid, e);
	if (ret < 0)
		return ret;
	batch_try(a->batch, "setsid", SYS_setsid);
	batch_try(a->batch, "close_range", SYS_close_range, 0, end - 1, CLOSE_RANGE_UNSHARE);
	batch_call(a->batch, "close_range", SYS_close_range, end + 1, ~0u, CLOSE_RANGE_UNSHARE);
	batch_call(a->batch, "prctl", SYS_prctl, PR_SET_NAME, batch_string(a->batch, "godwit-agent"));
	ret = batch_run(a->batch, e);
	batch_reset(a->batch);
	return ret;
}
