/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_shared.c - see file_shared.h; kcmp(2) */
#include "image/file_shared.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/file_leak.h"
#include "image/notes.h"
#include "image/process_check.h"

#define DEPTH_MAX 64

/* Whether somebody else's position matters: what the unit writes there goes where its own position says. */
static bool has_position(const struct fdtable *t, uint32_t desc, const struct fsfile_table *files)
{
	const Gw__FdDesc *d = t->msg->descs[desc];

	return d->kind == GW__FD_KIND__FD_FILE && (d->flags & O_ACCMODE) != O_RDONLY && !(d->flags & O_APPEND) && d->index < files->n && t->held[desc].uses;
}

/* Notes what the descriptors of a process outside share with the unit. n log m comparisons, of the files only that both have open. */
static void note_shared_with(const struct fdtable *t, const struct fsfile_table *files, pid_t pid)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		struct process_stat stat = { .name = "?" };
		struct fd_held theirs = { 0 };
		struct stat st;
		uint32_t desc;

		if (d->d_name[0] == '.' || fstatat(dirfd(dir), d->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
			continue;
		theirs.fd = atoi(d->d_name);
		theirs.dev = st.st_dev;
		theirs.ino = st.st_ino;
		if (!fdtable_find_held(t, pid, &theirs, &desc) || !has_position(t, desc, files))
			continue;
		process_stat_read(pid, &stat, NULL);
		notes_add("%.120s (fd %d) is open in process %d (%s), too, which stays: it keeps its own position, and would write over what is written from now on.",
			  files->v[t->msg->descs[desc]->index].path, fdtable_number_of(t, desc)->fd, (int)pid, stat.name);
	}
}

/* Looks at the ancestors of a process, but for 1 and godwitd's like, which only wait for processes to end, and for those in `seen`. */
static size_t note_ancestors(const struct fdtable *t, const struct fsfile_table *files, pid_t pid, pid_t *seen, size_t n)
{
	struct process_stat stat;

	for (int depth = 0; depth < DEPTH_MAX && process_stat_read(pid, &stat, NULL) == 0 && stat.ppid > 1; depth++) {
		pid = stat.ppid;
		if (fdtable_has_process(t, pid))
			continue;
		for (size_t i = 0; i < n; i++)
			if (seen[i] == pid)
				return n; /* and so all above it */
		if (n == DEPTH_MAX)
			return n;
		seen[n++] = pid;
		note_shared_with(t, files, pid);
	}
	return n;
}

void fdtable_note_shared(const struct fdtable *t, const struct fsfile_table *files)
{
	pid_t seen[DEPTH_MAX];
	bool any = false;
	size_t n = 0;

	for (uint32_t i = 0; i < t->msg->n_descs && !any; i++)
		any = has_position(t, i, files);
	for (size_t i = 0; any && i < t->n_views; i++)
		n = note_ancestors(t, files, t->views[i].pid, seen, n);
}
