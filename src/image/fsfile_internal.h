/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_internal.h - what the files of fsfile and vma share */
#ifndef GODWIT_IMAGE_FSFILE_INTERNAL_H
#define GODWIT_IMAGE_FSFILE_INTERNAL_H

#include "image/fsfile.h"

/* fsfile_add with the O_PATH descriptor there already; takes it over on success. -ENODEV when it is no regular file. */
int fsfile_add_fd(struct fsfile_table *t, int fd, uint32_t uses, uint32_t *ret_index, struct err *e);
/* The device number of the kernel's own tmpfs, where memfds and shared anonymous memory are. */
int fsfile_shm_device(dev_t *ret, struct err *e);
/* Opens the file behind an O_PATH descriptor again. Returns the descriptor or -errno. */
int fsfile_reopen(int path_fd, int flags);

#endif
