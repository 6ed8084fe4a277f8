/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * eventfd.h - eventfd(2): flags, semaphore mode and count
 *
 * Created empty in the preparation; the count of the freeze is written once, by eventfd_fill.
 */
#ifndef GODWIT_IMAGE_EVENTFD_H
#define GODWIT_IMAGE_EVENTFD_H

#include "image/file_look.h"

/* Fills d->count and d->semaphore. */
int eventfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e);
int eventfd_validate(const Gw__FdDesc *d, struct err *e);
int eventfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* Sets the count of a new eventfd. */
int eventfd_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
