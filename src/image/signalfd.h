/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* signalfd.h - signalfd(2): the mask; pending signals belong to the task, not to the descriptor */
#ifndef GODWIT_IMAGE_SIGNALFD_H
#define GODWIT_IMAGE_SIGNALFD_H

#include "image/file_look.h"

/* Fills d->sigmask. */
int signalfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e);
int signalfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* Sets the mask of one that is open. */
int signalfd_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
