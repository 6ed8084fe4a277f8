/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* place.c - see place.h */
#include "image/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static char prefix[32];
static int root = -1, cwd = -1; /* the worker's, while it is in the unit's */

void place_set(pid_t pid)
{
	if (pid)
		snprintf(prefix, sizeof(prefix), "/proc/%d/root", pid);
	else
		prefix[0] = 0;
}

const char *place_prefix(void)
{
	return prefix;
}

const char *place_of(const char *path)
{
	static char buffers[4][PATH_MAX + sizeof(prefix)];
	static unsigned next;
	char *b;

	if (!prefix[0] || !strncmp(path, PLACE_OUTSIDE "/", sizeof(PLACE_OUTSIDE)))
		return path;
	b = buffers[next++ % 4];
	snprintf(b, sizeof(buffers[0]), "%s%s", prefix, path);
	return b;
}

int place_enter(void)
{
	cleanup_close int there = -1;
	int code;

	if (!prefix[0])
		return 0;
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	there = open(prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
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
