// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * homebody.c - a program that somebody at home waits for: it writes down what reaches it, and ends as it is told
 *
 * homebody LOG: appends "ready PID PPID PGID SID", then a line "signal NUMBER CODE VALUE HOST" for each signal. SIGTERM: exits with 42. SIGUSR2: stops
 * itself by SIGTSTP. SIGALRM: dies by SIGSEGV. SIGQUIT: dies by SIGQUIT, its default action. `homebody filtered LOG`: with two more threads, and a
 * system call filter that kills it for what a stub does (and a move, and restart_syscall).
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static int out;

static void say(const char *format, long a, long b, long c, const char *text)
{
	char line[256];
	int len = snprintf(line, sizeof(line), format, a, b, c, text);

	if (write(out, line, (size_t)len) != len)
		_exit(3);
}

static void strike(int number)
{
	sigset_t one;

	signal(number, SIG_DFL);
	raise(number);
	sigemptyset(&one);
	sigaddset(&one, number);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	sigprocmask(SIG_BLOCK, &one, NULL);
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int filter(void)
{
	static const int deadly[] = { SYS_execve, SYS_execveat, SYS_signalfd4, SYS_poll, SYS_restart_syscall, SYS_recvmsg, SYS_sendto, SYS_socketpair, SYS_close_range, SYS_prctl,
				      SYS_setitimer, SYS_kill, SYS_fcntl, SYS_dup3, SYS_wait4, SYS_prlimit64 };
	static struct sock_filter program[2 * sizeof(deadly) / sizeof(deadly[0]) + 2];
	unsigned short n = 0;
	struct sock_fprog p = { .filter = program };
	pthread_t thread;

	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, idle, NULL))
			return -1;
	program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
		program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)deadly[i], 0, 1);
		program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	}
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	p.len = n;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &p);
}

int main(int argc, char **argv)
{
	struct utsname u;
	siginfo_t info;
	sigset_t all;
	char line[128];

	if (argc < 2 || (out = open(argv[argc - 1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0)
		return 3;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	if (argc > 2 && filter() < 0)
		return 3;
	snprintf(line, sizeof(line), "%d\n", (int)getsid(0));
	say("ready %ld %ld %ld %s", getpid(), getppid(), getpgrp(), line);
	for (;;) {
		int number = sigwaitinfo(&all, &info);

		if (number < 0)
			continue;
		uname(&u);
		snprintf(line, sizeof(line), "%s\n", u.nodename);
		say("signal %ld %ld %ld %s", number, info.si_code, info.si_code == SI_QUEUE ? info.si_value.sival_int : 0, line);
		switch (number) {
		case SIGTERM:
			exit(42);
		case SIGUSR2:
			strike(SIGTSTP);
			break;
		case SIGALRM:
			strike(SIGSEGV);
			break;
		case SIGQUIT:
			strike(SIGQUIT);
			break;
		default:
			break;
		}
	}
}
