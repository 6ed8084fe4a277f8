/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_waiting.h - connections of clients outside that nobody has accepted yet, at the destination
 *
 * Theory of operation: a connection that waits in a listener's queue is no descriptor, so that no call makes one. What makes it is the kernel's own way of coming from a segment that
 * acknowledges a listener's answer to a connection, without any memory of it (SYN cookies), with numbers that a BPF program knows (net/redirect.h: redirect_expect_call;
 * tests/facts/tcp_queue.c). So *expect* tells that program what has been settled, and *put*, when the unit is here, says again what the client has said, in the order of the queue: its
 * acknowledgement, its data, its end. Whose acknowledgement has not come yet (*calling*) needs the first only.
 */
#ifndef GODWIT_IMAGE_TCP_WAITING_H
#define GODWIT_IMAGE_TCP_WAITING_H

#include "image/file.h"

/* What a handshake has settled. */
struct tcp_call {
	uint32_t stamp, peer_stamp;
	uint16_t segment_max;
	uint8_t send_scale, receive_scale;
	bool has_stamps, has_scale, has_sack, has_ecn, counts_us;
	bool calling;
};

/* own: the listener's end. */
typedef int tcp_expect_fn(void *arg, const struct sockaddr *own, const struct sockaddr *peer, const struct tcp_call *call);
typedef void tcp_forget_fn(void *arg, const struct sockaddr *own, const struct sockaddr *peer);

int tcp_waiting_validate(const Gw__FdTcpWaiting *w, uint32_t family, struct err *e);
/* In the freeze, all of them. */
int tcp_waiting_expect(const Gw__FdTable *t, tcp_expect_fn *expect, void *arg, struct err *e);
/*
 * When there is no way back: those that are not in their queues yet. Returns how many are not, since these are full; *e is of others, which are lost. forget: called for each
 * that is done with. Those are marked in t; who inherits it goes on from there.
 */
size_t tcp_waiting_put(Gw__FdTable *t, tcp_forget_fn *forget, void *arg, struct err *e);

#endif
