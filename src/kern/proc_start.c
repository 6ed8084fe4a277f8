/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* proc_start.c - see proc_start.h */
#include "kern/proc_start.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

uint64_t proc_start_ticks(pid_t pid)
{
	char path[64], text[1024], state = 0;
	cleanup_close int fd = -1;
	const char *p;
	unsigned long long ticks = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return 0;
	text[n] = 0;
	p = strrchr(text, ')'); /* the name may hold anything, also ')' */
	if (!p || sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state, &ticks) != 2)
		return 0;
	if (state == 'Z' || state == 'X')
		return 0;
	return ticks ? ticks : 1;
}
