/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_refuse.c - the kind of a descriptor; see file_refuse.h */
#include "image/file_refuse.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "base/util.h"

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif
#ifndef PIDFS_MAGIC
#define PIDFS_MAGIC 0x50494446
#endif
#ifndef SECRETMEM_MAGIC
#define SECRETMEM_MAGIC 0x5345434d
#endif
#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif
#define FUSE_MAGIC_DEVICE_MINOR 229

static const struct {
	const char *link;
	const char *code;
	const char *what;
} anonymous[] = {
	{ "anon_inode:inotify", "fd.inotify", "an inotify instance" },
	{ "anon_inode:[fanotify]", "fd.fanotify", "a fanotify group" },
	{ "anon_inode:[pidfd]", "fd.pidfd", "a pidfd" },
	{ "anon_inode:[io_uring]", "fd.io_uring", "an io_uring" },
	{ "anon_inode:[userfaultfd]", "fd.userfaultfd", "a userfaultfd" },
	{ "anon_inode:[perf_event]", "fd.perf", "a perf event" },
	{ "anon_inode:bpf", "fd.bpf", "a BPF object" },
	{ "anon_inode:seccomp notify", "fd.seccomp", "a seccomp listener" },
	{ "anon_inode:kvm", "fd.kvm", "a KVM virtual machine" },
	{ "anon_inode:[landlock", "fd.landlock", "a Landlock rule set" },
	{ "anon_inode:", "fd.anonymous", "a kernel object" },
};

static const struct {
	unsigned long magic;
	const char *code;
	const char *what;
} pseudo[] = {
	{ PROC_SUPER_MAGIC, "fd.proc", "a file of /proc" },
	{ SYSFS_MAGIC, "fd.sysfs", "a file of /sys" },
	{ CGROUP2_SUPER_MAGIC, "fd.cgroup", "a file of a cgroup" },
	{ CGROUP_SUPER_MAGIC, "fd.cgroup", "a file of a cgroup" },
	{ DEBUGFS_MAGIC, "fd.debugfs", "a file of debugfs" },
	{ TRACEFS_MAGIC, "fd.tracefs", "a file of tracefs" },
	{ BPF_FS_MAGIC, "fd.bpf", "a file of the BPF file system" },
	{ NSFS_MAGIC, "fd.namespace", "a namespace" },
	{ PIDFS_MAGIC, "fd.pidfd", "a pidfd" },
	{ SECRETMEM_MAGIC, "fd.secretmem", "secret memory" },
	{ MQUEUE_MAGIC, "fd.mqueue", "a POSIX message queue" },
	{ SECURITYFS_MAGIC, "fd.securityfs", "a file of securityfs" },
};

static Gw__FdKind refuse(const struct fd_look *look, struct refusals *refusals, const char *code, const char *what)
{
	char cause[160];

	snprintf(cause, sizeof(cause), "%s belongs to this host and cannot move yet", what);
	refusals_add(refusals, code, cause, "close it first", "fd %d (%s)", look->fd, look->link);
	return GW__FD_KIND__FD_CLOSED;
}

static Gw__FdKind classify_anonymous(const struct fd_look *look, struct refusals *refusals)
{
	if (!strcmp(look->link, "anon_inode:[eventfd]"))
		return GW__FD_KIND__FD_EVENTFD;
	if (!strcmp(look->link, "anon_inode:[eventpoll]"))
		return GW__FD_KIND__FD_EPOLL;
	if (!strcmp(look->link, "anon_inode:[timerfd]"))
		return GW__FD_KIND__FD_TIMERFD;
	if (!strcmp(look->link, "anon_inode:[signalfd]"))
		return GW__FD_KIND__FD_SIGNALFD;
	for (size_t i = 0; i < ARRAY_SIZE(anonymous); i++)
		if (!strncmp(look->link, anonymous[i].link, strlen(anonymous[i].link)))
			return refuse(look, refusals, anonymous[i].code, anonymous[i].what);
	return refuse(look, refusals, "fd.unknown", "something of an unknown kind");
}

static Gw__FdKind classify_device(const struct fd_look *look, struct refusals *refusals)
{
	unsigned int device_major = major(look->st->st_rdev), device_minor = minor(look->st->st_rdev);

	/* null, zero, full, random, urandom */
	if (device_major == 1 && (device_minor == 3 || device_minor == 5 || (device_minor >= 7 && device_minor <= 9)))
		return GW__FD_KIND__FD_DEVICE;
	if ((device_major >= 136 && device_major <= 143) || device_major == 4 || device_major == 5 || device_major == 3) {
		refusals_add(refusals, "fd.tty", "terminals cannot move yet",
			"start it with its input and output redirected (setsid, </dev/null >file)",
			"fd %d (terminal %s)", look->fd, look->link);
		return GW__FD_KIND__FD_CLOSED;
	}
	if (device_major == 10 && device_minor == FUSE_MAGIC_DEVICE_MINOR)
		return refuse(look, refusals, "fd.fuse", "a FUSE server");
	return refuse(look, refusals, "fd.device", "a device");
}

static bool is_deleted(const struct fd_look *look)
{
	size_t len = strlen(look->link);

	return len > 10 && !strcmp(look->link + len - 10, " (deleted)");
}

static Gw__FdKind with_path(const struct fd_look *look, Gw__FdKind kind, struct refusals *refusals)
{
	if (look->link[0] == '/' && !is_deleted(look))
		return kind;
	refusals_add(refusals, "fd.deleted", "it was deleted and has no path any more", "close it first", "fd %d (%s)", look->fd,
		look->link);
	return GW__FD_KIND__FD_CLOSED;
}

Gw__FdKind fd_classify(const struct fd_look *look, uint32_t flags, struct refusals *refusals)
{
	mode_t mode = look->st->st_mode;
	struct statfs fs;

	if (S_ISSOCK(mode) && !(flags & O_PATH))
		return GW__FD_KIND__FD_SOCKET;
	if (!strncmp(look->link, "anon_inode:", 11))
		return classify_anonymous(look, refusals);
	if (S_ISFIFO(mode) && !(flags & O_PATH))
		return look->link[0] == '/' ? with_path(look, GW__FD_KIND__FD_PIPE, refusals) : GW__FD_KIND__FD_PIPE;
	if (fstatfs(look->held, &fs) < 0)
		return refuse(look, refusals, "fd.unknown", "a file of a file system that does not answer");
	for (size_t i = 0; i < ARRAY_SIZE(pseudo); i++)
		if ((unsigned long)fs.f_type == pseudo[i].magic)
			return refuse(look, refusals, pseudo[i].code, pseudo[i].what);
	if (flags & O_PATH)
		return with_path(look, GW__FD_KIND__FD_PATH, refusals);
	if (S_ISREG(mode))
		return GW__FD_KIND__FD_FILE;
	if (S_ISDIR(mode))
		return with_path(look, GW__FD_KIND__FD_DIRECTORY, refusals);
	if (S_ISCHR(mode))
		return classify_device(look, refusals);
	return refuse(look, refusals, "fd.unknown", S_ISBLK(mode) ? "a block device" : "something of an unknown kind");
}

bool fd_capture_owner(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals)
{
	struct f_owner_ex owner = { 0 };
	int signal_number;

	if (d->kind == GW__FD_KIND__FD_PATH)
		return true;
	signal_number = fcntl(look->held, F_GETSIG);
	if (fcntl(look->held, F_GETOWN_EX, &owner) < 0 || signal_number < 0)
		return true;
	d->signal = (uint32_t)signal_number;
	d->owner_self = owner.pid == look->pid && owner.type != F_OWNER_PGRP;
	if (owner.pid && d->kind == GW__FD_KIND__FD_DIRECTORY) {
		refusals_add(refusals, "fd.dnotify", "directory notification (F_NOTIFY) cannot move", "close it first",
			"fd %d (%s)", look->fd, look->link);
		return false;
	}
	if (owner.pid && !d->owner_self) {
		refusals_add(refusals, "fd.owner", "its signals (F_SETOWN) go to another process or thread", "close it first",
			"fd %d (%s)", look->fd, look->link);
		return false;
	}
	return true;
}
