/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mqueue.h - POSIX message queues (mq_overview(7)) that only the unit has open
 *
 * A queue moves with its name, attributes and messages: made at the destination, removed at the source after the commit. Messages can be read only by taking them
 * out; in the freeze they are taken out and put back in the same order. A queue with a registered notification is refused: the kernel does not show
 * all of it, and putting messages back would set it off.
 */
#ifndef GODWIT_IMAGE_MQUEUE_H
#define GODWIT_IMAGE_MQUEUE_H

#include "image/file_look.h"
#include "image/refuse.h"

/*
 * Fills d->mqueue; with messages when `frozen`. FD_REFUSED with a refusal. `inside`: the unit's processes; only looked at for the first capture, which goes through the
 * descriptors of all processes.
 */
int mqueue_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, const pid_t *inside, size_t n_inside, struct refusals *refusals, struct err *e);
/* Source, after the commit: removes the names of the queues that have moved. */
void mqueue_remove(const Gw__FdTable *t);

int mqueue_validate(const Gw__FdDesc *d, struct err *e);
int mqueue_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
int mqueue_fill(const Gw__FdDesc *d, int fd, struct err *e);
/* Destination: removes the names of what mqueue_open has made in this process (undo), or only forgets them. */
void mqueue_done(bool undo);

#endif
