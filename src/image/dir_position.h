/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dir_position.h - directories that are half read (getdents64(2))
 *
 * A position in a directory is a number that only its file system understands. In the very same directory (one kernel, or a network file
 * system) it is taken as it is. Otherwise it is translated, if the destination's directory has the same names in the same order: to the
 * same number of entries read.
 */
#ifndef GODWIT_IMAGE_DIR_POSITION_H
#define GODWIT_IMAGE_DIR_POSITION_H

#include "image/file_look.h"
#include "image/refuse.h"

/* Fills d->directory when the position is not the start; `held` is the worker's duplicate. */
int dir_position_capture(int held, Gw__FdDesc *d, struct err *e);
int dir_position_validate(const Gw__FdDesc *d, struct err *e);
void dir_position_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals);
/* Sets the position of a directory opened by d's path. -EAGAIN: that place is not known here. */
int dir_position_set(const Gw__FdDesc *d, int fd, struct err *e);

#endif
