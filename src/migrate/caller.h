/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * caller.h - on whose behalf a unit is moved or looked at
 *
 * A move shows and changes everything of a process, as ptrace(2) does, so that the kernel's own rule for that decides (PTRACE_MODE_READ of ptrace(2)): all ids are those of the caller, no
 * capabilities that he has not, dumpable. It is asked by a child that has become the caller.
 *
 * What was allowed at the offer stays so until the freeze: ids that differ come from execve(2) of a set-id program only, for who has no capabilities, and a process that calls execve(2) makes the
 * attempt fail; then all are asked for again.
 */
#ifndef GODWIT_MIGRATE_CALLER_H
#define GODWIT_MIGRATE_CALLER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"

struct caller {
	bool limited; /* to what is his own; otherwise everything is allowed, and the rest is 0 */
	uid_t uid;
	gid_t gid;
};

/* Adds a refusal for each of these processes that the caller may not touch; one that has ended is none. NULL: everything is allowed. */
int caller_check(const struct caller *caller, const pid_t *pids, size_t n, struct refusals *r, struct err *e);

#endif
