/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_shared.c - see file_shared.h; kcmp(2) */
#include "image/file_shared.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "image/file_leak.h"
#include "image/notes.h"
#include "image/process_check.h"

#define DEPTH_MAX 64

static bool has_description(pid_t pid, const struct fd_held *held)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		struct stat st;

		if (d->d_name[0] != '.' && fstatat(dirfd(dir), d->d_name, &st, 0) == 0 && st.st_dev == held->dev && st.st_ino == held->ino &&
		    syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, (long)held->fd, atol(d->d_name)) == 0)
			return true;
	}
	return false;
}

/* 0: none of the ancestors of a process that has it, or 1 and godwitd's like, which only wait for processes to end. */
static pid_t find_sharer(const struct fdtable *t, const struct fd_held *held)
{
	pid_t pid = t->views[held->view].pid;
	struct process_stat stat;

	for (int depth = 0; depth < DEPTH_MAX && process_stat_read(pid, &stat, NULL) == 0 && stat.ppid > 1; depth++) {
		pid = stat.ppid;
		if (!fdtable_has_process(t, pid) && has_description(pid, held))
			return pid;
	}
	return 0;
}

void fdtable_note_shared(const struct fdtable *t, const struct fsfile_table *files)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const Gw__FdDesc *d = t->msg->descs[i];
		struct process_stat stat = { .name = "?" };
		pid_t pid;

		if (d->kind != GW__FD_KIND__FD_FILE || (d->flags & O_ACCMODE) == O_RDONLY || d->flags & O_APPEND || d->index >= files->n)
			continue;
		if (t->held[i].fd < 0 || !t->held[i].uses)
			continue;
		pid = find_sharer(t, &t->held[i]);
		if (pid <= 0)
			continue;
		process_stat_read(pid, &stat, NULL);
		notes_add("%.120s (fd %d) is open in process %d (%s), too, which stays: it keeps its own position, and would write over what is written from now on.",
			  files->v[d->index].path, fdtable_number_of(t, i)->fd, (int)pid, stat.name);
	}
}
