/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_parent.c - the directory in which the destination makes a file; see fsfile_parent.h */
#include "image/fsfile_parent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define LINKS_MAX 40

/*
 * A path below another root, which the worker reaches by a magic link (/proc/PID/root, or /proc/self/fd/N of place.h): that root, which is to be closed, and in *path what is behind it.
 * AT_FDCWD: it is an ordinary one.
 */
static int base_of(const char **path)
{
	char prefix[64];
	int len = 0;

	if (sscanf(*path, "/proc/self/fd/%*d%n", &len) < 0 || !len) /* NOLINT(cert-err34-c): only its length matters */
		sscanf(*path, "/proc/%*d/root%n", &len);
	if (!len || (size_t)len >= sizeof(prefix) || ((*path)[len] && (*path)[len] != '/'))
		return AT_FDCWD;
	snprintf(prefix, sizeof(prefix), "%.*s", len, *path);
	*path = (*path)[len] ? *path + len : "/";
	return open(prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* As the ...at() calls want it. */
static const char *name_at(int base, const char *path)
{
	return base == AT_FDCWD ? path : path[1] ? path + 1 : ".";
}

/* In place: the link at the first `len` bytes of a path, where the caller has cut it off, becomes what it leads to. */
static bool follow(int base, char path[PATH_MAX + 1], size_t len)
{
	char target[PATH_MAX], rest[PATH_MAX], now[PATH_MAX];
	ssize_t n = readlinkat(base, name_at(base, path), target, sizeof(target) - 1);
	int slash = (int)(strrchr(path, '/') - path);

	if (n <= 0)
		return false;
	target[n] = 0;
	snprintf(rest, sizeof(rest), "%s", path + len + 1);
	if (target[0] == '/')
		n = snprintf(now, sizeof(now), "%s%s%s", target, *rest ? "/" : "", rest);
	else
		n = snprintf(now, sizeof(now), "%.*s/%s%s%s", slash, path, target, *rest ? "/" : "", rest);
	if (n < 0 || (size_t)n >= sizeof(now))
		return false;
	strcpy(path, now);
	return true;
}

enum walk { WALKED, FOLLOWED, ASTRAY };

static enum walk walk(int base, char path[PATH_MAX + 1])
{
	size_t whole = strlen(path), len = 0;
	struct stat st;

	while (len < whole) {
		len += 1 + strcspn(path + len + 1, "/");
		path[len] = 0;
		if (fstatat(base, name_at(base, path), &st, AT_SYMLINK_NOFOLLOW) < 0 || (S_ISLNK(st.st_mode) && st.st_uid != 0))
			return ASTRAY;
		if (S_ISLNK(st.st_mode)) {
			if (len == whole)
				path[len + 1] = 0; /* nothing behind it */
			return follow(base, path, len) ? FOLLOWED : ASTRAY;
		}
		if (len < whole)
			path[len] = '/';
	}
	return WALKED;
}

/* In place: a path without the links of root's that are in it. */
static bool follow_all(int base, char path[PATH_MAX + 1])
{
	for (int links = 0; links < LINKS_MAX; links++) {
		enum walk found = walk(base, path);

		if (found != FOLLOWED)
			return found == WALKED;
	}
	return false;
}

static int open_without_links(int base, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };

	return (int)syscall(SYS_openat2, base, name_at(base, path), &how, sizeof(how));
}

int fsfile_open_directory(const char *path, struct err *e)
{
	const char *below = path;
	char plain[PATH_MAX + 1];
	int base = base_of(&below), fd = base == -1 ? -1 : open_without_links(base, below), code = errno;

	if (fd < 0 && code == ELOOP && strlen(below) < PATH_MAX) {
		strcpy(plain, below);
		/* What is a link by then has been made one since. */
		fd = follow_all(base, plain) ? open_without_links(base, plain) : -1;
		if (fd < 0)
			err_set(e, -EPERM, "%s: a symbolic link that is not root's leads there on the destination", path);
		code = EPERM;
	} else if (fd < 0) {
		err_sys(e, -code, "%s", path);
	}
	if (base >= 0)
		close(base);
	return fd < 0 ? -code : fd;
}

int fsfile_open_parent(const char *path, struct err *e)
{
	char directory[PATH_MAX];
	int len = (int)(strrchr(path, '/') - path);

	snprintf(directory, sizeof(directory), "%.*s", len ? len : 1, path);
	return fsfile_open_directory(directory, e);
}

const char *fsfile_last_name(const char *path)
{
	return strrchr(path, '/') + 1;
}
