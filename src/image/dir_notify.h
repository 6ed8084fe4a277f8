/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dir_notify.h - directories whose changes are signalled (fcntl F_NOTIFY)
 *
 * What was asked for is read from the kernel (kern/dnotify_peek.h), and asked for again in the freeze by a task of the process, since it belongs to the
 * descriptor table; what happens to the directory before that is not signalled twice.
 */
#ifndef GODWIT_IMAGE_DIR_NOTIFY_H
#define GODWIT_IMAGE_DIR_NOTIFY_H

#include "image/file_look.h"
#include "kern/remote.h"

/* Fills d->notify of all directories; held: the worker's duplicate of a description, -1: none. */
int dir_notify_capture(Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg, struct err *e);
int dir_notify_validate(const Gw__FdDesc *d, struct err *e);
/* By a task with the number fd. */
void dir_notify_plan(struct batch *b, const Gw__FdDesc *d, int fd);

#endif
