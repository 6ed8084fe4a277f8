/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_gone.h - directories, FIFOs, device nodes and symbolic links (O_PATH) whose name was removed while they are open (also as a working directory)
 *
 * Descriptions and working directories of one such directory are of one again: whoever comes first makes it, the others open that (working directories: cwd.h).
 *
 * They are made again at the place that they had, opened, and removed again. Where something else has that name by now, they are made beside it, and
 * only what /proc shows as their name differs. Missing directories above are made for as long as that takes. Regular files are fsfile.h's.
 */
#ifndef GODWIT_IMAGE_FILE_GONE_H
#define GODWIT_IMAGE_FILE_GONE_H

#include "image/file_look.h"

#define FILE_GONE_SUFFIX " (deleted)"

/* Whether a link of /proc says that the name was removed; *ret_len is the length without the suffix. */
bool file_gone_link(const char *link, size_t *ret_len);
/* The same for the very inode: a name can end with the suffix. */
bool file_gone(const char *link, const struct stat *st, size_t *ret_len);

/* What is mounted by itself has a path, whether or not its name was removed: takes the suffix from a link that leads to it without. */
void file_gone_mounted(char *link, const struct stat *st);

Gw__FdInode *file_gone_inode(const struct stat *st);
/* Whether both are the same one at the source. */
bool file_gone_same(const Gw__FdInode *a, const Gw__FdInode *b);
int file_gone_validate(const char *path, const Gw__FdInode *inode, struct err *e);

/* Makes a directory, FIFO, character device or symbolic link (S_IFDIR, S_IFIFO, S_IFCHR with inode->rdev, S_IFLNK with inode->target), opens it and removes its name. */
int file_gone_open(const char *path, const Gw__FdInode *inode, mode_t type, int flags, int *ret_fd, struct err *e);

#endif
