/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inotify_replay.c - events that the program has not read yet, made to happen once more
 *
 * Theory of operation: nothing can be written into the queue of an inotify instance, so each event is made to happen, to files of a
 * directory made for that, on a watch that has the number of the event. The watch's mask lets through just that event. But then the
 * watches have to go, so that the numbers are free for what is really watched, and the end of a watch is an event itself
 * (IN_IGNORED). A full queue drops it: instead, IN_Q_OVERFLOW is queued, once, unless that is in the queue already. Therefore, with M
 * the size of the queue and n the number of events:
 *
 *	M events of no meaning, and one more	M times junk, overflow
 *	n + 1 are read				M - n - 1 times junk, overflow
 *	the events				M - n - 1 times junk, overflow, events: M in all, full
 *	the watches go				the same
 *	M - n are read				events
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/inotify.h"

#ifndef INOTIFY_IOC_SETNEXTWD
#define INOTIFY_IOC_SETNEXTWD _IOW('I', 0, int32_t)
#endif
#define QUIET IN_MOVE_SELF        /* nothing does that unasked */
#define JUNK_WATCH (INT_MAX - 1)
#define JUNK_BYTES sizeof(struct inotify_event)

/* What stands for one watch. */
struct stage {
	int32_t wd;
	bool is_dir, gone;
};

struct replay {
	const Gw__FdDesc *d;
	int fd;
	int dir;                 /* the directory made for this */
	char path[64];
	struct stage *stages;
	size_t n_stages;
	struct err *e;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static int remove_tree(const char *path)
{
	return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static long queue_size(void)
{
	cleanup_fclose FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	long n = 0;

	return f && fscanf(f, "%ld", &n) == 1 ? n : -1;
}

static int discard(const struct replay *r, long n)
{
	char buffer[JUNK_BYTES * 256];

	while (n > 0) {
		ssize_t got = read(r->fd, buffer, JUNK_BYTES * (size_t)MIN(n, 256l));

		if (got <= 0 || got % (ssize_t)JUNK_BYTES)
			return err_sys(r->e, got < 0 ? -errno : -EIO, "inotify: reading events of no meaning");
		n -= got / (ssize_t)JUNK_BYTES;
	}
	return 0;
}

/* Fills the queue: every open and close is an event, and no two the same in a row. */
static int fill_with_junk(struct replay *r, long size)
{
	char path[128];
	int waiting = 0, junk;

	snprintf(path, sizeof(path), "%s/junk", r->path);
	close(openat(r->dir, "junk", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	if (ioctl(r->fd, INOTIFY_IOC_SETNEXTWD, JUNK_WATCH) < 0 || inotify_add_watch(r->fd, path, IN_OPEN | IN_CLOSE_NOWRITE) != JUNK_WATCH)
		return err_sys(r->e, -errno, "inotify: watching %s", path);
	for (long i = 0; i < size / 2 + 1; i++) {
		junk = openat(r->dir, "junk", O_RDONLY | O_CLOEXEC);
		if (junk < 0)
			return err_sys(r->e, -errno, "%s", path);
		close(junk);
	}
	if (ioctl(r->fd, FIONREAD, &waiting) < 0 || waiting != (int)((size + 1) * (long)JUNK_BYTES))
		return err_set(r->e, -EIO, "inotify: %d bytes in a queue that should be full with %ld events", waiting, size);
	return 0;
}

static void stage_path(const struct replay *r, const struct stage *s, const char *name, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/%d%s%s", r->path, s->wd, name[0] ? "/" : "", name);
}

static int make_stage(struct replay *r, struct stage *s)
{
	char path[PATH_MAX];
	int made;

	stage_path(r, s, "", path);
	made = s->is_dir ? mkdir(path, 0700) : open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (made < 0)
		return err_sys(r->e, -errno, "%s", path);
	if (!s->is_dir) {
		(void)!write(made, "x", 1);
		close(made);
	}
	if (ioctl(r->fd, INOTIFY_IOC_SETNEXTWD, s->wd) < 0 || inotify_add_watch(r->fd, path, QUIET) != s->wd)
		return err_sys(r->e, -errno, "inotify: a stand-in for watch %d", s->wd);
	return 0;
}

static struct stage *find_stage(const struct replay *r, int32_t wd)
{
	for (size_t i = 0; i < r->n_stages; i++)
		if (r->stages[i].wd == wd)
			return &r->stages[i];
	return NULL;
}

static int make_stages(struct replay *r)
{
	int code = 0;

	r->stages = fd_alloc(r->d->n_events * sizeof(*r->stages));
	for (size_t i = 0; i < r->d->n_events; i++) {
		const Gw__FdFileEvent *x = r->d->events[i];
		struct stage *s = find_stage(r, x->wd);

		if (!s) {
			s = &r->stages[r->n_stages++];
			*s = (struct stage){ .wd = x->wd };
		}
		s->is_dir = s->is_dir || x->name.len || (x->mask & IN_ISDIR);
	}
	for (size_t i = 0; i < r->n_stages && code == 0; i++)
		code = make_stage(r, &r->stages[i]);
	return code;
}

/* What the event is about: the file, there or not. Nothing of this is noticed. */
static void prepare(const char *path, const Gw__FdFileEvent *x, bool there)
{
	if (!there) {
		if (unlink(path) < 0)
			rmdir(path);
	} else if (x->mask & IN_ISDIR) {
		mkdir(path, 0700);
	} else {
		int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		(void)!write(fd, "x", 1);
		close(fd);
	}
}

static bool set_mask(const struct replay *r, const struct stage *s, uint32_t mask)
{
	char path[PATH_MAX];

	stage_path(r, s, "", path);
	return inotify_add_watch(r->fd, path, mask) == s->wd;
}

static int open_for(const char *path, const Gw__FdFileEvent *x)
{
	int mode = x->mask & (IN_MODIFY | IN_CLOSE_WRITE) ? O_WRONLY : O_RDONLY;

	return open(path, mode | O_CLOEXEC | (x->mask & IN_ISDIR ? O_DIRECTORY : 0));
}

/* Opening, closing, reading, writing. */
static bool play_access(const struct replay *r, const struct stage *s, const char *path, const Gw__FdFileEvent *x)
{
	uint32_t bit = x->mask & IN_ALL_EVENTS;
	bool ok = bit != IN_OPEN || set_mask(r, s, bit);
	int fd = open_for(path, x);
	char buffer[512];

	ok = ok && fd >= 0 && (bit == IN_OPEN || set_mask(r, s, bit));
	if (bit == IN_ACCESS)
		(void)!(x->mask & IN_ISDIR ? syscall(SYS_getdents64, fd, buffer, sizeof(buffer)) : read(fd, buffer, 1));
	else if (bit == IN_MODIFY)
		ok = ok && write(fd, "y", 1) == 1;
	if (bit != IN_CLOSE_WRITE && bit != IN_CLOSE_NOWRITE)
		ok = set_mask(r, s, QUIET) && ok;
	close(fd);
	return set_mask(r, s, QUIET) && ok;
}

/* Whether the next event is the other half of a rename. */
static const Gw__FdFileEvent *other_half(const struct replay *r, size_t i)
{
	const Gw__FdFileEvent *x = r->d->events[i], *next = i + 1 < r->d->n_events ? r->d->events[i + 1] : NULL;

	return (x->mask & IN_MOVED_FROM) && next && (next->mask & IN_MOVED_TO) && next->cookie == x->cookie ? next : NULL;
}

static void name_of(const Gw__FdFileEvent *x, char out[NAME_MAX + 1])
{
	if (x->name.len)
		memcpy(out, x->name.data, x->name.len);
	out[x->name.len] = '\0';
}

/* Into the stage, out of it, or from one to another. */
static bool play_move(const struct replay *r, size_t i)
{
	const Gw__FdFileEvent *x = r->d->events[i], *to = other_half(r, i);
	struct stage *s = find_stage(r, x->wd), *target = to ? find_stage(r, to->wd) : NULL;
	char from[PATH_MAX], into[PATH_MAX], name[NAME_MAX + 1];
	bool ok;

	name_of(x, name);
	stage_path(r, s, name, from);
	snprintf(into, sizeof(into), "%s/elsewhere", r->path);
	if (to) {
		name_of(to, name);
		stage_path(r, target, name, into);
	} else if (x->mask & IN_MOVED_TO) {
		char swap[PATH_MAX];

		memcpy(swap, from, sizeof(swap));
		memcpy(from, into, sizeof(from));
		memcpy(into, swap, sizeof(into));
	}
	prepare(from, x, true);
	prepare(into, x, false);
	ok = set_mask(r, s, target == s ? IN_MOVED_FROM | IN_MOVED_TO : x->mask & (IN_MOVED_FROM | IN_MOVED_TO));
	if (target && target != s)
		ok = set_mask(r, target, IN_MOVED_TO) && ok;
	ok = ok && rename(from, into) == 0;
	if (target && target != s)
		ok = set_mask(r, target, QUIET) && ok;
	return set_mask(r, s, QUIET) && ok;
}

/* What happens to the watched file itself. */
static bool play_self(const struct replay *r, struct stage *s, const char *path, const Gw__FdFileEvent *x)
{
	char other[PATH_MAX + 8];
	bool ok;

	switch (x->mask & (IN_ALL_EVENTS | IN_IGNORED)) {
	case IN_IGNORED:
		s->gone = true;
		return inotify_rm_watch(r->fd, s->wd) == 0;
	case IN_DELETE_SELF:
		/* Its IN_IGNORED is the next event. */
		s->gone = true;
		return set_mask(r, s, IN_DELETE_SELF) && remove_tree(path) == 0;
	case IN_MOVE_SELF:
		snprintf(other, sizeof(other), "%s.moved", path);
		ok = rename(path, other) == 0 && rename(other, path) == 0;
		return ok;
	default:
		return false;
	}
}

static int play(struct replay *r, size_t i)
{
	const Gw__FdFileEvent *x = r->d->events[i];
	struct stage *s = find_stage(r, x->wd);
	char path[PATH_MAX], name[NAME_MAX + 1];
	uint32_t bit = x->mask & (IN_ALL_EVENTS | IN_IGNORED | IN_UNMOUNT | IN_Q_OVERFLOW);
	bool ok = false;

	name_of(x, name);
	stage_path(r, s, name, path);
	if (s->gone)
		return bit == IN_IGNORED ? 0 : err_set(r->e, -EPROTO, "inotify: event %#x of a watch that is gone", x->mask);
	if (name[0] && !(bit & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM)))
		prepare(path, x, true);
	if (bit == IN_CREATE || bit == IN_DELETE) {
		if (bit == IN_CREATE)
			prepare(path, x, false);
		ok = set_mask(r, s, bit);
		if (bit == IN_CREATE)
			ok = ok && (x->mask & IN_ISDIR ? mkdir(path, 0700) : mknod(path, S_IFREG | 0600, 0)) == 0;
		else
			ok = ok && (x->mask & IN_ISDIR ? rmdir(path) : unlink(path)) == 0;
		ok = set_mask(r, s, QUIET) && ok;
	} else if (bit & (IN_MOVED_FROM | IN_MOVED_TO)) {
		ok = play_move(r, i);
	} else if (bit == IN_ATTRIB) {
		ok = set_mask(r, s, bit) && chmod(path, 0700) == 0;
		ok = set_mask(r, s, QUIET) && ok;
	} else if (bit & (IN_OPEN | IN_CLOSE | IN_ACCESS | IN_MODIFY)) {
		ok = play_access(r, s, path, x);
	} else {
		ok = play_self(r, s, path, x);
	}
	return ok ? 0 : err_set(r->e, -EOPNOTSUPP, "inotify: the event %#x of watch %d cannot be made to happen again", x->mask, x->wd);
}

static int replay_all(struct replay *r, long size)
{
	long n = (long)r->d->n_events;
	int waiting = 0, before = 0, code = fill_with_junk(r, size);

	if (code == 0)
		code = discard(r, n + 1);
	if (code == 0)
		code = make_stages(r);
	for (long i = 0; i < n && code == 0; i++) {
		code = play(r, (size_t)i);
		if (code == 0 && other_half(r, (size_t)i))
			i++;
	}
	if (code == 0 && ioctl(r->fd, FIONREAD, &before) < 0)
		code = -errno;
	for (size_t i = 0; i < r->n_stages && code == 0; i++)
		if (!r->stages[i].gone)
			inotify_rm_watch(r->fd, r->stages[i].wd);
	if (code == 0)
		inotify_rm_watch(r->fd, JUNK_WATCH);
	if (code == 0 && (ioctl(r->fd, FIONREAD, &waiting) < 0 || waiting != before))
		code = err_set(r->e, -EIO, "inotify: replaying %ld events gave others", n);
	return code < 0 ? code : discard(r, size - n);
}

/* A file system that nobody else sees, or holds files of: who watches a mount may have events of any in his queue, and with them the files. */
static int own_file_system(void)
{
	cleanup_close int context = fsopen("tmpfs", FSOPEN_CLOEXEC), mount = -1;

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	mount = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* *ret_named: in /tmp, and to be removed again. */
static int make_directory(struct replay *r, bool *ret_named)
{
	r->dir = own_file_system();
	*ret_named = r->dir < 0;
	if (r->dir >= 0) {
		snprintf(r->path, sizeof(r->path), "/proc/self/fd/%d", r->dir);
		return 0;
	}
	strcpy(r->path, "/tmp/godwit-events-XXXXXX");
	if (!mkdtemp(r->path))
		return err_sys(r->e, -errno, "/tmp: a directory for events");
	r->dir = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return r->dir < 0 ? err_sys(r->e, -errno, "%s", r->path) : 0;
}

int inotify_replay(const Gw__FdDesc *d, int fd, struct err *e)
{
	struct replay r = { .d = d, .fd = fd, .dir = -1, .e = e };
	long size = queue_size();
	bool named = false;
	int code;

	if (size < 2 || (long)d->n_events > size - 2)
		return err_set(e, -ENOBUFS, "inotify: %zu events, and a queue of %ld on this host", d->n_events, size);
	code = make_directory(&r, &named);
	if (code == 0)
		code = replay_all(&r, size);
	close_fdp(&r.dir);
	if (named)
		remove_tree(r.path);
	free(r.stages);
	return code;
}
