/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * arrival.h - a process whose memory has not all arrived cannot leave yet
 *
 * The destination's worker holds a lock (fcntl, /run/godwit/arriving/PID) until the agent has gone. Who wants to move the process on asks that worker to
 * have everything sent at once (with copy-on-reference the source keeps what nobody has asked for) and waits for the lock.
 */
#ifndef GODWIT_MIGRATE_ARRIVAL_H
#define GODWIT_MIGRATE_ARRIVAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* Destination's worker: returns the locked descriptor. Makes SIGUSR1 set the flag that arrival_wanted returns. */
int arrival_begin(pid_t pid, struct err *e);
bool arrival_wanted(void);
void arrival_end(pid_t pid, int fd);

/*
 * Before a process is offered: returns 0 when nothing is missing any more. `cancelled` is asked about ten times a second; -ECANCELED when it says yes.
 */
int arrival_wait(pid_t pid, bool (*cancelled)(void *arg), void *arg, struct err *e);

#endif
