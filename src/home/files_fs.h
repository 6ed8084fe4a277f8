/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_fs.h - directories of this host as a FUSE file system whose kernel is on another host
 *
 * libfuse's low-level interface without a mount: requests come and answers go as bytes. Below the root, which nobody sees, lie the directories "0", "1" and so on;
 * inode numbers are those of this host. Everything is done as root: the other host's kernel checks permissions (default_permissions) with the owners and modes
 * that it is told. Nothing is cached there beyond a request, so that programs on both hosts see what the other has written; writes come at once, those of shared
 * mappings at msync(2), close(2) and when the kernel likes. What has been written through a descriptor is on this host's disk when its close(2) returns.
 * Locks are taken here (open file description locks for those of fcntl(2)), and hold against programs of this host.
 */
#ifndef GODWIT_HOME_FILES_FS_H
#define GODWIT_HOME_FILES_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct files_fs;

/* One for each process: what it holds is given back by the process's end. `answer` is called for each answer. */
int files_fs_new(char *const *directories, size_t n, void (*answer)(void *arg, const struct iovec *iov, size_t n), void *arg, struct files_fs **ret, struct err *e);
/* One request; its answers come before this returns, but that of a request that waits for a lock. -EPROTO for what is no request. */
int files_fs_handle(struct files_fs *fs, const uint8_t *data, size_t len);
/* Whether a request waits for a lock: then files_fs_tick looks for it, every few milliseconds. */
bool files_fs_waits(const struct files_fs *fs);
void files_fs_tick(struct files_fs *fs);

#endif
