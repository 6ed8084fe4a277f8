/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.c - a tracer for an agent that has inherited a seccomp filter; see keeper.h
 *
 * Theory of operation: between the worker's detach and the keeper's seize the filter is in force, so that the agent must not call the kernel then: it spins
 * on header->hold. The word goes REQUESTED (worker), SPINNING (agent), FREE (worker, has detached), NOT_HELD (keeper, has seized). When the worker dies in between,
 * the keeper goes on alone: as long as the worker traces, its death kills the agent.
 */
#include "migrate/keeper.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/seccomp.h"
#include "kern/trace.h"

#define WAIT_MS 2000

static uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static bool wait_for(const uint32_t *word, uint32_t value, pid_t parent)
{
	for (unsigned i = 0; i < WAIT_MS * 20; i++) {
		if (load(word) == value)
			return true;
		if (parent && getppid() != parent)
			return false;
		usleep(50);
	}
	return false;
}

/* A fork of the worker. Only system calls. */
static void __attribute__((noreturn)) keeper_main(pid_t agent, uint32_t *hold, pid_t worker)
{
	int status;

	syscall(SYS_close_range, 0, ~0u, 0);
	setsid();
	prctl(PR_SET_NAME, "godwit-keeper");
	wait_for(hold, HOLD_FREE, worker);
	if (ptrace(PTRACE_SEIZE, agent, 0, SECCOMP_PTRACE_SUSPEND) < 0) {
		store(hold, HOLD_FAILED);
		_exit(1);
	}
	store(hold, HOLD_NONE);
	while (waitpid(agent, &status, __WALL) == agent && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, agent, 0, 0);
	_exit(0);
}

int keeper_take_over(struct agent *a, struct err *e)
{
	uint32_t *hold = &scratch_header(&a->scratch)->hold;
	pid_t worker = getpid(), keeper;
	int ret;

	store(hold, HOLD_REQUESTED);
	task_command(&a->task, COMMAND_HOLD);
	ret = task_wake(&a->task, e);
	if (ret < 0)
		return ret;
	if (!wait_for(hold, HOLD_SPINNING, 0))
		return err_set(e, -ETIMEDOUT, "the agent does not answer");
	keeper = fork();
	if (keeper == 0)
		keeper_main(a->pid, hold, worker);
	if (keeper < 0)
		return err_sys(e, errno, "a tracer for the agent");
	ret = trace_interrupt(a->pid, e);
	if (ret == 0)
		ret = trace_wait_stop(a->pid, e);
	if (ret == 0)
		ret = trace_detach(a->pid, e);
	store(hold, ret < 0 ? HOLD_FAILED : HOLD_FREE);
	if (ret == 0 && !wait_for(hold, HOLD_NONE, 0))
		ret = err_set(e, -EPERM, "the agent of a process with a seccomp filter got no tracer");
	return ret < 0 ? ret : task_wait(&a->task, WAIT_MS, e);
}
