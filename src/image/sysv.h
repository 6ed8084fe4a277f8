/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sysv.h - System V semaphores and message queues (sysvipc(7))
 *
 * The kernel does not know whose these objects are. One belongs to a unit when a process of it was the last to work on a semaphore of the set, sent or
 * received the last message, has adjustments in it (SEM_UNDO), or waits in it. When a process outside of the unit that still lives shows in the same way, the
 * object is shared and the unit is refused. An object moves: it is made at the destination with the same id and key, and removed at the source
 * after the commit. docs/decisions/2026-11-30-sysv-objects.md says why.
 *
 * All functions work in the caller's IPC namespace. Shared memory segments are not here: they are part of the memory.
 */
#ifndef GODWIT_IMAGE_SYSV_H
#define GODWIT_IMAGE_SYSV_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

/* What the source has to remember between offer and freeze. */
struct sysv_watch;

/*
 * For the offer: the unit's objects, without their contents, go into msg, that of the unit's first process; *ret_watch is to be freed. `pids`: the unit's
 * processes as the caller sees them, copied.
 */
int sysv_capture(const pid_t *pids, size_t n, Gw__Process *msg, struct sysv_watch **ret_watch, struct refusals *r, struct err *e);
/*
 * In the freeze, with contents, into msgs[0], and each process's adjustments into its own message. -EAGAIN when the unit has other objects by now. Where there are
 * none at all this is two system calls.
 */
int sysv_recapture(struct sysv_watch *w, const Gw__Process *offered, Gw__Process **msgs, struct err *e);
void sysv_watch_free(struct sysv_watch *w);

int sysv_validate(const Gw__Process *msg, bool offer, struct err *e);
/* Destination, at the offer: whether ids and keys are free here. */
void sysv_validate_here(const Gw__Process *msg, struct refusals *r);

/* How many of msg's objects have been made here. */
struct sysv_made {
	size_t semaphores, queues;
};

/*
 * The destination, in this order; every process runs its list before the next step, while it is privileged. `unit` is the first process's message.
 *	sysv_create        makes the objects, with the semaphores' values. After an error call sysv_remove with what *made says
 *	sysv_plan_first    each process: its adjustments; who received last
 *	sysv_fill          messages
 *	sysv_plan_second   each process: what it was the last to work on; the last message
 */
int sysv_create(const Gw__Process *unit, struct sysv_made *made, struct err *e);
void sysv_plan_first(struct batch *b, const Gw__Process *unit, const Gw__Process *process, pid_t pid);
int sysv_fill(const Gw__Process *unit, struct err *e);
void sysv_plan_second(struct batch *b, const Gw__Process *unit, pid_t pid);
/* Destination: undo; source: after the commit, with made = NULL: all of them. */
void sysv_remove(const Gw__Process *unit, const struct sysv_made *made);

#endif
