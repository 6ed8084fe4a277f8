/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_mount_late.c - mounts that belong to a pid namespace: /proc, and what is mounted below it; see ns_mount.h
 *
 * Theory of operation: a /proc shows the processes of one pid namespace, which need not be that of who has it among its mounts. Number 1 in it is the first process of that
 * namespace, and says which it is.
 */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_mount_internal.h"
#include "image/ns_other.h"

static const Gw__NsFs *proc_of(const Gw__Namespaces *msg, const Gw__NsMount *m)
{
	const Gw__NsFs *fs = m->fs ? msg->fs[m->fs - 1] : NULL;

	return fs && strcmp(fs->type, "proc") == 0 && (fs->numbers || msg->owned & NS_BIT(NS_PID)) ? fs : NULL;
}

/* The file system that makes it late; NULL: it is not. */
static const Gw__NsFs *late_because_of(const Gw__Namespaces *msg, size_t i)
{
	const Gw__NsFs *fs = NULL;

	for (; !fs && !ns_mount_is_root(msg, i); i = msg->mounts[i]->parent)
		fs = proc_of(msg, msg->mounts[i]);
	return fs;
}

bool ns_mount_is_late(const Gw__Namespaces *msg, size_t i)
{
	return late_because_of(msg, i) != NULL;
}

uint32_t ns_mount_numbers(const Gw__Namespaces *msg, size_t i)
{
	const Gw__NsFs *fs = late_because_of(msg, i);

	return fs ? fs->numbers : 0;
}

static void name_one(const Gw__NsMount *m, int fd, Gw__NsFs *fs, struct refusals *r)
{
	struct stat st;
	uint32_t number;

	if (fstatat(fd, "1/ns/pid", &st, 0) < 0)
		refusals_add(r, "ns.mount", "the pid namespace whose processes it shows has ended, or its first process has", "unmount it", "mount %s (proc)", m->where);
	else if (ns_others_find(NS_PID, st.st_ino, &number))
		fs->numbers = number;
	else if (!ns_is_hosts(NS_PID, st.st_ino))
		refusals_add(r, "ns.mount", "it shows the processes of a pid namespace that is not the unit's", "unmount it", "mount %s (proc)", m->where);
}

void ns_mounts_name_procs(Gw__Namespaces *msg, struct refusals *r)
{
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Gw__NsMount *m = msg->mounts[i];

		if (m->fs && !strcmp(msg->fs[m->fs - 1]->type, "proc") && !strcmp(m->root, "/") && ns_mount_fd(i) >= 0 && !ns_mount_is_hosts(i))
			name_one(m, ns_mount_fd(i), msg->fs[m->fs - 1], r);
	}
}

/* --- destination --- */

/* What the process inside has to say, in shared memory. */
struct shown {
	int code;
	struct err e;
};

#define PASSING_NUMBER 31000 /* of a process that is in a pid namespace of the unit's for a moment */

/* A process in there, whose parent is this one: nobody in there sees it go. */
static void __attribute__((noreturn)) show_from_inside(const Gw__Namespaces *msg, uint32_t numbers, int pids, int ns, struct shown *c)
{
	pid_t number = PASSING_NUMBER, pid;
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	c->code = ns_enter(pids, NS_PID);
	pid = c->code < 0 ? -1 : (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		c->code = mount_join_late(msg, numbers, ns, &c->e);
		_exit(0);
	}
	if (pid < 0)
		err_sys(&c->e, errno, "a process in a pid namespace of the unit");
	while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	_exit(0);
}

int ns_mounts_show_numbers(const Gw__Namespaces *msg, uint32_t numbers, int pids, int ns, struct err *e)
{
	struct shown *c;
	bool any = false;
	pid_t pid;
	int ret;

	for (size_t i = 0; i < msg->n_mounts; i++)
		any |= ns_mount_is_late(msg, i) && ns_mount_numbers(msg, i) == numbers;
	if (!any)
		return 0;
	c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c == MAP_FAILED)
		return err_sys(e, errno, "mounts of a pid namespace");
	c->code = -ECHILD;
	pid = fork();
	if (pid == 0)
		show_from_inside(msg, numbers, pids, ns, c);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	ret = pid < 0 || c->code < 0 ? err_set(e, pid < 0 ? -errno : c->code, "mounts of a pid namespace: %s", c->e.message) : 0;
	munmap(c, sizeof(*c));
	return ret;
}
