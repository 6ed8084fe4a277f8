/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_check.c - the checks on tables that a peer sent; see file.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "base/util.h"
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
#include "image/file_look.h"
#include "image/file_owner.h"
#include "image/flock.h"
#include "image/lease.h"
#include "image/inotify.h"
#include "image/pidfd.h"
#include "image/pipe.h"
#include "image/pty.h"
#include "image/socket_listen.h"
#include "image/socket_tcp.h"
#include "image/tun.h"
#include "image/unix_socket.h"

#define PIPES_MAX 65536u

static int validate_path(const char *path, struct err *e)
{
	if (path[0] != '/' || strlen(path) >= PATH_MAX)
		return err_set(e, -EPROTO, "bad path");
	return 0;
}

static int validate_desc(const Gw__FdDesc *d, const Gw__FdTable *t, uint32_t n_files, struct err *e)
{
	if (d->position < 0 && d->kind != GW__FD_KIND__FD_DIRECTORY)
		return err_set(e, -EPROTO, "negative position");
	if (fd_owner_validate(d, e) < 0)
		return e ? e->code : -EPROTO;
	if ((d->flags & O_ACCMODE) == O_ACCMODE)
		return err_set(e, -EPROTO, "access mode 3");
	if (d->n_items && d->kind != GW__FD_KIND__FD_EPOLL)
		return err_set(e, -EPROTO, "epoll entries of something else");
	if (lease_validate(d, e) < 0)
		return -EPROTO;
	switch (d->kind) {
	case GW__FD_KIND__FD_LEASED:
	case GW__FD_KIND__FD_CLOSED:
	case GW__FD_KIND__FD_SIGNALFD:
	case GW__FD_KIND__FD_URING:
	case GW__FD_KIND__FD_PTY_MASTER:
	case GW__FD_KIND__FD_PTY_SLAVE:
	case GW__FD_KIND__FD_PTY_TTY:
		return 0;
	case GW__FD_KIND__FD_FILE:
		if ((d->path[0] && validate_path(d->path, e) < 0) || (d->through_mount && !d->path[0]))
			return err_set(e, -EPROTO, "file %u on a mount that cannot be", d->index);
		return d->index < n_files ? 0 : err_set(e, -EPROTO, "file %u of %u", d->index, n_files);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
		if (d->inode && (!(d->flags & O_PATH) || !d->inode->target[0] || file_gone_validate(d->path, d->inode, e) < 0))
			return err_set(e, -EPROTO, "a symbolic link without a name");
		return validate_path(d->path, e) < 0 || dir_position_validate(d, e) < 0 || dir_notify_validate(d, e) < 0 ? -EPROTO : 0;
	case GW__FD_KIND__FD_DEVICE:
	case GW__FD_KIND__FD_KERNEL_FILE:
	case GW__FD_KIND__FD_NAMESPACE:
		return file_kernel_validate(d, e);
	case GW__FD_KIND__FD_DELETED_DIR:
		return file_gone_validate(d->path, d->inode, e);
	case GW__FD_KIND__FD_PIPE:
		return d->index < t->n_pipes ? 0 : err_set(e, -EPROTO, "pipe %u of %zu", d->index, t->n_pipes);
	case GW__FD_KIND__FD_EVENTFD:
		return eventfd_validate(d, e);
	case GW__FD_KIND__FD_EPOLL:
		return epoll_validate(d, t->n_descs, e);
	case GW__FD_KIND__FD_TIMERFD:
		return timerfd_validate(d, e);
	case GW__FD_KIND__FD_SOCKET:
		return socket_listen_validate(d, e);
	case GW__FD_KIND__FD_UNIX:
		return d->unix_socket ? 0 : err_set(e, -EPROTO, "unix socket without its description");
	case GW__FD_KIND__FD_INOTIFY:
		return inotify_validate(d, t->n_descs, e);
	case GW__FD_KIND__FD_FANOTIFY:
		return fanotify_validate(d, e);
	case GW__FD_KIND__FD_PIDFD:
		return pidfd_validate(d, t->n_table_of, e);
	case GW__FD_KIND__FD_MQUEUE:
		return mqueue_validate(d, e);
	case GW__FD_KIND__FD_BPF_MAP:
		return bpf_map_validate(d, e);
	case GW__FD_KIND__FD_TUN:
		return tun_validate(d, e);
	default:
		return err_set(e, -EPROTO, "kind %d", (int)d->kind);
	}
}

/* Numbers ascend and refer to open descriptions. */
static int validate_numbers(const Gw__FdNumbers *n, const Gw__FdTable *t, uint8_t *used, struct err *e)
{
	if (n->n_desc != n->n_fd || n->n_cloexec != n->n_fd || n->n_fd > FDTABLE_NUMBERS_MAX)
		return err_set(e, -EPROTO, "tables of different lengths");
	for (size_t i = 0; i < n->n_fd; i++) {
		if (n->fd[i] >= FDTABLE_NUMBERS_MAX || (i && n->fd[i] <= n->fd[i - 1]))
			return err_set(e, -EPROTO, "descriptor number %u out of range or order", n->fd[i]);
		if (n->desc[i] >= t->n_descs || t->descs[n->desc[i]]->kind == GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "fd %u refers to nothing", n->fd[i]);
		used[n->desc[i]] = 1;
	}
	return 0;
}

/*
 * Every process has a table, every table a process, in the order of the processes; every open description has a number somewhere,
 * or is in flight, so that its contents can be reached.
 */
static int validate_tables(const Gw__FdTable *t, size_t n_processes, struct err *e)
{
	cleanup_free uint8_t *used = fd_alloc(t->n_descs);
	uint32_t seen = 0;

	if (t->n_table_of != n_processes || t->n_tables > n_processes)
		return err_set(e, -EPROTO, "descriptor tables: of %zu processes instead of %zu", t->n_table_of, n_processes);
	for (size_t i = 0; i < n_processes; i++) {
		if (t->table_of[i] > seen)
			return err_set(e, -EPROTO, "process %zu: descriptor table %u", i, t->table_of[i]);
		seen += t->table_of[i] == seen;
	}
	if (seen != t->n_tables)
		return err_set(e, -EPROTO, "descriptor tables: %zu, of which processes have %u", t->n_tables, seen);
	for (size_t i = 0; i < t->n_tables; i++) {
		int r = validate_numbers(t->tables[i], t, used, e);

		if (r < 0)
			return r;
	}
	unix_socket_mark_in_flight(t, used);
	for (size_t i = 0; i < t->n_descs; i++)
		if (!used[i] && t->descs[i]->kind != GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "description %zu has no number", i);
	return 0;
}

static bool is_known(const Gw__FdTable *t, const Gw__FdTable *old, size_t i)
{
	return old && i < old->n_descs && t->descs[i] == old->descs[i];
}

/* Sets of epoll watch what is open. Those of the offer have been looked at, and what they watch is as it was, mostly. */
static int validate_sets(const Gw__FdTable *t, const Gw__FdTable *old, struct err *e)
{
	bool any_closed = false;

	for (size_t i = 0; i < t->n_descs; i++)
		any_closed = any_closed || (!is_known(t, old, i) && t->descs[i]->kind == GW__FD_KIND__FD_CLOSED);
	for (size_t i = 0; i < t->n_descs; i++) {
		if (is_known(t, old, i) && !any_closed)
			continue;
		for (size_t j = 0; j < t->descs[i]->n_items; j++)
			if (t->descs[t->descs[i]->items[j]->desc]->kind == GW__FD_KIND__FD_CLOSED)
				return err_set(e, -EPROTO, "epoll entry of a closed description");
	}
	return 0;
}

int fdtable_validate_against(const Gw__FdTable *t, const Gw__FdTable *old, uint32_t n_files, size_t n_processes, struct err *e)
{
	int r;

	if (t->n_descs > FDTABLE_NUMBERS_MAX || t->n_pipes > PIPES_MAX || t->n_locks > FLOCKS_MAX)
		return err_set(e, -EPROTO, "descriptor table: %zu descriptions, %zu pipes, %zu locks", t->n_descs, t->n_pipes, t->n_locks);
	for (size_t i = 0; i < t->n_descs; i++) {
		if (is_known(t, old, i) || t->descs[i]->brief)
			continue; /* it has been; of a brief one numbers and queues are looked at below */
		r = validate_desc(t->descs[i], t, n_files, e);
		if (r < 0) {
			err_wrap(e, "descriptor table: description %zu", i);
			return r;
		}
	}
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];
		bool known = is_known(t, old, i);

		r = d->kind == GW__FD_KIND__FD_UNIX ? unix_socket_validate(t, i, e) : d->kind == GW__FD_KIND__FD_SOCKET ? socket_tcp_validate(t, i, known, e) : 0;
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < t->n_pipes; i++) {
		r = pipe_validate(t->pipes[i], e);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < t->n_locks; i++) {
		r = flock_validate(t->locks[i], t->n_descs, n_processes, e);
		if (r < 0)
			return r;
		if (t->descs[t->locks[i]->desc]->kind == GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "lock of a closed description");
	}
	r = validate_sets(t, old, e);
	if (r < 0)
		return r;
	r = pty_validate(t, e);
	return r < 0 ? r : validate_tables(t, n_processes, e);
}

int fdtable_validate(const Gw__FdTable *t, uint32_t n_files, size_t n_processes, struct err *e)
{
	return fdtable_validate_against(t, NULL, n_files, n_processes, e);
}

int fdtable_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e)
{
	if (new->n_descs < old->n_descs || new->n_pipes < old->n_pipes)
		return err_set(e, -EPROTO, "descriptor table: the freeze has fewer descriptions than the offer");
	if (new->n_table_of != old->n_table_of || (old->n_table_of && memcmp(new->table_of, old->table_of, old->n_table_of * sizeof(*old->table_of))))
		return err_set(e, -EPROTO, "descriptor table: the processes share other tables than in the offer");
	for (size_t i = 0; i < old->n_descs; i++) {
		const Gw__FdDesc *was = old->descs[i], *now = new->descs[i];

		if (now == was || now->kind == GW__FD_KIND__FD_CLOSED)
			continue;
		if (now->kind != was->kind || now->index != was->index || strcmp(now->path, was->path) || now->through_mount != was->through_mount ||
		    now->device_minor != was->device_minor ||
		    now->semaphore != was->semaphore || ((now->flags ^ was->flags) & (O_ACCMODE | O_PATH)))
			return err_set(e, -EPROTO, "descriptor table: description %zu is not the offer's", i);
		if (now->kind == GW__FD_KIND__FD_UNIX && !unix_socket_is_construction_same(was->unix_socket, now->unix_socket))
			return err_set(e, -EPROTO, "descriptor table: the unix socket of description %zu is not the offer's", i);
		if (now->kind == GW__FD_KIND__FD_SOCKET && !socket_tcp_is_construction_same(was->socket, now->socket))
			return err_set(e, -EPROTO, "descriptor table: the connection of description %zu is not the offer's", i);
		if (now->kind == GW__FD_KIND__FD_TUN && strcmp(now->tun->name, was->tun->name))
			return err_set(e, -EPROTO, "descriptor table: the interface of description %zu is not the offer's", i);
	}
	return pty_validate_update(old, new, e);
}

uint32_t fdtable_first_sharer(const Gw__FdTable *t, uint32_t process)
{
	uint32_t first = 0;

	while (t->table_of[first] != t->table_of[process])
		first++;
	return first;
}
