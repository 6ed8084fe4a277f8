/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_listen.h - internet sockets that nobody is connected to: TCP listeners, unconnected UDP, raw and ping sockets, fresh ones. MPTCP listeners (Go's
 * net.Listen makes such), too: a client that speaks TCP gets a TCP socket from them. Who has called and has not been accepted goes along (tcp_waiting.h), but for MPTCP, where it is waited for.
 *
 * They are made anew at the destination with the same local address, backlog and options. An address that the destination does not have
 * is bound all the same (IP_FREEBIND). Listening starts in socket_listen_fill, inside the freeze, so that no client is accepted
 * by a host that may yet give up. Connections are socket_tcp.h's and socket_udp.h's.
 */
#ifndef GODWIT_IMAGE_SOCKET_LISTEN_H
#define GODWIT_IMAGE_SOCKET_LISTEN_H

#include "image/file_look.h"
#include "image/refuse.h"

struct tcp_member;

/* Whether others call it by its address: it listens for TCP or MPTCP. */
bool socket_listen_is_called(const Gw__FdSocket *s);
int socket_refuse_connected(const struct fd_look *look, const Gw__FdSocket *s, struct refusals *refusals);
/* code: NULL: by what it is. */
int socket_refuse_because(const struct fd_look *look, const Gw__FdSocket *s, const char *code, const char *cause, const char *way_out, struct refusals *refusals);
/* Fills d->socket, or adds a refusal and returns FD_REFUSED. m: of a TCP socket what is known of it (socket_tcp.h); NULL where it cannot be known. */
int socket_listen_capture(const struct fd_look *look, Gw__FdDesc *d, const struct tcp_member *m, struct refusals *refusals, struct err *e);
/* Inside the freeze: whether something is queued by now; adds a refusal and returns FD_REFUSED then, or -EAGAIN. One system call. */
int socket_listen_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals, struct err *e);
/* Whether address, options and backlog of the socket held at fd are d's. */
bool socket_listen_same(const Gw__FdDesc *d, int fd);
/* In the freeze, of one that has been captured and is no TCP socket: its options as they are now; -EAGAIN when more than those has changed. */
int socket_listen_refresh(const struct fd_look *look, Gw__FdDesc *d, struct err *e);
int socket_listen_validate(const Gw__FdDesc *d, struct err *e);
/* Socket, options, and bind for internet addresses. -EADDRINUSE with words when the address is taken on this host. */
int socket_listen_open(const Gw__FdTable *t, const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* In the freeze, of one of the offer that has been closed since (fd): another one may have its address by now, and is made before the processes have closed this. */
void socket_listen_yield(const Gw__FdDesc *d, int fd);
/* Listens. `was`: of the offer, or NULL. */
int socket_listen_fill(const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, struct err *e);

#endif
