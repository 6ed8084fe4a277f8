/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_tcp_check.c - what is told of TCP connections is checked before anything of it is used; see socket_tcp.h */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"
#include "image/tcp_waiting.h"

#define SCALE_MAX 14u
#define WAITING_MAX 65536u

static int validate_waiting(const Gw__FdTable *t, size_t desc, struct err *e)
{
	const Gw__FdSocket *s = socket_tcp_linked(t, desc);
	const Gw__FdDesc *d = s->tcp->other && s->tcp->other <= t->n_descs ? t->descs[s->tcp->other - 1] : NULL;
	const Gw__FdSocket *listener = d && d->kind == GW__FD_KIND__FD_SOCKET ? d->socket : NULL;

	for (size_t i = 0; listener && listener->listening && i < listener->n_waiting; i++)
		if (listener->waiting[i]->client == desc + 1)
			return 0;
	return err_set(e, -EPROTO, "description %zu: it waits for nobody", desc);
}

static int validate_listener(const Gw__FdTable *t, size_t desc, struct err *e)
{
	const Gw__FdSocket *s = t->descs[desc]->socket;
	size_t size = s->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	if (s->n_waiting && (!s->listening || !socket_tcp_is_one(s) || s->n_waiting > WAITING_MAX))
		return err_set(e, -EPROTO, "description %zu: a queue of connections of something else", desc);
	for (size_t i = 0; i < s->n_waiting; i++) {
		const Gw__FdTcpWaiting *w = s->waiting[i];
		const Gw__FdSocket *client = w->client && w->client <= t->n_descs ? socket_tcp_linked(t, w->client - 1) : NULL;

		if (w->client ? !client || client->tcp->kind != GW__FD_TCP_KIND__TCP_WAITING || client->tcp->other != desc + 1 :
		    w->local.len != size || w->peer.len != size)
			return err_set(e, -EPROTO, "description %zu: a connection that waits without a client", desc);
		if (tcp_waiting_validate(w, s->family, e) < 0)
			return -EPROTO;
	}
	return 0;
}

static int validate_pair(const Gw__FdTable *t, size_t desc, struct err *e)
{
	const Gw__FdSocket *s = socket_tcp_linked(t, desc), *other = s->tcp->other && s->tcp->other <= t->n_descs ? socket_tcp_linked(t, s->tcp->other - 1) : NULL;
	struct endpoint local = endpoint_of(&s->local), peer = endpoint_of(&s->peer), there, back;

	if (!other || other->tcp->kind != GW__FD_TCP_KIND__TCP_PAIR || other->tcp->other != desc + 1)
		return err_set(e, -EPROTO, "description %zu: a connection without its other end", desc);
	there = endpoint_of(&other->local);
	back = endpoint_of(&other->peer);
	return endpoint_same(&local, &back) && endpoint_same(&peer, &there) ? 0 : err_set(e, -EPROTO, "description %zu: two ends of different connections", desc);
}

int socket_tcp_validate(const Gw__FdTable *t, size_t desc, bool known, struct err *e)
{
	const Gw__FdSocket *s = socket_tcp_linked(t, desc);
	const Gw__FdTcp *p = s ? s->tcp : NULL;
	size_t size = s ? s->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6) : 0;
	uint16_t family = 0;

	if (!s)
		return t->descs[desc]->socket ? validate_listener(t, desc, e) : 0;
	if (known && tcp_outside_is_one(s))
		return 0;
	if (s->peer.len == size)
		memcpy(&family, s->peer.data, sizeof(family));
	if (!socket_tcp_is_one(s) || s->listening || s->local.len != size || family != s->family || p->kind > GW__FD_TCP_KIND__TCP_OUTSIDE || s->n_waiting)
		return err_set(e, -EPROTO, "description %zu: a connection of something else", desc);
	if (p->received.len > TCP_QUEUE_BYTES_MAX || p->unsent.len > TCP_QUEUE_BYTES_MAX || p->urgent > p->received.len || p->send_scale > SCALE_MAX ||
	    p->receive_scale > SCALE_MAX || p->user_segment_bytes > UINT16_MAX || p->segment_bytes > (1u << 20))
		return err_set(e, -EPROTO, "description %zu: a connection that cannot be", desc);
	if (p->quiet && !socket_tcp_may_be_quiet(s))
		return err_set(e, -EPROTO, "description %zu: a connection that is not as quiet as it is said to be", desc);
	if (p->other && p->kind != GW__FD_TCP_KIND__TCP_PAIR && p->kind != GW__FD_TCP_KIND__TCP_WAITING)
		return err_set(e, -EPROTO, "description %zu: a connection with another end than it can have", desc);
	if (p->kind == GW__FD_TCP_KIND__TCP_OUTSIDE)
		return tcp_outside_validate(s, e);
	return p->kind == GW__FD_TCP_KIND__TCP_PAIR ? validate_pair(t, desc, e) : p->kind == GW__FD_TCP_KIND__TCP_WAITING ? validate_waiting(t, desc, e) : 0;
}

bool socket_tcp_may_go_ahead(const Gw__FdSocket *was, const Gw__FdTcp *now)
{
	Gw__FdSocket s = *was;
	Gw__FdTcp p = *was->tcp;

	p.numbers = now->numbers;
	p.received = p.unsent = (ProtobufCBinaryData){ 0 };
	s.tcp = &p;
	return !now->received.len && !now->unsent.len && socket_tcp_may_be_quiet(&s) && tcp_outside_validate(&s, NULL) == 0;
}

static bool same_bytes(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

bool socket_tcp_is_construction_same(const Gw__FdSocket *was, const Gw__FdSocket *now)
{
	if (!was || !now || was->family != now->family || was->type != now->type || was->protocol != now->protocol || !was->tcp != !now->tcp)
		return false;
	return !now->tcp || (was->tcp->kind == now->tcp->kind && was->tcp->other == now->tcp->other && same_bytes(&was->local, &now->local) &&
		same_bytes(&was->peer, &now->peer));
}

void socket_tcp_judge(const Gw__FdTable *t, size_t desc, int fd, struct refusals *refusals)
{
	const Gw__FdSocket *s = socket_tcp_linked(t, desc);
	cleanup_close int probe = -1;

	if (tcp_outside_is_one(s))
		tcp_outside_judge(s, fd, refusals);
	if (!s || s->tcp->kind == GW__FD_TCP_KIND__TCP_CONNECTING || tcp_outside_is_one(s))
		return;
	errno = 0;
	/* A connect in repair mode sends nothing. */
	probe = socket((int)s->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (probe < 0 || socket_set_int(probe, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) < 0 || bind(probe, (void *)s->local.data, (socklen_t)s->local.len) < 0 ||
	    connect(probe, (void *)s->peer.data, (socklen_t)s->peer.len) < 0)
		refusals_add(refusals, "fd.socket.tcp.taken", errno == EADDRNOTAVAIL || errno == EADDRINUSE ?
			"a connection between the same two ports exists on the destination" : "the destination cannot have such a connection",
			"end the connection there first, or run the process in a network namespace of its own", "fd %d (TCP connection)", fd);
}
