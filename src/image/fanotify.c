/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fanotify.c - fanotify groups; see fanotify.h */
#include "image/fanotify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/inode_path.h"
#include "image/inotify.h"

/* fdinfo shows mark flags as the kernel keeps them: FAN_MARK_IGNORED_SURV_MODIFY and FAN_MARK_IGNORE (newer than the headers). */
#ifndef FAN_MARK_IGNORE
#define FAN_MARK_IGNORE 0x400u
#endif
#ifndef FAN_MARK_EVICTABLE
#define FAN_MARK_EVICTABLE 0x200u
#endif
#define MARK_FLAGS_ALLOWED (FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_IGNORE | FAN_MARK_EVICTABLE)
#define CLASS_BITS 0xcu
#define INIT_FLAGS_ALLOWED 0x1ffffu
#define PERMISSION_EVENTS (FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_OPEN_EXEC_PERM | 0x100000u)

static bool hex_field(const char *line, const char *key, uint32_t *ret)
{
	const char *at = strstr(line, key), *end = strchr(line, '\n');

	if (!at || (end && at > end))
		return false;
	*ret = (uint32_t)strtoul(at + strlen(key), NULL, 16);
	return true;
}

/* Where a mark is. */
static char *mark_path(const struct fd_look *look, const char *line, uint32_t *ret_type)
{
	struct inode_id id;
	uint32_t mnt = 0, sdev = 0;

	*ret_type = 0;
	if (hex_field(line, "fanotify mnt_id:", &mnt)) {
		*ret_type = FAN_MARK_MOUNT;
		return mount_path_find(look->pid, (int)mnt, 0);
	}
	if (inode_id_parse(line, &id))
		return inode_path_find(look->pid, &id);
	if (!hex_field(line, "fanotify sdev:", &sdev))
		return NULL;
	*ret_type = FAN_MARK_FILESYSTEM;
	return mount_path_find(look->pid, -1, sdev);
}

static int refuse_group(const struct fd_look *look, const char *code, const char *cause, struct refusals *refusals)
{
	refusals_add(refusals, code, cause, "close it first", "fd %d (fanotify)", look->fd);
	return FD_REFUSED;
}

static int capture_mark(const struct fd_look *look, const char *line, Gw__FdDesc *d, struct refusals *refusals)
{
	uint32_t type, flags = 0, mask = 0, ignored = 0;
	char *path = mark_path(look, line, &type);
	Gw__FdWatch *w;

	if (!path)
		return refuse_group(look, "fd.fanotify.path", "what one of its marks is on has no path any more, or none that can be found",
			refusals);
	hex_field(line, " mflags:", &flags);
	hex_field(line, " mask:", &mask);
	hex_field(line, " ignored_mask:", &ignored);
	w = fd_alloc(sizeof(*w));
	gw__fd_watch__init(w);
	w->path = path;
	w->mask = mask;
	w->ignored_mask = ignored;
	w->mark_flags = flags & MARK_FLAGS_ALLOWED;
	w->mark_type = type;
	fd_append(&d->watches, &d->n_watches, w);
	if ((mask | ignored) & PERMISSION_EVENTS)
		return refuse_group(look, "fd.fanotify.permission", "it decides about accesses of other processes of this host", refusals);
	return 0;
}

int fanotify_capture(const struct fd_look *look, Gw__FdDesc *d, bool changed, bool frozen, struct refusals *refusals, struct err *e)
{
	int waiting = 0, r = 0;

	if (frozen && ioctl(look->held, FIONREAD, &waiting) == 0 && waiting > 0)
		return err_set(e, -EAGAIN, "fd %d: fanotify events wait in its queue and cannot be put into another; try again when the "
			"program has read them", look->fd);
	if (!changed)
		return 0;
	watches_free(d);
	for (const char *line = look->info; line && *line && r == 0; line = fdinfo_next_line(line)) {
		if (strncmp(line, "fanotify ", 9))
			continue;
		if (hex_field(line, "fanotify flags:", &d->group_flags))
			hex_field(line, " event-flags:", &d->event_flags);
		else
			r = capture_mark(look, line, d, refusals);
	}
	return r;
}

int fanotify_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->n_watches > WATCHES_MAX || (d->group_flags & ~INIT_FLAGS_ALLOWED))
		return err_set(e, -EPROTO, "fanotify: %zu marks, flags %#x", d->n_watches, d->group_flags);
	for (size_t i = 0; i < d->n_watches; i++) {
		const Gw__FdWatch *w = d->watches[i];

		if ((w->mark_type && w->mark_type != FAN_MARK_MOUNT && w->mark_type != FAN_MARK_FILESYSTEM) ||
		    (w->mark_flags & ~MARK_FLAGS_ALLOWED) || ((w->mask | w->ignored_mask) & PERMISSION_EVENTS))
			return err_set(e, -EPROTO, "fanotify: mark of type %#x, flags %#x", w->mark_type, w->mark_flags);
		if (w->path[0] != '/' || strlen(w->path) >= PATH_MAX)
			return err_set(e, -EPROTO, "fanotify: bad path");
	}
	return 0;
}

int fanotify_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int fd = fanotify_init((d->group_flags & ~FAN_NONBLOCK) | FAN_CLOEXEC, d->event_flags);

	if (fd < 0)
		return err_sys(e, -errno, "fanotify_init");
	*ret_fd = fd;
	return 0;
}

static int add_mark(const Gw__FdWatch *w, int fd, struct err *e)
{
	uint32_t flags = FAN_MARK_ADD | w->mark_type | (w->mark_flags & FAN_MARK_EVICTABLE) | (w->mark_type ? 0 : FAN_MARK_DONT_FOLLOW);
	uint32_t ignore = w->mark_flags & FAN_MARK_IGNORE ? FAN_MARK_IGNORE : FAN_MARK_IGNORED_MASK;

	if (w->mask && fanotify_mark(fd, flags, w->mask, AT_FDCWD, w->path) < 0)
		return err_sys(e, -errno, "fanotify: marking %s on this host", w->path);
	if (w->ignored_mask && fanotify_mark(fd, flags | ignore | (w->mark_flags & FAN_MARK_IGNORED_SURV_MODIFY), w->ignored_mask, AT_FDCWD,
	    w->path) < 0)
		return err_sys(e, -errno, "fanotify: ignoring events of %s on this host", w->path);
	return 0;
}

int fanotify_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < d->n_watches && r == 0; i++)
		r = add_mark(d->watches[i], fd, e);
	return r;
}
