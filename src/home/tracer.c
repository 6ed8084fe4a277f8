/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tracer.c - the tracer of a stub with system call filters; see tracer.h */
#include "home/tracer.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "base/util.h"
#include "home/stub_abi.h"
#include "kern/trace.h"

#define SUSPEND_SECCOMP (1ul << 21) /* PTRACE_O_SUSPEND_SECCOMP, which older headers lack */
#define SPIN_TRIES 10000

static bool is_stop_signal(int number)
{
	return number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

/* Whether it stays stopped: a stop that its parent has been told of. */
static bool send_on(pid_t tid, int status)
{
	int event = status >> 16, number = WSTOPSIG(status);

	if (event == PTRACE_EVENT_STOP && is_stop_signal(number)) {
		ptrace(PTRACE_LISTEN, tid, 0, 0);
		return true;
	}
	ptrace(PTRACE_CONT, tid, 0, event ? 0 : number);
	return false;
}

static int open_signals(struct err *e)
{
	sigset_t one;
	int fd;

	sigemptyset(&one);
	sigaddset(&one, SIGCHLD);
	sigprocmask(SIG_BLOCK, &one, NULL);
	fd = signalfd(-1, &one, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, -errno, "signalfd") : fd;
}

/* To where it spins. It may have been stopped when it had said READY and had not come there: by a signal, or for want of a CPU. */
static int find_spinning(pid_t pid, struct user_regs_struct *ret_regs, int *ret_number, struct err *e)
{
	for (unsigned tries = 0; tries < SPIN_TRIES; tries++) {
		int ret = trace_interrupt(pid, e);

		if (ret == 0)
			ret = trace_wait_stop_signal(pid, ret_number, e);
		if (ret == 0)
			ret = trace_get_regs(pid, ret_regs, e);
		if (ret || ret_regs->rcx == STUB_SPINNING)
			return ret;
		if (ptrace(PTRACE_CONT, pid, 0, 0) < 0)
			return err_sys(e, -errno, "the stub %d: going on", pid);
		usleep(1000);
	}
	return err_set(e, -ETIMEDOUT, "the stub %d does not begin", pid);
}

/* It spins until this register is not zero. */
static int let_it_begin(pid_t pid, int *ret_number, struct err *e)
{
	struct user_regs_struct regs;
	int ret = find_spinning(pid, &regs, ret_number, e);

	regs.rax = 1;
	if (ret == 0)
		ret = trace_set_regs(pid, &regs, e);
	return ret < 0 ? ret : ptrace(is_stop_signal(*ret_number) ? PTRACE_LISTEN : PTRACE_CONT, pid, 0, 0) < 0 ? err_sys(e, -errno, "the stub %d: going on", pid) : 0;
}

int tracer_begin(struct tracer *t, pid_t pid, struct err *e)
{
	int number = SIGTRAP, ret = open_signals(e);

	if (ret < 0)
		return ret;
	t->signals = ret;
	ret = trace_seize(pid, PTRACE_O_EXITKILL | SUSPEND_SECCOMP, e);
	if (ret == 0)
		ret = let_it_begin(pid, &number, e);
	if (ret < 0)
		return ret;
	t->pid = pid;
	t->stopped = is_stop_signal(number);
	return 0;
}

static void handle(struct tracer *t, int status)
{
	if (WIFSTOPPED(status))
		t->stopped = send_on(t->pid, status);
	else
		t->pid = 0;
}

void tracer_step(struct tracer *t)
{
	struct signalfd_siginfo info;
	int status;

	while (t->signals >= 0 && read(t->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	while (t->pid && waitpid(t->pid, &status, __WALL | WNOHANG) == t->pid)
		handle(t, status);
}

void tracer_end(struct tracer *t)
{
	int status;

	while (t->pid && waitpid(t->pid, &status, __WALL) == t->pid)
		handle(t, status);
}

void tracer_send_on_all(pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	size_t n = 0;
	int status;

	if (trace_list_threads(pid, &tids, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (waitpid(tids[i], &status, __WALL | WNOHANG) == tids[i] && WIFSTOPPED(status))
			ptrace(PTRACE_CONT, tids[i], 0, status >> 16 ? 0 : WSTOPSIG(status));
}
