/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_terminal.c - the controlling terminal of a unit that has no descriptor of it (job </dev/null >log &)
 *
 * It may still open /dev/tty, and gets its signals. The kernel tells only the device number, and each devpts has numbers of its own: so a descriptor of it is looked for among
 * those of the session's leader and of the root's parent first, then by its path.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/file_look.h"
#include "image/file_state.h"
#include "image/place.h"
#include "image/process_check.h"
#include "image/pty_session.h"
#include "kern/fdpass.h"

#define TERMINAL_FLAGS (O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)

static bool is_terminal(const char *path, uint32_t number)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == 136 && minor(st.st_rdev) == number;
}

static int open_of(pid_t pid, uint32_t number)
{
	cleanup_closedir DIR *dir = NULL;
	char path[96];
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%.16s", (int)pid, entry->d_name);
		if (is_terminal(path, number))
			return open(path, TERMINAL_FLAGS);
	}
	return -1;
}

bool fdtable_has_terminal(const struct fdtable *t)
{
	struct process_stat stat;

	return t->terminal > 0 || (!t->frozen && t->n_views && process_stat_read(t->views[0].pid, &stat, NULL) == 0 && pty_number_of_tty(stat.tty) >= 0);
}

int fdtable_terminal(void *table, uint32_t number)
{
	struct fdtable *t = table;
	struct process_stat stat;
	char path[64];
	int fd;

	if (t->terminal > 0 || t->frozen)
		return t->terminal > 0 ? t->terminal : -1;
	if (process_stat_read(t->views[0].pid, &stat, NULL) < 0)
		return -1;
	fd = open_of(stat.sid, number);
	if (fd < 0)
		fd = open_of(stat.ppid, number);
	snprintf(path, sizeof(path), "/dev/pts/%u", number);
	if (fd < 0 && is_terminal(place_of(path), number))
		fd = open(place_of(path), TERMINAL_FLAGS);
	t->terminal = MAX(fd, 0);
	return fd;
}
