/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_tcp.c - the source's side of the tables: TCP sockets, all of them together, since most are two ends of one connection
 *
 * What a connection is made of at the destination is decided when it is made there: sockets of the offer that have been bound, connected, accepted or
 * left alone since are *renewed*, as unix sockets are (file_unix.c).
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/file_leak.h"
#include "image/file_state.h"
#include "image/pipe.h"
#include "image/socket_options.h"
#include "image/socket_listen.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"
#include "image/udp_outside.h"
#include "kern/fdpass.h"
#include "kern/tcp_peek.h"

#define QUEUES_WORTH (256u << 10)
#define QUEUES_EXPECTED_MAX (128ull << 20)
#define HEAP_PIECE_MAX (32 << 20) /* the largest that the C library takes */

struct tcp_set {
	struct tcp_record *records;
	struct tcp_member *v; /* ascending by held */
	size_t n;
	struct tcp_member *waiting;
	size_t n_waiting;
	struct tcp_record *told; /* while the unit runs: those of v */
	uint32_t *at;         /* by description: its place in v, plus one */
	size_t n_at;
};

static bool is_tcp(const struct fdtable *t, uint32_t i)
{
	const struct fd_held *held = &t->held[i];
	const Gw__FdDesc *d = t->msg->descs[i];
	struct stat st;
	int domain;

	if (held->fd < 0 || held->settled)
		return false;
	if (held->known && !held->refused)
		return d->kind == GW__FD_KIND__FD_SOCKET && d->socket && socket_tcp_is_one(d->socket);
	if (fstat(held->fd, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	domain = socket_get_int(held->fd, SOL_SOCKET, SO_DOMAIN);
	return (domain == AF_INET || domain == AF_INET6) && socket_get_int(held->fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
		socket_get_int(held->fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

void fdtable_forget_tcp(struct fdtable *t)
{
	for (size_t i = 0; t->tcp && i < t->tcp->n; i++)
		free(t->tcp->v[i].to_send);
	if (t->tcp) {
		free(t->tcp->records);
		free(t->tcp->v);
		free(t->tcp->waiting);
		free(t->tcp->at);
		free(t->tcp->told);
	}
	free(t->tcp);
	t->tcp = NULL;
}

static int compare_held(const void *a, const void *b)
{
	int x = ((const struct tcp_member *)a)->held, y = ((const struct tcp_member *)b)->held;

	return x < y ? -1 : x > y;
}

const struct tcp_member *fdtable_find_tcp(const struct fdtable *t, uint32_t desc)
{
	return t->tcp && desc < t->tcp->n_at && t->tcp->at[desc] ? &t->tcp->v[t->tcp->at[desc] - 1] : NULL;
}

/* Descriptions are what they are from here on. */
static void note_places(const struct fdtable *t)
{
	struct tcp_set *set = t->tcp;

	set->n_at = t->msg->n_descs;
	set->at = fd_alloc(set->n_at * sizeof(*set->at));
	for (size_t i = 0; i < set->n; i++)
		set->at[set->v[i].desc] = (uint32_t)i + 1;
}

static size_t list_members(struct fdtable *t, struct tcp_member *v)
{
	size_t n = 0, n_all = t->few ? t->n_todo : t->msg->n_descs;

	for (uint32_t k = 0; k < n_all; k++) {
		uint32_t i = t->few ? t->todo[k] : k;

		if (is_tcp(t, i))
			v[n++] = (struct tcp_member){ .desc = i, .held = t->held[i].fd };
	}
	qsort(v, n, sizeof(*v), compare_held);
	return n;
}

/* From record k on, that of a descriptor or where it would be: both are ascending. */
static size_t record_of(const struct tcp_record *records, size_t n, size_t k, int held)
{
	while (k < n && (records[k].fd < held || (records[k].flags & TCP_RECORD_WAITING)))
		k++;
	return k;
}

/* Members without a record are left out: their descriptor has another owner by now. */
static void find_records(struct tcp_set *set, const struct tcp_record *records, size_t n_records)
{
	size_t n = 0, k = 0;

	for (size_t i = 0; i < set->n; i++) {
		k = record_of(records, n_records, k, set->v[i].held);
		if (k == n_records || records[k].fd != set->v[i].held)
			continue;
		set->v[n] = set->v[i];
		set->v[n++].record = &records[k];
	}
	set->n = n;
}

/* The queues of listeners: their records lie behind the listener's. */
static void list_waiting(struct tcp_set *set, const struct tcp_record *records, size_t n_records)
{
	set->waiting = fd_alloc(n_records * sizeof(*set->waiting));
	for (size_t i = 0; i < set->n; i++) {
		struct tcp_member *m = &set->v[i];

		m->waiting = set->waiting + set->n_waiting;
		if (m->held < 0)
			continue;
		for (const struct tcp_record *r = m->record + 1; r < records + n_records && r->flags & TCP_RECORD_WAITING; r++)
			m->waiting[m->n_waiting++] = (struct tcp_member){ .desc = m->desc, .held = -1, .waits = true, .record = r };
		set->n_waiting += m->n_waiting;
	}
}

static bool must_renew(const struct fdtable *t, const struct tcp_member *m)
{
	const struct fd_held *held = &t->held[m->desc];
	const Gw__FdDesc *d = t->msg->descs[m->desc];

	return held->known && !held->refused && d->socket && !socket_tcp_is_same(m, d->socket);
}

static void renew(struct fdtable *t)
{
	struct tcp_set *set = t->tcp;
	size_t n_old = t->msg->n_descs;
	cleanup_free uint8_t *anew = fd_alloc(set->n);
	cleanup_free uint32_t *map = NULL;

	for (size_t i = 0; i < set->n; i++)
		if (must_renew(t, &set->v[i])) {
			anew[i] = 1;
			if (set->v[i].other && !set->v[i].other->waits)
				anew[set->v[i].other - set->v] = 1;
			for (size_t k = 0; k < set->v[i].n_waiting; k++)
				if (set->v[i].waiting[k].other)
					anew[set->v[i].waiting[k].other - set->v] = 1;
		}
	for (size_t i = 0; i < set->n; i++) {
		struct tcp_member *m = &set->v[i];
		uint32_t was = m->desc;

		/* The other end may be one that has not been looked at yet. */
		if (!anew[i] || !t->held[was].known || t->held[was].refused)
			continue;
		if (!map)
			map = fd_alloc((n_old + set->n) * sizeof(*map));
		m->desc = fdtable_move_desc(t, was);
		map[was] = m->desc + 1;
		for (size_t k = 0; k < m->n_waiting; k++)
			m->waiting[k].desc = m->desc;
	}
	if (map)
		fdtable_renumber(t, map);
}

/* One that nobody in the unit knows of stays where it is used. */
static bool leave(struct fdtable *t, struct tcp_member *m)
{
	m->leaked = fdtable_is_leaked(t, m->desc, m->class == TCP_CLASS_LISTENING ? "listening socket" : "connection", &m->why);
	if (m->leaked)
		m->class = TCP_CLASS_FREE;
	return m->leaked;
}

/*
 * A connection with others that a process outside has open, too, would be taken from it. Looked for while the unit runs: who gets one later, in the moment before the freeze, has
 * it from a process of the unit.
 */
static void look_outside(struct fdtable *t)
{
	struct tcp_set *set = t->tcp;
	cleanup_free struct pipe_holder *holders = fd_alloc(set->n * sizeof(*holders));
	size_t n_new = 0;

	for (size_t i = 0; i < set->n; i++) {
		struct fd_held *held = &t->held[set->v[i].desc];

		if (held->scanned || set->v[i].class != TCP_CLASS_LINKED || set->v[i].kind != GW__FD_TCP_KIND__TCP_OUTSIDE)
			continue;
		holders[i].ino = held->ino;
		held->scanned = true;
		n_new++;
	}
	if (!n_new)
		return;
	fdtable_scan_outside(t, holders, set->n);
	for (size_t i = 0; i < set->n; i++) {
		if (!holders[i].pid)
			continue;
		set->v[i].why = "a process that would stay behind has this connection open, too";
		if (leave(t, &set->v[i]))
			continue;
		set->v[i].class = TCP_CLASS_REFUSED;
		set->v[i].code = "fd.socket.shared";
		set->v[i].way_out = "let one of the two close it";
		t->held[set->v[i].desc].scanned = false;
	}
}

/* Who is calling goes along, too, and nobody can begin any more. */
static int peek(const struct fdtable *t, struct tcp_record **ret, size_t *ret_n, struct err *e)
{
	return t->frozen && tcp_outside_takes_waiting() ? tcp_peek_calls(ret, ret_n, e) : tcp_peek(ret, ret_n, e);
}

static bool is_any_renewed(const struct fdtable *t)
{
	for (size_t i = 0; i < t->tcp->n; i++)
		if (must_renew(t, &t->tcp->v[i]))
			return true;
	return false;
}

/* --- while the unit runs --- */

/* Of a few: what is told of them, as of the others when numbers were matched. */
static void ask_few(struct fdtable *t)
{
	for (size_t v = 0; v < t->n_views; v++) {
		struct fd_view *view = &t->views[v];
		cleanup_free uint8_t *wanted = fd_alloc(view->n_records);

		for (size_t k = 0; k < t->n_todo; k++)
			if (t->held[t->todo[k]].view == v && t->held[t->todo[k]].slot < view->n_records)
				wanted[t->held[t->todo[k]].slot] = 1;
		if (view->watch)
			fdtable_ask_tcp(view, wanted, NULL);
	}
}

/* false: one of a few has gone. */
static bool list_told(struct fdtable *t, struct tcp_member *v, struct tcp_record *records, size_t *ret_n)
{
	size_t n_all = t->few ? t->n_todo : t->msg->n_descs;
	uint64_t net = fdtable_own_net();

	*ret_n = 0;
	if (t->few)
		ask_few(t);
	for (uint32_t k = 0; k < n_all; k++) {
		uint32_t i = t->few ? t->todo[k] : k;
		const struct fd_held *held = &t->held[i];
		const struct file_record *r = held->closed || held->settled ? NULL : fdtable_record_of(t, i);
		const struct tcp_told *told = r ? fdtable_told(t, i) : NULL;

		if (told) {
			records[*ret_n] = told->record;
			v[*ret_n] = (struct tcp_member){ .desc = i, .held = -1, .record = &records[*ret_n], .foreign = told->record.net != net };
			++*ret_n;
		} else if (t->few && r && r->digest && fdtable_is_socket(held)) {
			return false;
		}
	}
	return true;
}

/* Who waits in the queues of listeners is seen by duplicates of these only. */
static void peek_at_queues(struct fdtable *t)
{
	struct tcp_set *set = t->tcp;
	size_t n = 0, k;
	bool any = false;

	for (size_t i = 0; i < set->n; i++) {
		struct tcp_member *m = &set->v[i];

		if (m->record->state == TCP_LISTEN && m->record->waiting && fdtable_hold(t, m->desc, NULL) > 0) {
			m->held = t->held[m->desc].fd;
			any = true;
		}
	}
	if (any && tcp_peek(&set->records, &n, NULL) < 0)
		n = 0;
	for (size_t i = 0; i < set->n; i++) {
		struct tcp_member *m = &set->v[i];

		if (m->held < 0)
			continue;
		k = record_of(set->records, n, 0, m->held);
		if (k < n && set->records[k].fd == m->held)
			m->record = &set->records[k];
		else
			m->held = -1;
		fdtable_let_go(t, m->desc);
	}
	list_waiting(set, set->records, n);
	for (size_t i = 0; i < set->n; i++)
		set->v[i].held = -1;
}

/* --- */

/* Of which there is a record each. */
static bool sort_members(struct fdtable *t)
{
	socket_tcp_sort(t->tcp->v, t->tcp->n, t->tcp->waiting, t->tcp->n_waiting, t->frozen);
	for (size_t i = 0; i < t->tcp->n; i++)
		if (t->tcp->v[i].class == TCP_CLASS_LISTENING || t->held[t->tcp->v[i].desc].leaked)
			leave(t, &t->tcp->v[i]);
	if (t->few && is_any_renewed(t))
		return false;
	if (!t->frozen)
		look_outside(t);
	renew(t);
	note_places(t);
	return true;
}

static bool capture_running(struct fdtable *t)
{
	size_t n = t->few ? t->n_todo : t->msg->n_descs;
	cleanup_free struct tcp_member *v = fd_alloc(n * sizeof(*v));
	cleanup_free struct tcp_record *records = fd_alloc(n * sizeof(*records));

	fdtable_forget_tcp(t);
	if (!list_told(t, v, records, &n))
		return false;
	if (!n)
		return true;
	t->has_tcp = true;
	t->tcp = fd_alloc(sizeof(*t->tcp));
	t->tcp->v = take_ptr(v);
	t->tcp->told = take_ptr(records);
	t->tcp->n = n;
	peek_at_queues(t);
	return sort_members(t);
}

static bool capture_held(struct fdtable *t)
{
	cleanup_free struct tcp_member *v = fd_alloc((t->few ? t->n_todo : t->msg->n_descs) * sizeof(*v));
	size_t n = list_members(t, v), n_records = 0;

	fdtable_forget_tcp(t);
	if (!n)
		return true;
	t->has_tcp = true;
	t->tcp = fd_alloc(sizeof(*t->tcp));
	t->tcp->v = take_ptr(v);
	t->tcp->n = n;
	/* Without BPF connections are refused (socket_listen.c). */
	if (peek(t, &t->tcp->records, &n_records, NULL) < 0) {
		t->tcp->n = 0;
		return true;
	}
	find_records(t->tcp, t->tcp->records, n_records);
	list_waiting(t->tcp, t->tcp->records, n_records);
	return sort_members(t);
}

bool fdtable_capture_tcp(struct fdtable *t)
{
	if (t->running)
		return capture_running(t);
	return capture_held(t);
}

static bool is_same_connection(const struct tcp_record *a, const struct tcp_record *b)
{
	return a->peer_port == b->peer_port && !memcmp(a->peer, b->peer, sizeof(a->peer)) && !memcmp(a->local, b->local, sizeof(a->local));
}

/* What waits for a listener, whose record is given. Who was calling may have got an answer meanwhile. */
static int look_at_waiting(struct tcp_member *m, const struct tcp_record *records, size_t n, struct err *e)
{
	for (size_t w = 0; w < m->n_waiting; w++) {
		const struct tcp_record *r = m->record + 1;

		while (r < records + n && r->flags & TCP_RECORD_WAITING && !is_same_connection(r, m->waiting[w].record))
			r++;
		if (r == records + n || !(r->flags & TCP_RECORD_WAITING))
			return err_set(e, -EAGAIN, "a connection that waited to be accepted has gone");
		m->waiting[w].record = r;
	}
	return 0;
}

/* What is sent while the send queues are read is in one of the queues: those of the receivers are looked at afterwards. */
static int look_again(const struct fdtable *t, struct tcp_set *set, struct err *e)
{
	struct tcp_record *records = NULL;
	size_t n = 0, k = 0;
	int r = peek(t, &records, &n, e);

	for (size_t i = 0; i < set->n && r == 0; i++) {
		k = record_of(records, n, k, set->v[i].held);
		if (k == n || records[k].fd != set->v[i].held) {
			r = err_set(e, -EAGAIN, "a TCP socket has gone");
		} else {
			set->v[i].record = &records[k];
			r = look_at_waiting(&set->v[i], records, n, e);
		}
	}
	free(set->records);
	set->records = records;
	return r;
}

/* --- connections of which only numbers and queues change --- */

static size_t ask_settings(const struct fdtable *t, struct tcp_told *told, const uint32_t *descs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		told[i].fd = t->held[descs[i]].fd;
	return tcp_peek_ask(0, n) == 0 ? n : 0;
}

void fdtable_begin_settings(const struct fdtable *t, const uint32_t *descs, size_t n, struct fd_settings *ret)
{
	struct tcp_told *told = t->tcp && t->tcp->n ? tcp_peek_told() : NULL;

	ret->n = 0;
	for (size_t i = 0; told && i < n && i < FDTABLE_WATCHED; i++)
		if (t->held[descs[i]].fd >= 0 && fdtable_find_tcp(t, descs[i]))
			ret->desc[ret->n++] = descs[i];
	ret->n = ret->n ? ask_settings(t, told, ret->desc, ret->n) : 0;
	for (size_t i = 0; i < ret->n; i++) {
		ret->digest[i] = told[i].is_told ? told[i].digest : 0;
		ret->settings[i] = told[i].settings;
	}
}

void fdtable_end_settings(struct fdtable *t, const struct fd_settings *s)
{
	struct tcp_told *told = s->n ? tcp_peek_told() : NULL;
	bool asked = told && ask_settings(t, told, s->desc, s->n);

	for (size_t i = 0; i < s->n; i++)
		t->held[s->desc[i]].settings = asked && told[i].is_told && s->digest[i] && told[i].digest == s->digest[i] ? s->settings[i] : 0;
}

static bool is_simple(const struct tcp_record *r)
{
	return r->state == TCP_ESTABLISHED && !r->error && !r->shut_down && !r->flags && !r->urgent;
}

static void become_brief(struct fdtable *t, uint32_t desc)
{
	if (t->n_briefs == t->briefs_room) {
		t->briefs = realloc(t->briefs, (t->briefs_room = 2 * t->briefs_room + 64) * sizeof(*t->briefs));
		if (!t->briefs)
			abort();
	}
	t->briefs[t->n_briefs++] = desc;
	t->held[desc].brief = true;
}

/* Its numbers are all that there is to say, as long as the unit runs: what lies in its queues is read in the freeze. */
static void take_numbers(struct fdtable *t, uint32_t desc, const struct tcp_record *r, bool idle)
{
	Gw__FdSocket *s = t->msg->descs[desc]->socket;

	bytes_set(&s->tcp->received, NULL, 0);
	bytes_set(&s->tcp->unsent, NULL, 0);
	tcp_outside_capture(r, s->tcp);
	if (!t->frozen) {
		s->tcp->quiet = socket_tcp_may_be_quiet(s);
		t->held[desc].quiet = idle && s->tcp->quiet;
	}
	t->held[desc].settled = true;
	become_brief(t, desc);
}

/* 1: it is brief; 0: it is to be looked at. */
static int take_told(struct fdtable *t, struct fd_view *view, uint32_t desc, uint64_t file, const struct tcp_told *told, struct err *e)
{
	struct fd_held *held = &t->held[desc];
	const struct tcp_record *r = &told->record;
	bool idle = r->write_seq == r->snd_una && r->rcv_nxt == r->copied_seq;
	struct fd_held got;
	int ret;

	if (!told->is_told || told->file != file || told->settings != held->settings || !is_simple(r))
		return 0;
	held->settled = false;
	if (idle || !t->frozen) {
		take_numbers(t, desc, r, idle);
		return 1;
	}
	t->holding = true;
	ret = fdtable_fetch(view, fdtable_number_of(t, desc)->fd, &got, e);
	if (ret <= 0)
		return ret < 0 ? ret : err_set(e, -EAGAIN, "pid %d: a descriptor of it has gone", (int)view->pid);
	held->fd = got.fd;
	become_brief(t, desc);
	return 1;
}

int fdtable_take_brief(struct fdtable *t, struct fd_view *view, const struct fd_changed *v, size_t n, uint8_t *ret_taken, struct err *e)
{
	struct tcp_told *told = n ? tcp_peek_told() : NULL;
	int r = 0;

	for (size_t from = 0; told && from < n && r >= 0; from += TCP_ASKED_MAX) {
		size_t part = MIN(n - from, TCP_ASKED_MAX);

		for (size_t i = 0; i < part; i++)
			told[i].fd = (int)view->records[v[from + i].record].fd;
		if (tcp_peek_ask(view->records[0].process, part) < 0)
			return 0;
		for (size_t i = 0; i < part && r >= 0; i++) {
			r = take_told(t, view, v[from + i].desc, view->records[v[from + i].record].file, &told[i], e);
			ret_taken[from + i] = r > 0;
		}
	}
	return MIN(r, 0);
}

static bool is_listener(const Gw__FdDesc *d)
{
	return d->kind == GW__FD_KIND__FD_SOCKET && d->socket && socket_listen_is_called(d->socket);
}

static void list_waiting_ends(const Gw__FdSocket *s, fd_end_fn *add, void *arg)
{
	for (size_t i = 0; i < s->n_waiting; i++) {
		const Gw__FdTcpWaiting *w = s->waiting[i];

		if (w->tcp && w->tcp->numbers && w->tcp->numbers->state != TCP_CLOSE)
			add(arg, IPPROTO_TCP, (const void *)w->peer.data, (const void *)w->local.data);
	}
}

static void list_end(const Gw__FdTable *t, const Gw__FdDesc *d, fd_end_fn *add, void *arg)
{
	if (is_listener(d)) {
		add(arg, IPPROTO_TCP, (const void *)d->socket->local.data, NULL);
		list_waiting_ends(d->socket, add, arg);
	} else if (d->kind == GW__FD_KIND__FD_SOCKET && tcp_outside_is_one(d->socket) && d->socket->tcp->numbers->state != TCP_CLOSE) {
		add(arg, IPPROTO_TCP, (const void *)d->socket->local.data, (const void *)d->socket->peer.data);
	} else if (udp_outside_has_end(t, d)) {
		add(arg, IPPROTO_UDP, (const void *)d->socket->local.data, d->socket->peer.len ? (const void *)d->socket->peer.data : NULL);
	}
}

void fdtable_list_ends(const Gw__FdTable *t, fd_end_fn *add, void *arg)
{
	for (size_t i = 0; i < t->n_descs; i++)
		list_end(t, t->descs[i], add, arg);
}

void fdtable_list_fresh_ends(struct fdtable *t, fd_end_fn *add, void *arg)
{
	bool few = t->ends_listed && t->few;
	size_t n = few ? t->n_todo : t->msg->n_descs;

	for (size_t k = 0; k < n; k++)
		list_end(t->msg, t->msg->descs[few ? t->todo[k] : k], add, arg);
	t->ends_listed = true;
}

void fdtable_list_callers(const Gw__FdTable *t, fd_end_fn *add, void *arg)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_SOCKET && d->socket && d->socket->tcp && d->socket->tcp->kind == GW__FD_TCP_KIND__TCP_CONNECTING)
			add(arg, IPPROTO_TCP, (const void *)d->socket->local.data, (const void *)d->socket->peer.data);
	}
}

bool fdtable_listens(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_descs; i++)
		if (is_listener(t->descs[i]) || udp_outside_has_end(t, t->descs[i]))
			return true;
	return false;
}

int fdtable_are_listeners_calm(const struct fdtable *t, bool queues)
{
	struct tcp_told *told = fdtable_reader() ? tcp_peek_told() : NULL;

	for (uint32_t i = 0; told && i < t->msg->n_descs; i++) {
		const struct fd_view *view = &t->views[t->held[i].view];

		if (!is_listener(t->msg->descs[i]) || t->held[i].loose)
			continue;
		told[0].fd = fdtable_number_of(t, i)->fd;
		if (!view->n_known || tcp_peek_ask(view->known[0].process, 1) < 0)
			return -ENOTSUP;
		if (told[0].is_told && (told[0].record.half_open || (queues && told[0].record.waiting)))
			return 0;
	}
	return told ? 1 : -ENOTSUP;
}

size_t fdtable_hold_listeners(const struct fdtable *t, int **ret)
{
	size_t n = 0;

	*ret = fd_alloc(t->msg->n_descs * sizeof(**ret));
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const struct fd_held *held = &t->held[i];
		int fd = is_listener(t->msg->descs[i]) && !held->loose ? pidfd_get(t->views[held->view].pidfd, fdtable_number_of(t, i)->fd, NULL) : -1;

		if (fd >= 0)
			(*ret)[n++] = fd;
	}
	return n;
}

static int read_waiting(struct fdtable *t, struct tcp_set *set, struct err *e)
{
	struct tcp_data data = { 0 };
	bool any = false;
	int r;

	for (size_t i = 0; i < set->n && !any; i++)
		any = socket_tcp_has_waiting_data(&set->v[i]);
	r = any ? tcp_peek_data(&data.bytes, &data.len, e) : 0;
	for (size_t i = 0; i < set->n && r == 0; i++) {
		Gw__FdSocket *s = t->msg->descs[set->v[i].desc]->socket;

		if (s && set->v[i].n_waiting && set->v[i].class == TCP_CLASS_LISTENING)
			r = socket_tcp_read_waiting(&set->v[i], s, t->msg, &data, e);
	}
	free(data.bytes);
	return r;
}

uint64_t fdtable_expect_queues(const struct fdtable *t)
{
	uint64_t all = 0;
	void *p;

	for (size_t i = 0; t->tcp && i < t->tcp->n; i++)
		all += socket_tcp_queued(&t->tcp->v[i]);
	all = MIN(all, QUEUES_EXPECTED_MAX);
	if (all < QUEUES_WORTH)
		return 0;
	/* Memory that is given back to the kernel and touched again costs several times what is done with it. */
	mallopt(M_MMAP_THRESHOLD, HEAP_PIECE_MAX);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	p = malloc(all);
	if (p)
		explicit_bzero(p, all);
	free(p);
	return all;
}

int fdtable_capture_tcp_queues(struct fdtable *t, struct err *e)
{
	struct tcp_set *set = t->frozen ? t->tcp : NULL;
	bool again = false;
	int r = 0;

	for (size_t i = 0; set && i < set->n && r >= 0; i++) {
		r = socket_tcp_read_to_send(&set->v[i], e);
		/* What was on its way when packets began to be held is there by now. */
		again = again || r > 0 || set->v[i].n_waiting || (set->v[i].class == TCP_CLASS_LINKED && set->v[i].kind == GW__FD_TCP_KIND__TCP_OUTSIDE);
	}
	if (again && r >= 0)
		r = look_again(t, set, e);
	for (size_t i = 0; set && i < set->n && r >= 0; i++) {
		Gw__FdSocket *s = t->msg->descs[set->v[i].desc]->socket;

		if (s && s->tcp)
			r = socket_tcp_read_received(&set->v[i], s, e);
	}
	return r < 0 || !set ? MIN(r, 0) : read_waiting(t, set, e);
}
