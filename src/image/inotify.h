/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inotify.h - inotify(7) instances: their watches, with the same numbers
 *
 * Watches are made in the preparation; what happens at the destination before the process runs there is read out of the queue in the
 * freeze. Events that the program has not read are read from the kernel by BPF and made to happen once more (inotify_replay.c).
 */
#ifndef GODWIT_IMAGE_INOTIFY_H
#define GODWIT_IMAGE_INOTIFY_H

#include "image/file_look.h"
#include "image/refuse.h"

#define WATCHES_MAX 1048576u

void watches_free(Gw__FdDesc *d);

/* Which open description is of this file, plus one; 0: none. dev as the kernel encodes it (inode_path.h). */
typedef uint32_t inotify_finder(const void *arg, uint32_t dev, uint64_t ino);

/* Reads look->info when `changed`, and the queue when `frozen`. FD_REFUSED with a refusal. */
int inotify_capture(const struct fd_look *look, Gw__FdDesc *d, bool changed, bool frozen, inotify_finder *find, const void *arg,
	struct refusals *refusals, struct err *e);
int inotify_validate(const Gw__FdDesc *d, size_t n_descs, struct err *e);
/* With all watches that have a path. */
int inotify_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* From the watches of `was` (NULL: d's) to those of d, and the queue. fds: by description. */
int inotify_fill(const Gw__FdDesc *was, const Gw__FdDesc *d, const int *fds, int fd, struct err *e);

/* inotify_replay.c: makes the events of d happen once more, for an instance without watches and with an empty queue. */
int inotify_replay(const Gw__FdDesc *d, int fd, struct err *e);

#endif
