/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_codec.c - the tables as bytes: whole in the offer, in the freeze what differs from that; see file.h and wire/proto/file.proto */
#include <errno.h>

#include "base/util.h"
#include "image/file_place.h"
#include "image/file_state.h"
#include "image/socket_tcp.h"

#define ENCODED_MAX (256u << 20)

static int pack(const Gw__FdTable *m, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	size_t len = gw__fd_table__get_packed_size(m);
	uint8_t *data;

	if (len > ENCODED_MAX)
		return err_set(e, -E2BIG, "the descriptor table takes %zu bytes, more than %u", len, ENCODED_MAX);
	data = malloc(len ? len : 1);
	if (!data)
		return err_set(e, -ENOMEM, "no memory for a descriptor table of %zu bytes", len);
	*ret_len = gw__fd_table__pack(m, data);
	*ret_data = data;
	return 0;
}

static void *copy(const void *from, size_t len)
{
	void *to = fd_alloc(len);

	if (len)
		memcpy(to, from, len);
	return to;
}

static void numbers_copy(const Gw__FdNumbers *from, Gw__FdNumbers *to)
{
	free(to->fd);
	free(to->desc);
	free(to->cloexec);
	to->fd = copy(from->fd, from->n_fd * sizeof(*from->fd));
	to->desc = copy(from->desc, from->n_desc * sizeof(*from->desc));
	to->cloexec = copy(from->cloexec, from->n_cloexec * sizeof(*from->cloexec));
	to->n_fd = from->n_fd;
	to->n_desc = from->n_desc;
	to->n_cloexec = from->n_cloexec;
}

bool fdtable_numbers_same(const Gw__FdNumbers *a, const Gw__FdNumbers *b)
{
	return a->n_fd == b->n_fd && (!a->n_fd || (!memcmp(a->fd, b->fd, a->n_fd * sizeof(*a->fd)) &&
		!memcmp(a->desc, b->desc, a->n_fd * sizeof(*a->desc)) &&
		!memcmp(a->cloexec, b->cloexec, a->n_fd * sizeof(*a->cloexec))));
}

int fdtable_encode(struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	int r = pack(t->msg, ret_data, ret_len, e);

	for (size_t i = 0; i < t->msg->n_descs && r == 0; i++) {
		t->held[i].offered = true;
		t->held[i].offered_flags = t->msg->descs[i]->flags;
		t->held[i].offered_position = t->msg->descs[i]->position;
		t->held[i].offered_digest = fdtable_digest_desc(&t->held[i], t->msg->descs[i]);
	}
	for (size_t i = 0; i < t->n_views && r == 0; i++) {
		struct fd_view *view = &t->views[i];

		if (view->first != i)
			continue;
		if (!view->offered) {
			view->offered = fd_alloc(sizeof(*view->offered));
			gw__fd_numbers__init(view->offered);
		}
		numbers_copy(t->msg->tables[t->msg->table_of[i]], view->offered);
	}
	return r;
}

/* --- the difference --- */

/* What has been looked at may have changed in any way; of what has been settled by its record position and flags are all. */
static bool has_changed(const struct fdtable *t, size_t i)
{
	const struct fd_held *held = &t->held[i];
	const Gw__FdDesc *d = t->msg->descs[i];

	if (t->few || held->same)
		return t->differs[i];
	return !held->offered || !held->settled || d->flags != held->offered_flags || d->position != held->offered_position;
}

int fdtable_encode_update(const struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	size_t n = t->msg->n_descs, n_changed = 0;
	cleanup_free Gw__FdDesc **descs = fd_alloc(n * sizeof(*descs));
	cleanup_free uint32_t *changed = fd_alloc(n * sizeof(*changed));
	cleanup_free Gw__FdNumbers **tables = fd_alloc(t->msg->n_tables * sizeof(*tables));
	Gw__FdNumbers same = GW__FD_NUMBERS__INIT;
	Gw__FdTable m = *t->msg;

	same.same = true;
	for (size_t i = 0; i < n; i++) {
		if (!has_changed(t, i))
			continue;
		descs[n_changed] = t->msg->descs[i];
		changed[n_changed++] = (uint32_t)i;
	}
	for (size_t i = 0; i < t->n_views; i++) {
		const struct fd_view *view = &t->views[i];
		Gw__FdNumbers *now = t->msg->tables[t->msg->table_of[i]];

		if (view->first == i)
			tables[t->msg->table_of[i]] = view->offered && fdtable_numbers_same(view->offered, now) ? &same : now;
	}
	m.difference = true;
	m.n_descs_all = (uint32_t)n;
	m.descs = descs;
	m.changed = changed;
	m.n_descs = m.n_changed = n_changed;
	m.tables = tables;
	m.n_table_of = 0;
	return pack(&m, ret_data, ret_len, e);
}

static Gw__FdTable *unpack(const void *data, size_t len, struct err *e)
{
	Gw__FdTable *t = len <= ENCODED_MAX ? gw__fd_table__unpack(NULL, len, data) : NULL;

	if (!t)
		err_set(e, -EPROTO, "descriptor table: %zu bytes that cannot be decoded", len);
	return t;
}

int fdtable_decode(const void *data, size_t len, uint32_t n_files, size_t n_processes, Gw__FdTable **ret, struct err *e)
{
	Gw__FdTable *t = unpack(data, len, e);
	int r;

	if (!t)
		return -EPROTO;
	r = fdtable_validate(t, n_files, n_processes, e);
	if (r < 0) {
		gw__fd_table__free_unpacked(t, NULL);
		return r;
	}
	*ret = t;
	return 0;
}

/* Descriptions that may be left out: position and flags are all that changes about them, or nothing has changed. */
static bool may_be_left_out(const Gw__FdDesc *d)
{
	return d->kind == GW__FD_KIND__FD_FILE || d->kind == GW__FD_KIND__FD_DIRECTORY || d->kind == GW__FD_KIND__FD_PATH ||
		d->kind == GW__FD_KIND__FD_DEVICE || d->kind == GW__FD_KIND__FD_EPOLL || (d->kind == GW__FD_KIND__FD_SOCKET && d->socket && socket_tcp_can_be_quiet(d->socket));
}

static int check_difference(const Gw__FdTable *t, const Gw__FdTable *old, struct err *e)
{
	size_t at = 0;

	if (!t->difference || t->n_table_of || t->n_changed != t->n_descs || t->n_descs_all < old->n_descs ||
	    t->n_descs_all > FDTABLE_NUMBERS_MAX || t->n_tables != old->n_tables)
		return err_set(e, -EPROTO, "descriptor table: not a difference to what was offered");
	for (uint32_t i = 0; i < t->n_descs_all; i++) {
		if (at < t->n_changed && t->changed[at] == i)
			at++;
		else if (i >= old->n_descs || !may_be_left_out(old->descs[i]))
			return err_set(e, -EPROTO, "descriptor table: description %u is missing", i);
	}
	if (at != t->n_changed)
		return err_set(e, -EPROTO, "descriptor table: descriptions out of order");
	for (size_t i = 0; i < t->n_tables; i++)
		if (t->tables[i]->same && (t->tables[i]->n_fd || t->tables[i]->n_desc || t->tables[i]->n_cloexec))
			return err_set(e, -EPROTO, "descriptor table: the same numbers, and others");
	return 0;
}

/* Makes a checked difference the whole table. */
static void complete(Gw__FdTable *t, const Gw__FdTable *old)
{
	Gw__FdDesc **all = fd_alloc(t->n_descs_all * sizeof(*all));

	if (old->n_descs)
		memcpy(all, old->descs, old->n_descs * sizeof(*all));
	for (size_t i = 0; i < t->n_changed; i++)
		all[t->changed[i]] = t->descs[i];
	free(t->descs);
	t->descs = all;
	t->n_descs = t->n_descs_all;
	for (size_t i = 0; i < t->n_tables; i++)
		if (t->tables[i]->same)
			numbers_copy(old->tables[i], t->tables[i]);
	t->table_of = copy(old->table_of, old->n_table_of * sizeof(*old->table_of));
	t->n_table_of = old->n_table_of;
}

int fdtable_decode_update(const void *data, size_t len, uint32_t n_files, const Gw__FdTable *old, Gw__FdTable **ret, struct err *e)
{
	Gw__FdTable *t = unpack(data, len, e);
	int r;

	if (!t)
		return -EPROTO;
	r = check_difference(t, old, e);
	if (r < 0) {
		gw__fd_table__free_unpacked(t, NULL);
		return r;
	}
	complete(t, old);
	r = fdtable_validate_against(t, old, n_files, old->n_table_of, e);
	if (r == 0)
		r = fdtable_validate_update(old, t, e);
	if (r < 0) {
		fdtable_update_free(t, old);
		return r;
	}
	*ret = t;
	return 0;
}

void fdtable_update_free(Gw__FdTable *t, const Gw__FdTable *old)
{
	for (size_t i = 0; i < old->n_descs && i < t->n_descs; i++)
		if (t->descs[i] == old->descs[i])
			t->descs[i] = NULL;
	gw__fd_table__free_unpacked(t, NULL);
}
