/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_source.c - the source's side of a descriptor table: kinds, contents, pipes and locks of the descriptions that file.c found
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/epoll.h"
#include "image/eventfd.h"
#include "image/file.h"
#include "image/file_refuse.h"
#include "image/file_state.h"
#include "image/flock.h"
#include "image/pipe.h"
#include "image/signalfd.h"
#include "image/socket_listen.h"
#include "image/socket_pair.h"

#define CLOEXEC_IN_FLAGS 02000000u

/* What one capture works with. */
struct capture {
	struct fdtable *t;
	bool table_changed;
	struct fsfile_table *files;
	struct refusals *refusals;
};

static int resolve_slot(void *arg, uint32_t fd)
{
	const struct fdtable *t = arg;
	size_t low = 0, high = t->n_seen;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if ((uint32_t)t->seen[middle].fd == fd)
			return (int)t->seen[middle].desc;
		if ((uint32_t)t->seen[middle].fd < fd)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

static int resolve_held(void *arg, uint32_t desc)
{
	return ((const struct fdtable *)arg)->held[desc].fd;
}

static uint32_t resolve_count(void *arg)
{
	return (uint32_t)((const struct fdtable *)arg)->msg->n_descs;
}

static uint64_t resolve_ino(void *arg, uint32_t desc)
{
	return ((const struct fdtable *)arg)->held[desc].ino;
}

static int capture_epoll(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	struct fd_resolver resolver = { resolve_slot, resolve_held, resolve_count, resolve_ino, c->t };
	uint32_t lost = 0;
	int r = epoll_capture(look, d, &resolver, &lost, e);

	if (r != -ENOENT)
		return r;
	refusals_add(c->refusals, "fd.epoll.foreign", "it watches a file that only another process or a message in flight keeps open",
		"remove the entry from the set", "fd %d (epoll, entry %u)", look->fd, lost);
	return FD_REFUSED;
}

static int capture_file(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint32_t access = d->flags & O_ACCMODE, index;
	uint32_t uses = (access != O_WRONLY ? FSFILE_OPEN_READ : 0) | (access != O_RDONLY ? FSFILE_OPEN_WRITE : 0);
	char link[64];
	int r;

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)c->t->pid, look->fd);
	r = fsfile_add(c->files, link, uses, &index, e);
	if (r < 0) {
		err_wrap(e, "fd %d", look->fd);
		return r;
	}
	d->index = index;
	return 0;
}

/* The pipe of an end: found by its inode, or appended. */
static void capture_pipe_end(struct capture *c, const struct fd_look *look, Gw__FdDesc *d)
{
	struct fdtable *t = c->t;
	size_t n = t->msg->n_pipes;
	Gw__FdPipe *p;

	for (size_t i = 0; i < n; i++)
		if (t->pipe_ids[i].ino == look->st->st_ino && t->pipe_ids[i].dev == look->st->st_dev) {
			d->index = (uint32_t)i;
			return;
		}
	p = fd_alloc(sizeof(*p));
	gw__fd_pipe__init(p);
	if (look->link[0] == '/')
		p->fifo_path = fd_strdup(look->link);
	t->pipe_ids = realloc(t->pipe_ids, (n + 1) * sizeof(*t->pipe_ids));
	if (!t->pipe_ids)
		abort();
	t->pipe_ids[n] = (struct fd_pipe_id){ .dev = look->st->st_dev, .ino = look->st->st_ino };
	d->index = (uint32_t)n;
	fd_append(&t->msg->pipes, &t->msg->n_pipes, p);
}

bool fdtable_same_kind(const Gw__FdDesc *d, int fd)
{
	char path[64], link[64], what[32];
	ssize_t len;

	switch (d->kind) {
	case GW__FD_KIND__FD_SOCKET:
		return socket_listen_same(d, fd);
	case GW__FD_KIND__FD_EVENTFD:
		strcpy(what, "anon_inode:[eventfd]");
		break;
	case GW__FD_KIND__FD_EPOLL:
		strcpy(what, "anon_inode:[eventpoll]");
		break;
	case GW__FD_KIND__FD_TIMERFD:
		strcpy(what, "anon_inode:[timerfd]");
		break;
	case GW__FD_KIND__FD_SIGNALFD:
		strcpy(what, "anon_inode:[signalfd]");
		break;
	default:
		/* A file is what its inode says. */
		return true;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, sizeof(link) - 1);
	link[len < 0 ? 0 : len] = '\0';
	return !strcmp(link, what);
}

/* First look at a description: its kind, and what never changes. */
static int capture_static(struct capture *c, struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	d->kind = fd_classify(look, d->flags, c->refusals);
	if (d->kind == GW__FD_KIND__FD_SOCKET && socket_pair_is_one(look->held))
		d->kind = GW__FD_KIND__FD_SOCKETPAIR;
	switch (d->kind) {
	case GW__FD_KIND__FD_CLOSED:
		return FD_REFUSED;
	case GW__FD_KIND__FD_FILE:
		return capture_file(c, look, d, e);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
		d->path = fd_strdup(look->link);
		return 0;
	case GW__FD_KIND__FD_DEVICE:
		d->device_minor = minor(look->st->st_rdev);
		return 0;
	case GW__FD_KIND__FD_PIPE:
		capture_pipe_end(c, look, d);
		return 0;
	default:
		return 0;
	}
}

/*
 * An eventfd or timerfd that took the place of one of another mode. It could be sent as a new one; it is rare enough to ask for
 * another attempt.
 */
static int check_mode(const struct fd_look *look, const Gw__FdDesc *d, struct err *e)
{
	uint64_t value = 0;

	if (d->kind == GW__FD_KIND__FD_EVENTFD)
		return fdinfo_u64(look->info, "eventfd-semaphore", 10, &value) && (value != 0) != d->semaphore ?
			err_set(e, -EAGAIN, "fd %d: replaced by an eventfd of another mode during the migration; try again", look->fd) : 0;
	if (d->kind == GW__FD_KIND__FD_TIMERFD)
		return fdinfo_u64(look->info, "clockid", 10, &value) && d->timer && value != d->timer->clock ?
			err_set(e, -EAGAIN, "fd %d: replaced by a timerfd of another clock during the migration; try again", look->fd) : 0;
	return 0;
}

/* What changes while a description lives, and is shown by fdinfo or by its kind's own call. */
static int capture_dynamic(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct fd_held *held, struct err *e)
{
	bool text_changed = held->changed;

	switch (d->kind) {
	case GW__FD_KIND__FD_EVENTFD:
		return text_changed ? eventfd_capture(look, d, e) : 0;
	case GW__FD_KIND__FD_SIGNALFD:
		return text_changed ? signalfd_capture(look, d, e) : 0;
	case GW__FD_KIND__FD_TIMERFD:
		return timerfd_capture(look, d, e);
	case GW__FD_KIND__FD_EPOLL:
		return text_changed || c->table_changed ? capture_epoll(c, look, d, e) : 0;
	case GW__FD_KIND__FD_SOCKETPAIR:
		return socket_pair_capture(look, d, c->t->offered, &held->peer_ino, c->refusals, e);
	case GW__FD_KIND__FD_SOCKET:
		return d->socket ? socket_listen_recheck(look, d, c->refusals) : socket_listen_capture(look, d, c->refusals, e);
	default:
		return 0;
	}
}

/* Position and flags, from the text. */
static int capture_common(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint64_t flags, position;

	if (!fdinfo_u64(look->info, "flags", 8, &flags) || !fdinfo_u64(look->info, "pos", 10, &position))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no position or flags", look->fd);
	d->flags = (uint32_t)flags & ~CLOEXEC_IN_FLAGS;
	d->position = (int64_t)position;
	return 0;
}

/* Returns 0, FD_REFUSED when a refusal was added, or an error. */
static int capture_desc(struct capture *c, uint32_t i, struct err *e)
{
	struct fd_held *held = &c->t->held[i];
	Gw__FdDesc *d = c->t->msg->descs[i];
	const struct fd_seen *seen = &c->t->seen[held->slot];
	struct fd_look look = { .pid = c->t->pid, .fd = seen->fd, .held = held->fd, .link = "", .info = seen->text };
	char link[FD_LINK_MAX], path[64];
	struct stat st;
	int r = 0;

	if (held->changed)
		r = capture_common(&look, d, e);
	if (r == 0 && !held->known) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", held->fd);
		len = readlink(path, link, sizeof(link) - 1);
		if (len < 0 || fstat(held->fd, &st) < 0)
			return err_sys(e, -errno, "fd %d: finding out what it is", seen->fd);
		link[len] = '\0';
		look.link = link;
		look.st = &st;
		r = capture_static(c, &look, d, e);
		if (r == 0)
			held->known = true;
	} else {
		look.link = d->path;
		if (r == 0 && held->changed)
			r = check_mode(&look, d, e);
	}
	if (r == 0 && !fd_capture_owner(&look, d, c->refusals))
		r = FD_REFUSED;
	if (r == 0)
		r = capture_dynamic(c, &look, d, held, e);
	return r;
}

/* One end of pipe i that the process holds: which ends, and a duplicate (of a read end if there is one). */
struct ends {
	int held, fd;
	bool reads, writes;
};

static void refuse_pipe(struct capture *c, size_t i, const struct ends *ends, const struct pipe_holder *holder)
{
	char cause[160];
	const char *path = c->t->msg->pipes[i]->fifo_path;

	if (holder && holder->pid)
		snprintf(cause, sizeof(cause), "pid %d has it open too (its fd %d), and would stay behind", (int)holder->pid, holder->fd);
	else
		snprintf(cause, sizeof(cause), "a process that this host does not see has its other end");
	refusals_add(c->refusals, "fd.pipe.outside", cause, "start it with files instead of pipes, or let the other process end first",
		"fd %d (%s%s, %s end)", ends->fd, path[0] ? "FIFO " : "pipe", path, ends->reads && ends->writes ? "either" :
			ends->reads ? "read" : "write");
}

static void find_ends(struct fdtable *t, struct ends *ends)
{
	for (size_t i = 0; i < t->msg->n_pipes; i++)
		ends[i] = (struct ends){ -1, -1, false, false };
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		const Gw__FdDesc *d = t->msg->descs[i];
		uint32_t access = d->flags & O_ACCMODE;
		struct ends *x;

		if (d->kind != GW__FD_KIND__FD_PIPE)
			continue;
		x = &ends[d->index];
		if (x->held < 0 || !x->reads) {
			x->held = t->held[i].fd;
			x->fd = t->seen[t->held[i].slot].fd;
		}
		x->reads = x->reads || access != O_WRONLY;
		x->writes = x->writes || access != O_RDONLY;
	}
}

static int capture_pipes(struct capture *c, struct err *e)
{
	struct fdtable *t = c->t;
	size_t n = t->msg->n_pipes, n_new = 0;
	cleanup_free struct ends *ends = fd_alloc(n * sizeof(*ends));
	cleanup_free struct pipe_holder *holders = fd_alloc(n * sizeof(*holders));
	int r = 0;

	find_ends(t, ends);
	for (size_t i = 0; i < n; i++) {
		/* Inode 0: nobody has that. Looked for once; later ones could only come from the process itself. */
		holders[i].ino = t->pipe_ids[i].scanned ? 0 : t->pipe_ids[i].ino;
		n_new += !t->pipe_ids[i].scanned;
	}
	if (n_new)
		pipe_outside_scan(t->pid, holders, n);
	for (size_t i = 0; i < n && r == 0; i++) {
		bool lone;

		if (ends[i].held < 0)
			continue;
		/* With one kind of end only, the kernel tells whether the other exists anywhere. */
		lone = ends[i].reads != ends[i].writes && !pipe_is_broken(ends[i].held, ends[i].writes);
		if (holders[i].pid || lone)
			refuse_pipe(c, i, &ends[i], &holders[i]);
		else
			r = pipe_capture(ends[i].held, t->msg->pipes[i], e);
		t->pipe_ids[i].scanned = !holders[i].pid;
	}
	return r;
}

static void refuse_pair(struct capture *c, uint32_t i, const struct pipe_holder *holder)
{
	struct fd_look look = { .fd = c->t->seen[c->t->held[i].slot].fd, .held = c->t->held[i].fd };

	if (holder)
		refusals_add(c->refusals, "fd.socket.unix.outside", "another process has an end of it open too, and would stay behind",
			"let the other process end first", "fd %d (socketpair; pid %d, its fd %d)", look.fd, (int)holder->pid, holder->fd);
	else
		socket_refuse_connected(&look, c->t->msg->descs[i]->socket, c->refusals);
	c->t->held[i].refused = true;
	c->t->held[i].scanned = false;
	c->t->msg->descs[i]->kind = GW__FD_KIND__FD_CLOSED;
}

/* Which description is the other end of pair end i; -1: none of the process's. */
static int find_peer(const struct fdtable *t, uint32_t i)
{
	for (uint32_t j = 0; j < t->msg->n_descs; j++)
		if (j != i && t->msg->descs[j]->kind == GW__FD_KIND__FD_SOCKETPAIR && t->held[j].ino == t->held[i].peer_ino &&
		    t->held[j].dev == t->held[i].dev)
			return (int)j;
	return -1;
}

static void capture_pairs(struct capture *c)
{
	struct fdtable *t = c->t;
	cleanup_free struct pipe_holder *holders = fd_alloc(t->msg->n_descs * sizeof(*holders));
	size_t n_new = 0;

	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		int peer;

		if (t->msg->descs[i]->kind != GW__FD_KIND__FD_SOCKETPAIR)
			continue;
		peer = t->held[i].peer_ino ? find_peer(t, i) : -1;
		if (peer < 0 && t->held[i].peer_ino) {
			refuse_pair(c, i, NULL);
			continue;
		}
		t->msg->descs[i]->socket->peer = (uint32_t)(peer + 1);
		if (!t->held[i].scanned) {
			holders[i].ino = t->held[i].ino;
			t->held[i].scanned = true;
			n_new++;
		}
	}
	if (!n_new)
		return;
	pipe_outside_scan(t->pid, holders, t->msg->n_descs);
	for (uint32_t i = 0; i < t->msg->n_descs; i++)
		if (holders[i].pid)
			refuse_pair(c, i, &holders[i]);
}

/* Finds a description that l can be set through: fcntl wants write access for a write lock, read access for a read lock. */
static bool lock_usable(const Gw__FdDesc *d, const struct flock_line *l)
{
	uint32_t access = d->flags & O_ACCMODE;

	return l->kind == GW__FD_LOCK_KIND__LOCK_FLOCK || access == O_RDWR || access == (l->write ? O_WRONLY : O_RDONLY);
}

static bool lock_known(const struct fdtable *t, const Gw__FdLock *l)
{
	for (size_t i = t->msg->n_locks; i-- > 0;) {
		const Gw__FdLock *k = t->msg->locks[i];

		if (k->kind != l->kind || k->start != l->start || k->end != l->end)
			continue;
		/* A POSIX lock shows on every descriptor of its file, the others on every number of their description. */
		if (k->desc == l->desc || (k->kind == GW__FD_LOCK_KIND__LOCK_POSIX && t->held[k->desc].dev == t->held[l->desc].dev &&
		    t->held[k->desc].ino == t->held[l->desc].ino))
			return true;
	}
	return false;
}

/* One lock line; the second pass refuses what the first could not attribute to any description. */
static void capture_lock(struct capture *c, const struct fd_seen *s, const struct flock_line *line, bool second_pass)
{
	struct fdtable *t = c->t;
	Gw__FdLock wanted = GW__FD_LOCK__INIT, *l;

	wanted.kind = line->kind;
	wanted.write = line->write;
	wanted.desc = s->desc;
	wanted.start = line->start;
	wanted.end = line->end;
	if (line->lease) {
		if (!second_pass)
			refusals_add(c->refusals, "fd.lease", "a lease (F_SETLEASE) or delegation cannot move", "release it first",
				"fd %d", s->fd);
		return;
	}
	if (lock_known(t, &wanted))
		return;
	if (second_pass) {
		refusals_add(c->refusals, "fd.lock.access", "no open descriptor has the access that taking its lock again needs",
			"release the lock first",
			"fd %d (locked file)", s->fd);
		return;
	}
	if (!lock_usable(t->msg->descs[s->desc], line))
		return;
	l = fd_alloc(sizeof(*l));
	*l = wanted;
	fd_append(&t->msg->locks, &t->msg->n_locks, l);
}

static void capture_locks(struct capture *c)
{
	Gw__FdTable *m = c->t->msg;

	for (size_t i = 0; i < m->n_locks; i++)
		gw__fd_lock__free_unpacked(m->locks[i], NULL);
	free(m->locks);
	m->locks = NULL;
	m->n_locks = 0;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < c->t->n_seen; i++) {
			const struct fd_seen *s = &c->t->seen[i];
			const char *line = s->has_locks ? s->text : NULL;
			struct flock_line parsed;

			while (flock_parse(&line, &parsed))
				capture_lock(c, s, &parsed, pass == 1);
		}
	}
}

int fdtable_capture_contents(struct fdtable *t, bool table_changed, struct fsfile_table *files, struct refusals *refusals, struct err *e)
{
	struct capture c = { t, table_changed, files, refusals };
	int r;

	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		if (t->held[i].fd < 0)
			continue;
		/* Looked at anew: an earlier look may have been one whose refusals were not kept. */
		if (t->held[i].refused)
			t->held[i].refused = t->held[i].known = false;
		r = capture_desc(&c, i, e);
		if (r == FD_REFUSED) {
			/* A table with refusals is not encoded. */
			t->held[i].refused = true;
			t->msg->descs[i]->kind = GW__FD_KIND__FD_CLOSED;
		} else if (r < 0) {
			return r;
		}
	}
	capture_pairs(&c);
	capture_locks(&c);
	return t->msg->n_pipes ? capture_pipes(&c, e) : 0;
}

static int number_of(const void *arg, uint32_t desc)
{
	const struct fdtable *t = arg;

	return t->held[desc].closed ? -1 : t->seen[t->held[desc].slot].fd;
}

void fdtable_plan_release_locks(const struct fdtable *t, struct batch *b)
{
	flock_plan(b, t->msg->locks, t->msg->n_locks, false, number_of, t);
}

void fdtable_plan_retake_locks(const struct fdtable *t, struct batch *b)
{
	flock_plan(b, t->msg->locks, t->msg->n_locks, true, number_of, t);
}
