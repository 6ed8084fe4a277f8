/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_gone.c - directories, FIFOs, device nodes and symbolic links whose name was removed; see file_gone.h */
#include "image/file_gone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/random.h>

#include "base/util.h"
#include "image/place.h"

#define PARENTS_MAX 64

bool file_gone_link(const char *link, size_t *ret_len)
{
	size_t len = strlen(link), suffix = strlen(FILE_GONE_SUFFIX);

	if (len <= suffix || strcmp(link + len - suffix, FILE_GONE_SUFFIX))
		return false;
	*ret_len = len - suffix;
	return true;
}

static bool leads_to(const char *path, const struct stat *st)
{
	struct stat at;

	return lstat(place_of(path), &at) == 0 && at.st_dev == st->st_dev && at.st_ino == st->st_ino;
}

bool file_gone(const char *link, const struct stat *st, size_t *ret_len)
{
	return link[0] == '/' && file_gone_link(link, ret_len) && !leads_to(link, st);
}

void file_gone_mounted(char *link, const struct stat *st)
{
	size_t len;

	if (!file_gone(link, st, &len))
		return;
	link[len] = 0;
	if (!leads_to(link, st))
		link[len] = FILE_GONE_SUFFIX[0];
}

Gw__FdInode *file_gone_inode(const struct stat *st)
{
	Gw__FdInode *inode = fd_alloc(sizeof(*inode));

	gw__fd_inode__init(inode);
	inode->mode = st->st_mode & 07777;
	inode->uid = st->st_uid;
	inode->gid = st->st_gid;
	inode->rdev = st->st_rdev;
	inode->dev = st->st_dev;
	inode->ino = st->st_ino;
	return inode;
}

int file_gone_validate(const char *path, const Gw__FdInode *inode, struct err *e)
{
	size_t len = strlen(path);

	if (!inode || inode->mode & ~07777u)
		return err_set(e, -EPROTO, "an inode out of range");
	if (strlen(inode->target) >= PATH_MAX)
		return err_set(e, -EPROTO, "a symbolic link to something too long");
	if (path[0] != '/' || !path[1] || len >= PATH_MAX - 64)
		return err_set(e, -EPROTO, "bad path");
	for (const char *p = path; (p = strstr(p, "/..")); p += 3)
		if (!p[3] || p[3] == '/')
			return err_set(e, -EPROTO, "bad path");
	return 0;
}

bool file_gone_same(const Gw__FdInode *a, const Gw__FdInode *b)
{
	return a->ino && a->ino == b->ino && a->dev == b->dev;
}

/* Makes the directories above that are missing; *ret_ends holds where their names end. */
static int make_parents(char *path, size_t *ret_ends, size_t *ret_n, struct err *e)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		int r;

		*slash = 0;
		r = mkdir(path, 0700);
		if (r == 0 && *ret_n < PARENTS_MAX)
			ret_ends[(*ret_n)++] = (size_t)(slash - path);
		if (r < 0 && errno != EEXIST)
			r = err_sys(e, -errno, "making %s for a moment", path);
		else
			r = 0;
		*slash = '/';
		if (r < 0)
			return r;
	}
	return 0;
}

static void remove_parents(char *path, const size_t *ends, size_t n)
{
	while (n) {
		char *slash = path + ends[--n];

		*slash = 0;
		rmdir(path);
		*slash = '/';
	}
}

/* At its own name, or beside it when that is taken. */
static int make_node(char *path, mode_t type, const Gw__FdInode *inode, struct err *e)
{
	size_t len = strlen(path);

	for (int i = 0; i < 10; i++) {
		uint32_t random;

		if ((type == S_IFDIR ? mkdir(path, 0700) : type == S_IFLNK ? symlink(inode->target, path) : mknod(path, type | 0600, (dev_t)inode->rdev)) == 0)
			return 0;
		if (errno != EEXIST || getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			break;
		snprintf(path + len, 32, ".%08x", random);
	}
	return err_sys(e, -errno, "making %s for a moment", path);
}

static int open_node(const char *path, const Gw__FdInode *inode, int flags, struct err *e)
{
	int fd;

	if (lchown(path, inode->uid, inode->gid) < 0 || (!inode->target[0] && chmod(path, inode->mode) < 0))
		return err_sys(e, -errno, "%s: owner and mode", path);
	fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

int file_gone_open(const char *path, const Gw__FdInode *inode, mode_t type, int flags, int *ret_fd, struct err *e)
{
	size_t ends[PARENTS_MAX], n = 0;
	char name[PATH_MAX + 64];
	int fd;

	snprintf(name, sizeof(name), "%s", place_of(path));
	fd = make_parents(name, ends, &n, e);
	if (fd == 0)
		fd = make_node(name, type, inode, e);
	if (fd == 0) {
		fd = open_node(name, inode, flags, e);
		if ((type == S_IFDIR ? rmdir(name) : unlink(name)) < 0 && fd >= 0) {
			close(fd);
			fd = err_sys(e, -errno, "removing %s again", name);
		}
	}
	remove_parents(name, ends, n);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}
