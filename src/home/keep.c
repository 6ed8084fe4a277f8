/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keep.c - closing what is not wanted; see keep.h */
#include "home/keep.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/nsfs.h"

void keep_only(bool (*wanted)(const void *arg, int fd), const void *arg)
{
	cleanup_closedir DIR *d = opendir("/proc/self/fd");
	struct dirent *item;

	while (d && (item = readdir(d))) {
		int fd = atoi(item->d_name);

		if (fd > STDERR_FILENO && fd != dirfd(d) && !wanted(arg, fd))
			close(fd);
	}
}

void keep_begin(const char *name, bool (*wanted)(const void *arg, int fd), const void *arg)
{
	prctl(PR_SET_NAME, name);
	setsid();
	setpriority(PRIO_PROCESS, 0, 0);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_SETMASK, &(sigset_t){ 0 }, NULL);
	keep_only(wanted, arg);
}

void keep_host_namespaces(pid_t pid)
{
	static const enum ns_kind kinds[] = { NS_NET, NS_IPC, NS_UTS, NS_CGROUP };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		cleanup_close int fd = ns_open(pid, kinds[i]);

		if (fd >= 0 && ns_id_of(fd) != ns_id(0, kinds[i]))
			setns(fd, 0);
	}
}

/* Not by a child that forks and ends: each fork of a worker copies what it has in memory. */
int keep_fork(void)
{
	struct clone_args args = { .flags = CLONE_PARENT };
	pid_t pid;

	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	return pid < 0 ? -errno : pid;
}
