/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_codec.c - a descriptor table as bytes, and the checks on what a peer sent; see file.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "base/util.h"
#include "image/epoll.h"
#include "image/eventfd.h"
#include "image/file.h"
#include "image/file_look.h"
#include "image/flock.h"
#include "image/pipe.h"
#include "image/socket_listen.h"
#include "image/socket_pair.h"

#define ENCODED_MAX (256u << 20)
#define PIPES_MAX 65536u
#define SIGNAL_MAX 64u

int fdtable_encode(const struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	size_t len = gw__fd_table__get_packed_size(t->msg);
	uint8_t *data;

	if (len > ENCODED_MAX)
		return err_set(e, -E2BIG, "the descriptor table takes %zu bytes, more than %u", len, ENCODED_MAX);
	data = malloc(len ? len : 1);
	if (!data)
		return err_set(e, -ENOMEM, "no memory for a descriptor table of %zu bytes", len);
	*ret_len = gw__fd_table__pack(t->msg, data);
	*ret_data = data;
	return 0;
}

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
	if (d->signal > SIGNAL_MAX)
		return err_set(e, -EPROTO, "signal %u", d->signal);
	if ((d->flags & O_ACCMODE) == O_ACCMODE)
		return err_set(e, -EPROTO, "access mode 3");
	if (d->n_items && d->kind != GW__FD_KIND__FD_EPOLL)
		return err_set(e, -EPROTO, "epoll entries of something else");
	switch (d->kind) {
	case GW__FD_KIND__FD_CLOSED:
	case GW__FD_KIND__FD_SIGNALFD:
		return 0;
	case GW__FD_KIND__FD_FILE:
		return d->index < n_files ? 0 : err_set(e, -EPROTO, "file %u of %u", d->index, n_files);
	case GW__FD_KIND__FD_DIRECTORY:
	case GW__FD_KIND__FD_PATH:
		return validate_path(d->path, e);
	case GW__FD_KIND__FD_DEVICE:
		if (d->device_minor == 3 || d->device_minor == 5 || (d->device_minor >= 7 && d->device_minor <= 9))
			return 0;
		return err_set(e, -EPROTO, "device 1:%u", d->device_minor);
	case GW__FD_KIND__FD_PIPE:
		return d->index < t->n_pipes ? 0 : err_set(e, -EPROTO, "pipe %u of %zu", d->index, t->n_pipes);
	case GW__FD_KIND__FD_EVENTFD:
		return eventfd_validate(d, e);
	case GW__FD_KIND__FD_EPOLL:
		return epoll_validate(d, t->n_descs, e);
	case GW__FD_KIND__FD_TIMERFD:
		return timerfd_validate(d, e);
	case GW__FD_KIND__FD_SOCKET:
	case GW__FD_KIND__FD_SOCKETPAIR:
		return socket_listen_validate(d, e);
	default:
		return err_set(e, -EPROTO, "kind %d", (int)d->kind);
	}
}

/* Numbers ascend and refer to open descriptions; every open description has a number, so that its contents can be reached. */
static int validate_slots(const Gw__FdTable *t, struct err *e)
{
	cleanup_free uint8_t *used = fd_alloc(t->n_descs + 1);

	if (t->n_slot_desc != t->n_slot_fd || t->n_slot_cloexec != t->n_slot_fd || t->n_slot_fd > FDTABLE_NUMBERS_MAX)
		return err_set(e, -EPROTO, "tables of different lengths");
	for (size_t i = 0; i < t->n_slot_fd; i++) {
		if (t->slot_fd[i] >= FDTABLE_NUMBERS_MAX || (i && t->slot_fd[i] <= t->slot_fd[i - 1]))
			return err_set(e, -EPROTO, "descriptor number %u out of range or order", t->slot_fd[i]);
		if (t->slot_desc[i] >= t->n_descs || t->descs[t->slot_desc[i]]->kind == GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "fd %u refers to nothing", t->slot_fd[i]);
		used[t->slot_desc[i]] = 1;
	}
	for (size_t i = 0; i < t->n_descs; i++)
		if (!used[i] && t->descs[i]->kind != GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "description %zu has no number", i);
	return 0;
}

int fdtable_validate(const Gw__FdTable *t, uint32_t n_files, struct err *e)
{
	int r;

	if (t->n_descs > FDTABLE_NUMBERS_MAX || t->n_pipes > PIPES_MAX || t->n_locks > FLOCKS_MAX)
		return err_set(e, -EPROTO, "descriptor table: %zu descriptions, %zu pipes, %zu locks", t->n_descs, t->n_pipes, t->n_locks);
	for (size_t i = 0; i < t->n_descs; i++) {
		r = validate_desc(t->descs[i], t, n_files, e);
		if (r < 0) {
			err_wrap(e, "descriptor table: description %zu", i);
			return r;
		}
	}
	for (size_t i = 0; i < t->n_descs; i++) {
		r = t->descs[i]->kind == GW__FD_KIND__FD_SOCKETPAIR ? socket_pair_validate(t, i, e) : 0;
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < t->n_pipes; i++) {
		r = pipe_validate(t->pipes[i], e);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < t->n_locks; i++) {
		r = flock_validate(t->locks[i], t->n_descs, e);
		if (r < 0)
			return r;
		if (t->descs[t->locks[i]->desc]->kind == GW__FD_KIND__FD_CLOSED)
			return err_set(e, -EPROTO, "lock of a closed description");
	}
	for (size_t i = 0; i < t->n_descs; i++)
		for (size_t j = 0; j < t->descs[i]->n_items; j++)
			if (t->descs[t->descs[i]->items[j]->desc]->kind == GW__FD_KIND__FD_CLOSED)
				return err_set(e, -EPROTO, "epoll entry of a closed description");
	return validate_slots(t, e);
}

int fdtable_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e)
{
	if (new->n_descs < old->n_descs || new->n_pipes < old->n_pipes)
		return err_set(e, -EPROTO, "descriptor table: the freeze has fewer descriptions than the offer");
	for (size_t i = 0; i < old->n_descs; i++) {
		const Gw__FdDesc *was = old->descs[i], *now = new->descs[i];

		if (now->kind == GW__FD_KIND__FD_CLOSED)
			continue;
		if (now->kind != was->kind || now->index != was->index || strcmp(now->path, was->path) ||
		    now->device_minor != was->device_minor ||
		    now->semaphore != was->semaphore || ((now->flags ^ was->flags) & (O_ACCMODE | O_PATH)))
			return err_set(e, -EPROTO, "descriptor table: description %zu is not the offer's", i);
		if (now->kind == GW__FD_KIND__FD_SOCKETPAIR && now->socket->peer && now->socket->peer != was->socket->peer)
			return err_set(e, -EPROTO, "descriptor table: the peer of description %zu is not the offer's", i);
	}
	return 0;
}

int fdtable_decode(const void *data, size_t len, uint32_t n_files, Gw__FdTable **ret, struct err *e)
{
	Gw__FdTable *t = len <= ENCODED_MAX ? gw__fd_table__unpack(NULL, len, data) : NULL;
	int r;

	if (!t)
		return err_set(e, -EPROTO, "descriptor table: %zu bytes that cannot be decoded", len);
	r = fdtable_validate(t, n_files, e);
	if (r < 0) {
		gw__fd_table__free_unpacked(t, NULL);
		return r;
	}
	*ret = t;
	return 0;
}
