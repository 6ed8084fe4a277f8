// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tree.c - victims that are several processes: families, threads in any of them, zombies, orphans, sessions, groups, exit signals
 *
 * Members are told to look at themselves by a signal, and end with 0 when nothing has changed; one that finds a difference reports it itself. Nothing but processes is
 * used to tell: what they share in memory and descriptors is other victims' subject.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tree.h"
#include "victim.h"

/* ---- members ---- */

static volatile sig_atomic_t asked;

static void on_ask(int sig)
{
	(void)sig;
	asked = 1;
}

void member_fail(const char *who)
{
	if (!failed())
		return;
	report("FAIL: %s (in the %s)", failure(), who);
	_exit(99);
}

void member_snapshot(struct text *t)
{
	text_add(t, "pid %d, parent %d, session %d, group %d, thread %ld\n", getpid(), getppid(), getsid(0), getpgrp(), syscall(SYS_gettid));
}

void member_handle(void)
{
	struct sigaction sa = { .sa_handler = on_ask };
	sigset_t set;

	sigaction(ASK, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, ASK);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

void member_ready(int told)
{
	if (told < 0)
		return;
	must(write(told, "", 1) == 1);
	close(told);
}

void member_wait(void)
{
	sigset_t set;

	sigprocmask(SIG_BLOCK, NULL, &set);
	sigdelset(&set, ASK);
	while (!asked)
		sigsuspend(&set);
}

pid_t member_fork(void (*run)(int told), bool wait)
{
	int told[2];
	char byte;
	pid_t pid;

	must(pipe(told) == 0);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		close(told[0]);
		member_handle();
		run(told[1]);
		_exit(98);
	}
	close(told[1]);
	if (wait)
		must(read(told[0], &byte, 1) == 1);
	close(told[0]);
	return pid;
}

void member_expect_end(const char *who, pid_t pid, int expected)
{
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, __WALL)) < 0 && errno == EINTR)
		;
	if (got != pid)
		fail("%s (process %d): waitpid, expected %d, got %d (%s)", who, pid, pid, got, strerror(errno));
	else if (status != expected)
		fail("%s (process %d): status, expected %#x, got %#x", who, pid, expected, status);
}

void member_ask(const char *who, pid_t pid)
{
	expect(kill(pid, ASK) == 0);
	member_expect_end(who, pid, 0);
}

/* What most members are: they remember who they are, wait, and look again. */
static void plain(int told)
{
	struct text before = { 0 }, after = { 0 };
	uint64_t *memory = map_anon(256 * 1024, PROT_RW, 0);

	fill(memory, 256 * 1024, (uint64_t)getpid());
	member_snapshot(&before);
	member_ready(told);
	member_wait();
	member_snapshot(&after);
	expect_text("member", before.s, after.s);
	verify("its memory", memory, 256 * 1024, (uint64_t)getpid());
	member_fail("plain member");
	_exit(0);
}

/* ---- a family: children of children, each with memory of its own ---- */

#define BRANCHES 3

static pid_t branch[BRANCHES];
static struct text family_before;

static void parent_of_two(int told)
{
	struct text before = { 0 }, after = { 0 };
	pid_t child[2] = { member_fork(plain, true), member_fork(plain, true) };

	member_snapshot(&before);
	member_ready(told);
	member_wait();
	member_snapshot(&after);
	expect_text("parent of two", before.s, after.s);
	member_ask("grandchild", child[1]);
	member_ask("grandchild", child[0]);
	member_fail("parent of two");
	_exit(0);
}

static void family_setup(void)
{
	for (int i = 0; i < BRANCHES; i++)
		branch[i] = member_fork(parent_of_two, true);
	text_add(&family_before, "pid %d, session %d, group %d\n", getpid(), getsid(0), getpgrp()); /* its parent is another one */
}

static void family_check(void)
{
	struct text after = { 0 };

	text_add(&after, "pid %d, session %d, group %d\n", getpid(), getsid(0), getpgrp());
	expect_text("root", family_before.s, after.s);
	for (int i = 0; i < BRANCHES; i++)
		member_ask("branch", branch[i]);
	expect(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
}

VICTIM(tree_family, V_TREE, family_setup, NULL, family_check);

/* ---- a chain of descendants, and many children ---- */

#define DEPTH 24
#define WIDTH 64

static int depth_left = DEPTH;
static pid_t wide[WIDTH];

static void link_of_chain(int told)
{
	struct text before = { 0 }, after = { 0 };
	pid_t child = --depth_left ? member_fork(link_of_chain, true) : 0;

	member_snapshot(&before);
	member_ready(told);
	member_wait();
	member_snapshot(&after);
	expect_text("link", before.s, after.s);
	if (child)
		member_ask("next link", child);
	member_fail("chain");
	_exit(0);
}

static void deep_setup(void)
{
	branch[0] = member_fork(link_of_chain, true);
}

static void deep_check(void)
{
	member_ask("first link", branch[0]);
}

static void wide_setup(void)
{
	for (int i = 0; i < WIDTH; i++)
		wide[i] = member_fork(plain, true);
}

static void wide_check(void)
{
	for (int i = 0; i < WIDTH; i++)
		member_ask("one of many", wide[i]);
}

VICTIM(tree_deep, V_TREE, deep_setup, NULL, deep_check);
VICTIM(tree_wide, V_TREE, wide_setup, NULL, wide_check);

/* ---- threads in children ---- */

static volatile uint64_t counted[4];
static volatile int counting = 1;

static void *count(void *arg)
{
	uintptr_t i = (uintptr_t)arg;

	while (counting) {
		counted[i]++;
		if (i % 2)
			usleep(100);
	}
	return NULL;
}

static void with_threads(int told)
{
	struct text before = { 0 }, after = { 0 };
	uint64_t seen[4];

	for (uintptr_t i = 0; i < 4; i++)
		spawn(count, (void *)i, NULL);
	member_snapshot(&before);
	member_ready(told);
	member_wait();
	member_snapshot(&after);
	expect_text("member with threads", before.s, after.s);
	memcpy(seen, (void *)(uintptr_t)counted, sizeof(seen));
	usleep(200000);
	for (int i = 0; i < 4; i++)
		if (counted[i] == seen[i])
			fail("thread %d of process %d: it does not count any more", i, getpid());
	counting = 0;
	join_all();
	member_fail("member with threads");
	_exit(0);
}

static void threads_setup(void)
{
	branch[0] = member_fork(with_threads, true);
	branch[1] = member_fork(with_threads, true);
	spawn(count, (void *)1, NULL);
}

static void threads_check(void)
{
	member_ask("child with threads", branch[0]);
	member_ask("child with threads", branch[1]);
	counting = 0;
	join_all();
}

VICTIM(tree_threads, V_TREE, threads_setup, NULL, threads_check);

/* ---- a parent that waits while it is moved ---- */

static volatile int waited_status = -1;

static void *wait_in_thread(void *arg)
{
	int status;
	pid_t pid = (pid_t)(intptr_t)arg;

	if (waitpid(pid, &status, 0) == pid)
		waited_status = status;
	else
		fail("waitpid of %d in a thread: %s", pid, strerror(errno));
	return NULL;
}

static void ends_with_five(int told)
{
	member_ready(told);
	member_wait();
	_exit(5);
}

static void waiting_setup(void)
{
	branch[0] = member_fork(ends_with_five, true);
	spawn(wait_in_thread, (void *)(intptr_t)branch[0], NULL);
	usleep(20000);
}

static void waiting_check(void)
{
	expect(kill(branch[0], ASK) == 0);
	join_all();
	expect_u64("status of the child", 5 << 8, (uint64_t)waited_status);
}

VICTIM(tree_waiting, V_TREE, waiting_setup, NULL, waiting_check);

/* ---- children of a thread: others wait for them only without __WNOTHREAD, and its end is its parent's end to them ---- */

static void on_usr(int sig);
static volatile sig_atomic_t usr_seen;
static pthread_mutex_t thread_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile pid_t thread_child;

static void hears_of_thread(int told)
{
	struct sigaction sa = { .sa_handler = on_usr };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaction(SIGUSR2, &sa, NULL);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* which the thread has blocked */
	must(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
	member_ready(told);
	member_wait();
	for (int i = 0; !usr_seen && i < 400; i++) /* it is sent after the thread can be joined */
		usleep(5000);
	expect_u64("death signals", 1, (uint64_t)usr_seen);
	member_fail("child of a thread");
	_exit(0);
}

static void *forks_and_waits(void *arg)
{
	(void)arg;
	thread_child = member_fork(hears_of_thread, true);
	pthread_mutex_lock(&thread_lock); /* until the check */
	pthread_mutex_unlock(&thread_lock);
	expect(waitpid(thread_child, NULL, __WNOTHREAD | WNOHANG) == 0);
	return NULL;
}

static void thread_parent_setup(void)
{
	pthread_mutex_lock(&thread_lock);
	spawn(forks_and_waits, NULL, NULL);
	while (!thread_child)
		usleep(1000);
}

static void thread_parent_check(void)
{
	expect(waitpid(thread_child, NULL, __WNOTHREAD | WNOHANG) == -1 && errno == ECHILD);
	expect(waitpid(thread_child, NULL, WNOHANG) == 0);
	pthread_mutex_unlock(&thread_lock);
	join_all();
	member_ask("child of a thread", thread_child);
}

VICTIM(tree_thread_parent, V_TREE, thread_parent_setup, NULL, thread_parent_check);

/* ---- zombies ---- */

#define ZOMBIES 8

static const int zombie_end[ZOMBIES] = { 0, 1 << 8, 255 << 8, SIGKILL, SIGTERM, SIGUSR1, 34, SIGPIPE };
static pid_t zombie[ZOMBIES];

static void zombies_setup(void)
{
	for (int i = 0; i < ZOMBIES; i++) {
		siginfo_t info;

		zombie[i] = fork();
		if (!zombie[i]) {
			signal(SIGPIPE, SIG_DFL);
			signal(SIGTERM, SIG_DFL);
			if (zombie_end[i] & 0x7f)
				kill(getpid(), zombie_end[i]);
			_exit(zombie_end[i] >> 8);
		}
		must(waitid(P_PID, (id_t)zombie[i], &info, WEXITED | WNOWAIT) == 0);
	}
}

static void zombies_check(void)
{
	pid_t first = 0;
	siginfo_t info = { 0 };
	sigset_t pending;

	sigpending(&pending);
	expect(!sigismember(&pending, SIGCHLD));
	expect(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0);
	first = info.si_pid;
	expect_u64("the first that wait finds", (uint64_t)zombie[0], (uint64_t)first);
	expect_u64("its user", (uint64_t)getuid(), info.si_uid);
	for (int i = ZOMBIES; i-- > 0;)
		member_expect_end("zombie", zombie[i], zombie_end[i]);
	expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

VICTIM(tree_zombies, V_TREE, zombies_setup, NULL, zombies_check);

/* A child's zombies, beside others that live, and SIGCHLD as the signal to wait for. */
static volatile int chld_seen;

static void on_chld(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_code == CLD_EXITED)
		chld_seen++;
}

static void has_zombie(int told)
{
	struct sigaction sa = { .sa_sigaction = on_chld, .sa_flags = SA_SIGINFO | SA_RESTART };
	pid_t dead = fork(), alive;

	if (!dead)
		_exit(42);
	waitid(P_PID, (id_t)dead, &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
	sigaction(SIGCHLD, &sa, NULL);
	alive = member_fork(ends_with_five, true);
	member_ready(told);
	member_wait();
	expect_u64("SIGCHLD before anybody has ended", 0, (uint64_t)chld_seen);
	kill(alive, ASK);
	member_expect_end("child", alive, 5 << 8);
	expect_u64("SIGCHLD", 1, (uint64_t)chld_seen);
	member_expect_end("zombie of the child", dead, 42 << 8);
	member_fail("parent of a zombie");
	_exit(0);
}

static void zombie_below_setup(void)
{
	branch[0] = member_fork(has_zombie, true);
}

static void zombie_below_check(void)
{
	member_ask("parent of a zombie", branch[0]);
}

VICTIM(tree_zombie_below, V_TREE, zombie_below_setup, NULL, zombie_below_check);

/* ---- orphans ---- */

static pid_t read_pid(int from)
{
	pid_t pid = -1;

	must(read(from, &pid, sizeof(pid)) == sizeof(pid));
	close(from);
	return pid;
}

/* When it has been adopted it tells its number, and is a member like others. */
static void orphaned(int told, pid_t parent)
{
	pid_t self = getpid();

	while (getppid() == parent)
		usleep(1000);
	member_handle();
	must(write(told, &self, sizeof(self)) == sizeof(self));
	close(told);
	plain(-1);
}

/* The middle one ends: its child is adopted by the nearest subreaper. `leads`: it had begun a session. */
static pid_t make_orphan(bool leads)
{
	int told[2];
	pid_t middle, pid;

	must(pipe(told) == 0);
	middle = fork();
	if (!middle) {
		pid_t self = getpid();

		close(told[0]);
		if (leads)
			setsid();
		if (!fork())
			orphaned(told[1], self);
		_exit(0);
	}
	close(told[1]);
	pid = read_pid(told[0]);
	member_expect_end("the one in the middle", middle, 0);
	return pid;
}

static pid_t orphan[4];

static void orphans_setup(void)
{
	must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	for (int i = 0; i < 4; i++)
		orphan[i] = make_orphan(i % 2);
	branch[0] = member_fork(plain, true);
}

static void orphans_check(void)
{
	int is = 0;

	expect(prctl(PR_GET_CHILD_SUBREAPER, &is) == 0 && is == 1);
	for (int i = 0; i < 4; i++) {
		pid_t parent = getsid(orphan[i]);

		expect(parent > 0);
		if (i % 2)
			expect(parent != getsid(0)); /* the number of a leader that is gone */
		else
			expect(parent == getsid(0));
		member_ask("orphan", orphan[i]);
	}
	member_ask("child", branch[0]);
	/* It still adopts. */
	member_ask("orphan of afterwards", make_orphan(false));
}

VICTIM(tree_orphans, V_TREE, orphans_setup, NULL, orphans_check);

/* ---- sessions ---- */

static void job_of_its_own(int told)
{
	must(setpgid(0, 0) == 0);
	plain(told);
}

/* A child of the old session, then setsid(), then a child of the new one; and a group in it. */
static void becomes_leader(int told)
{
	struct text before = { 0 }, after = { 0 };
	pid_t early = member_fork(plain, true), late, job;

	must(setsid() == getpid());
	late = member_fork(plain, true);
	job = member_fork(job_of_its_own, true);
	member_snapshot(&before);
	text_add(&before, "early %d %d, late %d %d, job %d %d\n", getsid(early), getpgid(early), getsid(late), getpgid(late), getsid(job), getpgid(job));
	member_ready(told);
	member_wait();
	member_snapshot(&after);
	text_add(&after, "early %d %d, late %d %d, job %d %d\n", getsid(early), getpgid(early), getsid(late), getpgid(late), getsid(job), getpgid(job));
	expect_text("leader of a session", before.s, after.s);
	expect(setsid() == -1 && errno == EPERM);
	member_ask("child of before", early);
	member_ask("child of after", late);
	member_ask("job", job);
	member_fail("leader of a session");
	_exit(0);
}

static void session_setup(void)
{
	branch[0] = member_fork(becomes_leader, true);
	branch[1] = member_fork(plain, true);
}

static void session_check(void)
{
	member_ask("leader of a session", branch[0]);
	member_ask("child", branch[1]);
}

VICTIM(tree_sessions, V_TREE, session_setup, NULL, session_check);

/* ---- groups ---- */

static volatile sig_atomic_t group_signals;

static void on_group(int sig)
{
	(void)sig;
	group_signals++;
}

static void counts_group_signals(int told)
{
	struct sigaction sa = { .sa_handler = on_group };
	struct text before = { 0 }, after = { 0 };

	sigaction(SIGUSR1, &sa, NULL);
	member_ready(told);
	text_add(&before, "pid %d, parent %d, session %d\n", getpid(), getppid(), getsid(0));
	member_wait();
	text_add(&after, "pid %d, parent %d, session %d\n", getpid(), getppid(), getsid(0));
	expect_text("member of a group", before.s, after.s);
	for (int i = 0; !group_signals && i < 200; i++)
		usleep(5000);
	expect_u64("signals to its group", 1, (uint64_t)group_signals);
	member_fail("member of a group");
	_exit(0);
}

static pid_t grouped[6], group[3];

/* Three groups of two: the leader alive, dead and not waited for, gone. */
static void groups_setup(void)
{
	for (int g = 0; g < 3; g++) {
		pid_t leader = g ? member_fork(ends_with_five, true) : member_fork(counts_group_signals, true);

		must(setpgid(leader, leader) == 0);
		group[g] = leader;
		for (int i = 0; i < 2; i++) {
			grouped[g * 2 + i] = i == 0 && g == 0 ? leader : member_fork(counts_group_signals, true);
			must(setpgid(grouped[g * 2 + i], leader) == 0);
		}
		if (g)
			kill(leader, ASK);
		if (g == 2)
			member_expect_end("leader of a group", leader, 5 << 8);
		if (g == 1)
			must(waitid(P_PID, (id_t)leader, &(siginfo_t){ 0 }, WEXITED | WNOWAIT) == 0);
	}
}

static void groups_check(void)
{
	for (int i = 0; i < 6; i++)
		expect_u64("group", (uint64_t)group[i / 2], (uint64_t)getpgid(grouped[i]));
	for (int g = 0; g < 3; g++)
		expect(kill(-group[g], SIGUSR1) == 0);
	for (int i = 0; i < 6; i++)
		member_ask("member of a group", grouped[i]);
	member_expect_end("leader that was dead", group[1], 5 << 8);
}

VICTIM(tree_groups, V_TREE, groups_setup, NULL, groups_check);

/* ---- exit signals, death signals ---- */

static void on_usr(int sig)
{
	(void)sig;
	usr_seen++;
}

static int cloned(void *arg)
{
	member_handle();
	plain(*(int *)arg);
	return 0;
}

static pid_t clone_member(int exit_signal)
{
	static char stack[65536] __attribute__((aligned(16)));
	int told[2];
	char byte;
	pid_t pid;

	must(pipe(told) == 0);
	pid = clone(cloned, stack + sizeof(stack), exit_signal, &told[1]);
	must(pid > 0);
	close(told[1]);
	must(read(told[0], &byte, 1) == 1);
	close(told[0]);
	return pid;
}

static void exit_signals_setup(void)
{
	struct sigaction sa = { .sa_handler = on_usr };

	sigaction(SIGUSR2, &sa, NULL);
	branch[0] = clone_member(SIGUSR2);
	branch[1] = clone_member(0);
	branch[2] = clone_member(SIGCHLD);
}

static void exit_signals_check(void)
{
	sigset_t set, old;

	expect_u64("signals before any end", 0, (uint64_t)usr_seen);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &old);
	/* Those with another signal than SIGCHLD are not found without __WCLONE. */
	expect(waitpid(branch[0], NULL, WNOHANG) == -1 && errno == ECHILD);
	expect(waitpid(branch[1], NULL, WNOHANG) == -1 && errno == ECHILD);
	expect(waitpid(branch[2], NULL, WNOHANG) == 0);
	for (int i = 0; i < 3; i++)
		member_ask("child", branch[i]);
	sigprocmask(SIG_SETMASK, &old, NULL);
	expect_u64("signals after the ends", 1, (uint64_t)usr_seen);
}

VICTIM(tree_exit_signals, V_TREE, exit_signals_setup, NULL, exit_signals_check);

/* The grandchild's parent ends after the move: it hears of it, and is adopted by the root. */
static void dies_with_parent(int told)
{
	struct sigaction sa = { .sa_handler = on_usr };
	pid_t parent = getppid();

	sigaction(SIGUSR2, &sa, NULL);
	must(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
	member_ready(told);
	member_wait();
	expect_u64("death signals", 1, (uint64_t)usr_seen);
	expect(getppid() != parent);
	member_fail("grandchild");
	_exit(7);
}

static pid_t grandchild;
static int grandchild_told;

static void parent_that_ends(int told)
{
	pid_t pid = member_fork(dies_with_parent, true);

	must(write(grandchild_told, &pid, sizeof(pid)) == sizeof(pid));
	close(grandchild_told);
	member_ready(told);
	member_wait();
	_exit(3);
}

static void death_setup(void)
{
	int told[2];

	must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	must(pipe(told) == 0);
	grandchild_told = told[1];
	branch[0] = member_fork(parent_that_ends, true);
	close(told[1]);
	grandchild = read_pid(told[0]);
}

static void death_check(void)
{
	expect(kill(branch[0], ASK) == 0);
	member_expect_end("parent", branch[0], 3 << 8);
	expect(kill(grandchild, ASK) == 0);
	member_expect_end("grandchild", grandchild, 7 << 8);
}

VICTIM(tree_death_signal, V_TREE, death_setup, NULL, death_check);
