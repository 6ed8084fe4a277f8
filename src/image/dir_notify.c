/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dir_notify.c - directories whose changes are signalled; see dir_notify.h */
#include "image/dir_notify.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "kern/dnotify_peek.h"

#define NOTIFY_ALL (DN_ACCESS | DN_MODIFY | DN_CREATE | DN_DELETE | DN_RENAME | DN_ATTRIB | DN_MULTISHOT)

int dir_notify_capture(Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg, struct err *e)
{
	cleanup_free struct dnotify_seen *seen = NULL;
	size_t n = 0;
	bool any = false;
	int r;

	/* F_NOTIFY makes the process the owner, so that what has none is not watched. */
	for (size_t i = 0; i < t->n_descs; i++)
		any = any || (t->descs[i]->kind == GW__FD_KIND__FD_DIRECTORY && t->descs[i]->owner);
	if (!any)
		return 0;
	r = dnotify_peek(&seen, &n, e);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < t->n_descs; i++) {
		int fd = t->descs[i]->kind == GW__FD_KIND__FD_DIRECTORY && t->descs[i]->owner ? held(arg, i) : -1;

		t->descs[i]->notify = 0;
		for (size_t k = 0; k < n && fd >= 0; k++)
			if (seen[k].fd == fd)
				t->descs[i]->notify = seen[k].arg;
	}
	return 0;
}

int dir_notify_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->notify && (d->kind != GW__FD_KIND__FD_DIRECTORY || d->notify & ~(uint32_t)NOTIFY_ALL))
		return err_set(e, -EPROTO, "notification %#x", d->notify);
	return 0;
}

void dir_notify_plan(struct batch *b, const Gw__FdDesc *d, int fd)
{
	if (d->notify && fd >= 0)
		batch_call(b, "F_NOTIFY", SYS_fcntl, (uint64_t)fd, F_NOTIFY, d->notify);
}
