/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* place.c - see place.h */
#include "image/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

static char prefix[32];
static struct {
	uint32_t number;
	char prefix[32];
	int fd;
} *spaces;
static size_t n_spaces;
static int root = -1, cwd = -1; /* the worker's, while it is in the unit's */

void place_set(pid_t pid)
{
	if (pid)
		snprintf(prefix, sizeof(prefix), "/proc/%d/root", pid);
	else
		prefix[0] = 0;
	if (!pid) {
		for (size_t i = 0; i < n_spaces; i++)
			close_fdp(&spaces[i].fd);
		free(spaces);
		spaces = NULL;
		n_spaces = 0;
	}
}

/* From a process's root upwards: that of the namespace is above itself. */
static int open_top(pid_t pid)
{
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	while (fd >= 0) {
		int above = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		struct statx a, b;

		if (above < 0) /* what lies above was taken off */
			return take_fd(&fd);
		if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &a) < 0 || statx(above, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &b) < 0) {
			close(above);
			return -errno;
		}
		close(fd);
		fd = above;
		if (a.stx_ino == b.stx_ino && a.stx_mnt_id == b.stx_mnt_id)
			return take_fd(&fd);
	}
	return -errno;
}

int place_set_space(uint32_t number, pid_t pid)
{
	int fd = open_top(pid);

	if (fd < 0)
		return fd;
	spaces = realloc(spaces, (n_spaces + 1) * sizeof(*spaces));
	if (!spaces)
		abort();
	spaces[n_spaces].number = number;
	spaces[n_spaces].fd = fd;
	snprintf(spaces[n_spaces++].prefix, sizeof(spaces->prefix), "/proc/self/fd/%d", fd);
	return 0;
}

bool place_has_spaces(void)
{
	return n_spaces > 0;
}

bool place_mark(uint32_t number, const char *path, char *ret, size_t size)
{
	return (size_t)(number ? snprintf(ret, size, PLACE_SPACE "%u%s", number, path) : snprintf(ret, size, "%s", path)) < size;
}

/* Takes the mark off of a path; what is to be put in its place. */
static const char *find_prefix(const char **path)
{
	size_t len = strlen(PLACE_SPACE);
	unsigned long number;
	char *end;

	if (strncmp(*path, PLACE_SPACE, len))
		return prefix;
	number = strtoul(*path + len, &end, 10);
	for (size_t i = 0; i < n_spaces; i++)
		if (spaces[i].number == number) {
			*path = end;
			return spaces[i].prefix;
		}
	return ""; /* it leads nowhere */
}

const char *place_seen(const char *placed)
{
	if (prefix[0] && strncmp(placed, prefix, strlen(prefix)) == 0)
		return placed + strlen(prefix);
	for (size_t i = 0; i < n_spaces; i++)
		if (strncmp(placed, spaces[i].prefix, strlen(spaces[i].prefix)) == 0)
			return placed + strlen(spaces[i].prefix);
	return placed;
}

const char *place_prefix(void)
{
	return prefix;
}

const char *place_of(const char *path)
{
	static char buffers[4][PATH_MAX + sizeof(prefix)];
	static unsigned next;
	const char *begin = find_prefix(&path);
	char *b;

	if (!begin[0] || !strncmp(path, PLACE_OUTSIDE "/", sizeof(PLACE_OUTSIDE)))
		return path;
	b = buffers[next++ % 4];
	snprintf(b, sizeof(buffers[0]), "%s%s", begin, path);
	return b;
}

int place_enter(const char *top)
{
	cleanup_close int there = -1;
	int code;

	if (!prefix[0] && !top[0])
		return 0;
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	there = open(place_of(top[0] ? top : "/"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root >= 0 && cwd >= 0 && there >= 0 && fchdir(there) == 0 && chroot(".") == 0)
		return 0;
	code = -errno;
	if (cwd >= 0 && fchdir(cwd) < 0)
		abort();
	close_fdp(&root);
	close_fdp(&cwd);
	return code;
}

void place_leave(void)
{
	if (root < 0)
		return;
	if (fchdir(root) < 0 || chroot(".") < 0 || fchdir(cwd) < 0)
		abort();
	close_fdp(&root);
	close_fdp(&cwd);
}
