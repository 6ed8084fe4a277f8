// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * homebody.c - a program that somebody at home waits for: it writes down what reaches it, and ends as it is told
 *
 * homebody LOG: appends "ready PID PPID PGID SID", then a line "signal NUMBER CODE VALUE HOST" for each signal. SIGTERM: exits with 42. SIGUSR2: stops
 * itself by SIGTSTP. SIGALRM: dies by SIGSEGV. SIGQUIT: dies by SIGQUIT, its default action.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(int argc, char **argv)
{
	struct utsname u;
	siginfo_t info;
	sigset_t all;
	char line[128];

	if (argc < 2 || (out = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0)
		return 3;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
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
