/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fanotify.h - fanotify(7) groups: their marks on files, mounts and file systems
 *
 * Marks are made in the freeze: a group may decide about accesses, and nobody would answer for it before. Groups that do (permission
 * events) are refused: an access that waits for an answer has no way to another host.
 */
#ifndef GODWIT_IMAGE_FANOTIFY_H
#define GODWIT_IMAGE_FANOTIFY_H

#include "image/file_look.h"
#include "image/refuse.h"

/* As inotify_capture. */
int fanotify_capture(const struct fd_look *look, Gw__FdDesc *d, bool changed, bool frozen, struct refusals *refusals, struct err *e);
int fanotify_validate(const Gw__FdDesc *d, struct err *e);
/* Without marks. */
int fanotify_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
int fanotify_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
