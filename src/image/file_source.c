/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_source.c - the source's side of the tables: kinds and contents of the descriptions that file.c found */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/dir_notify.h"
#include "image/dir_position.h"
#include "image/bpf_map.h"
#include "image/mqueue.h"
#include "image/epoll.h"
#include "image/eventfd.h"
#include "image/fanotify.h"
#include "image/file.h"
#include "image/file_gone.h"
#include "image/file_kernel.h"
#include "image/file_owner.h"
#include "image/file_refuse.h"
#include "image/file_state.h"
#include "image/lease.h"
#include "image/ns_other.h"
#include "image/pty.h"
#include "image/file_unix.h"
#include "image/inotify.h"
#include "image/pidfd.h"
#include "image/process_check.h"
#include "image/ns_mount.h"
#include "image/signalfd.h"
#include "image/socket_listen.h"
#include "image/socket_netlink.h"
#include "image/socket_options.h"
#include "image/socket_tcp.h"
#include "image/socket_udp.h"
#include "image/tcp_outside.h"
#include "image/tun.h"
#include "image/unix_socket.h"
#include "kern/tcp_peek.h"

#define CLOEXEC_IN_FLAGS 02000000u

static int resolve_slot(void *arg, const struct fd_look *look, uint32_t fd)
{
	const struct fdtable *t = arg;
	const struct fd_seen *s = fdtable_find_number(t, look->process, fd);

	/* It may have been another process that added the entry. */
	for (uint32_t i = 0; i < t->n_views && !s; i++)
		s = fdtable_find_number(t, i, fd);
	return s ? (int)s->desc : -1;
}

/* What is known without a duplicate is fetched when an entry may watch it. */
static int resolve_held(void *arg, uint32_t desc)
{
	struct fdtable *t = arg;
	struct fd_held *held = &t->held[desc], got;

	if (t->running)
		return fdtable_hold(t, desc, NULL) > 0 ? held->fd : -1;
	t->holding = true;
	if (held->fd < 0 && held->uses && fdtable_fetch(&t->views[held->view], fdtable_number_of(t, desc)->fd, &got, NULL) == 1)
		held->fd = got.fd;
	return held->fd;
}

/* What a set of epoll watches, one after the other: while the unit runs, what is held for that is let go behind it. */
struct watched {
	struct fdtable *t;
	int64_t held;
	const struct capture *c;
};

static void let_watched_go(struct watched *w)
{
	if (w->held >= 0)
		fdtable_let_go(w->t, (uint32_t)w->held);
	w->held = -1;
}

static int watched_slot(void *arg, const struct fd_look *look, uint32_t fd)
{
	return resolve_slot(((const struct watched *)arg)->t, look, fd);
}

static int watched_held(void *arg, uint32_t desc)
{
	struct watched *w = arg;
	bool had = w->t->held[desc].fd >= 0;

	let_watched_go(w);
	if (!had && w->t->running)
		w->held = desc;
	return resolve_held(w->t, desc);
}

static bool watched_is_socket(void *arg, uint32_t desc, uint64_t device)
{
	const struct fd_held *held = &((const struct watched *)arg)->t->held[desc];

	return ((uint64_t)major(held->dev) << 20 | minor(held->dev)) == device && fdtable_reader() && fdtable_is_socket(held);
}

static uint32_t resolve_count(void *arg)
{
	return (uint32_t)((const struct watched *)arg)->t->msg->n_descs;
}

static uint64_t resolve_ino(void *arg, uint32_t desc)
{
	return ((const struct watched *)arg)->t->held[desc].ino;
}

#define EPOLL_LOOKS 6

/* Whether the set or the number is not what it was any more: the process runs, and was looked at piece by piece. */
static bool has_entry_changed(const struct capture *c, const struct fd_look *look, uint32_t number)
{
	const struct fd_seen *seen = fdtable_find_number(c->t, look->process, number);
	char path[64], line[256], wanted[32];
	bool listed = false, open_now;
	struct stat st;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)look->pid, look->fd);
	snprintf(wanted, sizeof(wanted), "tfd: %8u ", number);
	info = fopen(path, "re");
	while (info && !listed && fgets(line, sizeof(line), info))
		listed = !strncmp(line, wanted, strlen(wanted));
	if (info)
		fclose(info);
	snprintf(path, sizeof(path), "/proc/%d/fd/%u", (int)look->pid, number);
	open_now = stat(path, &st) == 0;
	return !listed || open_now != (seen != NULL) ||
		(seen && (st.st_dev != c->t->held[seen->desc].dev || st.st_ino != c->t->held[seen->desc].ino));
}

/* More than once: it may have changed about this look, too. What is new in a set is looked at in the freeze. */
static bool watched_has_changed(void *arg, const struct fd_look *look, uint32_t number)
{
	const struct capture *c = ((const struct watched *)arg)->c;

	for (int i = 0; !c->t->frozen && i < EPOLL_LOOKS; i++) {
		if (has_entry_changed(c, look, number))
			return true;
		usleep(500);
	}
	return false;
}

static int capture_epoll(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	struct watched watched = { c->t, -1, c };
	struct fd_resolver resolver = { watched_slot, watched_held, watched_is_socket, watched_has_changed, resolve_count, resolve_ino, &watched };
	uint32_t lost = 0;
	int r = epoll_capture(look, d, &resolver, &lost, e);

	let_watched_go(&watched);
	if (r != -ENOENT)
		return r;
	refusals_add(c->refusals, "fd.epoll.foreign", "it watches a file that only another process or a message in flight keeps open",
		"remove the entry from the set", "fd %d (epoll, entry %u)", look->fd, lost);
	return FD_REFUSED;
}

static int refuse_mount(struct capture *c, const struct fd_look *look, const char *path)
{
	refusals_add(c->refusals, "fd.mount", "it is open on a mount of another mount namespace of the unit, which no path leads to any more", "close it, or open it again", "fd %d (%s)",
		     look->fd, path);
	return FD_REFUSED;
}

static int place_path(struct capture *c, const struct fd_look *look, Gw__FdDesc *d)
{
	char path[FD_LINK_MAX];
	bool through;
	int r = ns_place_file(look->held, d->path, true, path, sizeof(path), &through);

	if (r < 0 || (r > 0 && through))
		return refuse_mount(c, look, d->path);
	if (r > 0)
		string_set(&d->path, path);
	return 0;
}

static int place_and_check(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	int r = place_path(c, look, d);

	return r ? r : fd_check_path(look, d->path, c->refusals, e);
}

/* A symbolic link may have no name any more. */
static int capture_path(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	char target[PATH_MAX];
	ssize_t n;
	size_t len;

	d->path = fd_strdup(look->link);
	if (!S_ISLNK(look->st->st_mode) || !file_gone(look->link, look->st, &len))
		return place_and_check(c, look, d, e);
	n = readlinkat(look->held, "", target, sizeof(target) - 1);
	if (n <= 0)
		return err_sys(e, n ? -errno : -EIO, "fd %d: where it leads", look->fd);
	target[n] = 0;
	d->path[len] = 0;
	d->inode = file_gone_inode(look->st);
	d->inode->mode = 0;
	d->inode->target = fd_strdup(target);
	return 0;
}

/* A file is known by one path, which may lead to another mount than this description of it is on. */
static int place_file(struct capture *c, const struct fd_look *look, Gw__FdDesc *d)
{
	const struct fsfile *f = &c->files->v[d->index];
	char path[FD_LINK_MAX];
	bool through;
	int r = fsfile_is_memory(f) || f->out_of_reach ? 0 : ns_place_file(look->held, fsfile_told(f), !f->unlinked, path, sizeof(path), &through);

	if (r < 0)
		return refuse_mount(c, look, fsfile_told(f));
	if (r > 0) {
		d->path = fd_strdup(path);
		d->through_mount = through;
	}
	return 0;
}

static int capture_file(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint32_t access = d->flags & O_ACCMODE, index;
	uint32_t uses = (access != O_WRONLY ? FSFILE_OPEN_READ : 0) | (access != O_RDONLY ? FSFILE_OPEN_WRITE : 0);
	char link[64];
	int r;

	/* The duplicate's: the number may be another file's by now. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", look->held);
	r = fsfile_add(c->files, link, uses, &index, e);
	if (r < 0) {
		err_wrap(e, "fd %d", look->fd);
		return r;
	}
	d->index = index;
	return place_file(c, look, d);
}

bool fdtable_same_kind(const Gw__FdDesc *d, int fd)
{
	char path[64], link[64], what[32];
	ssize_t len;

	switch (d->kind) {
	case GW__FD_KIND__FD_SOCKET:
		return socket_listen_same(d, fd);
	case GW__FD_KIND__FD_UNIX:
		return unix_socket_same(d, fd);
	case GW__FD_KIND__FD_INOTIFY:
		strcpy(what, "anon_inode:inotify");
		break;
	case GW__FD_KIND__FD_FANOTIFY:
		strcpy(what, "anon_inode:[fanotify]");
		break;
	case GW__FD_KIND__FD_URING: /* each has an inode of its own */
		strcpy(what, "anon_inode:[io_uring]");
		break;
	case GW__FD_KIND__FD_BPF_MAP:
		/* Which one of several is not to be seen. */
		return false;
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
	case GW__FD_KIND__FD_PTY_MASTER:
	case GW__FD_KIND__FD_PTY_SLAVE:
	case GW__FD_KIND__FD_PTY_TTY:
		return pty_same(d, fd);
	default:
		/* A file is what its inode says. */
		return true;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, sizeof(link) - 1);
	link[len < 0 ? 0 : len] = '\0';
	return !strcmp(link, what);
}

static bool is_inside(void *arg, pid_t pid)
{
	const struct fdtable *t = arg;

	for (size_t i = 0; i < t->n_views; i++)
		if (t->views[i].pid == pid)
			return true;
	return pid == getpid();
}

/* The same by the numbers of another pid namespace than this worker's: that of the unit. */
static bool is_inside_by_its_number(void *arg, pid_t pid)
{
	const struct fdtable *t = arg;

	for (size_t i = 0; i < t->n_views; i++)
		if (fd_owner_seen(t->views[i].pid, "NSpid:") == pid)
			return true;
	return false;
}

/* Whether numbers of processes in the path of a file of /proc are those that this worker knows. */
static bool is_our_proc(const struct fd_look *look)
{
	struct stat st;

	return stat("/proc", &st) == 0 && st.st_dev == look->st->st_dev;
}

/* First look at a description: its kind, and what never changes. */
static int capture_static(struct capture *c, struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	d->kind = fd_classify(look, d->flags, c->refusals);
	if (d->kind == GW__FD_KIND__FD_SOCKET && socket_get_int(look->held, SOL_SOCKET, SO_DOMAIN) == AF_UNIX) {
		d->kind = GW__FD_KIND__FD_UNIX;
		c->t->has_unix = true;
	}
	c->t->has_ptys = c->t->has_ptys || pty_is_kind(d->kind);
	switch (d->kind) {
	case GW__FD_KIND__FD_CLOSED:
		return FD_REFUSED;
	case GW__FD_KIND__FD_FILE:
		if (lease_capture(look, d) && lease_is_touchy(d)) {
			d->kind = GW__FD_KIND__FD_LEASED;
			return lease_identify(look, d, c->refusals);
		}
		return capture_file(c, look, d, e);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
		return capture_path(c, look, d, e);
	case GW__FD_KIND__FD_DEVICE:
	case GW__FD_KIND__FD_KERNEL_FILE:
	case GW__FD_KIND__FD_NAMESPACE:
		return file_kernel_capture(look, d, is_our_proc(look) ? is_inside : is_inside_by_its_number, c->t, c->refusals);
	case GW__FD_KIND__FD_DELETED_DIR:
		d->path = fd_strdup(look->link);
		d->path[strlen(d->path) - strlen(FILE_GONE_SUFFIX)] = 0;
		d->inode = file_gone_inode(look->st);
		return 0;
	case GW__FD_KIND__FD_PIPE:
		fdtable_add_pipe_end(c, look, d);
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

static pid_t find_owner(const void *arg, int type, pid_t id)
{
	const struct fdtable *t = arg;
	char path[64];

	for (size_t i = 0; i < t->n_views; i++) {
		pid_t pid = t->views[i].pid;

		if (type == F_OWNER_PGRP && getpgid(pid) == id)
			return fd_owner_seen(pid, "NSpgid:");
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)pid, (int)id);
		if (type != F_OWNER_PGRP && (pid == id || (type == F_OWNER_TID && access(path, F_OK) == 0)))
			return fd_owner_seen(id, "NSpid:");
	}
	return 0;
}

/* Which process of the unit this is, or has this thread, or has not waited for this child that has ended; false: none. */
static bool find_process(const void *arg, pid_t id, Gw__FdPid *ret)
{
	const struct fdtable *t = arg;
	struct process_stat stat = { 0 };
	bool zombie = process_stat_read(id, &stat, NULL) == 0 && stat.state == 'Z';
	char path[64];

	for (uint32_t i = 0; i < t->n_views; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)t->views[i].pid, (int)id);
		if (zombie && stat.ppid == t->views[i].pid)
			return (ret->zombie = fd_owner_seen(id, "NSpid:")) > 0;
		if (t->views[i].pid != id && access(path, F_OK) != 0)
			continue;
		ret->process = i + 1;
		ret->thread = t->views[i].pid == id ? 0 : fd_owner_seen(id, "NSpid:");
		return true;
	}
	return false;
}

static int capture_mqueue(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	cleanup_free pid_t *inside = d->mqueue ? NULL : fd_alloc(c->t->n_views * sizeof(*inside));

	for (size_t i = 0; inside && i < c->t->n_views; i++)
		inside[i] = c->t->views[i].pid;
	return mqueue_capture(look, d, c->t->frozen, inside, c->t->n_views, c->refusals, e);
}

/* A regular file or directory that is open. */
static uint32_t find_file(const void *arg, uint32_t dev, uint64_t ino)
{
	const struct fdtable *t = arg;

	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const struct fd_held *held = &t->held[i];
		bool is_file = t->msg->descs[i]->kind == GW__FD_KIND__FD_FILE || t->msg->descs[i]->kind == GW__FD_KIND__FD_DELETED_DIR;

		/* One that has not been looked at yet is a file, too: it has an inode of this file system. */
		if ((is_file || !held->known) && !held->closed && held->ino == ino &&
		    dev == (uint32_t)(major(held->dev) << 20 | minor(held->dev)))
			return i + 1;
	}
	return 0;
}

static int check_lease(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	if (!lease_capture(look, d)) {
		refusals_add(c->refusals, "fd.lease", "a delegation cannot move", "release it first", "fd %d (%s)", look->fd, look->link);
		return FD_REFUSED;
	}
	if (lease_is_touchy(d) != (d->kind == GW__FD_KIND__FD_LEASED))
		return err_set(e, -EAGAIN, "fd %d: its lease changed during the migration; try again", look->fd);
	return 0;
}

/* What waits in a queue is read, or looked at, in the freeze only: also that of a socket which nobody has seen before. The worker is in the socket's network namespace. */
static int capture_socket_here(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct fd_held *held, struct err *e)
{
	const struct tcp_member *found = fdtable_find_tcp(c->t, (uint32_t)(held - c->t->held)), *m = NULL;
	struct tcp_member one;
	bool known = d->socket != NULL;
	int r;

	if (found) {
		one = *found;
		one.held = look->held;
		m = &one;
	}
	r = known && socket_udp_is_one(d->socket) ? 0 : socket_listen_capture(look, d, m, c->refusals, e);

	if (r == 0 && known && c->t->frozen && !m)
		r = socket_listen_refresh(look, d, e);
	held->quiet = r == 0 && m && socket_tcp_is_quiet(m) && socket_tcp_can_be_quiet(d->socket);
	if (r == 0 && !c->t->frozen && socket_udp_is_one(d->socket))
		return socket_udp_refuse_corked(look, c->refusals);
	if (r || !c->t->frozen)
		return r;
	if (socket_udp_is_one(d->socket))
		return socket_udp_capture_queue(look, d->socket, c->refusals, e);
	return !known && socket_host_is_one(d->socket) ? socket_host_recheck(look, d, e) : 0;
}

static int capture_socket(struct capture *c, const struct fd_look *look, Gw__FdDesc *d, struct fd_held *held, struct err *e)
{
	uint32_t space = socket_net_namespace(look->held);
	int back = ns_others_visit(NS_NET, space), r;

	if (back < 0)
		return err_sys(e, back, "fd %d: entering the network namespace of a socket", look->fd);
	r = capture_socket_here(c, look, d, held, e);
	ns_others_return(NS_NET, back);
	if (d->socket)
		d->socket->space = space;
	return r;
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
	case GW__FD_KIND__FD_FILE:
	case GW__FD_KIND__FD_LEASED:
		return text_changed ? check_lease(c, look, d, e) : 0;
	case GW__FD_KIND__FD_DIRECTORY:
		return dir_position_capture(look->held, d, e);
	case GW__FD_KIND__FD_UNIX:
		return held->unix_refused ? FD_REFUSED : 0;
	case GW__FD_KIND__FD_SOCKET:
		return capture_socket(c, look, d, held, e);
	case GW__FD_KIND__FD_INOTIFY:
		return inotify_capture(look, d, text_changed, c->t->frozen, find_file, c->t, c->refusals, e);
	case GW__FD_KIND__FD_FANOTIFY:
		return fanotify_capture(look, d, text_changed, c->t->frozen, c->refusals, e);
	case GW__FD_KIND__FD_PIDFD:
		return text_changed ? pidfd_capture(look, d, find_process, c->t, c->refusals, e) : 0;
	case GW__FD_KIND__FD_MQUEUE:
		return capture_mqueue(c, look, d, e);
	case GW__FD_KIND__FD_BPF_MAP:
		return bpf_map_capture(look, d, c->t->frozen, c->refusals, e);
	case GW__FD_KIND__FD_TUN:
		return tun_capture(look, d, c->t->frozen, c->refusals, e);
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
	const struct fd_view *view = &c->t->views[held->view];
	const struct fd_seen *seen = fdtable_number_of(c->t, i);
	struct fd_look look = { .pid = view->pid, .process = held->view, .fd = seen->fd, .held = held->fd, .link = "", .info = seen->text, .armed = held->armed };
	char link[FD_LINK_MAX], path[64];
	struct stat st;
	int r = 0;

	held->armed = FILE_ARMED_UNKNOWN;
	if (held->loose) {
		look.pid = getpid();
		look.fd = held->fd;
		look.info = held->text;
	}
	if (held->changed)
		r = capture_common(&look, d, e);
	if (r == 0 && !held->known) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", held->fd);
		len = readlink(path, link, sizeof(link) - 1);
		if (len < 0 || fstat(held->fd, &st) < 0)
			return err_sys(e, -errno, "fd %d: finding out what it is", seen->fd);
		link[len] = '\0';
		ns_mark_outside(held->fd, link, sizeof(link));
		file_gone_mounted(link, &st);
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
	if (r == 0 && !fd_owner_capture(&look, d, find_owner, c->t, c->refusals))
		r = FD_REFUSED;
	c->t->has_watched = c->t->has_watched || (d->kind == GW__FD_KIND__FD_DIRECTORY && d->owner);
	if (r == 0 && held->loose)
		r = fdtable_refuse_loose(&look, d, c->refusals);
	if (r == 0)
		r = capture_dynamic(c, &look, d, held, e);
	return r;
}

void fdtable_name_process(const struct capture *c, size_t first, uint32_t desc)
{
	pid_t pid = c->t->views[c->t->held[desc].view].pid;

	for (size_t i = first; i < c->refusals->n && c->t->n_views > 1; i++) {
		struct refusal *r = &c->refusals->v[i];
		char *named;

		if (asprintf(&named, "pid %d, %s", (int)pid, r->thing) < 0)
			abort();
		free(r->thing);
		r->thing = named;
	}
}

static int desc_number(void *arg, uint32_t desc)
{
	return fdtable_number_of(arg, desc)->fd;
}

static void desc_refused(void *arg, uint32_t desc)
{
	((const struct fdtable *)arg)->held[desc].refused = true;
}

static pid_t process_of(const void *arg, size_t i)
{
	const struct fdtable *t = arg;

	return i < t->n_views ? t->views[i].pid : 0;
}

static int capture_ptys(struct capture *c, struct err *e)
{
	const struct pty_source source = { c->t->msg, resolve_held, desc_number, desc_refused, is_inside, find_owner, c->t, process_of,
		fdtable_terminal, c->t->relays_travel, &c->t->pty_ids, c->t->frozen, c->refusals };
	struct fdtable *t = c->t;
	int r;

	/* Both ends of each are looked at together, by the worker's numbers of them. */
	for (uint32_t i = 0; t->running && i < t->msg->n_descs; i++)
		if (pty_is_kind(t->msg->descs[i]->kind) && !t->held[i].closed)
			fdtable_hold(t, i, NULL);
	r = pty_capture(&source, e);
	for (uint32_t i = 0; t->running && i < t->msg->n_descs; i++)
		if (pty_is_kind(t->msg->descs[i]->kind))
			fdtable_let_go(t, i);
	return r;
}

/* Numbers and queues are read behind this. */
static bool is_brief_enough(const struct capture *c, const struct fd_held *held)
{
	const struct tcp_member *m = fdtable_find_tcp(c->t, (uint32_t)(held - c->t->held));

	return m && m->class == TCP_CLASS_LINKED && m->kind == GW__FD_TCP_KIND__TCP_OUTSIDE;
}

/* 0, also when it was refused, or an error. */
static int capture_one(struct capture *c, uint32_t i, struct err *e)
{
	struct fd_held *held = &c->t->held[i];
	size_t refused = c->refusals->n;
	int r;

	if (!held->uses || held->settled || (held->brief && is_brief_enough(c, held)))
		return 0;
	/* Looked at anew: an earlier look may have been one whose refusals were not kept. */
	if (held->refused)
		held->refused = held->known = false;
	r = capture_desc(c, i, e);
	if (r == FD_REFUSED) {
		/* A table with refusals is not encoded. */
		held->refused = true;
		c->t->msg->descs[i]->kind = GW__FD_KIND__FD_CLOSED;
		fdtable_name_process(c, refused, i);
		return 0;
	}
	if (r == 0)
		held->changed = false;
	return r;
}

static bool tell(const struct fdtable *t, uint32_t i, struct tcp_told *ret)
{
	struct tcp_told *told = fdtable_find_tcp(t, i) ? tcp_peek_told() : NULL;

	if (!told)
		return false;
	told[0].fd = t->held[i].fd;
	if (tcp_peek_ask(0, 1) < 0)
		return false;
	*ret = told[0];
	return true;
}

/* While the unit runs: there is a duplicate for no longer than this takes. */
static int capture_held(struct capture *c, uint32_t i, struct err *e)
{
	struct fdtable *t = c->t;
	struct fd_held *held = &t->held[i];
	struct tcp_told before = { 0 }, after = { 0 };
	bool told = tell(t, i, &before);
	int r = held->loose ? 0 : fdtable_read_info(t, &t->views[held->view], &t->views[held->view].seen[held->slot], e);

	if (r == 0)
		r = capture_one(c, i, e);
	if (r == 0 && told && tell(t, i, &after)) {
		t->held[i].settings = after.digest == before.digest ? after.settings : 0;
		fdtable_note_kin(t, i, &before, &after);
	}
	/* What its number has told of it, too, was told of it. */
	return r < 0 || fdtable_is_still_there(t, i) ? r : err_set(e, -EAGAIN, "one of its descriptors has been closed meanwhile");
}

static int capture_one_running(struct capture *c, uint32_t i, struct err *e)
{
	struct fdtable *t = c->t;
	struct fd_held *held = &t->held[i];
	int r;

	if (!held->uses || held->settled || (held->brief && is_brief_enough(c, held)) || fdtable_take_kin(t, i))
		return 0;
	r = fdtable_hold(t, i, e);
	if (r == 0)
		return err_set(e, -EAGAIN, "one of its descriptors has been closed meanwhile");
	if (r > 0)
		r = capture_held(c, i, e);
	fdtable_let_go(t, i);
	return r;
}

/* First those that are held already, since they had to be looked at together: unix sockets. */
static int capture_all_running(struct capture *c, struct err *e)
{
	struct fdtable *t = c->t;
	size_t n = t->few ? t->n_todo : t->msg->n_descs;
	cleanup_free uint8_t *done = fd_alloc(n);
	int r = 0;

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t k = 0; k < n && r == 0; k++) {
			uint32_t i = t->few ? t->todo[k] : k;

			if (done[k] || (pass == 0 && t->held[i].fd < 0))
				continue;
			done[k] = 1;
			r = capture_one_running(c, i, e);
		}
	return r;
}

/* n descriptions from the one at `from` on. A program may change settings, and change them back, about each look at them; it hardly does in the moment that these take. */
static int capture_part(struct capture *c, uint32_t from, size_t n, struct err *e)
{
	struct fdtable *t = c->t;
	uint32_t descs[FDTABLE_WATCHED];
	struct fd_settings settings = { .n = 0 };
	int r = 0;

	for (uint32_t i = 0; i < n; i++)
		descs[i] = t->few ? t->todo[from + i] : from + i;
	if (!t->frozen)
		fdtable_begin_settings(t, descs, n, &settings);
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = capture_one(c, descs[i], e);
	if (r == 0 && !t->frozen)
		fdtable_end_settings(t, &settings);
	return r;
}

static bool may_have_peers(const Gw__FdSocket *s)
{
	return s->protocol == IPPROTO_UDP && tcp_outside_policy() != TCP_OUTSIDE_REFUSE;
}

/* UDP sockets that are connected to somebody outside, where such are not to move. */
static void refuse_outside_peers(struct capture *c)
{
	struct fdtable *t = c->t;
	size_t n = t->few ? t->n_todo : t->msg->n_descs;

	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = t->few ? t->todo[k] : k;
		Gw__FdDesc *d = t->msg->descs[i];
		struct fd_look look = { .held = t->held[i].fd };

		if (d->kind != GW__FD_KIND__FD_SOCKET || (look.held < 0 && !t->running) || !d->socket || !d->socket->peer.len || !socket_udp_is_one(d->socket) ||
		    may_have_peers(d->socket) || socket_udp_peer_is_inside(t->msg, d->socket))
			continue;
		look.fd = fdtable_number_of(t, i)->fd;
		look.held = t->running && fdtable_hold(t, i, NULL) > 0 ? t->held[i].fd : look.held;
		socket_refuse_connected(&look, d->socket, c->refusals);
		t->held[i].refused = true;
		d->kind = GW__FD_KIND__FD_CLOSED;
	}
}

int fdtable_capture_contents(struct fdtable *t, bool table_changed, struct fsfile_table *files, struct refusals *refusals, struct err *e)
{
	struct capture c = { t, table_changed, files, refusals };
	size_t n = t->few ? t->n_todo : t->msg->n_descs;
	int r = 0;

	if (t->running)
		r = capture_all_running(&c, e);
	for (uint32_t i = 0; i < n && r == 0 && !t->running; i += FDTABLE_WATCHED)
		r = capture_part(&c, i, MIN(n - i, FDTABLE_WATCHED), e);
	if (r < 0)
		return r;
	refuse_outside_peers(&c);
	r = fdtable_capture_tcp_queues(t, e);
	if (r < 0)
		return r;
	fdtable_capture_locks(&c);
	if (t->has_watched)
		r = dir_notify_capture(t->msg, resolve_held, t, e);
	t->has_ptys = t->has_ptys || fdtable_has_terminal(t);
	if (r == 0 && t->has_ptys)
		r = capture_ptys(&c, e);
	return r < 0 || !t->msg->n_pipes ? r : fdtable_capture_pipes(&c, e);
}
