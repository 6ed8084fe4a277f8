// SPDX-License-Identifier: GPL-2.0-or-later
/* set_tid.c - clone3 with set_tid: processes, threads, inside a new pid namespace, without privileges, and what is refused */
#include "fact.h"

struct clone3_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static long clone3(struct clone3_args *a)
{
	return syscall(SYS_clone3, a, sizeof(*a));
}

static pid_t process_with(pid_t *tids, unsigned n, uint64_t flags)
{
	struct clone3_args a = { .flags = flags, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)tids, .set_tid_size = n };
	pid_t pid = (pid_t)clone3(&a);

	if (pid == 0)
		_exit(getpid() == tids[0] ? 0 : 1);
	return pid < 0 ? -errno : pid;
}

static int thread_main(void *arg)
{
	(void)arg;
	return 0;
}

/* A thread with a chosen tid: the new task exits by itself, CLONE_CHILD_CLEARTID tells when. */
static long thread_with(pid_t tid, volatile pid_t *clear)
{
	static char stack[16384] __attribute__((aligned(16)));
	struct clone3_args a = { .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID,
				 .child_tid = (uintptr_t)clear, .stack = (uintptr_t)stack, .stack_size = sizeof(stack), .set_tid = (uintptr_t)&tid,
				 .set_tid_size = 1 };
	long r;

	(void)thread_main;
	*clear = 1;
	/* in the new thread: exit(0) at once, without touching the stack that it does not have */
	__asm__ volatile("syscall; test %%eax, %%eax; jnz 1f; xor %%edi, %%edi; mov $60, %%eax; syscall; 1:"
			 : "=a"(r)
			 : "0"(SYS_clone3), "D"(&a), "S"(sizeof(a))
			 : "rcx", "r11", "memory");
	return r;
}

static int inside_namespace(void)
{
	pid_t tid = 4711;
	volatile pid_t clear;
	pid_t pid = process_with(&tid, 1, 0);
	int status;

	FACT(pid == 4711 && waitpid(pid, &status, 0) == pid && status == 0, "in a new pid namespace, called by its init: pid %d", pid);
	long r = thread_with(4800, &clear);
	FACT(r == 4800, "thread with tid 4800: %ld", r);
	while (clear)
		usleep(100);
	r = thread_with(4801, &clear);
	FACT(r == 4801, "and 4801: %ld", r);
	while (clear)
		usleep(100);
	tid = 4900;
	pid = process_with(&tid, 1, CLONE_PARENT);
	SAW("CLONE_PARENT by init of a namespace: %s", pid < 0 ? strerror(-pid) : "ok");
	return fact_result();
}

static void new_namespaces(void)
{
	pid_t tids[3], pid;
	int status;

	/* A new pid namespace: 1 inside, a chosen number outside. */
	tids[0] = 1, tids[1] = 30060;
	struct clone3_args a = { .flags = CLONE_NEWPID, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)tids, .set_tid_size = 2 };
	pid = (pid_t)clone3(&a);
	if (pid == 0) {
		FACT(getpid() == 1, "CLONE_NEWPID with set_tid {1, 30060}: init inside");
		_exit(inside_namespace());
	}
	FACT(pid == 30060, "and %d outside", pid);
	waitpid(pid, &status, 0);
	FACT(status == 0, "the rest inside that namespace");
	tids[0] = 77, tids[1] = 30061;
	a.set_tid_size = 2;
	pid = (pid_t)clone3(&a);
	if (pid == 0)
		_exit(0);
	FACT(pid < 0 && errno == EINVAL, "the first task of a new pid namespace must be 1: %s", pid < 0 ? strerror(errno) : "ok");
	/* unshare(CLONE_NEWPID): the first child is 1, later ones may be chosen */
	pid = fork();
	if (pid == 0) {
		MUST(unshare(CLONE_NEWPID) == 0);
		pid_t init = fork();
		if (init == 0) {
			pause();
			_exit(0);
		}
		pid_t want[2] = { 812, 30070 };
		pid_t p = process_with(want, 2, 0);
		int st = -1;
		if (p > 0)
			waitpid(p, &st, 0);
		FACT(p == 30070 && st == 0, "from outside by unshare(NEWPID), both numbers chosen: %d, status %#x", p, st);
		want[0] = 813;
		p = process_with(want, 1, 0);
		FACT(p > 0, "only the inner number chosen: ok");
		kill(init, SIGKILL);
		_exit(fact_result());
	}
	waitpid(pid, &status, 0);
	FACT(status == 0, "unshare(CLONE_NEWPID) case");
}

int main(void)
{
	pid_t tids[3];
	int status;
	pid_t pid;

	tids[0] = 30011;
	pid = process_with(tids, 1, 0);
	FACT(pid == 30011, "process with a free pid: %d", pid);
	FACT(waitpid(pid, &status, 0) == pid && status == 0, "it sees that pid, too");
	tids[0] = getpid();
	FACT(process_with(tids, 1, 0) == -EEXIST, "a pid in use: EEXIST");
	tids[0] = 4194304 + 1;
	FACT(process_with(tids, 1, 0) == -EINVAL, "above pid_max: EINVAL");
	volatile pid_t clear;
	long r = thread_with(30050, &clear);
	FACT(r == 30050, "CLONE_THREAD with set_tid: %ld", r);
	new_namespaces();
	pid = fork();
	if (pid == 0) {
		MUST(setresuid(65534, 65534, 65534) == 0);
		tids[0] = 30080;
		int e = process_with(tids, 1, 0);
		FACT(e == -EPERM, "as another user (no CAP_CHECKPOINT_RESTORE): %s", e < 0 ? strerror(-e) : "ok");
		_exit(fact_result());
	}
	waitpid(pid, &status, 0);
	FACT(status == 0, "unprivileged case");
	return fact_result();
}
