/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_restore.c - the destination's side of the tables: opening descriptions in the worker, and their contents
 *
 * Everything is made in the worker with ordinary calls, and the worker's duplicates stay until the commit: contents (positions,
 * counts, pipe data, timers) are set on them, as late as the freeze, without the skeleton. What needs a task itself is in
 * file_place.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/dir_position.h"
#include "image/bpf_map.h"
#include "image/mqueue.h"
#include "image/epoll.h"
#include "image/eventfd.h"
#include "image/fanotify.h"
#include "image/file.h"
#include "image/file_gone.h"
#include "image/file_kernel.h"
#include "image/file_place.h"
#include "image/inotify.h"
#include "image/pidfd.h"
#include "image/pipe.h"
#include "image/place.h"
#include "image/relay.h"
#include "image/signalfd.h"
#include "image/socket_listen.h"
#include "image/socket_tcp.h"
#include "image/socket_udp.h"
#include "image/tun.h"
#include "image/unix_restore.h"

/* What open(2) of an existing file takes from F_GETFL. O_ASYNC is set by the task, whose number the signal carries. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_DIRECT | O_NOATIME)
#define TMPFILE_FLAG 020000000u /* O_TMPFILE without O_DIRECTORY */
#define SETFL_FLAGS (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

/*
 * Whether the description is the one that memfd_create returned: the first that reads and writes. One that were opened for writing would keep the file from being
 * executed (ETXTBSY).
 */
static bool is_born_open(const Gw__FdTable *t, const Gw__FdDesc *d, const struct fsfile_answer *answer)
{
	if (!answer->born_open || (d->flags & (O_ACCMODE | O_APPEND)) != O_RDWR)
		return false;
	for (size_t i = 0; t->descs[i] != d; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_FILE && t->descs[i]->index == d->index && (t->descs[i]->flags & (O_ACCMODE | O_APPEND)) == O_RDWR)
			return false;
	return true;
}

/* The file that `answer` is, by its handle through a mount. */
static int open_through(const char *mount, int answer, int flags)
{
	union {
		struct file_handle head;
		char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} handle = { .head = { .handle_bytes = MAX_HANDLE_SZ } };
	cleanup_close int at = open(mount, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int id, fd;

	if (at < 0 || name_to_handle_at(answer, "", &handle.head, &id, AT_EMPTY_PATH) < 0)
		return -errno;
	fd = open_by_handle_at(at, &handle.head, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool is_same(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* On a mount of its own. A stand-in lies elsewhere: then there is nothing at its path. */
static int open_on_mount(const Gw__FdDesc *d, const struct fsfile_answer *answer, int flags, int *ret_fd, struct err *e)
{
	cleanup_close int fd = -1;

	if (answer->verdict == FSFILE_STAND_IN)
		return 0;
	fd = d->through_mount ? open_through(place_of(d->path), answer->fd, flags) : open(place_of(d->path), flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_sys(e, d->through_mount ? fd : -errno, "opening file %u of the unit on the mount that it is on (%s)", d->index, d->path);
	if (!is_same(fd, answer->fd))
		return err_set(e, -ESTALE, "%s: another file is there than in the mount namespace of the unit's first process", d->path);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int open_file(const Gw__FdTable *t, const Gw__FdDesc *d, const struct fd_env *env, int *ret_fd, struct err *e)
{
	int fd;

	if (d->index >= env->n_files || env->answers[d->index].fd < 0)
		return err_set(e, -EBADF, "file %u of the unit has not been opened", d->index);
	if (d->path[0]) {
		fd = open_on_mount(d, &env->answers[d->index], (int)(d->flags & (d->flags & O_PATH ? O_PATH : OPEN_FLAGS)), ret_fd, e);
		if (fd < 0 || *ret_fd >= 0)
			return MIN(fd, 0);
	}
	/* O_TMPFILE shows in the flags of who made the file: here that is the answer, which nobody reads or writes but by offset. */
	fd = d->flags & TMPFILE_FLAG ? fcntl(env->answers[d->index].fd, F_GETFL) : -1;
	if ((fd >= 0 && (fd & TMPFILE_FLAG) && ((uint32_t)fd & O_ACCMODE) == (d->flags & O_ACCMODE)) || is_born_open(t, d, &env->answers[d->index])) {
		*ret_fd = fcntl(env->answers[d->index].fd, F_DUPFD_CLOEXEC, 0);
		return *ret_fd < 0 ? err_sys(e, -errno, "F_DUPFD_CLOEXEC") : 0;
	}
	fd = fd_reopen(env->answers[d->index].fd, (int)(d->flags & (d->flags & O_PATH ? O_PATH : OPEN_FLAGS)));
	if (fd < 0)
		return err_sys(e, fd, "opening file %u of the unit with flags %#o", d->index, d->flags & OPEN_FLAGS);
	*ret_fd = fd;
	return 0;
}

/* Directories and O_PATH descriptors. */
static int open_path(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int flags = d->flags & O_PATH ? (int)(d->flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW)) : O_DIRECTORY | (int)(d->flags & OPEN_FLAGS);
	int fd;

	if (d->inode)
		return file_gone_open(d->path, d->inode, S_IFLNK, flags | O_NOFOLLOW, ret_fd, e);
	fd = open(place_of(d->path), flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_sys(e, -errno, "%s: opening it on this host", d->path);
	*ret_fd = fd;
	return 0;
}

/* A directory without a name may be somebody's working directory, or have another description. */
static int open_deleted_dir(const Gw__FdTable *t, size_t i, const struct fd_env *env, const int *fds, int *ret_fd, struct err *e)
{
	const Gw__FdDesc *d = t->descs[i];
	int flags = O_DIRECTORY | (d->flags & O_PATH ? O_PATH : (int)(d->flags & OPEN_FLAGS)), fd;
	cleanup_close int cwd = env->removed_cwd ? env->removed_cwd(env->host_pid_arg, d->inode) : -1;
	int made = cwd;

	for (size_t k = 0; k < i && made < 0; k++)
		if (t->descs[k]->kind == GW__FD_KIND__FD_DELETED_DIR && file_gone_same(t->descs[k]->inode, d->inode))
			made = fds[k];
	if (made < 0)
		return file_gone_open(d->path, d->inode, S_IFDIR, flags, ret_fd, e);
	fd = fd_reopen(made, flags);
	if (fd < 0)
		return err_sys(e, fd, "%s (deleted)", d->path);
	*ret_fd = fd;
	return 0;
}

/* Processes made to have ended: of one run of fdtable_open_from. */
static struct pidfd_ended *ended;
static size_t n_ended;

/* A unit that comes home gets its description back; if it has made others of the same pipe, those are made again. */
static int open_original(const Gw__FdDesc *d, struct fd_relay *r, int *ret_fd, struct err *e)
{
	int fd = r->given ? fd_reopen(r->fd, (int)(d->flags & (O_ACCMODE | O_NONBLOCK | O_DIRECT))) : fcntl(r->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(e, r->given ? fd : -errno, "a pipe of the unit at home");
	r->given = true;
	*ret_fd = fd;
	return 0;
}

/* The first process with a number of the description, as this worker counts; 0: none. */
static pid_t first_holder(const Gw__FdTable *t, size_t i, const struct fd_env *env)
{
	for (size_t p = 0; p < t->n_table_of && p < env->n_pids; p++) {
		const Gw__FdNumbers *n = t->tables[t->table_of[p]];

		for (size_t k = 0; k < n->n_fd; k++)
			if (n->desc[k] == i)
				return env->pids[p];
	}
	return env->n_pids ? env->pids[0] : 0;
}

static int open_desc(const Gw__FdTable *t, size_t i, const struct fd_env *env, const struct fd_restore *r, struct pipe_made *pipes, int *ret_fd, struct err *e)
{
	const struct fd_relays *originals = r->originals;
	const Gw__FdDesc *d = t->descs[i];

	switch (d->kind) {
	case GW__FD_KIND__FD_FILE:
		return open_file(t, d, env, ret_fd, e);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
		return open_path(d, ret_fd, e);
	case GW__FD_KIND__FD_DELETED_DIR:
		return open_deleted_dir(t, i, env, r->fds, ret_fd, e);
	case GW__FD_KIND__FD_LEASED:
		*ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		return *ret_fd < 0 ? err_sys(e, -errno, "/dev/null") : 0;
	case GW__FD_KIND__FD_DEVICE:
	case GW__FD_KIND__FD_KERNEL_FILE:
	case GW__FD_KIND__FD_NAMESPACE:
		return file_kernel_open(d, env, ret_fd, e);
	case GW__FD_KIND__FD_PIPE:
		if (fd_relays_find(originals, t->pipes[d->index]))
			return open_original(d, fd_relays_find(originals, t->pipes[d->index]), ret_fd, e);
		return pipe_open(t->pipes[d->index], d->flags, &pipes[d->index], ret_fd, e);
	case GW__FD_KIND__FD_EVENTFD:
		return eventfd_open(d, ret_fd, e);
	case GW__FD_KIND__FD_EPOLL:
		return epoll_open(d, ret_fd, e);
	case GW__FD_KIND__FD_TIMERFD:
		return timerfd_open(d, ret_fd, e);
	case GW__FD_KIND__FD_SIGNALFD:
		return signalfd_open(d, ret_fd, e);
	case GW__FD_KIND__FD_SOCKET:
		return socket_listen_open(t, d, ret_fd, e);
	case GW__FD_KIND__FD_INOTIFY:
		return inotify_open(d, ret_fd, e);
	case GW__FD_KIND__FD_FANOTIFY:
		return fanotify_open(d, ret_fd, e);
	case GW__FD_KIND__FD_PIDFD:
		return pidfd_restore(d, env, first_holder(t, i, env), &ended, &n_ended, ret_fd, e);
	case GW__FD_KIND__FD_MQUEUE:
		return mqueue_open(d, ret_fd, e);
	case GW__FD_KIND__FD_BPF_MAP:
		return bpf_map_open(d, ret_fd, e);
	case GW__FD_KIND__FD_TUN:
		return tun_open(d, ret_fd, e);
	default:
		return err_set(e, -EPROTO, "description of kind %d", (int)d->kind);
	}
}

static bool has_position(const Gw__FdDesc *d)
{
	return (d->kind == GW__FD_KIND__FD_FILE || d->kind == GW__FD_KIND__FD_DIRECTORY) && !(d->flags & O_PATH);
}

static int set_position(const Gw__FdDesc *d, int fd, struct err *e)
{
	if (d->kind == GW__FD_KIND__FD_DIRECTORY)
		return dir_position_set(d, fd, e);
	if (lseek(fd, d->position, SEEK_SET) < 0)
		return err_sys(e, -errno, "setting its position to %lld", (long long)d->position);
	return 0;
}

static int fill_flags(const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, struct err *e)
{
	int now;

	if ((d->flags & O_PATH) || (was && !((was->flags ^ d->flags) & SETFL_FLAGS)))
		return 0;
	/* A new description: opening has taken most flags. */
	now = fcntl(fd, F_GETFL);
	if (now < 0 || (((uint32_t)now ^ d->flags) & SETFL_FLAGS) == 0)
		return 0;
	if (fcntl(fd, F_SETFL, (now & ~SETFL_FLAGS) | (int)(d->flags & SETFL_FLAGS)) < 0)
		return err_sys(e, -errno, "F_SETFL %#o", d->flags);
	return 0;
}

/* A pipe that an open description of the offer already refers to: a second look at it must find the same pipe. */
static void find_made_pipes(const Gw__FdTable *t, size_t n_known, const struct fd_restore *r, struct pipe_made *pipes)
{
	for (size_t i = 0; i < t->n_pipes; i++)
		pipes[i] = PIPE_MADE_INIT;
	for (size_t i = 0; i < n_known; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_PIPE && r->fds[i] >= 0 && pipes[d->index].both < 0 && !fd_relays_find(r->originals, t->pipes[d->index]))
			pipes[d->index].both = fd_reopen(r->fds[i], O_RDWR | O_NONBLOCK);
	}
}

/* Puts a number of the description before an error. */
static int name_failure(const Gw__FdTable *t, size_t desc, int code, struct err *e)
{
	for (size_t k = 0; k < t->n_tables; k++)
		for (size_t i = 0; i < t->tables[k]->n_fd; i++)
			if (t->tables[k]->desc[i] == desc) {
				err_wrap(e, "fd %u", t->tables[k]->fd[i]);
				return code;
			}
	return code;
}

static bool has_unix(const Gw__FdTable *t, size_t from)
{
	for (size_t i = from; i < t->n_descs; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_UNIX)
			return true;
	return false;
}

/* The end of a relayed pipe that the unit does not have. */
static int keep_relay(const Gw__FdPipe *p, const struct pipe_made *made, struct fd_restore *r, struct err *e)
{
	int fd;

	if (!p->relay || made->both < 0)
		return 0;
	for (size_t i = 0; i < r->n_relays; i++)
		if (r->relays[i].id == p->relay_id)
			return 0;
	fd = fd_reopen(made->both, (p->relay == RELAY_UNIT_READS ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, fd, "pipe: opening the other end");
	return fd_relays_add(&r->relays, &r->n_relays, &(struct fd_relay){ .id = p->relay_id, .kind = (enum relay_kind)p->relay, .fd = fd }, e);
}

int fdtable_open_from(const Gw__FdTable *t, size_t from, const struct fd_env *env, struct fd_restore *r, struct err *e)
{
	cleanup_free struct pipe_made *pipes = NULL;
	int result = 0;

	if (t->n_descs > r->n) {
		int *grown = realloc(r->fds, t->n_descs * sizeof(*grown));

		if (!grown)
			return err_set(e, -ENOMEM, "no memory for %zu descriptors", t->n_descs);
		r->fds = grown;
		grown = realloc(r->others, t->n_descs * sizeof(*grown));
		if (!grown)
			return err_set(e, -ENOMEM, "no memory for %zu descriptors", t->n_descs);
		r->others = grown;
		for (; r->n < t->n_descs; r->n++)
			r->fds[r->n] = r->others[r->n] = -1;
	}
	if (from == t->n_descs)
		return 0;
	if (has_unix(t, from))
		result = unix_open(t, from, r, e);
	pipes = fd_alloc(t->n_pipes * sizeof(*pipes));
	find_made_pipes(t, from, r, pipes);
	for (size_t i = from; i < t->n_descs && result == 0; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_CLOSED || d->kind == GW__FD_KIND__FD_URING) /* made by the process: uring.h */
			continue;
		result = d->kind == GW__FD_KIND__FD_UNIX ? 0 : pty_is_kind(d->kind) ? pty_open(t, i, &r->ptys, &r->fds[i], e) :
			open_desc(t, i, env, r, pipes, &r->fds[i], e);
		if (result == 0)
			result = fill_flags(NULL, d, r->fds[i], e);
		if (result == 0 && has_position(d) && d->position)
			result = set_position(d, r->fds[i], e);
		if (result < 0)
			name_failure(t, i, result, e);
	}
	pidfd_reap(&ended, &n_ended);
	if (result == 0)
		result = socket_tcp_open(t, from, r->fds, r->others, e);
	for (size_t i = 0; i < t->n_pipes; i++) {
		if (result == 0)
			result = keep_relay(t->pipes[i], &pipes[i], r, e);
		pipe_made_close(&pipes[i]);
	}
	return result;
}

int fdtable_restore_open(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *ret, struct err *e)
{
	return fdtable_open_from(t, 0, env, ret, e);
}

static int fill_desc(const Gw__FdDesc *was, const Gw__FdDesc *d, const struct fd_env *env, int fd, struct err *e)
{
	int r = fill_flags(was, d, fd, e);

	if (r < 0)
		return r;
	switch (d->kind) {
	case GW__FD_KIND__FD_FILE:
	case GW__FD_KIND__FD_DIRECTORY:
		return was && was->position != d->position ? set_position(d, fd, e) : 0;
	case GW__FD_KIND__FD_EVENTFD:
		return eventfd_fill(d, fd, e);
	case GW__FD_KIND__FD_TIMERFD:
		return timerfd_fill(d, fd, &env->clocks, e);
	case GW__FD_KIND__FD_SIGNALFD:
		return was && was->sigmask != d->sigmask ? signalfd_fill(d, fd, e) : 0;
	case GW__FD_KIND__FD_SOCKET:
		return socket_listen_fill(was, d, fd, e);
	case GW__FD_KIND__FD_MQUEUE:
		return mqueue_fill(d, fd, e);
	case GW__FD_KIND__FD_BPF_MAP:
		return bpf_map_fill(d, fd, e);
	case GW__FD_KIND__FD_TUN:
		return tun_fill(d, fd, e);
	default:
		return 0;
	}
}

static int fill_pipes(const Gw__FdTable *t, const struct fd_restore *r, struct err *e)
{
	cleanup_free uint8_t *done = fd_alloc(t->n_pipes);

	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];
		const Gw__FdPipe *p;
		int result;

		if (d->kind != GW__FD_KIND__FD_PIPE || done[d->index])
			continue;
		done[d->index] = 1;
		p = t->pipes[d->index];
		if (fd_relays_find(r->originals, p))
			continue;
		if (!p->data.len && fcntl(r->fds[i], F_GETPIPE_SZ) == (int)p->size_bytes)
			continue;
		result = pipe_fill(p, r->fds[i], e);
		if (result < 0)
			return result;
	}
	return 0;
}

/* Last: whatever else is filled may be noticed by those who watch. */
static int fill_watchers(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_restore *r, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < new->n_descs && result == 0; i++) {
		const Gw__FdDesc *d = new->descs[i], *was = i < old->n_descs ? old->descs[i] : NULL;

		if (d->kind == GW__FD_KIND__FD_INOTIFY)
			result = inotify_fill(was, d, r->fds, r->fds[i], e);
		else if (d->kind == GW__FD_KIND__FD_FANOTIFY)
			result = fanotify_fill(d, r->fds[i], e);
		if (result < 0)
			name_failure(new, i, result, e);
	}
	return result;
}

/* Leases, and the files that could not be opened before. */
static int fill_lease(const Gw__FdTable *t, uint32_t desc, int *fd, struct lease_late *late, struct err *e)
{
	const Gw__FdDesc *d = t->descs[desc];
	int r = 0;

	if (d->kind == GW__FD_KIND__FD_LEASED) {
		close_fdp(fd);
		r = lease_open(d, fd, e);
	}
	return r < 0 ? r : lease_take(t, desc, *fd, late, e);
}

int fdtable_fill(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r, struct err *e)
{
	for (size_t i = 0; i < new->n_descs; i++) {
		const Gw__FdDesc *d = new->descs[i];
		int result;

		if ((i < old->n_descs && d == old->descs[i]) || d->kind == GW__FD_KIND__FD_CLOSED || d->kind == GW__FD_KIND__FD_URING)
			continue;
		result = fill_desc(i < old->n_descs ? old->descs[i] : NULL, d, env, r->fds[i], e);
		if (result == 0 && d->lease)
			result = fill_lease(new, (uint32_t)i, &r->fds[i], &r->late, e);
		if (result < 0)
			return name_failure(new, i, result, e);
	}
	if (has_unix(new, 0)) {
		size_t desc = 0;
		int result = unix_fill(new, env, r, &desc, e);

		if (result < 0)
			return name_failure(new, desc, result, e);
	}
	{
		int result = socket_tcp_fill(old, new, r->fds, r->others, e);

		if (result == 0)
			result = socket_udp_fill(new, r->fds, e);
		if (result < 0)
			return result;
	}
	if (new->n_ptys) {
		int result = pty_fill(old, new, &r->ptys, e);

		if (result < 0)
			return result;
	}
	if (new->n_pipes) {
		int result = fill_pipes(new, r, e);

		if (result < 0)
			return result;
	}
	return fill_watchers(old, new, r, e);
}
