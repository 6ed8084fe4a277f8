/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_tcp_restore.c - TCP connections at the destination; see socket_tcp.h */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/file.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"
#include "image/tcp_repair.h"
#include "kern/fdpass.h"

#define SETTLE_MS 200
#define OTHER_PATCH (-2) /* in the place of the other end: something of this socket, which is whole otherwise, is to be set in the freeze */

/* --- making connections --- */

/* One end in the making. */
struct end {
	int fd;
	const Gw__FdSocket *s;   /* whose options it has: of an end that is nobody's, the other one's */
	const ProtobufCBinaryData *local, *peer;
	uint32_t send, receive;  /* the next numbers */
	uint32_t window;         /* that it has promised */
	uint32_t peer_window;
};

static uint32_t window_of(const Gw__FdSocket *s, int fd)
{
	uint32_t most = 65535u << (s->tcp->options & TCPI_OPT_WSCALE ? s->tcp->receive_scale : 0);
	int size = socket_get_int(fd, SOL_SOCKET, SO_RCVBUF);

	return MIN(most, MAX((uint32_t)MAX(size, 0) / 2, 65535u));
}

static int connect_end(const struct end *x, bool reversed, struct err *e)
{
	const struct tcp_repair_window w = { .snd_wl1 = x->receive, .snd_wnd = x->peer_window, .max_window = x->peer_window, .rcv_wnd = x->window,
		.rcv_wup = x->receive };
	int segment = (int)MIN(MAX(x->s->tcp->segment_bytes, TCP_SEGMENT_MIN), TCP_SEGMENT_MAX), r;

	/* Congestion control that paces its packets stalls on what it has not seen begin; the real one comes with the late options. */
	(void)!setsockopt(x->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	r = socket_set_int(x->fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (r == 0)
		r = socket_set_int(x->fd, IPPROTO_TCP, TCP_MAXSEG, segment);
	if (r == 0 && bind(x->fd, (void *)x->local->data, (socklen_t)x->local->len) < 0)
		r = -errno;
	if (r == 0)
		r = tcp_repair_set_numbers(x->fd, x->send, x->receive);
	if (r == 0 && connect(x->fd, (void *)x->peer->data, (socklen_t)x->peer->len) < 0)
		r = -errno;
	if (r == -EADDRNOTAVAIL || r == -EADDRINUSE)
		return err_set(e, r, "TCP: a connection between the same two ports exists on this host");
	if (r == 0)
		r = tcp_repair_set_settled(x->fd, x->s->tcp, reversed, x->s->tcp->segment_bytes);
	if (r == 0)
		r = tcp_repair_set_window(x->fd, &w);
	if (r == 0)
		r = socket_set_int(x->fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	if (r < 0)
		return err_sys(e, r, "TCP: making a connection");
	tcp_repair_compute_segments(x->fd);
	socket_set_int(x->fd, IPPROTO_TCP, TCP_MAXSEG, (int)x->s->tcp->user_segment_bytes);
	/* So that a listener with the same port can listen. */
	socket_set_int(x->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return 0;
}

/* b is a's other end, or the same one when it is connected to itself. */
static int connect_both(struct end *a, struct end *b, bool reversed, struct err *e)
{
	int r;

	if (getrandom(&a->send, sizeof(a->send), 0) < 0 || getrandom(&b->send, sizeof(b->send), 0) < 0)
		return err_sys(e, -errno, "getrandom");
	a->receive = b->send;
	b->receive = a->send;
	a->window = b->peer_window = window_of(a->s, a->fd);
	b->window = a->peer_window = window_of(b->s, b->fd);
	r = connect_end(a, false, e);
	return r < 0 || a == b ? r : connect_end(b, reversed, e);
}

static int set_late(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR, e);

	return r < 0 ? r : socket_options_set(fd, s->options, s->n_options, OPTIONS_LATE, e);
}

static int open_lonely(const Gw__FdSocket *s, int fd, int *ret_other, struct err *e)
{
	struct end a = { .fd = fd, .s = s, .local = &s->local, .peer = &s->peer }, b = { .s = s, .local = &s->peer, .peer = &s->local };
	int r;

	b.fd = socket((int)s->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (b.fd < 0)
		return err_sys(e, -errno, "socket");
	r = connect_both(&a, &b, true, e);
	if (r < 0)
		close(b.fd);
	else
		*ret_other = b.fd;
	return r;
}

/* That may be all. But for address reuse: a listener may yet have to begin. */
static int open_quiet(const Gw__FdSocket *s, int fd, int *other, struct err *e)
{
	if (!socket_tcp_can_be_quiet(s))
		return 0;
	if (socket_options_int(s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR) != 1)
		*other = OTHER_PATCH;
	return socket_options_set(fd, s->options, s->n_options, OPTIONS_LATE, e);
}

int socket_tcp_open(const Gw__FdTable *t, size_t from, const int *fds, int *others, struct err *e)
{
	int r = 0;

	for (size_t i = from; i < t->n_descs && r == 0; i++) {
		const Gw__FdSocket *s = socket_tcp_linked(t, i);
		size_t other = s && s->tcp->other ? s->tcp->other - 1 : i;
		struct end a = { .fd = fds[i], .s = s }, b = { .fd = fds[other] };

		if (s && s->tcp->kind == GW__FD_TCP_KIND__TCP_HALF)
			r = open_lonely(s, fds[i], &others[i], e);
		else if (tcp_outside_is_one(s) && (r = tcp_outside_open(s, fds[i], from == 0, e)) > 0)
			others[i] = OTHER_PATCH, r = 0;
		if (!s || s->tcp->kind != GW__FD_TCP_KIND__TCP_PAIR || other < i)
			continue;
		b.s = t->descs[other]->socket;
		a.local = b.peer = &s->local;
		a.peer = b.local = &s->peer;
		/* Each socket's own kind of address. */
		b.local = &b.s->local;
		b.peer = &b.s->peer;
		r = connect_both(&a, other == i ? &a : &b, false, e);
		if (r == 0)
			r = open_quiet(s, fds[i], &others[i], e);
		if (r == 0 && other != i)
			r = open_quiet(b.s, fds[other], &others[other], e);
	}
	return r;
}

int socket_tcp_go_ahead(const Gw__FdTable *t, const Gw__FdTable *news, const int *fds, int *others, struct err *e)
{
	int r = 0;

	for (size_t k = 0; k < news->n_changed && r >= 0; k++) {
		uint32_t i = news->changed[k];
		bool was_idle = tcp_outside_is_idle(t->descs[i]->socket);

		r = tcp_outside_open_again(t->descs[i]->socket, news->descs[k]->socket->tcp, fds[i], e);
		if (!was_idle)
			others[i] = r > 0 ? OTHER_PATCH : -1;
	}
	return MIN(r, 0);
}

/* --- the freeze --- */

/* What was set when it was opened must not keep anything back. */
static void clear_way(int fd)
{
	int none = 0;

	socket_set_int(fd, IPPROTO_TCP, TCP_CORK, 0);
	(void)!setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none));
}

/* Whether all that the other one has sent has come. */
static void wait_for(int fd, short event)
{
	struct pollfd p = { .fd = fd, .events = event };

	(void)!poll(&p, 1, SETTLE_MS);
}

static int send_received(int from, int to, const Gw__FdTcp *p, struct err *e)
{
	size_t urgent = p->urgent ? p->urgent - 1 : p->received.len;
	const uint8_t *data = p->received.data;
	int r;
	char byte;

	if (!p->received.len)
		return 0;
	tcp_make_room(from, p->received.len);
	socket_set_int(from, IPPROTO_TCP, TCP_NODELAY, 1);
	r = tcp_send_all(from, data, urgent, 0);
	if (r == 0 && p->urgent)
		r = tcp_send_all(from, data + urgent, 1, MSG_OOB);
	if (r == 0 && p->urgent)
		r = tcp_send_all(from, data + urgent + 1, p->received.len - urgent - 1, 0);
	if (r < 0)
		return err_sys(e, r, "TCP: filling its queue");
	wait_for(to, p->urgent ? POLLPRI : POLLIN);
	if (p->urgent_read)
		(void)!recv(to, &byte, 1, MSG_OOB | MSG_DONTWAIT);
	return 0;
}

static int send_unsent(int fd, const Gw__FdTcp *p, struct err *e)
{
	int r, size = socket_get_int(fd, SOL_SOCKET, SO_SNDBUF), locks = socket_get_int(fd, SOL_SOCKET, SO_BUF_LOCK);

	if (!p->unsent.len)
		return 0;
	tcp_make_room(fd, p->unsent.len);
	r = tcp_send_all(fd, p->unsent.data, p->unsent.len, 0);
	if (r < 0)
		return err_sys(e, r, "TCP: what it had not sent");
	socket_set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, size / 2);
	socket_set_int(fd, SOL_SOCKET, SO_BUF_LOCK, locks);
	return 0;
}

static void end_streams(const Gw__FdTcp *p, int fd)
{
	if (p->sent_end)
		shutdown(fd, SHUT_WR);
	if (p->deaf)
		shutdown(fd, SHUT_RD);
}

/* What has come is acknowledged now, not in 40 ms. */
static void acknowledge(const Gw__FdSocket *s, int fd)
{
	socket_set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
	socket_options_set_one(fd, s->options, s->n_options, IPPROTO_TCP, TCP_QUICKACK, NULL);
}

static int fill_pair(const Gw__FdSocket *a, int a_fd, const Gw__FdSocket *b, int b_fd, struct err *e)
{
	int r;

	clear_way(a_fd);
	clear_way(b_fd);
	r = send_received(b_fd, a_fd, a->tcp, e);
	if (r == 0 && a != b)
		r = send_received(a_fd, b_fd, b->tcp, e);
	if (r == 0)
		r = set_late(a, a_fd, e);
	if (r == 0 && a != b)
		r = set_late(b, b_fd, e);
	if (r == 0)
		r = send_unsent(a_fd, a->tcp, e);
	if (r == 0 && a != b)
		r = send_unsent(b_fd, b->tcp, e);
	if (r < 0)
		return r;
	end_streams(a->tcp, a_fd);
	if (a != b)
		end_streams(b->tcp, b_fd);
	acknowledge(a, a_fd);
	acknowledge(b, b_fd);
	return 0;
}

/* Both ends have ended their streams and heard of it, or the connection was reset. */
static int end_it(const Gw__FdTcp *p, int fd, int *other, struct err *e)
{
	struct linger at_once = { 1, 0 };

	if (p->error || !p->got_end) {
		setsockopt(*other, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		close_fdp(other);
	} else {
		socket_tcp_forget(*other);
		close_fdp(other);
		shutdown(fd, SHUT_WR);
	}
	wait_for(fd, POLLHUP);
	if (tcp_state_of(fd) != TCP_CLOSE)
		return err_set(e, -EIO, "TCP: a connection that has ended does not end here");
	if (!p->error)
		socket_get_int(fd, SOL_SOCKET, SO_ERROR);
	return 0;
}

static int fill_lonely(const Gw__FdSocket *s, int fd, int *other, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	int r = 0;

	/* Both sockets of a connection that has ended are made one after the other. */
	if (p->kind == GW__FD_TCP_KIND__TCP_ENDED)
		r = open_lonely(s, fd, other, e);
	if (r == 0)
		r = send_received(*other, fd, p, e);
	if (r == 0)
		r = set_late(s, fd, e);
	if (r < 0)
		return r;
	if (p->got_end) {
		shutdown(*other, SHUT_WR);
		wait_for(fd, POLLRDHUP);
	}
	if (p->kind == GW__FD_TCP_KIND__TCP_ENDED)
		return end_it(p, fd, other, e);
	close_fdp(other);
	r = send_unsent(fd, p, e);
	end_streams(p, fd);
	return r;
}

/* connect(2) without waiting; fine: the error that is none. */
static int begin_call(int fd, const ProtobufCBinaryData *peer, int fine)
{
	return connect(fd, (void *)peer->data, (socklen_t)peer->len) < 0 && errno != fine ? -errno : 0;
}

/* Returns what it was. */
static int put_mark(int fd, int mark)
{
	int before = socket_get_int(fd, SOL_SOCKET, SO_MARK);

	if (mark != before)
		socket_set_int(fd, SOL_SOCKET, SO_MARK, mark);
	return before;
}

/*
 * As for connect(2), to a listener that is here too. Whoever calls its address from this host may be led to where it was until now: what these two say is marked as local,
 * whatever the address.
 */
static int call_here(int fd, int listener, const ProtobufCBinaryData *peer)
{
	int mark = (int)tcp_forge_mark(), was = mark ? put_mark(fd, mark) : 0, listener_was = mark ? put_mark(listener, mark) : 0;
	int r = begin_call(fd, peer, EINPROGRESS);

	if (r == 0) {
		wait_for(fd, POLLOUT);
		r = begin_call(fd, peer, EISCONN); /* now it says how it went */
	}
	if (mark) {
		put_mark(fd, was);
		put_mark(listener, listener_was);
	}
	return r;
}

/* The kernel's own handshake; listener: that answers, and it must come to its end, or -1. */
static int call(int fd, const ProtobufCBinaryData *local, const ProtobufCBinaryData *peer, int listener, struct err *e)
{
	int flags = fcntl(fd, F_GETFL), r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);

	/* A bind in repair mode asks for no port. */
	if (r == 0 && bind(fd, (void *)local->data, (socklen_t)local->len) < 0)
		r = -errno;
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	if (r < 0)
		return err_sys(e, r, "TCP: binding a socket that connects");
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	r = listener >= 0 ? call_here(fd, listener, peer) : begin_call(fd, peer, EINPROGRESS);
	fcntl(fd, F_SETFL, flags);
	return r < 0 ? err_sys(e, r, "TCP: connecting again") : 0;
}

/* Whatever becomes of it. */
static int call_again(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = call(fd, &s->local, &s->peer, -1, e);

	if (r == 0)
		r = set_late(s, fd, e);
	if (r == 0 && s->tcp->error)
		wait_for(fd, POLLHUP);
	return r;
}

static int call_listener(const Gw__FdSocket *s, int fd, int listener, struct err *e)
{
	int r = call(fd, &s->local, &s->peer, listener, e);

	if (r == 0)
		r = set_late(s, fd, e);
	if (r == 0)
		r = send_unsent(fd, s->tcp, e);
	if (r == 0)
		end_streams(s->tcp, fd);
	return r;
}

/* A client that has called, perhaps said something, and closed. */
static int call_and_close(uint32_t family, const Gw__FdTcpWaiting *w, int listener, struct err *e)
{
	cleanup_close int fd = socket((int)family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int r = fd < 0 ? err_sys(e, -errno, "socket") : call(fd, &w->local, &w->peer, listener, e);

	if (r < 0 || !w->tcp)
		return r;
	tcp_make_room(fd, w->tcp->received.len);
	r = tcp_send_all(fd, w->tcp->received.data, w->tcp->received.len, 0);
	return r < 0 ? err_sys(e, r, "TCP: what a client has said before it closed") : 0;
}

static int fill_listener(const Gw__FdTable *t, const Gw__FdSocket *s, int listener, const int *fds, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_waiting && r == 0; i++) {
		uint32_t client = s->waiting[i]->client;

		if (s->waiting[i]->tcp && s->waiting[i]->tcp->numbers)
			continue; /* tcp_waiting_put */
		r = client ? call_listener(t->descs[client - 1]->socket, fds[client - 1], listener, e) : call_and_close(s->family, s->waiting[i], listener, e);
	}
	return r;
}

/* One of two ends, or both, have changed, or are new. */
static int fill_ends(const Gw__FdTable *t, size_t i, size_t other, const int *fds, struct err *e)
{
	size_t first = MIN(i, other), second = MAX(i, other);

	return fill_pair(t->descs[first]->socket, fds[first], t->descs[second]->socket, fds[second], e);
}

/* It is what it was in the offer. */
static int fill_quiet(const Gw__FdTable *t, size_t i, const int *fds, int *others, struct err *e)
{
	const Gw__FdSocket *s = socket_tcp_linked(t, i);

	if (!s)
		return 0;
	others[i] = -1;
	if (tcp_outside_is_one(s))
		return tcp_outside_patch(s, fds[i], e);
	/* All that is left is whether others may have its port. */
	return socket_options_set_one(fds[i], s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR, e);
}

static bool is_left(const Gw__FdTable *old, const Gw__FdTable *t, size_t i)
{
	return i < old->n_descs && t->descs[i] == old->descs[i];
}

int socket_tcp_fill(const Gw__FdTable *old, const Gw__FdTable *t, const int *fds, int *others, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n_descs && i < old->n_descs && r == 0; i++)
		if (socket_tcp_linked(t, i) && t->descs[i] != old->descs[i])
			r = socket_options_update(fds[i], old->descs[i]->socket->options, old->descs[i]->socket->n_options, t->descs[i]->socket->options,
				t->descs[i]->socket->n_options, e);
	/* Of a busy server most are left out, and not even looked at: memory that no cache holds. */
	for (size_t i = 0; i < t->n_descs && r == 0; i++)
		if (!is_left(old, t, i) && t->descs[i]->kind == GW__FD_KIND__FD_SOCKET && t->descs[i]->socket)
			r = fill_listener(t, t->descs[i]->socket, fds[i], fds, e);
	for (size_t i = 0; i < t->n_descs && r == 0; i++) {
		const Gw__FdSocket *s;
		size_t other;

		if (is_left(old, t, i)) {
			r = others[i] == OTHER_PATCH ? fill_quiet(t, i, fds, others, e) : 0;
			continue;
		}
		s = socket_tcp_linked(t, i);
		other = s && s->tcp->other ? s->tcp->other - 1 : i;
		if (!s || s->tcp->kind == GW__FD_TCP_KIND__TCP_WAITING)
			continue;
		if (tcp_outside_is_one(s))
			r = tcp_outside_fill(i < old->n_descs ? old->descs[i]->socket : s, s, fds[i], e);
		else if (s->tcp->kind == GW__FD_TCP_KIND__TCP_CONNECTING || s->tcp->error == ECONNREFUSED)
			r = call_again(s, fds[i], e);
		else if (s->tcp->kind != GW__FD_TCP_KIND__TCP_PAIR)
			r = fill_lonely(s, fds[i], &others[i], e);
		else if (other >= i || is_left(old, t, other))
			r = fill_ends(t, i, other, fds, e);
	}
	return r;
}

int socket_tcp_go_live(const Gw__FdTable *old, const Gw__FdTable *t, const int *fds, size_t *at, struct err *e)
{
	bool again = *at > 0;
	struct err other = ERR_INIT;
	int ret = 0;

	for (size_t i = again ? *at - 1 : 0; i < t->n_descs; i++) {
		const Gw__FdSocket *s = is_left(old, t, i) ? NULL : socket_tcp_linked(t, i); /* what has been left alone lives already */
		int r;

		if (!tcp_outside_is_one(s))
			continue;
		__atomic_store_n(at, i + 1, __ATOMIC_SEQ_CST);
		r = tcp_outside_go_live(i < old->n_descs && socket_tcp_linked(old, i) ? old->descs[i]->socket : s, s, fds[i], again, ret < 0 ? &other : e);
		again = false;
		ret = ret < 0 ? ret : r;
	}
	__atomic_store_n(at, t->n_descs + 1, __ATOMIC_SEQ_CST);
	return ret;
}

bool socket_tcp_must_settle(const Gw__FdTable *t, size_t i)
{
	return tcp_outside_is_one(socket_tcp_linked(t, i));
}

bool fdtable_must_settle(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_descs; i++)
		if (socket_tcp_must_settle(t, i))
			return true;
	return false;
}

/* Numbers of links are left out: here they are others. */
static bool is_between(int fd, const Gw__FdSocket *s)
{
	struct sockaddr_storage local = { 0 }, peer = { 0 };
	ProtobufCBinaryData l = { sizeof(local), (void *)&local }, p = { sizeof(peer), (void *)&peer };
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);
	struct endpoint a, b;

	if (getsockname(fd, (void *)&local, &local_len) < 0 || getpeername(fd, (void *)&peer, &peer_len) < 0)
		return false;
	a = endpoint_of(&l);
	b = endpoint_of(&s->local);
	if (memcmp(&a, &b, sizeof(a)) != 0)
		return false;
	a = endpoint_of(&p);
	b = endpoint_of(&s->peer);
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool settle_number(const Gw__FdSocket *s, int pidfd, uint32_t number)
{
	cleanup_close int fd = pidfd_get(pidfd, (int)number, NULL);

	if (fd < 0 || !is_between(fd, s))
		return false;
	tcp_outside_settle(s, fd);
	return true;
}

void fdtable_restore_settle(struct fd_restore *r, const Gw__FdTable *t, int (*pidfd)(const void *arg, uint32_t process), const void *arg)
{
	cleanup_free uint8_t *done = fd_alloc(t->n_descs);

	for (size_t i = 0; i < r->n && i < t->n_descs; i++)
		if (r->fds[i] >= 0 && socket_tcp_must_settle(t, i)) {
			tcp_outside_settle(t->descs[i]->socket, r->fds[i]);
			done[i] = 1;
		}
	for (uint32_t p = 0; p < t->n_table_of; p++) {
		const Gw__FdNumbers *n = fdtable_first_sharer(t, p) == p ? t->tables[t->table_of[p]] : NULL;
		int process = n ? pidfd(arg, p) : -1;

		for (size_t i = 0; process >= 0 && i < n->n_fd; i++) {
			uint32_t desc = n->desc[i];

			if (desc < t->n_descs && !done[desc] && socket_tcp_must_settle(t, desc))
				done[desc] = settle_number(t->descs[desc]->socket, process, n->fd[i]);
		}
	}
}

void socket_tcp_forget_outside(const Gw__FdTable *t, const int *fds, size_t n)
{
	for (size_t i = 0; i < t->n_descs && i < n; i++)
		if (tcp_outside_is_one(socket_tcp_linked(t, i)))
			socket_tcp_forget(fds[i]);
}

void socket_tcp_forget(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	if (fd >= 0 && socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) == 0)
		(void)!connect(fd, &none, sizeof(none));
}
