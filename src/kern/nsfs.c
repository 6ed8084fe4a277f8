/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nsfs.c - see nsfs.h */
#include "kern/nsfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

#define PATH_LEN 64

static const struct {
	const char *name;
	int flag;
} kinds[NS_KINDS] = {
	[NS_UTS] = { "uts", CLONE_NEWUTS }, [NS_IPC] = { "ipc", CLONE_NEWIPC }, [NS_NET] = { "net", CLONE_NEWNET }, [NS_CGROUP] = { "cgroup", CLONE_NEWCGROUP },
	[NS_PID] = { "pid", CLONE_NEWPID }, [NS_MNT] = { "mnt", CLONE_NEWNS }, [NS_USER] = { "user", CLONE_NEWUSER }, [NS_TIME] = { "time", CLONE_NEWTIME },
};

const char *ns_name(enum ns_kind kind)
{
	return kinds[kind].name;
}

int ns_flag(enum ns_kind kind)
{
	return kinds[kind].flag;
}

static const char *path_of(pid_t task, enum ns_kind kind, const char *suffix, char path[PATH_LEN])
{
	if (task)
		snprintf(path, PATH_LEN, "/proc/%d/ns/%s%s", task, kinds[kind].name, suffix);
	else
		snprintf(path, PATH_LEN, "/proc/thread-self/ns/%s%s", kinds[kind].name, suffix);
	return path;
}

static uint64_t id_at(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_ino : 0;
}

int ns_open(pid_t task, enum ns_kind kind)
{
	char path[PATH_LEN];

	return open(path_of(task, kind, "", path), O_RDONLY | O_CLOEXEC);
}

int ns_open_for_children(pid_t task, enum ns_kind kind)
{
	char path[PATH_LEN];

	return open(path_of(task, kind, "_for_children", path), O_RDONLY | O_CLOEXEC);
}

uint64_t ns_id(pid_t task, enum ns_kind kind)
{
	char path[PATH_LEN];

	return id_at(path_of(task, kind, "", path));
}

uint64_t ns_id_for_children(pid_t task, enum ns_kind kind)
{
	char path[PATH_LEN];

	return id_at(path_of(task, kind, "_for_children", path));
}

uint64_t ns_id_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

bool ns_differs(pid_t a, pid_t b, enum ns_kind kind)
{
	uint64_t x = ns_id(a, kind), y = ns_id(b, kind);

	return x && y && x != y;
}

int ns_enter(int fd, enum ns_kind kind)
{
	return setns(fd, kinds[kind].flag) < 0 ? -errno : 0;
}
