/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* inotify.c - inotify instances; see inotify.h */
#include "image/inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/inode_path.h"
#include "kern/queue_peek.h"

#ifndef INOTIFY_IOC_SETNEXTWD
#define INOTIFY_IOC_SETNEXTWD _IOW('I', 0, int32_t)
#endif
#define EVENTS_MAX 16384u
#define MASK_ALLOWED (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ISDIR)
#define MASK_SET (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT)

void watches_free(Gw__FdDesc *d)
{
	for (size_t i = 0; i < d->n_watches; i++)
		gw__fd_watch__free_unpacked(d->watches[i], NULL);
	free(d->watches);
	d->watches = NULL;
	d->n_watches = 0;
}

static int compare_watches(const void *a, const void *b)
{
	int32_t x = (*(Gw__FdWatch *const *)a)->wd, y = (*(Gw__FdWatch *const *)b)->wd;

	return x < y ? -1 : x > y;
}

static Gw__FdWatch *find_watch(Gw__FdWatch *const *v, size_t n, int32_t wd)
{
	Gw__FdWatch key = { .wd = wd }, *at = &key, **found;

	found = n ? bsearch(&at, v, n, sizeof(*v), compare_watches) : NULL;
	return found ? *found : NULL;
}

static int refuse_watch(const struct fd_look *look, int32_t wd, const struct inode_id *id, struct refusals *refusals)
{
	refusals_add(refusals, "fd.inotify.path", "what it watches has no path any more, or none that can be found", "remove the watch first",
		"fd %d (inotify, watch %d on inode %lu)", look->fd, wd, (unsigned long)id->ino);
	return FD_REFUSED;
}

/* What a capture works with. */
struct lines {
	const struct fd_look *look;
	inotify_finder *find;
	const void *arg;
	struct refusals *refusals;
};

/* One line of fdinfo. A watch that was there before keeps its path as long as that still is this inode. */
static int capture_line(const struct lines *c, const char *line, Gw__FdWatch *was, Gw__FdWatch **ret)
{
	unsigned int wd = 0;
	struct inode_id id;
	const char *mask = strstr(line, " mask:");
	char *path = NULL;
	uint32_t desc = 0;
	struct stat st;

	if (sscanf(line, "inotify wd:%x", &wd) != 1 || !mask || !inode_id_parse(line, &id))
		return 0;
	if (was && was->path[0] && lstat(was->path, &st) == 0 && st.st_ino == id.ino)
		path = fd_strdup(was->path);
	else
		path = inode_path_by_handle(c->look->pid, &id);
	if (!path)
		desc = c->find(c->arg, id.sdev, id.ino);
	if (!path && !desc)
		path = inode_path_search(c->look->pid, &id);
	if (!path && !desc)
		return refuse_watch(c->look, (int32_t)wd, &id, c->refusals);
	*ret = fd_alloc(sizeof(**ret));
	gw__fd_watch__init(*ret);
	(*ret)->wd = (int32_t)wd;
	(*ret)->mask = (uint32_t)strtoul(mask + strlen(" mask:"), NULL, 16) & MASK_SET;
	(*ret)->desc = desc;
	if (path)
		(*ret)->path = path;
	return 0;
}

static void forget_events(Gw__FdDesc *d)
{
	for (size_t i = 0; i < d->n_events; i++)
		gw__fd_file_event__free_unpacked(d->events[i], NULL);
	free(d->events);
	d->events = NULL;
	d->n_events = 0;
}

static void take_event(Gw__FdDesc *d, const struct queue_record *r, const char *name)
{
	Gw__FdFileEvent *event = fd_alloc(sizeof(*event));

	gw__fd_file_event__init(event);
	event->wd = (int32_t)r->b;
	event->mask = r->a & (IN_ALL_EVENTS | IN_ISDIR | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW);
	event->cookie = r->c;
	event->name.data = fd_alloc(r->len);
	event->name.len = r->len;
	memcpy(event->name.data, name, r->len);
	fd_append(&d->events, &d->n_events, event);
}

/* What the kernel has of it: the next number, and the queue. */
static int capture_queue(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	cleanup_free void *records = NULL;
	const struct queue_record *r;
	size_t len = 0, at = 0, expected = 0;
	const char *data;
	int code = queue_peek(look->held, true, &records, &len, e);

	if (code < 0)
		return err_set(e, -EAGAIN, "fd %d: the queue of its inotify instance cannot be read; try again when the program has read it", look->fd);
	forget_events(d);
	while ((r = queue_next(records, len, &at, &data)))
		if (r->kind == QUEUE_WATCHES) {
			d->next_watch = r->a;
			expected = r->b;
		} else if (r->kind == QUEUE_EVENT) {
			take_event(d, r, data);
		}
	return d->n_events == expected ? 0 : err_set(e, -EAGAIN, "fd %d: %zu of %zu inotify events could be read; try again", look->fd,
		d->n_events, expected);
}

int inotify_capture(const struct fd_look *look, Gw__FdDesc *d, bool changed, bool frozen, inotify_finder *find, const void *arg,
	struct refusals *refusals, struct err *e)
{
	const struct lines c = { look, find, arg, refusals };
	Gw__FdWatch **v = NULL;
	size_t n = 0;
	int waiting = 0, r = 0;

	for (const char *line = changed ? look->info : NULL; line && *line && r == 0; line = fdinfo_next_line(line)) {
		Gw__FdWatch *w = NULL;
		unsigned int wd = 0;

		if (strncmp(line, "inotify ", 8) || sscanf(line, "inotify wd:%x", &wd) != 1)
			continue;
		r = capture_line(&c, line, find_watch(d->watches, d->n_watches, (int32_t)wd), &w);
		if (w)
			fd_append(&v, &n, w);
	}
	if (changed) {
		watches_free(d);
		if (n)
			qsort(v, n, sizeof(*v), compare_watches);
		d->watches = v;
		d->n_watches = n;
	}
	if (r || !(frozen || changed))
		return r;
	/* While it runs, the queue is not looked at: the program reads it. */
	if (ioctl(look->held, FIONREAD, &waiting) < 0 || (!waiting && !changed))
		forget_events(d);
	else if (frozen || !d->next_watch)
		r = capture_queue(look, d, e);
	if (!frozen)
		forget_events(d);
	return r == -EAGAIN && !frozen ? 0 : r;
}

static int validate_events(const Gw__FdDesc *d, struct err *e)
{
	if (d->n_events > EVENTS_MAX)
		return err_set(e, -EPROTO, "inotify: %zu events", d->n_events);
	for (size_t i = 0; i < d->n_events; i++) {
		const Gw__FdFileEvent *x = d->events[i];

		if (x->wd < 1 || x->name.len > NAME_MAX || (x->name.len && (memchr(x->name.data, '/', x->name.len) ||
		    memchr(x->name.data, '\0', x->name.len) || (x->name.data[0] == '.' && x->name.len <= 2 &&
		    x->name.data[x->name.len - 1] == '.'))))
			return err_set(e, -EPROTO, "inotify: event %zu", i);
	}
	return 0;
}

int inotify_validate(const Gw__FdDesc *d, size_t n_descs, struct err *e)
{
	if (d->n_watches > WATCHES_MAX || d->next_watch > INT_MAX)
		return err_set(e, -EPROTO, "inotify: %zu watches", d->n_watches);
	for (size_t i = 0; i < d->n_watches; i++) {
		const Gw__FdWatch *w = d->watches[i];

		if (w->wd < 1 || (i && w->wd <= d->watches[i - 1]->wd) || !(w->mask & IN_ALL_EVENTS) || (w->mask & ~MASK_ALLOWED))
			return err_set(e, -EPROTO, "inotify: watch %d, mask %#x", w->wd, w->mask);
		if (w->desc ? w->desc > n_descs || w->path[0] : w->path[0] != '/' || strlen(w->path) >= PATH_MAX)
			return err_set(e, -EPROTO, "inotify: bad path");
	}
	return validate_events(d, e);
}

static int add_watch(const Gw__FdWatch *w, const int *fds, int fd, struct err *e)
{
	int32_t wd = w->wd;
	char link[64];
	const char *path = w->path;
	int got;

	if (ioctl(fd, INOTIFY_IOC_SETNEXTWD, wd) < 0)
		return err_sys(e, -errno, "inotify: the number %d of its next watch", wd);
	if (w->desc) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fds[w->desc - 1]);
		path = link;
	}
	/* The path is the file's own, not a link to it. */
	got = inotify_add_watch(fd, path, w->mask | (w->desc ? 0 : IN_DONT_FOLLOW));
	if (got < 0)
		return err_sys(e, -errno, "inotify: watching %s on this host", path);
	if (got != wd)
		return err_set(e, -EEXIST, "inotify: %s is watched twice on this host: watches %d and %d", path, got, wd);
	return 0;
}

int inotify_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	cleanup_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int r = fd < 0 ? err_sys(e, -errno, "inotify_init1") : 0;

	for (size_t i = 0; i < d->n_watches && r == 0; i++)
		if (!d->watches[i]->desc)
			r = add_watch(d->watches[i], NULL, fd, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Reads everything out. Watches that have gone meanwhile (IN_ONESHOT, a file replaced) are noted. */
static void drain(int fd, const Gw__FdDesc *d, uint8_t *lost)
{
	_Alignas(struct inotify_event) char buffer[65536];
	int waiting = 0;

	while (ioctl(fd, FIONREAD, &waiting) == 0 && waiting > 0) {
		ssize_t n = read(fd, buffer, sizeof(buffer));

		if (n <= 0)
			return;
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (const void *)(buffer + at);

			at += (ssize_t)(sizeof(*event) + event->len);
			for (size_t i = 0; event->mask & IN_IGNORED && i < d->n_watches; i++)
				if (d->watches[i]->wd == event->wd)
					lost[i] = 1;
		}
	}
}

static bool same_watch(const Gw__FdWatch *a, const Gw__FdWatch *b)
{
	return a && b && !strcmp(a->path, b->path) && a->desc == b->desc && a->mask == b->mask;
}

int inotify_fill(const Gw__FdDesc *was, const Gw__FdDesc *d, const int *fds, int fd, struct err *e)
{
	const Gw__FdDesc *opened = was ? was : d;
	cleanup_free uint8_t *lost = fd_alloc(d->n_watches);
	int r = 0;

	/* All go when events are to be replayed: nothing else may happen then. */
	for (size_t i = 0; i < opened->n_watches; i++) {
		const Gw__FdWatch *old = opened->watches[i];

		/* One that has gone by itself is gone. */
		if (!old->desc && (d->n_events || !same_watch(old, find_watch(d->watches, d->n_watches, old->wd))))
			inotify_rm_watch(fd, old->wd);
	}
	drain(fd, d, lost);
	if (d->n_events)
		r = inotify_replay(d, fd, e);
	for (size_t i = 0; i < d->n_watches && r == 0; i++) {
		const Gw__FdWatch *now = d->watches[i];

		/* Adding one that is there still changes nothing. */
		if (d->n_events || lost[i] || now->desc || !same_watch(now, find_watch(opened->watches, opened->n_watches, now->wd)))
			r = add_watch(now, fds, fd, e);
	}
	if (r == 0 && d->next_watch && ioctl(fd, INOTIFY_IOC_SETNEXTWD, (int32_t)d->next_watch) < 0)
		return err_sys(e, -errno, "inotify: the number %u of its next watch", d->next_watch);
	return r;
}
