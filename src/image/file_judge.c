/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_judge.c - which descriptors of a table this host cannot give; see file.h */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/dir_position.h"
#include "image/file.h"
#include "image/file_kernel.h"
#include "image/lease.h"
#include "image/ns_info.h"
#include "image/place.h"
#include "image/socket_tcp.h"

/* A number of a description, of the first process that has it. */
static int number_of(const Gw__FdTable *t, size_t desc)
{
	for (size_t k = 0; k < t->n_tables; k++)
		for (size_t i = 0; i < t->tables[k]->n_fd; i++)
			if (t->tables[k]->desc[i] == desc)
				return (int)t->tables[k]->fd[i];
	return -1;
}

static void judge_path(const Gw__FdTable *t, size_t i, const char *path, mode_t type, struct refusals *refusals)
{
	struct stat st;
	int r = t->descs[i]->flags & O_NOFOLLOW ? lstat(place_of(path), &st) : stat(place_of(path), &st);

	if (r < 0)
		refusals_add(refusals, "fd.missing", "it is not on the destination", "make it there, or share the file system between the hosts",
			     "fd %d (%s)", number_of(t, i), path);
	else if (type && (st.st_mode & S_IFMT) != type)
		refusals_add(refusals, "fd.other", "something else has that name on the destination", "move that away there", "fd %d (%s)",
			     number_of(t, i), path);
}

/* Whether it is made here, or something below it. */
static bool is_made(const char *path, const struct fsfile_table *files)
{
	for (uint32_t i = 0; i < files->n; i++)
		if (!fsfile_is_memory(&files->v[i]) && !files->v[i].unlinked && path_below(files->v[i].path, path))
			return true;
	return false;
}

/* Marks of fanotify are only made in the freeze. */
static void judge_watches(const Gw__FdDesc *d, int number, const struct fsfile_table *files, struct refusals *refusals)
{
	struct stat st;

	for (size_t i = 0; i < d->n_watches; i++)
		if (!d->watches[i]->desc && lstat(d->watches[i]->path, &st) < 0 && !is_made(d->watches[i]->path, files))
			refusals_add(refusals, "fd.watch.missing", "what it watches is not on the destination", "make it there, or share the file system between the hosts", "fd %d (%s, %s)", number,
				     d->kind == GW__FD_KIND__FD_INOTIFY ? "inotify" : "fanotify", d->watches[i]->path);
}

void fdtable_judge(const Gw__FdTable *t, const struct fsfile_table *files, bool own_net, struct refusals *refusals)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_KERNEL_FILE || d->kind == GW__FD_KIND__FD_DEVICE)
			file_kernel_judge(d, number_of(t, i), refusals);
		if (d->kind == GW__FD_KIND__FD_SOCKET && !own_net)
			socket_tcp_judge(t, i, number_of(t, i), refusals);
		judge_watches(d, number_of(t, i), files, refusals);
		lease_judge(d, number_of(t, i), refusals);
		if (d->kind == GW__FD_KIND__FD_DIRECTORY)
			dir_position_judge(d, number_of(t, i), refusals);
		if (d->kind == GW__FD_KIND__FD_DIRECTORY)
			judge_path(t, i, d->path, S_IFDIR, refusals);
		else if (d->kind == GW__FD_KIND__FD_PATH && !d->inode)
			judge_path(t, i, d->path, 0, refusals);
		else if (d->kind == GW__FD_KIND__FD_PIPE && t->pipes[d->index]->fifo_path[0] && !t->pipes[d->index]->deleted)
			judge_path(t, i, t->pipes[d->index]->fifo_path, S_IFIFO, refusals);
	}
	pty_judge(t, refusals);
}
