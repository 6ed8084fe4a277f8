/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guard.h - a worker that is stopped in the middle is ended, so that the process that it moves does not stand still with it; and one that waits for a CPU is let through
 *
 * What follows from a worker's death is settled at every step (ARCHITECTURE.md, Who owns the process); nothing follows from its being stopped (SIGSTOP, a debugger):
 * threads would stay parked, a skeleton would stay a tracee for ever. So one is made the other: a small process beside each worker looks at it several times a second
 * and kills it when it has been stopped for GUARD_STOPPED_MS while it is at a step in which somebody waits for it.
 *
 * The worker and its agent stay out of the program's way (pace.h), and how busy a host is can be seen only at one moment: programs may begin at the next one, and in a control group that has used up its part of the
 * CPU nobody runs who could be counted. So the guard, which goes before all others, sees whether they get the CPU that they want, and gives them precedence from then on when they do not.
 */
#ifndef GODWIT_MIGRATE_GUARD_H
#define GODWIT_MIGRATE_GUARD_H

#include <stdbool.h>
#include <sys/types.h>

#define GUARD_STOPPED_MS 2000u

/* For the calling process, once: a child of it, which ends with it. Without one the migration goes on as it would; that is logged. */
void guard_start(void);
/* Whether a stop of the calling process from now on counts. No system call. */
void guard_watch(bool on);
/* Another task, such as an agent, that is not to wait for a CPU for long. Once is enough. Those beyond the first GUARD_TASKS_MAX wait. */
#define GUARD_TASKS_MAX 64
void guard_care(pid_t tid);
/* Whether one of them has had to wait: from then on none gives way. */
bool guard_hurries(void);

#endif
