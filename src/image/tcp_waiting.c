/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_waiting.c - see tcp_waiting.h */
#include "image/tcp_waiting.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/util.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"
#include "image/tcp_repair.h"
#include "kern/sock_destroy.h"

#define TCPI_OPT_USEC 64u /* TCPI_OPT_USEC_TS, of newer headers */
#define SCALE_MAX 14u

static bool is_outside(const Gw__FdTcpWaiting *w)
{
	return w->tcp && w->tcp->kind == GW__FD_TCP_KIND__TCP_OUTSIDE;
}

int tcp_waiting_validate(const Gw__FdTcpWaiting *w, uint32_t family, struct err *e)
{
	static const unsigned states = 1u << TCP_ESTABLISHED | 1u << TCP_SYN_RECV | 1u << TCP_CLOSE_WAIT | 1u << TCP_CLOSE;
	const Gw__FdTcp *p = w->tcp;
	uint16_t families[2] = { 0 };

	if (!w->client) {
		memcpy(&families[0], w->local.data, sizeof(families[0]));
		memcpy(&families[1], w->peer.data, sizeof(families[1]));
	}
	if (!w->client && (families[0] != family || families[1] != family))
		return err_set(e, -EPROTO, "TCP: a connection that waits with addresses of another family");
	if (!p)
		return w->calling ? err_set(e, -EPROTO, "TCP: a call without numbers") : 0;
	if (w->client || p->received.len > TCP_QUEUE_BYTES_MAX || p->unsent.len || p->urgent || p->sent_end || p->send_scale > SCALE_MAX || p->receive_scale > SCALE_MAX)
		return err_set(e, -EPROTO, "TCP: a connection that waits and cannot be");
	if (p->kind == GW__FD_TCP_KIND__TCP_HALF)
		return w->calling || p->numbers ? err_set(e, -EPROTO, "TCP: a call of nobody") : 0;
	if (!is_outside(w) || !p->numbers || p->numbers->state > TCP_CLOSING || !(states >> p->numbers->state & 1) || p->numbers->peer_window > (1u << 30) ||
	    p->numbers->segment_max > UINT16_MAX || (w->calling && (p->numbers->state != TCP_SYN_RECV || p->received.len)))
		return err_set(e, -EPROTO, "TCP: a connection that waits in a state that cannot be");
	return tcp_outside_begun() ? 0 : err_set(e, -EPROTO, "TCP: a connection that waits, of others that nobody has asked about");
}

static struct tcp_call call_of(const Gw__FdTcpWaiting *w)
{
	const Gw__FdTcp *p = w->tcp;

	return (struct tcp_call){
		.stamp = tcp_outside_stamp(p),
		.peer_stamp = p->numbers->peer_stamp,
		.segment_max = (uint16_t)MAX(p->numbers->segment_max, TCP_SEGMENT_MIN),
		.send_scale = (uint8_t)p->send_scale,
		.receive_scale = (uint8_t)p->receive_scale,
		.has_stamps = p->options & TCPI_OPT_TIMESTAMPS,
		.has_scale = p->options & TCPI_OPT_WSCALE,
		.has_sack = p->options & TCPI_OPT_SACK,
		.has_ecn = p->options & TCPI_OPT_ECN,
		.counts_us = p->options & TCPI_OPT_USEC,
		.calling = w->calling,
	};
}

static const Gw__FdSocket *listener_of(const Gw__FdTable *t, size_t i)
{
	const Gw__FdSocket *s = t->descs[i]->kind == GW__FD_KIND__FD_SOCKET ? t->descs[i]->socket : NULL;

	return s && s->listening ? s : NULL;
}

int tcp_waiting_expect(const Gw__FdTable *t, tcp_expect_fn *expect, void *arg, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdSocket *s = listener_of(t, i);

		for (size_t k = 0; s && k < s->n_waiting && r == 0; k++) {
			const Gw__FdTcpWaiting *w = s->waiting[k];
			struct tcp_call call;

			if (!is_outside(w))
				continue;
			/* The client may have used its port before, when the listener was here, and what is left of that would get the segments that are to make this one. */
			sock_make_way((const void *)w->peer.data, (const void *)w->local.data);
			call = call_of(w);
			r = expect(arg, (const void *)w->peer.data, (const void *)w->local.data, &call);
		}
	}
	return r < 0 ? err_sys(e, r, "TCP: connections that wait to be accepted") : 0;
}

/* 1: the queue is full. */
static int put(const Gw__FdTcpWaiting *w, struct err *e)
{
	Gw__FdTcp *p = w->tcp;
	Gw__FdSocket s = GW__FD_SOCKET__INIT;
	uint32_t next = p->numbers->receive - (p->got_end ? 1 : 0), first = next - (uint32_t)p->received.len, send = p->numbers->send;
	int r;

	s.local = w->peer;
	s.peer = w->local;
	s.tcp = p;
	r = tcp_forge(&s, first, send, 0, e);
	if (r == 0 && !sock_is_connected((const void *)w->peer.data, (const void *)w->local.data))
		return 1;
	if (r == 0)
		r = tcp_forge_data(&s, first, send, &p->received, e);
	if (r == 0 && p->got_end)
		r = tcp_forge(&s, next++, send, TCP_FORGE_FIN, e);
	if (r == 0 && p->numbers->state == TCP_CLOSE)
		r = tcp_forge(&s, next, send, TCP_FORGE_RST, e);
	return r;
}

size_t tcp_waiting_put(Gw__FdTable *t, tcp_forget_fn *forget, void *arg, struct err *e)
{
	size_t left = 0;

	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdSocket *s = listener_of(t, i);

		for (size_t k = 0; s && k < s->n_waiting; k++) {
			Gw__FdTcpWaiting *w = s->waiting[k];

			/* The flag marks what has been put. */
			if (!is_outside(w) || w->calling)
				continue;
			if (put(w, e) > 0) {
				left++;
				continue;
			}
			w->calling = true;
			forget(arg, (const void *)w->peer.data, (const void *)w->local.data);
		}
	}
	return left;
}
