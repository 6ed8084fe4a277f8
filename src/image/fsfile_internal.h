/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_internal.h - what the files of fsfile and vma share */
#ifndef GODWIT_IMAGE_FSFILE_INTERNAL_H
#define GODWIT_IMAGE_FSFILE_INTERNAL_H

#include "image/fsfile.h"

/* fsfile_add with the O_PATH descriptor there already; takes it over on success. -ENODEV when it is no regular file. */
int fsfile_add_fd(struct fsfile_table *t, int fd, uint32_t uses, uint32_t *ret_index, struct err *e);
/* The device number of the kernel's own tmpfs, where memfds and shared anonymous memory are. */
int fsfile_shm_device(dev_t *ret, struct err *e);
/* Source: the extended attributes of what is not mapped only. */
void fsfile_take_xattrs(struct fsfile *f, int path_fd);
/* Opens the file behind an O_PATH descriptor again. Returns the descriptor or -errno. */
int fsfile_reopen(int path_fd, int flags);

/* --- fsfile_memory.c: memfds, shared anonymous memory, System V segments --- */

#define FSFILE_HUGETLBFS_MAGIC 0x958458f6

/* Source: which kind of memory a file of the kernel's own tmpfs or hugetlbfs is, by its path; FSFILE_REGULAR for a file of a mounted hugetlbfs. */
enum fsfile_type fsfile_memory_type(const char *path);
/* Source: what only an object of memory has; fd is O_PATH. f's type, path and ino are set. Also later, for what has changed. */
int fsfile_memory_read(int fd, struct fsfile *f, struct err *e);
/* Destination: adds a refusal when the number or key of a segment is taken here. */
void fsfile_memory_match(const struct fsfile *f, struct refusals *refusals);
/* Destination: makes the object, of its full size. Returns a descriptor for reading and writing, or an error. */
int fsfile_memory_make(const struct fsfile *f, struct err *e);
/* pwrite(2) for memory in huge pages, which has none. */
int fsfile_memory_write(const struct fsfile *f, int fd, uint64_t offset, const void *data, size_t len_bytes, struct err *e);
/* Owner, mode, and the seals that can be set before the mappings are made. */
int fsfile_memory_finish(const struct fsfile *f, int fd, struct err *e);
int fsfile_memory_finish_late(const struct fsfile *f, int fd, struct err *e);
/* Removes the segment of that number. */
void fsfile_memory_remove(const struct fsfile *f);

#endif
