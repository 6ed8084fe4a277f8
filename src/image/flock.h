/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flock.h - file locks: POSIX record locks (fcntl F_SETLK), open file description locks, flock(2)
 *
 * POSIX locks belong to a process's descriptor table and carry its pid, so the process itself must release and take them. The others belong to a
 * description: any process that has it may.
 * They are released at the source inside the freeze, taken at the destination before the process resumes; taken again at the
 * source on abort. Leases (F_SETLEASE) are refused.
 */
#ifndef GODWIT_IMAGE_FLOCK_H
#define GODWIT_IMAGE_FLOCK_H

#include "image/file_look.h"
#include "image/refuse.h"
#include "kern/remote.h"

#define FLOCKS_MAX 65536u

/* A line of fdinfo's "lock:" lines; lease is true for what cannot move. */
struct flock_line {
	Gw__FdLockKind kind;
	bool write, lease;
	pid_t pid; /* LOCK_POSIX: who has set it */
	int64_t start, end;
};

/* Parses the "lock:" line at *line and moves on to the next line. Returns false when there is no further one. */
bool flock_parse(const char **line, struct flock_line *ret);

int flock_validate(const Gw__FdLock *l, size_t n_descs, size_t n_processes, struct err *e);

/* Adds to the batch the call that releases (F_UNLCK) or takes the lock through the number fd. */
void flock_plan(struct batch *b, const Gw__FdLock *l, bool take, int fd);

#endif
