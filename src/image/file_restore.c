/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_restore.c - the destination's side of a descriptor table: opening descriptions in the worker, and their contents
 *
 * Everything is made in the worker with ordinary calls, and the worker's duplicates stay until the commit: contents (positions,
 * counts, pipe data, timers) are set on them, as late as the freeze, without the skeleton. What needs the task itself is in
 * file_place.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/epoll.h"
#include "image/eventfd.h"
#include "image/file.h"
#include "image/file_place.h"
#include "image/pipe.h"
#include "image/signalfd.h"
#include "image/socket_listen.h"
#include "image/socket_pair.h"

/* What open(2) of an existing file takes from F_GETFL. O_ASYNC is set by the task, whose number the signal carries. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_DIRECT | O_NOATIME)
#define SETFL_FLAGS (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

static const char *device_path(uint32_t device_minor)
{
	switch (device_minor) {
	case 3:
		return "/dev/null";
	case 5:
		return "/dev/zero";
	case 7:
		return "/dev/full";
	case 8:
		return "/dev/random";
	default:
		return "/dev/urandom";
	}
}

static int open_file(const Gw__FdDesc *d, const struct fd_env *env, int *ret_fd, struct err *e)
{
	int fd;

	if (d->index >= env->n_files || env->answers[d->index].fd < 0)
		return err_set(e, -EBADF, "file %u of the unit has not been opened", d->index);
	fd = fd_reopen(env->answers[d->index].fd, (int)(d->flags & OPEN_FLAGS));
	if (fd < 0)
		return err_sys(e, fd, "opening file %u of the unit with flags %#o", d->index, d->flags & OPEN_FLAGS);
	*ret_fd = fd;
	return 0;
}

/* Directories, O_PATH descriptors, devices. */
static int open_path(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	bool device = d->kind == GW__FD_KIND__FD_DEVICE;
	const char *path = device ? device_path(d->device_minor) : d->path;
	int flags = d->kind == GW__FD_KIND__FD_PATH ? O_PATH | (int)(d->flags & (O_DIRECTORY | O_NOFOLLOW)) :
		device ? (int)(d->flags & OPEN_FLAGS) : O_DIRECTORY | (int)(d->flags & OPEN_FLAGS);
	cleanup_close int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_sys(e, -errno, "%s: opening it on this host", path);
	if (device && (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, d->device_minor)))
		return err_set(e, -ENODEV, "%s: not that device on this host", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int open_desc(const Gw__FdTable *t, const Gw__FdDesc *d, const struct fd_env *env, struct pipe_made *pipes, int *ret_fd,
	struct err *e)
{
	switch (d->kind) {
	case GW__FD_KIND__FD_FILE:
		return open_file(d, env, ret_fd, e);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
	case GW__FD_KIND__FD_DEVICE:
		return open_path(d, ret_fd, e);
	case GW__FD_KIND__FD_PIPE:
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
		return socket_listen_open(d, ret_fd, e);
	default:
		return err_set(e, -EPROTO, "description of kind %d", (int)d->kind);
	}
}

static bool has_position(const Gw__FdDesc *d)
{
	return d->kind == GW__FD_KIND__FD_FILE || d->kind == GW__FD_KIND__FD_DIRECTORY;
}

static int set_position(const Gw__FdDesc *d, int fd, struct err *e)
{
	if (lseek(fd, d->position, SEEK_SET) < 0)
		return err_sys(e, -errno, "setting its position to %lld", (long long)d->position);
	return 0;
}

static int fill_flags(const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, struct err *e)
{
	int now;

	if (d->kind == GW__FD_KIND__FD_PATH || (was && !((was->flags ^ d->flags) & SETFL_FLAGS)))
		return 0;
	/* A new description: opening has taken most flags. */
	now = fcntl(fd, F_GETFL);
	if (now < 0 || (((uint32_t)now ^ d->flags) & SETFL_FLAGS) == 0)
		return 0;
	if (fcntl(fd, F_SETFL, (now & ~SETFL_FLAGS) | (int)(d->flags & SETFL_FLAGS)) < 0)
		return err_sys(e, -errno, "F_SETFL %#o", d->flags);
	return 0;
}

/* Both ends at once; the other description finds its end there. */
static int open_pair(const Gw__FdTable *t, size_t i, struct fd_restore *r, struct err *e)
{
	const Gw__FdSocket *s = t->descs[i]->socket;
	int ends[2], result;

	if (r->fds[i] >= 0)
		return 0;
	result = socket_pair_open(t->descs[i], ends, e);
	if (result < 0)
		return result;
	r->fds[i] = ends[0];
	if (s->peer && r->fds[s->peer - 1] < 0)
		r->fds[s->peer - 1] = ends[1];
	else
		r->others[i] = ends[1];
	result = socket_pair_set_options(t->descs[i], r->fds[i], e);
	if (result == 0 && s->peer)
		result = socket_pair_set_options(t->descs[s->peer - 1], r->fds[s->peer - 1], e);
	return result;
}

/* A pipe that an open description of the offer already refers to: a second look at it must find the same pipe. */
static void find_made_pipes(const Gw__FdTable *t, size_t n_known, const int *fds, struct pipe_made *pipes)
{
	for (size_t i = 0; i < t->n_pipes; i++)
		pipes[i] = PIPE_MADE_INIT;
	for (size_t i = 0; i < n_known; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_PIPE && fds[i] >= 0 && pipes[d->index].both < 0)
			pipes[d->index].both = fd_reopen(fds[i], O_RDWR | O_NONBLOCK);
	}
}

/* Puts a number of the description before an error. */
static int name_failure(const Gw__FdTable *t, size_t desc, int code, struct err *e)
{
	for (size_t i = 0; i < t->n_slot_fd; i++)
		if (t->slot_desc[i] == desc) {
			err_wrap(e, "fd %u", t->slot_fd[i]);
			break;
		}
	return code;
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
	pipes = fd_alloc(t->n_pipes * sizeof(*pipes));
	find_made_pipes(t, from, r->fds, pipes);
	for (size_t i = from; i < t->n_descs && result == 0; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_CLOSED)
			continue;
		result = d->kind == GW__FD_KIND__FD_SOCKETPAIR ? open_pair(t, i, r, e) : open_desc(t, d, env, pipes, &r->fds[i], e);
		if (result == 0)
			result = fill_flags(NULL, d, r->fds[i], e);
		if (result == 0 && has_position(d) && d->position)
			result = set_position(d, r->fds[i], e);
		if (result < 0)
			name_failure(t, i, result, e);
	}
	for (size_t i = 0; i < t->n_pipes; i++)
		pipe_made_close(&pipes[i]);
	return result;
}

int fdtable_restore_open(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *ret, struct err *e)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	return fdtable_open_from(t, 0, env, ret, e);
}

static int fill_socket(const Gw__FdDesc *d, int fd, struct fd_restore *r, struct err *e)
{
	char *aside;
	int result = socket_listen_fill(d, fd, &aside, e);

	if (aside)
		fd_append(&r->aside, &r->n_aside, aside);
	return result;
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
		if (!p->data.len && fcntl(r->fds[i], F_GETPIPE_SZ) == (int)p->size_bytes)
			continue;
		result = pipe_fill(p, r->fds[i], e);
		if (result < 0)
			return result;
	}
	return 0;
}

static int fill_pairs(const Gw__FdTable *old, const Gw__FdTable *t, const struct fd_restore *r, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < t->n_descs && result == 0; i++) {
		const Gw__FdDesc *d = t->descs[i];
		uint32_t peer;
		int through;

		if (d->kind != GW__FD_KIND__FD_SOCKETPAIR)
			continue;
		result = socket_pair_set_options(d, r->fds[i], e);
		/* A peer that the process closed after the offer is still open here. */
		peer = d->socket->peer ? d->socket->peer : i < old->n_descs ? old->descs[i]->socket->peer : 0;
		through = r->others[i] >= 0 ? r->others[i] : peer ? r->fds[peer - 1] : -1;
		if (result == 0)
			result = socket_pair_fill(d, through, e);
		close_fdp(&r->others[i]);
	}
	for (size_t i = 0; i < t->n_descs && result == 0; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_SOCKETPAIR)
			result = socket_pair_shut_down(t->descs[i], r->fds[i], e);
	return result;
}

int fdtable_fill(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r, struct err *e)
{
	for (size_t i = 0; i < new->n_descs; i++) {
		const Gw__FdDesc *d = new->descs[i];
		int result;

		if (d->kind == GW__FD_KIND__FD_CLOSED)
			continue;
		result = fill_desc(i < old->n_descs ? old->descs[i] : NULL, d, env, r->fds[i], e);
		if (result == 0 && d->kind == GW__FD_KIND__FD_SOCKET)
			result = fill_socket(d, r->fds[i], r, e);
		if (result < 0)
			return name_failure(new, i, result, e);
	}
	for (size_t i = 0; i < new->n_descs; i++)
		if (new->descs[i]->kind == GW__FD_KIND__FD_SOCKETPAIR) {
			int result = fill_pairs(old, new, r, e);

			if (result < 0)
				return result;
			break;
		}
	return new->n_pipes ? fill_pipes(new, r, e) : 0;
}
