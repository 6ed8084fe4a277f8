/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_codec.c - the tables as bytes: whole in the offer, in the freeze what differs from that; see file.h and wire/proto/file.proto */
#include <errno.h>
#include <netinet/tcp.h>

#include "base/util.h"
#include "image/file_place.h"
#include "image/file_state.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"

#define ENCODED_MAX (256u << 20)
#define BEHIND_MIN 4096u

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
		t->held[i].offered_settings = t->held[i].image_settings = fdtable_digest_settings(t->msg->descs[i]);
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
	if (r == 0 && t->learned)
		fdtable_learn_differences(t);
	return r;
}

/* --- the difference --- */

/* What has been looked at may have changed in any way; of what has been settled by its record position and flags are all. */
static bool has_changed(const struct fdtable *t, size_t i)
{
	const struct fd_held *held = &t->held[i];
	const Gw__FdDesc *d = t->msg->descs[i];

	/* A look at the frozen unit may have made it, and the next one found nothing new about it. */
	if (!held->offered)
		return true;
	if (t->few || held->same)
		return t->differs[i];
	return !held->offered || !held->settled || d->flags != held->offered_flags || d->position != held->offered_position;
}

/* What travels of connections about which nothing but numbers and queues is to be said. */
struct brief {
	Gw__FdDesc desc;
	Gw__FdSocket socket;
	Gw__FdTcp tcp;
};

static Gw__FdDesc *make_brief(const Gw__FdDesc *d, struct brief *b)
{
	const Gw__FdTcp *p = d->socket->tcp;

	gw__fd_desc__init(&b->desc);
	gw__fd_socket__init(&b->socket);
	gw__fd_tcp__init(&b->tcp);
	b->desc.kind = d->kind;
	b->desc.brief = true;
	b->desc.socket = &b->socket;
	b->socket.tcp = &b->tcp;
	b->tcp.numbers = p->numbers;
	b->tcp.received = p->received;
	b->tcp.unsent = p->unsent;
	return &b->desc;
}

/* Its state may have changed since it was looked at first. */
static bool is_brief(const struct fd_held *held, const Gw__FdDesc *d)
{
	const Gw__FdTcp *p = held->brief ? d->socket->tcp : NULL;

	return p && !p->sent_end && !p->got_end && !p->deaf && !p->error && !p->urgent;
}

/* Packing copies bytes once for each message that they are in. */
static bool has_large_queues(const Gw__FdDesc *d)
{
	const Gw__FdTcp *p = d->socket ? d->socket->tcp : NULL;

	return p && p->received.len + p->unsent.len >= BEHIND_MIN;
}

static size_t count_large_queues(const Gw__FdTable *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_descs; i++)
		n += has_large_queues(m->descs[i]);
	return n;
}

static uint32_t put_behind(ProtobufCBinaryData *data, struct fd_queues *queues)
{
	uint32_t len = (uint32_t)data->len;

	if (len)
		queues->v[queues->n++] = (struct iovec){ data->data, len };
	*data = (ProtobufCBinaryData){ 0 };
	return len;
}

/* b: a brief one already, or to be filled in. */
static Gw__FdDesc *put_queues_behind(const Gw__FdDesc *d, struct brief *b, struct fd_queues *queues)
{
	if (d != &b->desc) {
		b->desc = *d;
		b->socket = *d->socket;
		b->tcp = *d->socket->tcp;
		b->desc.socket = &b->socket;
		b->socket.tcp = &b->tcp;
	}
	b->tcp.received_behind = put_behind(&b->tcp.received, queues);
	b->tcp.unsent_behind = put_behind(&b->tcp.unsent, queues);
	return &b->desc;
}

int fdtable_encode_update(const struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct fd_queues *ret_queues, struct err *e)
{
	size_t n = t->msg->n_descs, n_changed = 0, n_briefs = 0, n_large = count_large_queues(t->msg);
	cleanup_free Gw__FdDesc **descs = fd_alloc(n * sizeof(*descs));
	cleanup_free uint32_t *changed = fd_alloc(n * sizeof(*changed));
	cleanup_free struct brief *briefs = fd_alloc((t->n_briefs + n_large) * sizeof(*briefs));
	cleanup_free Gw__FdNumbers **tables = fd_alloc(t->msg->n_tables * sizeof(*tables));
	Gw__FdNumbers same = GW__FD_NUMBERS__INIT;
	Gw__FdTable m = *t->msg;

	same.same = true;
	*ret_queues = (struct fd_queues){ fd_alloc(2 * n_large * sizeof(*ret_queues->v)), 0 };
	for (size_t i = 0; i < n; i++) {
		Gw__FdDesc *d = t->msg->descs[i];
		struct brief *b = &briefs[n_briefs];

		if (!has_changed(t, i))
			continue;
		if (is_brief(&t->held[i], d))
			d = make_brief(d, b);
		if (has_large_queues(d))
			d = put_queues_behind(d, b, ret_queues);
		n_briefs += d == &b->desc;
		descs[n_changed] = d;
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

/* A connection that is idle, and in the offer but for its numbers. */
static bool may_go_ahead(const struct fdtable *t, size_t i)
{
	const struct fd_held *held = &t->held[i];
	const Gw__FdDesc *d = t->msg->descs[i];

	return t->differs[i] && held->offered && held->known && held->quiet && held->as_offered && !held->changed && !held->refused && tcp_outside_is_one(d->socket) &&
		socket_tcp_can_be_quiet(d->socket) && !d->owner && !d->signal && d->flags == held->offered_flags && d->position == held->offered_position;
}

int fdtable_encode_ahead(struct fdtable *t, uint8_t **ret_data, size_t *ret_len, size_t *ret_n, struct err *e)
{
	size_t n = t->learned && t->differs_room >= t->msg->n_descs ? t->msg->n_descs : 0, n_told = 0;
	cleanup_free Gw__FdDesc **descs = fd_alloc(n * sizeof(*descs));
	cleanup_free uint32_t *told = fd_alloc(n * sizeof(*told));
	cleanup_free struct brief *briefs = NULL;
	Gw__FdTable m = GW__FD_TABLE__INIT;

	for (size_t i = 0; i < n; i++)
		if (may_go_ahead(t, i))
			told[n_told++] = (uint32_t)i;
	briefs = fd_alloc(n_told * sizeof(*briefs));
	for (size_t k = 0; k < n_told; k++) {
		struct fd_held *held = &t->held[told[k]];

		descs[k] = make_brief(t->msg->descs[told[k]], &briefs[k]);
		held->offered_digest = fdtable_digest_desc(held, t->msg->descs[told[k]]);
		t->differs[told[k]] = 0;
	}
	m.difference = true;
	m.n_descs_all = (uint32_t)t->msg->n_descs;
	m.descs = descs;
	m.changed = told;
	m.n_descs = m.n_changed = *ret_n = n_told;
	return pack(&m, ret_data, ret_len, e);
}

/* --- what has come behind the message --- */

static Gw__FdTcp *tcp_of(const Gw__FdDesc *d)
{
	return d && d->socket ? d->socket->tcp : NULL;
}

static bool is_behind(const Gw__FdDesc *d)
{
	const Gw__FdTcp *p = tcp_of(d);

	return p && (p->received_behind || p->unsent_behind);
}

static void drop_behind(const Gw__FdDesc *d)
{
	Gw__FdTcp *p = tcp_of(d);

	if (p && p->received_behind)
		p->received = (ProtobufCBinaryData){ 0 };
	if (p && p->unsent_behind)
		p->unsent = (ProtobufCBinaryData){ 0 };
}

static bool take_behind(ProtobufCBinaryData *data, uint32_t len, const uint8_t **at, size_t *left)
{
	if (len > *left)
		return false;
	if (len)
		*data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)*at };
	*at += len;
	*left -= len;
	return true;
}

static int check_behind(const Gw__FdTable *t, struct err *e)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdTcp *p = tcp_of(t->descs[i]);

		if (p && ((p->received_behind && p->received.len) || (p->unsent_behind && p->unsent.len)))
			return err_set(e, -EPROTO, "descriptor table: queues in two places");
	}
	return 0;
}

static int take_all_behind(const Gw__FdTable *t, const uint8_t *queues, size_t left, struct err *e)
{
	bool all = true;

	for (size_t i = 0; i < t->n_descs && all; i++) {
		Gw__FdTcp *p = tcp_of(t->descs[i]);

		all = !p || (take_behind(&p->received, p->received_behind, &queues, &left) && take_behind(&p->unsent, p->unsent_behind, &queues, &left));
	}
	if (all)
		return 0;
	for (size_t i = 0; i < t->n_descs; i++)
		drop_behind(t->descs[i]);
	return err_set(e, -EPROTO, "descriptor table: queues that have not come");
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
	for (size_t i = 0; i < t->n_descs && r == 0; i++)
		if (t->descs[i]->brief || is_behind(t->descs[i]))
			r = err_set(e, -EPROTO, "descriptor table: description %zu is too brief", i);
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

/* Whether what a brief one leaves out is known. */
static bool may_be_brief(const Gw__FdDesc *d, const Gw__FdTable *old, uint32_t i)
{
	const Gw__FdDesc *was = i < old->n_descs ? old->descs[i] : NULL;

	return was && was->socket && was->socket->tcp && was->socket->tcp->kind == GW__FD_TCP_KIND__TCP_OUTSIDE && d->kind == was->kind && d->socket && d->socket->tcp &&
		d->socket->tcp->numbers;
}

static int check_difference(const Gw__FdTable *t, const Gw__FdTable *old, struct err *e)
{
	size_t at = 0;

	if (!t->difference || t->n_table_of || t->n_changed != t->n_descs || t->n_descs_all < old->n_descs ||
	    t->n_descs_all > FDTABLE_NUMBERS_MAX || t->n_tables != old->n_tables)
		return err_set(e, -EPROTO, "descriptor table: not a difference to what was offered");
	for (uint32_t i = 0; i < t->n_descs_all; i++) {
		if (at < t->n_changed && t->changed[at] == i && t->descs[at]->brief && !may_be_brief(t->descs[at], old, i))
			return err_set(e, -EPROTO, "descriptor table: description %u is too brief", i);
		else if (at < t->n_changed && t->changed[at] == i)
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

static bool is_idle(const Gw__FdTcp *p)
{
	return p->numbers->state == TCP_ESTABLISHED && p->numbers->send == p->numbers->sent && !p->received.len && !p->unsent.len;
}

/* The whole of it: what it has in common with the offer's belongs to that. */
static Gw__FdDesc *expand(Gw__FdDesc *d, const Gw__FdDesc *was)
{
	Gw__FdTcp *p = fd_alloc(sizeof(*p)), *from = d->socket->tcp;
	Gw__FdSocket *s = fd_alloc(sizeof(*s));
	Gw__FdDesc *whole = fd_alloc(sizeof(*whole));

	*p = *was->socket->tcp;
	p->numbers = from->numbers;
	p->received = from->received;
	p->unsent = from->unsent;
	p->received_behind = from->received_behind;
	p->unsent_behind = from->unsent_behind;
	p->quiet = p->quiet && is_idle(p);
	from->numbers = NULL;
	from->received = from->unsent = (ProtobufCBinaryData){ 0 };
	gw__fd_desc__free_unpacked(d, NULL);
	*s = *was->socket;
	s->tcp = p;
	*whole = *was;
	whole->socket = s;
	whole->brief = true;
	return whole;
}

/* Gives back what is the offer's, so that the rest can be freed. */
static void shrink(Gw__FdDesc *d)
{
	Gw__FdSocket *s = d->socket;
	Gw__FdTcp *p = s->tcp, own = *p;

	gw__fd_desc__init(d);
	gw__fd_socket__init(s);
	gw__fd_tcp__init(p);
	p->numbers = own.numbers;
	p->received = own.received;
	p->unsent = own.unsent;
	s->tcp = p;
	d->socket = s;
}

/* Makes a checked difference the whole table. */
static void complete(Gw__FdTable *t, const Gw__FdTable *old)
{
	Gw__FdDesc **all = fd_alloc(t->n_descs_all * sizeof(*all));

	if (old->n_descs)
		memcpy(all, old->descs, old->n_descs * sizeof(*all));
	for (size_t i = 0; i < t->n_changed; i++)
		all[t->changed[i]] = t->descs[i]->brief ? expand(t->descs[i], old->descs[t->changed[i]]) : t->descs[i];
	free(t->descs);
	t->descs = all;
	t->n_descs = t->n_descs_all;
	for (size_t i = 0; i < t->n_tables; i++)
		if (t->tables[i]->same)
			numbers_copy(old->tables[i], t->tables[i]);
	t->table_of = copy(old->table_of, old->n_table_of * sizeof(*old->table_of));
	t->n_table_of = old->n_table_of;
}

int fdtable_decode_update(const void *data, size_t len, const void *queues, size_t queues_len, uint32_t n_files, const Gw__FdTable *old, Gw__FdTable **ret,
			  struct err *e)
{
	Gw__FdTable *t = unpack(data, len, e);
	int r;

	if (!t)
		return -EPROTO;
	r = check_difference(t, old, e);
	if (r == 0)
		r = check_behind(t, e);
	if (r == 0)
		r = take_all_behind(t, queues, queues_len, e);
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

/* Each is idle, was offered, and is nothing but that. */
static int check_ahead(const Gw__FdTable *t, const Gw__FdTable *old, struct err *e)
{
	if (!t->difference || t->n_changed != t->n_descs || t->n_tables || t->n_table_of || t->n_pipes || t->n_ptys || t->n_locks)
		return err_set(e, -EPROTO, "connections that go ahead: something else");
	for (size_t i = 0; i < t->n_changed; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if ((i && t->changed[i - 1] >= t->changed[i]) || !d->brief || is_behind(d) || !may_be_brief(d, old, t->changed[i]) ||
		    !socket_tcp_may_go_ahead(old->descs[t->changed[i]]->socket, d->socket->tcp))
			return err_set(e, -EPROTO, "connections that go ahead: description %u cannot", t->changed[i]);
	}
	return 0;
}

int fdtable_decode_ahead(const void *data, size_t len, const Gw__FdTable *old, Gw__FdTable **ret, struct err *e)
{
	Gw__FdTable *t = unpack(data, len, e);
	int r = t ? check_ahead(t, old, e) : -EPROTO;

	if (r == 0)
		*ret = t;
	else if (t)
		gw__fd_table__free_unpacked(t, NULL);
	return r;
}

void fdtable_update_free(Gw__FdTable *t, const Gw__FdTable *old)
{
	for (size_t i = 0; i < old->n_descs && i < t->n_descs; i++)
		if (t->descs[i] == old->descs[i])
			t->descs[i] = NULL;
	for (size_t i = 0; i < t->n_descs; i++) {
		drop_behind(t->descs[i]);
		if (t->descs[i] && t->descs[i]->brief)
			shrink(t->descs[i]);
	}
	gw__fd_table__free_unpacked(t, NULL);
}
