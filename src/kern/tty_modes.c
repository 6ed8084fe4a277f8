/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tty_modes.c - see tty_modes.h */
#include "kern/tty_modes.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"

#define PTS_MAJOR 136

struct hidden {
	struct termios2 set, modes;
};

/* Numbers are those of a devpts instance. */
static bool path_of(int fd, char ret[128])
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || major(st.st_rdev) < PTS_MAJOR || major(st.st_rdev) > PTS_MAJOR + 7)
		return false; /* such as /dev/tty: any terminal */
	snprintf(ret, 128, TTY_MODES_DIRECTORY "/%llx-%llx", (unsigned long long)st.st_dev, (unsigned long long)st.st_rdev);
	return true;
}

int tty_modes_get(int fd, struct termios2 *ret)
{
	cleanup_close int file = -1;
	struct hidden h;
	char path[128];

	if (ioctl(fd, TCGETS2, ret) < 0)
		return -1;
	file = path_of(fd, path) ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (file >= 0 && read(file, &h, sizeof(h)) == (ssize_t)sizeof(h) && !memcmp(&h.set, ret, sizeof(h.set)))
		*ret = h.modes;
	return 0;
}

void tty_modes_hide(int fd, const struct termios2 *set, const struct termios2 *modes)
{
	struct hidden h = { *set, *modes };
	cleanup_close int file = -1;
	char path[128];

	if (!path_of(fd, path))
		return;
	mkdir(TTY_MODES_DIRECTORY, 0700);
	file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file >= 0)
		(void)!pwrite(file, &h, sizeof(h), 0);
}

void tty_modes_show(int fd)
{
	char path[128];

	if (path_of(fd, path))
		unlink(path);
}
