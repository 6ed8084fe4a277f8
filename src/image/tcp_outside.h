/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_outside.h - TCP connections whose other end is not in the unit, and stays where it is
 *
 * Theory of operation: the other end knows sequence numbers, windows and time stamps, so the socket at the destination begins with those that the one at the source
 * ended with (TCP_REPAIR; tests/facts/tcp_remake.c). Its address is the old one, whatever those of the host are (IP_TRANSPARENT); that packets find it
 * is the affair of whoever moves the unit (net/redirect.h), who holds them from before the numbers are read until the new socket lives.
 *
 *	open      before the freeze: the socket, its options, bound. An *idle* connection, over which nothing goes, is made altogether, and lives: what it sends
 *	          is dropped until the unit is here, so it must be forgotten (socket_tcp_forget) before packets of its address leave this host again
 *	fill      in the freeze: numbers, and what lies in the queues; of an idle one nothing. Ends of stream that have been acknowledged come as forged segments
 *	go_live   when there is no way back: of those that do not live yet: leaves repair mode, in which a socket that is closed says nothing to anybody; then what had never been sent
 *	settle    a little later: congestion control that measures (BBR) stalls on what it has not seen begin
 *
 * At the source nothing is changed but that repair mode is entered for a look at what waits to be sent. A worker that died in there would leave the
 * socket useless: tcp_outside_in_repair says which one it is, to somebody who outlives it (migrate/heir.h).
 */
#ifndef GODWIT_IMAGE_TCP_OUTSIDE_H
#define GODWIT_IMAGE_TCP_OUTSIDE_H

#include <netinet/in.h>

#include "image/file_look.h"
#include "image/refuse.h"
#include "kern/tcp_record.h"

/* What becomes of them. */
enum tcp_outside_policy { TCP_OUTSIDE_REFUSE, TCP_OUTSIDE_KEEP, TCP_OUTSIDE_CLOSE };

/* Source: whether the destination can put connections that wait to be accepted into the queue of a listener. At first it cannot. */
void tcp_outside_set_takes_waiting(bool takes);
bool tcp_outside_takes_waiting(void);

/* Source: REFUSE, until somebody has said otherwise. */
/* "keep", "close", "refuse". */
const char *tcp_outside_policy_name(enum tcp_outside_policy p);
int tcp_outside_policy_parse(const char *name, enum tcp_outside_policy *ret, struct err *e);
void tcp_outside_set_policy(enum tcp_outside_policy policy);
enum tcp_outside_policy tcp_outside_policy(void);
/* The socket that is in repair mode, and its SO_REUSEADDR, which leaving it takes away; -1: none is. */
void tcp_outside_in_repair(int fd, int reuse);
/* For who outlives this process with its memory: takes it out of repair mode. */
void tcp_outside_end_repair(void);

/* Who knows whether the other end of a connection, whatever its address, is on another host. */
void tcp_outside_ask_elsewhere(bool (*ask)(const struct sockaddr_in6 *own, const struct sockaddr_in6 *peer, void *arg), void *arg);
bool tcp_outside_is_elsewhere(const struct tcp_record *r);
/* NULL: it can move. */
const char *tcp_outside_obstacle(const struct tcp_record *r, const char **ret_way_out);
void tcp_outside_capture(const struct tcp_record *r, Gw__FdTcp *p);
/* As far as its numbers are concerned. */
bool tcp_outside_may_be_idle(const Gw__FdTcp *p);

/* Nothing has been received, is to be sent or has ended: what the offer says is all. */
static inline bool tcp_outside_is_idle(const Gw__FdSocket *s)
{
	return s->tcp->quiet;
}

static inline bool tcp_outside_is_one(const Gw__FdSocket *s)
{
	return s && s->tcp && s->tcp->kind == GW__FD_TCP_KIND__TCP_OUTSIDE;
}

int tcp_outside_validate(const Gw__FdSocket *s, struct err *e);

/* Destination: a connection that would not work there. */
void tcp_outside_judge(const Gw__FdSocket *s, int fd, struct refusals *refusals);
/* Destination, before all others: the mark of packets that are for this host whatever their address, and what to add to this host's clock to get the source's. */
int tcp_outside_begin(uint32_t mark, int64_t monotonic_delta_ns, struct err *e);
/* Whether that has been, so that listeners, too, are to take packets for any address. */
bool tcp_outside_begun(void);
int tcp_outside_set_transparent(const Gw__FdSocket *s, int fd);
/* The time stamp that it may send next. */
uint32_t tcp_outside_stamp(const Gw__FdTcp *p);
/* early: before the freeze. 1: tcp_outside_patch is to be called in it, when the connection has not changed. */
int tcp_outside_open(const Gw__FdSocket *s, int fd, bool early, struct err *e);
/* Still before the freeze: one that is idle by now, with the numbers of `now`, which gets those of s. Where it was idle before, the same is left to tcp_outside_patch as then. */
int tcp_outside_open_again(Gw__FdSocket *s, Gw__FdTcp *now, int fd, struct err *e);
int tcp_outside_patch(const Gw__FdSocket *s, int fd, struct err *e);
/* was: as it was opened; s itself when that was in the freeze. */
int tcp_outside_fill(const Gw__FdSocket *was, const Gw__FdSocket *s, int fd, struct err *e);
/* was: as for tcp_outside_fill. Errors are of this connection only, which then ends; the unit lives here. again: it may have been begun by somebody who was killed about it. */
int tcp_outside_go_live(const Gw__FdSocket *was, const Gw__FdSocket *s, int fd, bool again, struct err *e);
void tcp_outside_settle(const Gw__FdSocket *s, int fd);

/* tcp_forge.c: sends ourselves a segment, as if the other end of s had sent it. */
enum { TCP_FORGE_FIN = 1, TCP_FORGE_RST = 2 };
int tcp_forge_open(uint32_t mark, struct err *e);
/* The mark of segments that are for this host whatever their address; 0: there are none. */
uint32_t tcp_forge_mark(void);
int tcp_forge(const Gw__FdSocket *s, uint32_t number, uint32_t acknowledged, unsigned flags, struct err *e);
int tcp_forge_data(const Gw__FdSocket *s, uint32_t number, uint32_t acknowledged, const ProtobufCBinaryData *data, struct err *e);

#endif
