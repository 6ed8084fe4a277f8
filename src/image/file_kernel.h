/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_kernel.h - descriptors of what each kernel has of its own: files of /proc, /sys and cgroups, namespaces, stateless devices
 *
 * They are opened anew at the same path. /proc/PID is followed when PID is a process of the unit; of other processes, and of those that
 * have ended, a descriptor is refused. A namespace is one of the unit's (ns_other.h) or the host's own. Devices are those
 * whose drivers keep nothing about who has them open.
 */
#ifndef GODWIT_IMAGE_FILE_KERNEL_H
#define GODWIT_IMAGE_FILE_KERNEL_H

#include "image/file_look.h"
#include "image/refuse.h"

/* Whether a file system is one of the kernel's that this module opens anew. */
bool file_kernel_magic(unsigned long magic);
/* Whether a device keeps nothing about those who have it open; fd: one that is open. */
bool file_kernel_device(uint32_t device_major, uint32_t device_minor, int fd);

/*
 * Fills path, fs_magic and device of FD_KERNEL_FILE, FD_NAMESPACE or FD_DEVICE. inside: whether a number is that of a process of the unit.
 * 0 or FD_REFUSED.
 */
int file_kernel_capture(const struct fd_look *look, Gw__FdDesc *d, bool (*inside)(void *arg, pid_t pid), void *arg, struct refusals *refusals);
int file_kernel_validate(const Gw__FdDesc *d, struct err *e);
/* Destination, at the offer; fd: a number, for words. */
void file_kernel_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals);

struct fd_env;
int file_kernel_open(const Gw__FdDesc *d, const struct fd_env *env, int *ret_fd, struct err *e);
/*
 * Sets the positions of all that are half read: as the last thing in the freeze, for the kernel makes the text up to the position anew,
 * and the process must be what it was by then. fds: by description.
 */
int file_kernel_seek(const Gw__FdTable *t, const int *fds, struct err *e);

#endif
