/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* signalfd.c - signalfd(2); see signalfd.h */
#include "image/signalfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/util.h"

int signalfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint64_t mask;

	if (!fdinfo_u64(look->info, "sigmask", 16, &mask))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no sigmask", look->fd);
	d->sigmask = mask;
	return 0;
}

int signalfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	uint64_t mask = d->sigmask;
	/* The kernel takes 8 bytes; glibc's sigset_t is larger. SFD_NONBLOCK is O_NONBLOCK. */
	long fd = syscall(SYS_signalfd4, -1, &mask, sizeof(mask), O_CLOEXEC | (d->flags & O_NONBLOCK));

	if (fd < 0)
		return err_sys(e, -errno, "signalfd");
	*ret_fd = (int)fd;
	return 0;
}

int signalfd_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	uint64_t mask = d->sigmask;

	if (syscall(SYS_signalfd4, fd, &mask, sizeof(mask), 0) < 0)
		return err_sys(e, -errno, "signalfd: setting its mask");
	return 0;
}
