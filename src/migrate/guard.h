/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guard.h - a worker that is stopped in the middle is ended, so that the process that it moves does not stand still with it
 *
 * What follows from a worker's death is settled at every step (ARCHITECTURE.md, Who owns the process); nothing follows from its being stopped (SIGSTOP, a debugger):
 * threads would stay parked, a skeleton would stay a tracee for ever. So one is made the other: a small process beside each worker looks at it several times a second
 * and kills it when it has been stopped for GUARD_STOPPED_MS while it is at a step in which somebody waits for it.
 */
#ifndef GODWIT_MIGRATE_GUARD_H
#define GODWIT_MIGRATE_GUARD_H

#include <stdbool.h>

#define GUARD_STOPPED_MS 2000u

/* For the calling process, once: a child of it, which ends with it. Without one the migration goes on as it would; that is logged. */
void guard_start(void);
/* Whether a stop of the calling process from now on counts. No system call. */
void guard_watch(bool on);

#endif
