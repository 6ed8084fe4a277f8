/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cwd.c - the working directory of a process; see cwd.h */
#include "image/cwd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "image/bytes.h"
#include "image/file_gone.h"
#include "image/ns_info.h"
#include "image/ns_mount.h"
#include "image/place.h"
#include "image/proc_ended.h"
#include "kern/nsfs.h"

/* --- source --- */

static bool leads_to(pid_t pid, const char *name, const struct stat *st)
{
	char path[PATH_MAX + 64];
	struct stat there;

	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, name);
	return lstat(path, &there) == 0 && there.st_dev == st->st_dev && there.st_ino == st->st_ino;
}

/* A name can end with the suffix: then there is something under it. Or have none: in /proc. */
static bool is_removed(pid_t pid, const char *link, const struct stat *st)
{
	char path[PATH_MAX + 64];
	struct stat there;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, link);
	if (!file_gone_link(link, &len)) /* something below the directory of a process that has ended */
		return lstat(path, &there) < 0 || (there.st_dev == st->st_dev && there.st_ino != st->st_ino);
	return st->st_nlink == 0 || lstat(path, &there) < 0 || there.st_dev != st->st_dev || there.st_ino != st->st_ino;
}

static void set_removed(Gw__Process *msg, const struct stat *st)
{
	Gw__RemovedDirectory *r = calloc(1, sizeof(*r));

	if (!r)
		abort();
	gw__removed_directory__init(r);
	r->mode = st->st_mode & 07777;
	r->uid = st->st_uid;
	r->gid = st->st_gid;
	r->dev = st->st_dev;
	r->ino = st->st_ino;
	msg->cwd_removed = r;
}

int cwd_capture(pid_t pid, Gw__Process *msg, struct err *e)
{
	char path[64], text[PATH_MAX + 16];
	const char *rest;
	struct stat st;
	size_t len;
	ssize_t n;

	if (msg->cwd_removed)
		gw__removed_directory__free_unpacked(msg->cwd_removed, NULL);
	msg->cwd_removed = NULL;
	snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	n = readlink(path, text, sizeof(text) - 1);
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	text[n] = 0;
	len = (size_t)n;
	if (file_gone_link(text, &len) || proc_path_process(text, &rest)) {
		if (stat(path, &st) < 0)
			return err_sys(e, -errno, "%s", path);
		if (is_removed(pid, text, &st)) {
			text[len] = 0;
			if (!leads_to(pid, text, &st)) /* as what is mounted by itself does */
				set_removed(msg, &st);
		}
	}
	string_set(&msg->cwd, text);
	return 0;
}

/* Mounts of one directory may differ in what they allow. */
static bool is_alike(const char *a, const char *b)
{
	struct statx x, y;
	struct statvfs u, v;

	if (statx(AT_FDCWD, a, 0, STATX_INO | STATX_MNT_ID, &x) < 0 || statx(AT_FDCWD, b, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_MNT_ID, &y) < 0 || x.stx_ino != y.stx_ino ||
	    x.stx_dev_major != y.stx_dev_major || x.stx_dev_minor != y.stx_dev_minor)
		return false;
	return x.stx_mnt_id == y.stx_mnt_id || (statvfs(a, &u) == 0 && statvfs(b, &v) == 0 && u.f_flag == v.f_flag);
}

static bool is_reached(pid_t pid, const char *name, const char *known)
{
	char link[64], root[PATH_MAX], path[2 * PATH_MAX], text[PATH_MAX + 16];
	ssize_t n;

	if (!ns_root_of(pid, true, root, sizeof(root)))
		return true; /* said by others */
	snprintf(link, sizeof(link), "/proc/%d/%s", pid, name);
	snprintf(path, sizeof(path), "%s%s", root, known);
	if (is_alike(link, place_of(path)))
		return true;
	/* It may have gone elsewhere meanwhile, and is looked at again in the freeze. */
	n = readlink(link, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = 0;
	return strcmp(text, known) != 0;
}

bool cwd_is_reached(pid_t pid, const Gw__Process *msg)
{
	return msg->cwd_removed || is_reached(pid, "cwd", msg->cwd);
}

bool cwd_root_is_reached(pid_t pid, const Gw__Process *msg)
{
	return !strcmp(msg->root, "/") || is_reached(pid, "root", msg->root);
}

bool cwd_is_news(const Gw__Process *was, const Gw__Process *now)
{
	return now->cwd_removed && !cwd_is_same(was, now);
}

bool cwd_is_of_process(const Gw__Process *msg)
{
	const char *rest;

	return msg->cwd_removed && proc_path_process(msg->cwd, &rest);
}

/* --- destination --- */

/* In the mount namespace that the process is in. */
static bool mark(const Gw__Process *msg, char *path, size_t size)
{
	return place_mark(msg->n_namespaces ? msg->namespaces[NS_MNT] : 0, msg->cwd, path, size);
}

int cwd_validate(const Gw__Process *msg, struct err *e)
{
	Gw__FdInode inode = GW__FD_INODE__INIT;

	if (msg->cwd[0] != '/' || strlen(msg->cwd) >= PATH_MAX)
		return err_set(e, -EBADMSG, "working directory is not an absolute path");
	if (!msg->cwd_removed)
		return 0;
	inode.mode = msg->cwd_removed->mode;
	return file_gone_validate(msg->cwd, &inode, e) < 0 ? -EBADMSG : 0;
}

void cwd_validate_here(const Gw__Process *msg, struct refusals *r)
{
	char path[PATH_MAX + 64];
	struct stat st;

	if (cwd_is_of_process(msg) && !proc_ended_is_possible(msg->cwd))
		refusals_add(r, "task.directory", "it is that of a thread that has ended", "let the program change to another", "working directory %s", msg->cwd);
	else if (!msg->cwd_removed && (!mark(msg, path, sizeof(path)) || stat(place_of(path), &st) < 0 || !S_ISDIR(st.st_mode)))
		refusals_add(r, "task.directory", "there is no such directory on the destination", "make it there", "working directory %s", msg->cwd);
}

bool cwd_is_removed_inode(const Gw__Process *msg, const Gw__FdInode *inode)
{
	return msg->cwd_removed && inode->ino && msg->cwd_removed->ino == inode->ino && msg->cwd_removed->dev == inode->dev;
}

bool cwd_is_same(const Gw__Process *a, const Gw__Process *b)
{
	return a->cwd_removed && b->cwd_removed && a->cwd_removed->ino == b->cwd_removed->ino && a->cwd_removed->dev == b->cwd_removed->dev;
}

int cwd_make_removed(const Gw__Process *msg, const struct proc_ended *stand, int *ret_fd, struct err *e)
{
	Gw__FdInode inode = GW__FD_INODE__INIT;
	char path[PATH_MAX + 64];

	if (cwd_is_of_process(msg)) {
		int fd = proc_ended_open(stand, msg->cwd, O_PATH | O_DIRECTORY, e);

		*ret_fd = fd < 0 ? *ret_fd : fd;
		return fd < 0 ? fd : 0;
	}
	if (!mark(msg, path, sizeof(path)))
		return err_set(e, -ENAMETOOLONG, "working directory %s", msg->cwd);
	inode.mode = msg->cwd_removed->mode;
	inode.uid = msg->cwd_removed->uid;
	inode.gid = msg->cwd_removed->gid;
	return file_gone_open(path, &inode, S_IFDIR, O_PATH | O_DIRECTORY, ret_fd, e);
}

void cwd_plan(struct batch *b, const Gw__Process *msg, bool inside)
{
	const char *below = inside ? path_below(msg->cwd, msg->root) : NULL;
	size_t skip = below ? (size_t)(below - msg->cwd) : 0;

	batch_call(b, "chdir", SYS_chdir, batch_string(b, msg->cwd[skip] ? msg->cwd + skip : "/"));
}
