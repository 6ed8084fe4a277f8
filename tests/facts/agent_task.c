// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * agent_task.c - a task cloned into a stopped process by an injected clone(CLONE_VM|CLONE_FILES) at the vdso's syscall instruction
 *
 * What the process notices (descriptors, waitpid), whether the tracer gets the new task by itself, what is left
 * when it ends, and whether the memory outlives the process while the task lives.
 */
#include "fact.h"

struct shared {
	volatile uint32_t counter;
	volatile int command, wait_result, wait_errno, fd_ok;
};

static struct shared *shared;

static pid_t victim(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	int null = open("/dev/null", O_RDONLY);

	for (;;) {
		shared->counter++;
		if (shared->command == 1) { /* waitpid(-1), as a shell does */
			errno = 0;
			shared->wait_result = waitpid(-1, NULL, WNOHANG);
			shared->wait_errno = errno;
			shared->fd_ok = fcntl(null, F_GETFD) >= 0 && fcntl(1, F_GETFD) >= 0;
			shared->command = 0;
		} else if (shared->command == 2) { /* __WALL, as few programs do */
			errno = 0;
			shared->wait_result = waitpid(-1, NULL, WNOHANG | __WALL);
			shared->wait_errno = errno;
			shared->command = 0;
		}
		usleep(200);
	}
}

static void ask(int command)
{
	shared->command = command;
	while (shared->command)
		usleep(100);
}

static int tasks_of(pid_t pid)
{
	char path[64], line[256];
	int n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "Threads: %d", &n);
	if (f)
		fclose(f);
	return n;
}

/* Like inject for clone: with TRACECLONE/TRACEFORK an event stop comes in between. */
static long inject_clone(pid_t pid, uintptr_t at, unsigned long flags, int *ret_event)
{
	struct user_regs_struct saved, r;
	int status;

	MUST(ptrace(PTRACE_GETREGS, pid, 0, &saved) == 0);
	r = saved;
	r.rip = at, r.rax = SYS_clone, r.orig_rax = -1ul;
	r.rdi = flags, r.rsi = 0, r.rdx = 0, r.r10 = 0, r.r8 = 0;
	MUST(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
	*ret_event = 0;
	MUST(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
	for (;;) {
		MUST(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status));
		if (status >> 16) {
			*ret_event = status >> 16;
			MUST(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
			continue;
		}
		break;
	}
	MUST(ptrace(PTRACE_GETREGS, pid, 0, &r) == 0);
	MUST(ptrace(PTRACE_SETREGS, pid, 0, &saved) == 0);
	return (long)r.rax;
}

static pid_t make_agent(pid_t pid, uintptr_t at, const char *name, unsigned long flags, unsigned long options, int expected_event)
{
	int event, status;
	pid_t agent;

	MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, options) == 0);
	agent = (pid_t)inject_clone(pid, at, flags, &event);
	MUST(agent > 0);
	FACT(event == expected_event, "%s: event %d (1 fork, 2 vfork, 3 clone)", name, event);
	pid_t w = waitpid(agent, &status, __WALL);
	FACT(w == agent && WIFSTOPPED(status), "the new task is a tracee by itself; its first stop: status %#x (event %d)", status, status >> 16);
	return agent;
}

static void what_it_notices(pid_t pid, uintptr_t at)
{
	pid_t agent = make_agent(pid, at, "clone(VM|FILES, exit signal 0) with TRACECLONE|TRACEFORK", CLONE_VM | CLONE_FILES,
				 PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK, 3);
	int status;

	FACT(ptrace(PTRACE_SETOPTIONS, agent, 0, PTRACE_O_EXITKILL) == 0 && ptrace(PTRACE_SETOPTIONS, pid, 0, 0) == 0,
	     "EXITKILL on the agent only (the event made it inherit options; each has its own)");
	FACT(inject(agent, at, SYS_close_range, 0, -1u, 2 /* CLOSE_RANGE_UNSHARE */, 0, 0, 0) == 0, "close_range(0, ~0, UNSHARE) in the agent");
	SAW("Threads of the process: %d (the agent is a process of its own, tgid %d)", tasks_of(pid), agent);
	ptrace(PTRACE_CONT, pid, 0, 0);
	ask(1);
	FACT(shared->fd_ok, "descriptors of the process are untouched");
	FACT(shared->wait_result == -1 && shared->wait_errno == ECHILD, "waitpid(-1) in the process: %d %s", shared->wait_result,
	     strerror(shared->wait_errno));
	ask(2);
	SAW("waitpid(-1, __WALL) in the process: %d %s (sees the agent as a child)", shared->wait_result,
	    shared->wait_result < 0 ? strerror(shared->wait_errno) : "");

	/* The agent ends. */
	struct user_regs_struct r;
	ptrace(PTRACE_GETREGS, agent, 0, &r);
	r.rip = at, r.rax = SYS_exit, r.rdi = 0, r.orig_rax = -1ul;
	ptrace(PTRACE_SETREGS, agent, 0, &r);
	ptrace(PTRACE_CONT, agent, 0, 0);
	MUST(waitpid(agent, &status, __WALL) == agent && WIFEXITED(status));
	SAW("after exit and the tracer's wait the agent is in state %c", task_state(agent));
	FACT(task_state(agent) == 'Z', "a zombie child of the process remains");
	ask(1);
	FACT(shared->wait_errno == ECHILD, "waitpid(-1) in the process still does not see it: %d %s", shared->wait_result,
	     strerror(shared->wait_errno));
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	waitpid(pid, &status, __WALL);
	FACT(inject(pid, at, SYS_wait4, agent, 0, __WALL, 0, 0, 0) == agent && task_state(agent) == '-', "injected wait4(agent, __WALL) reaps it");
}

/* CLONE_PARENT: the agent is a sibling of the process; whoever is the process's parent is its parent. */
static void as_sibling(pid_t pid, uintptr_t at)
{
	pid_t agent = make_agent(pid, at, "clone(VM|FILES|PARENT, 0)", CLONE_VM | CLONE_FILES | CLONE_PARENT,
				 PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK, 3);
	int status;

	kill(agent, SIGKILL);
	MUST(waitpid(agent, &status, __WALL) == agent);
	SAW("CLONE_PARENT agent killed: state %c after the wait (its parent is the tracer here); it takes its parent's exit signal: SIGCHLD",
	    task_state(agent));
}

static void memory_outlives(pid_t pid, uintptr_t at)
{
	pid_t agent = make_agent(pid, at, "again", CLONE_VM | CLONE_FILES, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK, 3);
	char path[64];
	int status;
	uint64_t word = 0;

	kill(pid, SIGKILL);
	MUST(waitpid(pid, &status, __WALL) == pid);
	snprintf(path, sizeof(path), "/proc/%d/mem", agent);
	int mem = open(path, O_RDONLY | O_CLOEXEC);
	FACT(pread(mem, &word, 8, (off_t)at) == 8 && (word & 0xffff) == 0x050f,
	     "the process was killed; its memory lives on and is readable through /proc/AGENT/mem");
	FACT(inject(agent, at, SYS_getpid, 0, 0, 0, 0, 0, 0) == agent, "the agent still runs calls; its parent is now %ld",
	     inject(agent, at, SYS_getppid, 0, 0, 0, 0, 0, 0));
	kill(agent, SIGKILL);
	MUST(waitpid(agent, &status, __WALL) == agent);
	usleep(10000);
	SAW("orphaned agent after its death: state %c (init or a subreaper reaps it)", task_state(agent));
}

static void without_options(pid_t pid, uintptr_t at)
{
	int event;

	MUST(ptrace(PTRACE_SETOPTIONS, pid, 0, 0) == 0);
	struct user_regs_struct saved, r;
	ptrace(PTRACE_GETREGS, pid, 0, &saved);
	/* Without the option the task runs at once from the vdso on: give it an exit to run (rax 0 there is read()). */
	(void)r;
	(void)event;
	uint64_t t = now_ns();
	pid_t agent = (pid_t)inject(pid, at, SYS_clone, CLONE_VM | CLONE_FILES | CLONE_PTRACE, 0, 0, 0, 0, 0);
	int status;
	SAW("CLONE_PTRACE instead of an option: task %d in %llu us", agent, (unsigned long long)(now_ns() - t) / 1000);
	pid_t w = waitpid(agent, &status, __WALL);
	FACT(w == agent && WIFSTOPPED(status), "CLONE_PTRACE attaches it, too; first stop %#x", status);
	kill(agent, SIGKILL);
	waitpid(agent, &status, __WALL);
	inject(pid, at, SYS_wait4, agent, 0, __WALL, 0, 0, 0);
	/* exit signal SIGCHLD makes it a fork for ptrace */
	agent = make_agent(pid, at, "clone(VM|FILES, SIGCHLD)", CLONE_VM | CLONE_FILES | SIGCHLD, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK, 1);
	kill(agent, SIGKILL);
	waitpid(agent, &status, __WALL);
	inject(pid, at, SYS_wait4, agent, 0, __WALL, 0, 0, 0);
}

int main(void)
{
	shared = map_shared(PAGE);
	pid_t pid = victim();

	usleep(20000);
	uintptr_t at = vdso_syscall(pid);
	FACT(at != 0, "the vdso has a syscall instruction");
	uint64_t t = now_ns();
	seize_stop(pid, 0);
	SAW("seize and stop: %llu us", (unsigned long long)(now_ns() - t) / 1000);
	what_it_notices(pid, at);
	as_sibling(pid, at);
	without_options(pid, at);
	memory_outlives(pid, at);
	return fact_result();
}
