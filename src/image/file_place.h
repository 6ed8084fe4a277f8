/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_place.h - what file_restore.c and file_place.c share */
#ifndef GODWIT_IMAGE_FILE_PLACE_H
#define GODWIT_IMAGE_FILE_PLACE_H

#include "image/file.h"

/* Opens the descriptions of t from index `from` on into r->fds, which grows. */
int fdtable_open_from(const Gw__FdTable *t, size_t from, const struct fd_env *env, struct fd_restore *r, struct err *e);

/* Sets all contents of `new` on the worker's duplicates; `old` is what they were opened with. */
int fdtable_fill(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r, struct err *e);

#endif
