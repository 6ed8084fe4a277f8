/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* eventfd.c - eventfd(2); see eventfd.h */
#include "image/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>

#include "base/util.h"

int eventfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint64_t count, semaphore = 0;

	if (!fdinfo_u64(look->info, "eventfd-count", 16, &count))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no eventfd-count", look->fd);
	if (!fdinfo_u64(look->info, "eventfd-semaphore", 10, &semaphore))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no eventfd-semaphore (kernel older than 6.6)", look->fd);
	d->count = count;
	d->semaphore = semaphore != 0;
	return 0;
}

int eventfd_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->count == UINT64_MAX)
		return err_set(e, -EPROTO, "eventfd: count out of range");
	return 0;
}

int eventfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int fd = eventfd(0, EFD_CLOEXEC | (d->flags & O_NONBLOCK) | (d->semaphore ? EFD_SEMAPHORE : 0));

	if (fd < 0)
		return err_sys(e, -errno, "eventfd");
	*ret_fd = fd;
	return 0;
}

int eventfd_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	if (d->count && write(fd, &d->count, sizeof(d->count)) != sizeof(d->count))
		return err_sys(e, -errno, "eventfd: writing its count");
	return 0;
}
