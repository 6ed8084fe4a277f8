/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* arrival.c - a process whose memory has not all arrived cannot leave yet; see arrival.h */
#include "migrate/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

#define ARRIVAL_DIRECTORY "/run/godwit/arriving"
#define WAIT_US 20000

static volatile sig_atomic_t wanted;

static void on_wanted(int sig)
{
	wanted = 1;
}

static void path_of(pid_t pid, char path[64])
{
	snprintf(path, 64, ARRIVAL_DIRECTORY "/%d", pid);
}

int arrival_begin(pid_t pid, struct err *e)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct sigaction action = { .sa_handler = on_wanted };
	cleanup_close int fd = -1;
	char path[64];

	path_of(pid, path);
	mkdir("/run/godwit", 0755);
	mkdir(ARRIVAL_DIRECTORY, 0700);
	sigaction(SIGUSR1, &action, NULL);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0)
		return err_sys(e, errno, "%s", path);
	return take_fd(&fd);
}

bool arrival_wanted(void)
{
	return wanted;
}

void arrival_end(pid_t pid, int fd)
{
	char path[64];

	if (fd < 0)
		return;
	path_of(pid, path);
	unlink(path);
	close(fd);
}

int arrival_wait(pid_t pid, bool (*cancelled)(void *arg), void *arg, struct err *e)
{
	cleanup_close int fd = -1;
	char path[64];

	path_of(pid, path);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	for (;;) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		if (fcntl(fd, F_GETLK, &lock) < 0)
			return err_sys(e, errno, "%s", path);
		if (lock.l_type == F_UNLCK)
			return 0;
		if (lock.l_pid > 0)
			kill(lock.l_pid, SIGUSR1);
		if (cancelled && cancelled(arg))
			return err_set(e, -ECANCELED, "cancelled while the memory of process %d was still arriving", pid);
		usleep(WAIT_US);
	}
}
