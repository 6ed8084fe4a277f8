// SPDX-License-Identifier: GPL-2.0-or-later
/* tree_work.c - victims that are several processes at work while they are moved: signals that go around, jobs that come and go, a shared working directory, shared memory */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tree.h"
#include "victim.h"

/* ---- a token goes around a ring of processes as the value of a real-time signal ---- */

#define RING 5
#define TOKEN SIGRTMIN

static pid_t ring[RING], first_of_ring;
static int own_place;
static volatile int last_token = -1;

/* Each passes on what it gets, plus one; the first one checks that nothing was lost, doubled or overtaken. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	int token = info->si_value.sival_int;

	(void)sig;
	(void)context;
	if (own_place == 0 && token != last_token + RING && last_token >= 0)
		fail("token in the first of the ring, expected %d, got %d", last_token + RING, token);
	last_token = token;
	usleep(50);
	if (!victim_stopping)
		sigqueue(own_place + 1 < RING ? ring[own_place + 1] : first_of_ring, TOKEN, (union sigval){ .sival_int = token + 1 });
}

static void ring_member(int told)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, TOKEN);
	member_ready(told);
	/* Made from the last to the first, so that each knows its follower. */
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	member_wait();
	_exit(last_token >= 0 ? 0 : 1);
}

static void ring_setup(void)
{
	struct sigaction sa = { .sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART };

	first_of_ring = getpid();
	sigaction(TOKEN, &sa, NULL);
	for (int i = RING - 1; i > 0; i--) {
		own_place = i;
		ring[i] = member_fork(ring_member, true);
	}
	own_place = 0;
	sigqueue(getpid(), TOKEN, (union sigval){ .sival_int = 0 });
}

static void ring_work(void)
{
	usleep(1000); /* which the token interrupts again and again */
}

static void ring_check(void)
{
	int seen = last_token;

	expect(seen > 0);
	sleep_ms(50);
	for (int i = 1; i < RING; i++)
		member_ask("one of the ring", ring[i]);
}

VICTIM(tree_ring, 0, ring_setup, ring_work, ring_check);

/* ---- jobs: forked, some of them exec, all are waited for ---- */

static unsigned long jobs;
static uint64_t *ledger;

static void jobs_setup(void)
{
	ledger = map_anon(64 * 1024, PROT_RW, 0);
	fill(ledger, 64 * 1024, 99);
}

static void jobs_work(void)
{
	int code = (int)(++jobs % 200), status;
	pid_t pid = fork(), got;

	must(pid >= 0);
	if (!pid) {
		char *const argv[] = { (char[]){ "true" }, NULL };

		verify("the job's memory", ledger, 64 * 1024, 99);
		if (failed())
			_exit(201);
		if (jobs % 7 == 0)
			execv("/bin/true", argv);
		if (jobs % 5 == 0)
			usleep(3000);
		_exit(code);
	}
	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (got != pid)
		fail("job %lu: waitpid(%d), expected the same, got %d (errno %d)", jobs, pid, got, errno);
	else if (status != (jobs % 7 ? code << 8 : 0))
		fail("job %lu: status, expected %#x, got %#x", jobs, jobs % 7 ? code << 8 : 0, status);
}

static void jobs_check(void)
{
	for (int i = 0; i < 10; i++) /* however few there were before */
		jobs_work();
	expect(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
}

VICTIM(tree_jobs, 0, jobs_setup, jobs_work, jobs_check);

/* ---- a child that shares the working directory and the file mode mask ---- */

static pid_t sharer;

static int changes_directory(void *arg)
{
	int told = *(int *)arg;

	member_handle();
	member_ready(told);
	member_wait();
	must(chdir("/proc") == 0);
	umask(0123);
	_exit(0);
}

static void shared_fs_setup(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	int told[2];
	char byte;

	must(chdir("/usr") == 0);
	umask(0077);
	must(pipe(told) == 0);
	sharer = clone(changes_directory, stack + sizeof(stack), CLONE_FS | SIGCHLD, &told[1]);
	must(sharer > 0);
	close(told[1]);
	must(read(told[0], &byte, 1) == 1);
	close(told[0]);
}

static void shared_fs_check(void)
{
	char before[64] = "", after[64] = "";

	expect(getcwd(before, sizeof(before)) != NULL);
	expect_text("working directory", "/usr", before);
	member_ask("child with the same working directory", sharer);
	expect(getcwd(after, sizeof(after)) != NULL);
	expect_text("working directory after the child has changed it", "/proc", after);
	expect_u64("mask after the child has changed it", 0123, umask(0));
}

VICTIM(tree_shared_fs, 0, shared_fs_setup, NULL, shared_fs_check);

/* ---- children that have the same memory, with nothing else shared, and with everything ---- */

static struct lodger {
	volatile pid_t pid;
	volatile uint64_t count;
	volatile int go, answer;
	char *stack;
} lodgers[2];

static long raw(long nr, long a, long b)
{
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(0) : "rcx", "r11", "memory");
	return ret;
}

/* It has its parent's thread-local storage, too: no C library here. */
static int lodge(void *arg)
{
	const struct timespec ms = { 0, 1000000 };
	struct lodger *l = arg;

	l->pid = (pid_t)raw(SYS_getpid, 0, 0);
	while (!l->go) {
		l->count++;
		raw(SYS_nanosleep, (long)&ms, 0);
	}
	l->answer = raw(SYS_getpid, 0, 0) == l->pid ? 42 : 43;
	raw(SYS_exit_group, 7, 0);
	return 0;
}

static void lodgers_setup(void)
{
	static const int flags[2] = { CLONE_VM | SIGCHLD, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND | SIGCHLD };

	for (int i = 0; i < 2; i++) {
		lodgers[i].stack = map_anon(65536, PROT_RW, 0);
		must(clone(lodge, lodgers[i].stack + 65536, flags[i], &lodgers[i]) > 0);
		while (!lodgers[i].count)
			sleep_ms(1);
	}
}

static void lodgers_check(void)
{
	for (int i = 0; i < 2; i++) {
		uint64_t seen = lodgers[i].count;

		for (int tries = 0; lodgers[i].count == seen && tries < 1000; tries++)
			sleep_ms(1);
		if (lodgers[i].count == seen)
			fail("child %d with the same memory does not count any more", i);
		lodgers[i].go = 1;
		member_expect_end("child with the same memory", lodgers[i].pid, 7 << 8);
		expect_u64("its answer", 42, (uint64_t)lodgers[i].answer);
	}
}

VICTIM(tree_lodgers, 0, lodgers_setup, NULL, lodgers_check);
