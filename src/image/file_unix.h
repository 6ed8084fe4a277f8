/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_unix.h - the source's side of the tables: unix sockets, and descriptors in flight in their queues; see file_unix.c */
#ifndef GODWIT_IMAGE_FILE_UNIX_H
#define GODWIT_IMAGE_FILE_UNIX_H

#include "image/file_state.h"

/*
 * Reads the queues of all unix sockets that are held (in the freeze; before, only of those that have descriptors in flight), and gives
 * what is in flight its descriptions. Before the texts are read.
 */
int fdtable_find_in_flight(struct fdtable *t, struct refusals *refusals, struct err *e);
/*
 * Captures the unix sockets as a whole. A socket that is no longer what the offer had becomes a new description. Before descriptions
 * that nobody refers to are dropped.
 */
int fdtable_capture_unix(struct fdtable *t, struct refusals *refusals, struct err *e);
/* FD_REFUSED, and a refusal added, for what can be restored only by a task that has a number for it. */
int fdtable_refuse_loose(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals);
/* Frees the queues that have been read and not been used. */
void fdtable_forget_queues(struct fdtable *t);

#endif
