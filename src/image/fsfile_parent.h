/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsfile_parent.h - the directory in which the destination makes a file
 *
 * The worker makes files as root, at paths at which they are on the source. A user who owns a directory on the way could put a symbolic link there, so that the file came to be elsewhere:
 * only links of root's are followed. /proc, which the source has the path from, names none.
 */
#ifndef GODWIT_IMAGE_FSFILE_PARENT_H
#define GODWIT_IMAGE_FSFILE_PARENT_H

#include "base/err.h"

/* O_PATH. -EPERM: a symbolic link that is not root's leads there. */
int fsfile_open_directory(const char *path, struct err *e);
/* The same of the directory that a file is in. */
int fsfile_open_parent(const char *path, struct err *e);
/* Its last name, in `path`. */
const char *fsfile_last_name(const char *path);

#endif
