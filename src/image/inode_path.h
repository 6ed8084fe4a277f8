/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inode_path.h - the path of an inode that the kernel shows by number and file handle only (inotify and fanotify marks in fdinfo)
 *
 * First by the handle (open_by_handle_at(2)). Where the file system cannot do that, or the kernel no longer knows where the inode is,
 * the directory tree is searched, for a while.
 */
#ifndef GODWIT_IMAGE_INODE_PATH_H
#define GODWIT_IMAGE_INODE_PATH_H

#include "image/file_look.h"

struct inode_id {
	uint32_t sdev;          /* as the kernel encodes it: major << 20 | minor */
	uint64_t ino;
	uint32_t handle_type, handle_bytes;
	uint8_t handle[128];
};

/* Reads "ino:", "sdev:", "fhandle-bytes:"... of a line of fdinfo. */
bool inode_id_parse(const char *line, struct inode_id *ret);
/*
 * malloc'ed path, of an existing file that is this inode, as process `pid` sees it; NULL: not found, or it has been removed. By its handle,
 * by looking for it, or first the one, then the other.
 */
char *inode_path_by_handle(pid_t pid, const struct inode_id *id);
char *inode_path_search(pid_t pid, const struct inode_id *id);
char *inode_path_find(pid_t pid, const struct inode_id *id);
/*
 * By its number alone, of a file system that takes handles without the inode's generation (ext4): whether it has a name, and if so one of them. 1, 0 when it has none
 * any more, or -ENOENT: it cannot be found this way.
 */
int inode_path_by_number(pid_t pid, uint32_t sdev, uint32_t ino, char **ret);
/* The path of a mount of `pid` by its number, or of any mount of the file system sdev (mnt_id -1); NULL: none. */
char *mount_path_find(pid_t pid, int mnt_id, uint32_t sdev);

#endif
