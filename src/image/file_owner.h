/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_owner.h - whom a description's signals go to: F_SETOWN, F_SETOWN_EX, F_SETSIG, O_ASYNC (fcntl(2))
 *
 * The owner may be any process, thread or process group of the unit; one that has ended has no owner any more. A task sets it, because
 * numbers are those of its pid namespace; with O_ASYNC the signal carries the number through which it was set.
 */
#ifndef GODWIT_IMAGE_FILE_OWNER_H
#define GODWIT_IMAGE_FILE_OWNER_H

#include "image/file_look.h"
#include "image/refuse.h"
#include "kern/remote.h"

/* (type, id) is of F_GETOWN_EX as this process sees it. Returns its number as the unit sees it; 0: it does not belong to the unit. */
typedef pid_t owner_in_unit(const void *arg, int type, pid_t id);
/* How many levels below this worker's the pid namespace of the unit's root is; several: the unit has more below that, in which owners have other numbers. */
void fd_owner_level(unsigned level, bool several);
/* The number of a process or thread of this host ("NSpid:"), or of its group ("NSpgid:"), in the pid namespace of the unit's root; 0: it has ended. */
pid_t fd_owner_seen(pid_t host, const char *key);

/* Owner and signal into d; false, and a refusal added, when they cannot move. */
bool fd_owner_capture(const struct fd_look *look, Gw__FdDesc *d, owner_in_unit *inside, const void *arg, struct refusals *refusals);
int fd_owner_validate(const Gw__FdDesc *d, struct err *e);
/* Adds what turns `was` (NULL: a new description) into d, by a task with the number fd. */
void fd_owner_plan(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int fd);

#endif
