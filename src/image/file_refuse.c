/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_refuse.c - the kind of a descriptor; see file_refuse.h */
#include "image/file_refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/file_gone.h"
#include "image/file_kernel.h"
#include "image/pty.h"
#include "image/bpf_map.h"
#include "image/pidfd.h"
#include "image/place.h"
#include "image/tun.h"

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
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
	{ "anon_inode:[userfaultfd]", "fd.userfaultfd", "a userfaultfd" },
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
	{ DEBUGFS_MAGIC, "fd.debugfs", "a file of debugfs" },
	{ TRACEFS_MAGIC, "fd.tracefs", "a file of tracefs" },
	{ BPF_FS_MAGIC, "fd.bpf", "a file of the BPF file system" },
	{ SECRETMEM_MAGIC, "fd.secretmem", "secret memory" },
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
	if (!strcmp(look->link, "anon_inode:inotify"))
		return GW__FD_KIND__FD_INOTIFY;
	if (!strcmp(look->link, "anon_inode:[fanotify]"))
		return GW__FD_KIND__FD_FANOTIFY;
	if (!strcmp(look->link, "anon_inode:[io_uring]"))
		return GW__FD_KIND__FD_URING;
	if (bpf_map_is_one(look->link))
		return GW__FD_KIND__FD_BPF_MAP;
	if (!strcmp(look->link, "anon_inode:[perf_event]")) {
		refusals_add(refusals, "fd.perf", "it counts, or samples, what happens on this host's processors; another counter would begin at zero, since the kernel takes a count from nobody",
			     "end the profiling first", "fd %d (perf event)", look->fd);
		return GW__FD_KIND__FD_CLOSED;
	}
	for (size_t i = 0; i < ARRAY_SIZE(anonymous); i++)
		if (!strncmp(look->link, anonymous[i].link, strlen(anonymous[i].link)))
			return refuse(look, refusals, anonymous[i].code, anonymous[i].what);
	return refuse(look, refusals, "fd.unknown", "something of an unknown kind");
}

static Gw__FdKind with_path(const struct fd_look *look, Gw__FdKind kind, struct refusals *refusals)
{
	size_t len;

	if (look->link[0] == '/' && (S_ISLNK(look->st->st_mode) || !file_gone(look->link, look->st, &len)))
		return kind;
	refusals_add(refusals, "fd.deleted", "it was deleted and has no path any more", "close it first", "fd %d (%s)", look->fd,
		look->link);
	return GW__FD_KIND__FD_CLOSED;
}

static Gw__FdKind classify_device(const struct fd_look *look, struct refusals *refusals)
{
	unsigned int device_major = major(look->st->st_rdev), device_minor = minor(look->st->st_rdev);

	if (file_kernel_device(device_major, device_minor, look->held))
		return GW__FD_KIND__FD_DEVICE;
	if (pty_kind(device_major, device_minor) != GW__FD_KIND__FD_CLOSED)
		return pty_kind(device_major, device_minor);
	if (tun_is_one(look->st))
		return GW__FD_KIND__FD_TUN;
	if ((device_major >= 136 && device_major <= 143) || device_major == 4 || device_major == 5 || device_major == 3) {
		refusals_add(refusals, "fd.tty", "a console or serial terminal is its host's own, and the destination's is another one",
			"run it in a pseudo-terminal (tmux, script), or with its input and output redirected (setsid, </dev/null >file)",
			"fd %d (terminal %s)", look->fd, look->link);
		return GW__FD_KIND__FD_CLOSED;
	}
	if (device_major == 10 && device_minor == FUSE_MAGIC_DEVICE_MINOR)
		return refuse(look, refusals, "fd.fuse", "a FUSE server");
	return refuse(look, refusals, "fd.device", "a device");
}

Gw__FdKind fd_classify(const struct fd_look *look, uint32_t flags, struct refusals *refusals)
{
	mode_t mode = look->st->st_mode;
	struct statfs fs;
	size_t len;

	if (S_ISSOCK(mode) && !(flags & O_PATH))
		return GW__FD_KIND__FD_SOCKET;
	if (pidfd_is_one(look->link))
		return GW__FD_KIND__FD_PIDFD;
	if (!strncmp(look->link, "anon_inode:", 11))
		return classify_anonymous(look, refusals);
	if (S_ISFIFO(mode) && !(flags & O_PATH))
		return GW__FD_KIND__FD_PIPE;
	if (fstatfs(look->held, &fs) < 0)
		return refuse(look, refusals, "fd.unknown", "a file of a file system that does not answer");
	if ((unsigned long)fs.f_type == MQUEUE_MAGIC && S_ISREG(mode) && !(flags & O_PATH))
		return GW__FD_KIND__FD_MQUEUE;
	for (size_t i = 0; i < ARRAY_SIZE(pseudo); i++)
		if ((unsigned long)fs.f_type == pseudo[i].magic)
			return refuse(look, refusals, pseudo[i].code, pseudo[i].what);
	if ((unsigned long)fs.f_type == NSFS_MAGIC)
		return GW__FD_KIND__FD_NAMESPACE;
	if (file_kernel_magic((unsigned long)fs.f_type))
		return GW__FD_KIND__FD_KERNEL_FILE;
	if (S_ISDIR(mode) && file_gone(look->link, look->st, &len))
		return GW__FD_KIND__FD_DELETED_DIR;
	if ((flags & O_PATH) && !(S_ISREG(mode) && file_gone(look->link, look->st, &len)))
		return with_path(look, GW__FD_KIND__FD_PATH, refusals);
	if (S_ISREG(mode))
		return GW__FD_KIND__FD_FILE;
	if (S_ISDIR(mode))
		return with_path(look, GW__FD_KIND__FD_DIRECTORY, refusals);
	if (S_ISCHR(mode))
		return classify_device(look, refusals);
	return refuse(look, refusals, "fd.unknown", S_ISBLK(mode) ? "a block device" : "something of an unknown kind");
}

int fd_check_path(const struct fd_look *look, const char *placed, struct refusals *refusals, struct err *e)
{
	char path[64], link[FD_LINK_MAX];
	struct stat st;
	ssize_t n;

	if (lstat(place_of(placed), &st) == 0 && st.st_dev == look->st->st_dev && st.st_ino == look->st->st_ino)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", look->held);
	n = readlink(path, link, sizeof(link) - 1);
	link[MAX(n, 0)] = 0;
	if (strcmp(link, look->link) != 0)
		return err_set(e, -EAGAIN, "fd %d (%s): renamed meanwhile", look->fd, look->link);
	refusals_add(refusals, "fd.mount", "no path leads to it: it is on a mount that is nowhere in the tree of files, or something has been mounted over it",
		"close it, or unmount what is over it, first", "fd %d (%s)", look->fd, look->link);
	return FD_REFUSED;
}
