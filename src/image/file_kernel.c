/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_kernel.c - descriptors of what each kernel has of its own; see file_kernel.h */
#include "image/file_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/file.h"
#include "image/file_gone.h"
#include "image/fsfile_internal.h"
#include "image/ns_mount.h"
#include "image/ns_other.h"
#include "image/place.h"
#include "image/proc_ended.h"
#include "kern/nsfs.h"

#define MEMORY_MAJOR 1
#define KMSG_MINOR 11
#define MISC_MAJOR 10
#define TUN_MINOR 200
#define MSR_MAJOR 202
#define HOST_INIT 1 /* every host has that process, as it has /proc/meminfo */
#define CPUID_MAJOR 203
#define TTYAUX_MAJOR 5
#define CONSOLE_MINOR 1

/* What F_GETFL shows and open(2) takes; with O_PATH only what that keeps. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECTORY)
#define PATH_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW)

bool file_kernel_magic(unsigned long magic)
{
	return magic == PROC_SUPER_MAGIC || magic == SYSFS_MAGIC || magic == CGROUP2_SUPER_MAGIC || magic == CGROUP_SUPER_MAGIC;
}

bool file_kernel_device(uint32_t device_major, uint32_t device_minor, int fd)
{
	/* hwrng, kvm (the device itself has no state), btrfs-control, device mapper's and loop's control */
	static const uint32_t misc[] = { 183, 232, 234, 236, 237 };
	struct ifreq interface = { 0 };

	if (device_major == MEMORY_MAJOR) /* null, zero, full, random, urandom, kmsg */
		return device_minor == 3 || device_minor == 5 || (device_minor >= 7 && device_minor <= 9) || device_minor == KMSG_MINOR;
	/* As /dev/kmsg it is every host's own by its name. Other terminals are those of whoever sits there. */
	if (device_major == TTYAUX_MAJOR && device_minor == CONSOLE_MINOR)
		return true;
	if (device_major == MSR_MAJOR || device_major == CPUID_MAJOR)
		return true;
	if (device_major != MISC_MAJOR)
		return false;
	if (device_minor == TUN_MINOR) /* before it has an interface */
		return ioctl(fd, TUNGETIFF, &interface) < 0 && errno == EBADFD;
	for (size_t i = 0; i < ARRAY_SIZE(misc); i++)
		if (misc[i] == device_minor)
			return true;
	return false;
}

static int refuse(const struct fd_look *look, struct refusals *refusals, const char *code, const char *cause)
{
	refusals_add(refusals, code, cause, "close it first", "fd %d (%s)", look->fd, look->link);
	return FD_REFUSED;
}

static int capture_namespace(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals)
{
	for (int k = 0; k < NS_KINDS; k++) {
		const char *name = ns_name((enum ns_kind)k);
		size_t len = strlen(name);

		if (strncmp(look->link, name, len) || look->link[len] != ':')
			continue;
		if (!ns_others_find((enum ns_kind)k, look->st->st_ino, &d->space) && !ns_is_hosts((enum ns_kind)k, look->st->st_ino))
			break;
		if (!ns_others_find((enum ns_kind)k, look->st->st_ino, &d->space))
			d->space = NS_HOSTS;
		d->path = fd_strdup(name);
		return 0;
	}
	return refuse(look, refusals, "fd.namespace", "it is a namespace that none of the unit's processes is in");
}

static pid_t link_process(const char *link)
{
	cleanup_free char *path = fd_strdup(link);
	const char *rest;
	size_t len;

	if (file_gone_link(path, &len))
		path[len] = 0;
	return proc_path_process(path, &rest);
}

/*
 * Whether what it is about has ended, also where another process has that number by now: under its path lies something else, or nothing. Returns FD_REFUSED
 * where that cannot be told, or not made.
 */
static int capture_ended(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals)
{
	size_t len = strlen(look->link);
	struct stat st, proc;

	if (stat(place_of("/proc"), &proc) < 0 || proc.st_dev != look->st->st_dev)
		return refuse(look, refusals, "fd.proc", "it is about a process, and of another mount of /proc than lies there");
	if (lstat(place_of(look->link), &st) == 0 && st.st_dev == look->st->st_dev && st.st_ino == look->st->st_ino)
		return !proc_path_is_fleeting(look->link) || proc_path_descriptor(look->link) >= 0 ? 0 :
			refuse(look, refusals, "fd.proc", "it is about a mapping or the file of a descriptor of a process, which is not there yet when it is opened");
	file_gone_link(look->link, &len);
	d->ended = true;
	d->path = fd_strdup(look->link);
	d->path[len] = 0;
	if (!proc_ended_is_possible(d->path))
		return refuse(look, refusals, "fd.proc", "it is about a thread, a descriptor or a mapping that there is no more");
	return 0;
}

/* About a process, by its number in a /proc of another mount namespace of the unit's. */
static bool is_elsewhere(const char *link)
{
	const char *rest = link + sizeof(PLACE_SPACE) - 1;

	if (strncmp(link, PLACE_SPACE, sizeof(PLACE_SPACE) - 1))
		return false;
	rest += strspn(rest, "0123456789");
	return proc_path_process(rest, &rest) > 0;
}

int file_kernel_capture(const struct fd_look *look, Gw__FdDesc *d, bool (*inside)(void *arg, pid_t pid), void *arg, struct refusals *refusals)
{
	const char *rest;
	size_t len = 0;
	char path[FD_LINK_MAX];
	struct statfs fs;
	struct stat st;
	bool through;
	pid_t pid;

	if (d->kind == GW__FD_KIND__FD_NAMESPACE)
		return capture_namespace(look, d, refusals);
	if (look->link[0] != '/')
		return refuse(look, refusals, "fd.unknown", "it has no path");
	d->ended = false;
	pid = link_process(look->link);
	if (d->kind == GW__FD_KIND__FD_DEVICE && file_gone(look->link, look->st, &len)) {
		d->inode = file_gone_inode(look->st);
	} else if (pid && pid != HOST_INIT) {
		if (capture_ended(look, d, refusals) == FD_REFUSED)
			return FD_REFUSED;
	} else if (file_gone_link(look->link, &len)) {
		return refuse(look, refusals, "fd.deleted", "what it is about is gone");
	}
	if (is_elsewhere(look->link) && (lstat(place_of(look->link), &st) < 0 || st.st_dev != look->st->st_dev || st.st_ino != look->st->st_ino))
		return refuse(look, refusals, "fd.proc", "what it is about has ended, or lies under something else in another mount namespace of the unit");
	if (!pid && !strncmp(look->link, PLACE_OUTSIDE "/", sizeof(PLACE_OUTSIDE)) && proc_path_process(look->link + sizeof(PLACE_OUTSIDE) - 1, &rest))
		return refuse(look, refusals, "fd.proc", "it is about a process and opened through /proc of the host");
	if (pid && pid != HOST_INIT && !d->ended && !inside(arg, pid))
		return refuse(look, refusals, "fd.proc", "it is about a process of the source (a file of /proc) that does not move with it");
	if (fstatfs(look->held, &fs) == 0)
		d->fs_magic = (uint64_t)fs.f_type;
	if (!d->ended)
		d->path = fd_strdup(look->link);
	if (d->inode)
		d->path[len] = 0;
	if (!pid && !d->inode && ns_place_file(look->held, d->path, true, path, sizeof(path), &through) == 1 && !through)
		string_set(&d->path, path);
	d->device_major = d->kind == GW__FD_KIND__FD_DEVICE ? major(look->st->st_rdev) : 0;
	d->device_minor = d->kind == GW__FD_KIND__FD_DEVICE ? minor(look->st->st_rdev) : 0;
	return 0;
}

static bool good_path(const char *path)
{
	size_t len = strlen(path);

	if (path[0] != '/' || len >= PATH_MAX)
		return false;
	for (const char *p = path; (p = strstr(p, "/..")); p += 3)
		if (!p[3] || p[3] == '/')
			return false;
	return true;
}

int file_kernel_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->kind == GW__FD_KIND__FD_NAMESPACE) {
		for (int k = 0; k < NS_KINDS; k++)
			if (!strcmp(d->path, ns_name((enum ns_kind)k)))
				return 0;
		return err_set(e, -EPROTO, "a namespace of an unknown kind");
	}
	if (!good_path(d->path))
		return err_set(e, -EPROTO, "bad path");
	if (d->kind == GW__FD_KIND__FD_KERNEL_FILE && !file_kernel_magic((unsigned long)d->fs_magic))
		return err_set(e, -EPROTO, "a file of a strange file system");
	if (d->ended && (d->kind != GW__FD_KIND__FD_KERNEL_FILE || !proc_ended_is_possible(d->path)))
		return err_set(e, -EPROTO, "a file about a process that has ended");
	if (d->inode && file_gone_validate(d->path, d->inode, e) < 0)
		return -EPROTO;
	if (d->inode && d->inode->rdev != makedev(d->device_major, d->device_minor))
		return err_set(e, -EPROTO, "a node of another device");
	if (d->kind == GW__FD_KIND__FD_DEVICE && (d->device_major > 4095 || d->device_minor >= 1u << 20))
		return err_set(e, -EPROTO, "device %u:%u", d->device_major, d->device_minor);
	return 0;
}

/* What a device of the memory driver is called everywhere, if the path that the source had does not lead to it here. */
static const char *device_name(uint32_t device_minor)
{
	static const char *const names[] = { [3] = "/dev/null", [5] = "/dev/zero", [7] = "/dev/full", [8] = "/dev/random", [9] = "/dev/urandom",
					     [KMSG_MINOR] = "/dev/kmsg" };

	return device_minor < ARRAY_SIZE(names) ? names[device_minor] : NULL;
}

static bool is_device(const char *path, const Gw__FdDesc *d)
{
	struct stat st;

	return stat(place_of(path), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(d->device_major, d->device_minor);
}

static bool is_console(const Gw__FdDesc *d)
{
	return d->device_major == TTYAUX_MAJOR && d->device_minor == CONSOLE_MINOR;
}

/* A host can have the name without a console behind it. */
static bool opens(const char *path)
{
	cleanup_close int fd = open(place_of(path), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	return fd >= 0;
}

static const char *device_path(const Gw__FdDesc *d)
{
	const char *name = d->device_major == MEMORY_MAJOR ? device_name(d->device_minor) : is_console(d) ? "/dev/console" : NULL;

	if (is_device(d->path, d))
		return d->path;
	return name && is_device(name, d) ? name : NULL;
}

void file_kernel_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals)
{
	const char *rest;
	struct statfs fs;

	if (d->kind == GW__FD_KIND__FD_DEVICE && !d->inode && (!device_path(d) || (is_console(d) && !opens(device_path(d)))))
		refusals_add(refusals, "fd.missing", "the destination does not have this device by that name", "make it there", "fd %d (%s)", fd,
			     d->path);
	if (d->kind != GW__FD_KIND__FD_KERNEL_FILE || proc_path_process(d->path, &rest))
		return;
	/* Among mounts of the unit's own /proc comes later, with its first process. */
	if (place_prefix()[0] && d->fs_magic == PROC_SUPER_MAGIC)
		return;
	/* symbolic links are looked at by their directory */
	if (statfs(place_of(d->path), &fs) < 0 && !(d->flags & O_NOFOLLOW))
		refusals_add(refusals, "fd.missing", "the destination's kernel has no such file", "close it first", "fd %d (%s)", fd, d->path);
}

/* As far as it has been read while there was a process. */
static int open_ended(const Gw__FdDesc *d, int flags, pid_t first, struct err *e)
{
	struct proc_ended stand = PROC_ENDED_INIT;
	int fd = proc_ended_start(&stand, d->path, first, e);

	if (fd < 0)
		return fd;
	fd = proc_ended_open(&stand, d->path, flags, e);
	if (fd >= 0 && !(d->flags & O_PATH))
		(void)lseek(fd, d->position, SEEK_SET);
	proc_ended_stop(&stand);
	return fd;
}

static int open_of_process(const Gw__FdDesc *d, int flags, const struct fd_env *env, struct err *e)
{
	cleanup_free char *path = NULL;
	const char *rest = d->path;
	pid_t pid = proc_path_process(d->path, &rest), here = pid && env->host_pid ? env->host_pid(env->host_pid_arg, pid) : 0;
	int fd;

	here = pid == HOST_INIT && !here ? HOST_INIT : here;
	if (pid && !here)
		return err_set(e, -ESRCH, "%s: no process of the unit", d->path);
	/* In a mount namespace of the unit's own its numbers are in the paths. */
	if (pid && !place_prefix()[0] ? asprintf(&path, "/proc/%d%s", (int)here, rest) < 0 : !(path = strdup(place_of(d->path))))
		return err_set(e, -ENOMEM, "no memory for a path");
	fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	/* Such a file is about the number, whatever that is of. */
	if (fd < 0 && errno == ENOENT && env->lend && proc_path_descriptor(d->path) >= 0) {
		int ret = env->lend(env->host_pid_arg, pid, (uint32_t)proc_path_descriptor(d->path), e);

		if (ret < 0)
			return ret;
		fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	}
	return fd < 0 ? err_sys(e, -errno, "%s: opening it on this host", path) : fd;
}

static int open_kernel_file(const Gw__FdDesc *d, const struct fd_env *env, struct err *e)
{
	int flags = (int)d->flags & (d->flags & O_PATH ? PATH_FLAGS : OPEN_FLAGS);
	int fd = d->ended ? open_ended(d, flags, env->n_pids ? env->pids[0] : 0, e) : open_of_process(d, flags, env, e);
	struct statfs fs;

	if (fd >= 0 && (fstatfs(fd, &fs) < 0 || (uint64_t)fs.f_type != d->fs_magic)) {
		close(fd);
		return err_set(e, -ENODEV, "%s: of another file system on this host", d->path);
	}
	return fd;
}

/* Those of the first process are open, as its own. */
static int open_namespace(const Gw__FdDesc *d, pid_t first, struct err *e)
{
	int fd = -1;

	for (int k = 0; k < NS_KINDS && (!d->space || d->space == NS_HOSTS); k++)
		if (!strcmp(d->path, ns_name((enum ns_kind)k)))
			fd = d->space ? ns_open_hosts((enum ns_kind)k) : ns_open(first, (enum ns_kind)k);
	if (d->space && d->space != NS_HOSTS)
		fd = ns_others_fd(d->space) < 0 ? -1 : fsfile_reopen(ns_others_fd(d->space), O_RDONLY);
	return fd < 0 ? err_set(e, -ENOENT, "the unit's %s namespace cannot be opened", d->path) : fd;
}

static int open_device(const Gw__FdDesc *d, struct err *e)
{
	const char *path = device_path(d);
	int fd;

	if (d->inode && file_gone_open(d->path, d->inode, S_IFCHR, (int)d->flags & OPEN_FLAGS, &fd, NULL) == 0)
		return fd;
	if (!path)
		return err_set(e, -ENODEV, "%s: not that device on this host", d->path);
	fd = open(place_of(path), ((int)d->flags & OPEN_FLAGS) | O_CLOEXEC | O_NOCTTY);
	/* Of the kernel's log what comes from now on. */
	if (fd >= 0 && d->device_major == MEMORY_MAJOR && d->device_minor == KMSG_MINOR && (d->flags & O_ACCMODE) != O_WRONLY)
		lseek(fd, 0, SEEK_END);
	return fd < 0 ? err_sys(e, -errno, "%s: opening it on this host", path) : fd;
}

int file_kernel_open(const Gw__FdDesc *d, const struct fd_env *env, int *ret_fd, struct err *e)
{
	int fd = d->kind == GW__FD_KIND__FD_NAMESPACE ? open_namespace(d, env->n_pids ? env->pids[0] : 0, e) :
		d->kind == GW__FD_KIND__FD_DEVICE ? open_device(d, e) : open_kernel_file(d, env, e);

	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int file_kernel_seek(const Gw__FdTable *t, const int *fds, struct err *e)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind != GW__FD_KIND__FD_KERNEL_FILE || (d->flags & O_PATH) || !d->position)
			continue;
		if (d->ended && lseek(fds[i], 0, SEEK_CUR) == d->position)
			continue;
		if (lseek(fds[i], d->position, SEEK_SET) < 0 && errno != ESPIPE && !d->ended)
			return err_sys(e, -errno, "%s: setting its position to %lld", d->path, (long long)d->position);
	}
	return 0;
}
