// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_pids.c - victims of which a part is in pid namespaces of its own: numbers in each, who is whose child, sessions and groups, what is addressed by numbers */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tree.h"

#define THREAD_ID 4 /* SIGEV_THREAD_ID */

static struct text before;

/* The last numbers of a line of /proc/self/status: those in the unit's namespaces. */
static void add_numbers(struct text *t, const char *key, int depth)
{
	char line[512];
	FILE *f = fopen("/proc/thread-self/status", "re");

	must(f);
	while (fgets(line, sizeof(line), f)) {
		char *at = strchr(line, '\n');

		if (strncmp(line, key, strlen(key)))
			continue;
		for (int i = 0; at && i <= depth; i++)
			while (at > line && *--at != '\t')
				;
		text_add(t, "%s%s", key, at);
	}
	fclose(f);
}

static void look(struct text *t, int depth)
{
	member_snapshot(t);
	add_numbers(t, "NSpid:", depth);
	add_numbers(t, "NSpgid:", depth);
	add_numbers(t, "NSsid:", depth);
}

static void wait_and_look(int told, int depth, const char *who)
{
	struct text was = { 0 }, is = { 0 };

	look(&was, depth);
	member_ready(told);
	member_wait();
	look(&is, depth);
	expect_text(who, was.s, is.s);
	member_fail(who);
}

/* ---- members of the namespace ---- */

static void *threads_numbers(void *arg)
{
	struct text was = { 0 }, is = { 0 };

	add_numbers(&was, "NSpid:", 1);
	*(volatile int *)arg = 1;
	while (*(volatile int *)arg != 2)
		usleep(5000);
	add_numbers(&is, "NSpid:", 1);
	expect_text("thread", was.s, is.s);
	return NULL;
}

static void with_thread(int told)
{
	volatile int state = 0;
	pthread_t thread;

	must(!pthread_create(&thread, NULL, threads_numbers, (void *)&state));
	while (!state)
		usleep(1000);
	wait_and_look(told, 1, "member with a thread");
	state = 2;
	pthread_join(thread, NULL);
	member_fail("member with a thread");
	_exit(0);
}

static void with_signals(int told)
{
	struct sigevent event = { .sigev_notify = THREAD_ID, .sigev_signo = SIGRTMIN };
	const struct itimerspec far = { .it_value = { 1000000, 0 } }, soon = { .it_value = { 0, 1000000 } };
	const struct timespec minute = { 60, 0 };
	siginfo_t info;
	sigset_t set;
	timer_t timer;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN);
	must(!sigprocmask(SIG_BLOCK, &set, NULL));
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	must(!timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_settime(timer, 0, &far, NULL));
	must(!raise(SIGUSR1) && !kill(getpid(), SIGUSR2));
	wait_and_look(told, 1, "member with signals");
	sigdelset(&set, SIGRTMIN);
	for (int i = 0; i < 2; i++)
		expect(sigtimedwait(&set, &info, &minute) > 0 && info.si_pid == getpid());
	expect(!timer_settime(timer, 0, &soon, NULL));
	sigaddset(&set, SIGRTMIN);
	expect(sigtimedwait(&set, &info, &minute) == SIGRTMIN && info.si_code == SI_TIMER);
	member_fail("member with signals");
	_exit(0);
}

static void with_session(int told)
{
	must(setsid() == getpid());
	wait_and_look(told, 1, "member that leads a session");
	_exit(0);
}

static void deepest(int told)
{
	must(!setpgid(0, 0) && getpid() == 1);
	wait_and_look(told, 2, "first of the namespace within");
	_exit(0);
}

/* A namespace within. It stays outside of it; its children go there. */
static void above_deepest(int told)
{
	pid_t child;

	must(!unshare(CLONE_NEWPID));
	child = member_fork(deepest, true);
	wait_and_look(told, 1, "member above a namespace");
	member_ask("first of the namespace within", child);
	member_fail("member above a namespace");
	_exit(0);
}

static int orphans_told;

static void orphan(int told)
{
	member_ready(told);
	while (getppid() != 1)
		usleep(1000);
	wait_and_look(orphans_told, 1, "orphan");
	_exit(0);
}

/* Whose parent has ended: a child of the namespace's first process. */
static pid_t make_orphan(void)
{
	int told[2], pids[2], status;
	pid_t between, made;
	char byte;

	must(!pipe(told) && !pipe(pids));
	between = fork();
	if (!between) {
		orphans_told = told[1];
		close(told[0]);
		made = member_fork(orphan, true);
		must(write(pids[1], &made, sizeof(made)) == sizeof(made));
		_exit(0);
	}
	must(waitpid(between, &status, 0) == between && !status);
	close(told[1]);
	must(read(pids[0], &made, sizeof(made)) == sizeof(made) && read(told[0], &byte, 1) == 1);
	close(told[0]);
	close(pids[0]);
	close(pids[1]);
	return made;
}

static void first(int told)
{
	pid_t child[5], dead;
	int status;

	must(getpid() == 1);
	child[0] = member_fork(with_thread, true);
	child[1] = member_fork(with_signals, true);
	child[2] = member_fork(with_session, true);
	child[3] = member_fork(above_deepest, true);
	child[4] = make_orphan();
	dead = fork();
	if (!dead)
		_exit(7);
	must(waitid(P_PID, (id_t)dead, &(siginfo_t){ 0 }, WEXITED | WNOWAIT) == 0);
	wait_and_look(told, 1, "first of a namespace");
	for (int i = 0; i < 5; i++)
		member_ask("member of a namespace", child[i]);
	expect(waitpid(dead, &status, 0) == dead && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	expect(waitpid(-1, NULL, WNOHANG | __WALL) <= 0);
	member_fail("first of a namespace");
	_exit(0);
}

static pid_t first_child, joined_child;

static void joined(int told)
{
	must(getppid() == 0 && getpid() > 1);
	wait_and_look(told, 1, "member that was born from outside");
	_exit(0);
}

static void born_in_there(int told)
{
	expect(getpid() > 1 && getppid() == 0);
	member_ready(told);
	member_wait();
	member_fail("child born after the move");
	_exit(0);
}

static void look_own(struct text *t)
{
	text_add(t, "pid %d, session %d, group %d\n", getpid(), getsid(0), getpgrp());
}

static void pids_setup(void)
{
	must(!unshare(CLONE_NEWPID));
	first_child = member_fork(first, true);
	joined_child = member_fork(joined, true);
	look_own(&before);
}

static void pids_check(void)
{
	struct text now = { 0 };

	look_own(&now);
	expect_text("root", before.s, now.s);
	member_ask("child born after the move", member_fork(born_in_there, true));
	member_ask("member that was born from outside", joined_child);
	member_ask("first of a namespace", first_child);
	expect(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
}

/* The root is outside of the namespace, and leads its children there. */
VICTIM(ns_pids, V_TREE, pids_setup, NULL, pids_check);

/* ---- pidfds of those that have ended in there ---- */

static void first_with_ended(int told)
{
	pid_t child = fork();
	struct stat was, is;
	int fd[2];

	must(child >= 0);
	if (!child)
		_exit(7);
	for (int i = 0; i < 2; i++)
		fd[i] = (int)syscall(SYS_pidfd_open, child, 0);
	must(fd[0] >= 0 && fd[1] >= 0 && waitpid(child, NULL, 0) == child && !fstat(fd[0], &was));
	must(syscall(SYS_pidfd_send_signal, fd[0], 0, NULL, 0) < 0 && errno == ESRCH);
	member_ready(told);
	member_wait();
	expect(!fstat(fd[0], &was) && !fstat(fd[1], &is) && was.st_ino == is.st_ino);
	for (int i = 0; i < 2; i++)
		expect(syscall(SYS_pidfd_send_signal, fd[i], 0, NULL, 0) < 0 && errno == ESRCH);
	expect(waitpid(-1, NULL, WNOHANG | __WALL) <= 0);
	member_fail("first of a namespace, with pidfds");
	_exit(0);
}

static void pidfds_setup(void)
{
	must(!unshare(CLONE_NEWPID));
	first_child = member_fork(first_with_ended, true);
}

static void pidfds_check(void)
{
	member_ask("first of a namespace, with pidfds", first_child);
}

VICTIM(ns_pids_pidfds, V_TREE, pidfds_setup, NULL, pidfds_check);

/* ---- whose first process shows them in a /proc of its own ---- */

static void nothing_else(int told)
{
	member_ready(told);
	member_wait();
	_exit(0);
}

static void shows_all(struct text *t)
{
	char self[64] = "";

	must(readlink("/proc/self", self, sizeof(self) - 1) > 0);
	text_add(t, "self %s\n", self);
	text_file(t, "/proc/1/comm", NULL);
	text_file(t, "/proc/2/comm", NULL);
	text_add(t, "3 %d, mount %d\n", access("/proc/3", F_OK), access("/proc/sys/kernel", W_OK));
}

static void first_with_proc(int told)
{
	struct text was = { 0 }, is = { 0 };
	pid_t child;

	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount("proc", "/proc", "proc", MS_NOSUID, NULL));
	child = member_fork(nothing_else, true);
	shows_all(&was);
	member_ready(told);
	member_wait();
	shows_all(&is);
	expect_text("what /proc shows", was.s, is.s);
	member_ask("second", child);
	member_fail("first of a namespace, with /proc");
	_exit(0);
}

static void proc_setup(void)
{
	must(!unshare(CLONE_NEWPID));
	first_child = member_fork(first_with_proc, true);
}

static void proc_check(void)
{
	member_ask("first of a namespace, with /proc", first_child);
}

VICTIM(ns_pids_proc, V_TREE, proc_setup, NULL, proc_check);

/* ---- a namespace that nobody is in yet ---- */

static void nothing(void)
{
}

static void empty_setup(void)
{
	must(!unshare(CLONE_NEWPID));
}

VICTIM_TEXT(victim_refuse_pid_for_children, "refuse_pid_for_children", empty_setup, NULL, nothing, V_REFUSED, "pid namespace.*future children");

/* ---- one whose first process has ended ---- */

static void ended_setup(void)
{
	must(!unshare(CLONE_NEWPID));
	member_ask("first", member_fork(nothing_else, true));
	must(fork() < 0 && errno == ENOMEM);
}

VICTIM_TEXT(victim_refuse_pids_ended, "refuse_pids_ended", ended_setup, NULL, nothing, V_REFUSED, "pid namespace.*future children");
