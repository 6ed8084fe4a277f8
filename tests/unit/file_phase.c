/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_phase.c - see file_phase.h */
#include "file_phase.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char phase_directory[64];

int phase_directory_make(void)
{
	strcpy(phase_directory, "/var/tmp/godwit-test-file-XXXXXX");
	return mkdtemp(phase_directory) ? 0 : -1;
}

void phase_directory_remove(void)
{
	char command[200];

	snprintf(command, sizeof(command), "cat %s/died 2>/dev/null; rm -rf %s", phase_directory, phase_directory);
	if (system(command) != 0)
		fprintf(stderr, "%s stays\n", phase_directory);
}

void phase_die(int line, const char *what)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "line %d: %s: %s\n", line, what, strerror(errno)), fd = open(in_dir("died"), O_WRONLY | O_CREAT, 0600);

	if (write(fd, text, (size_t)n) < 0)
		abort();
	abort();
}

int at(int fd, int wanted, int flags)
{
	if (fd == wanted) {
		fcntl(fd, F_SETFD, flags & O_CLOEXEC ? FD_CLOEXEC : 0);
		return fd;
	}
	MUST(dup3(fd, wanted, flags));
	close(fd);
	return wanted;
}

const char *in_dir(const char *name)
{
	static char path[4][160];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", phase_directory, name);
	return p;
}
