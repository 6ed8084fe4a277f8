/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hold.h - a unit that stands still from the offer on
 *
 * Units that fork all the time (make, shells) are another tree at the freeze than at the offer. When that has happened a few times, the next attempt
 * begins with all their threads stopped, and they stay so until they are parked: a longer freeze, but one that comes to an end. The threads
 * are tracees of this worker in a stop of the kind that PTRACE_INTERRUPT makes; when the worker dies, the kernel lets them go on.
 */
#ifndef GODWIT_MIGRATE_HOLD_H
#define GODWIT_MIGRATE_HOLD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * Stops all threads of `root` and of its descendants, until there is none that is not stopped. There is one hold in a worker. After an error some
 * are held: hold_release.
 */
int hold_unit(pid_t root, const pid_t *also, size_t n_also, struct err *e);
bool hold_has(pid_t tid);
/* The signal that its process was stopped by when it was seized, SIGTRAP: it was not. */
int hold_signal(pid_t tid);
/* This thread is no longer in its stop by the hold's account: its new keeper detaches it. */
void hold_give(pid_t tid);
/* Lets all go on that are still held. */
void hold_release(void);

#endif
