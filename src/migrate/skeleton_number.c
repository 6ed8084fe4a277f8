/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_number.c - numbers of tasks that are made from inside a user namespace of a part of the unit
 *
 * Theory of operation: the number that a task gets in a pid namespace can be chosen (set_tid) by whoever has capabilities in the user namespace that this one belongs to. Who is in
 * a user namespace below it has none. Those numbers are led up to: the worker sets the number that was given out last in there to the one before, and looks which one came. On
 * the host somebody else may be quicker.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "migrate/skeleton_internal.h"

#define LAST_NUMBER "/proc/sys/kernel/ns_last_pid"
#define PASSING_NUMBER 31001 /* of a process that is in a pid namespace for a moment */

/* Whether user namespace `above` is the one that `ns` belongs to, or above it. */
static bool commands(uint64_t above, int ns)
{
	int user = ioctl(ns, NS_GET_USERNS);
	bool found = false;

	while (user >= 0 && !found) {
		int next = -1;

		found = ns_id_of(user) == above;
		if (!found)
			next = ioctl(user, NS_GET_PARENT);
		close(user);
		user = next;
	}
	close_fdp(&user);
	return found;
}

size_t skeleton_numbers_chosen(const struct skeleton *by, int ns, bool first, size_t n)
{
	uint64_t user = by->namespaces[NS_USER] ? ns_id(by->pid, NS_USER) : 0;
	int at = user && n > first ? fcntl(ns, F_DUPFD_CLOEXEC, 0) : -1;
	size_t chosen = first;

	if (!user || n <= first)
		return n;
	while (at >= 0 && chosen < n && commands(user, at)) {
		int above = ++chosen < n ? ioctl(at, NS_GET_PARENT) : -1;

		close(at);
		at = above;
	}
	close_fdp(&at);
	return chosen;
}

static int write_last(pid_t number)
{
	cleanup_close int fd = open(LAST_NUMBER, O_WRONLY | O_CLOEXEC);
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", number - 1);

	return fd < 0 || write(fd, text, (size_t)len) != len ? -errno : 0;
}

/* In a pid namespace of its own only a process that is in there can do it. */
static void __attribute__((noreturn)) lead_inside(int ns, pid_t number)
{
	pid_t own = PASSING_NUMBER + (number == PASSING_NUMBER), pid;
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&own, .set_tid_size = 1 };
	int status = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ns_enter(ns, NS_PID) < 0)
		_exit(errno);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		_exit(-write_last(number));
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(pid < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD);
}

static pid_t last_on_host; /* before it was changed; 0: it has not been */

static pid_t read_last(void)
{
	cleanup_fclose FILE *f = fopen(LAST_NUMBER, "re");
	int number;

	return f && fscanf(f, "%d", &number) == 1 ? number : 0;
}

void skeleton_lead_back(void)
{
	if (last_on_host)
		(void)write_last(last_on_host + 1);
	last_on_host = 0;
}

static int lead_to(int ns, pid_t number, struct err *e)
{
	int status = 0, ret;
	pid_t pid;

	if (ns_id_of(ns) == ns_id(0, NS_PID)) {
		last_on_host = last_on_host ? last_on_host : read_last();
		ret = write_last(number);
		return ret < 0 ? err_sys(e, ret, LAST_NUMBER) : 0;
	}
	pid = fork();
	if (pid == 0)
		lead_inside(ns, number);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ret = pid < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
	return ret ? err_sys(e, ret, LAST_NUMBER " of a pid namespace of the unit") : 0;
}

int skeleton_lead_to(int ns, bool first, const pid_t *numbers, size_t from, size_t n, struct err *e)
{
	int at = from < n ? fcntl(ns, F_DUPFD_CLOEXEC, 0) : -1, ret = 0;

	for (size_t i = first; i < n && ret == 0; i++) {
		int above;

		if (i >= from)
			ret = lead_to(at, numbers[i], e);
		above = i + 1 < n ? ioctl(at, NS_GET_PARENT) : -1;
		close(at);
		at = above;
	}
	close_fdp(&at);
	return ret;
}

bool skeleton_has_numbers(pid_t outer, const pid_t *numbers, size_t n)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[512];

	snprintf(path, sizeof(path), "/proc/%d/status", outer);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "NSpid:", 6))
			continue;
		for (size_t i = 0; i < n; i++) {
			char *column = strrchr(line, '\t');

			if (!column || atoi(column) != numbers[i])
				return false;
			*column = 0;
		}
		return true;
	}
	return false;
}
