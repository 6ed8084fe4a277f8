/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_pair.h - socketpair(2) of the unix family with both ends in the process (or one, when the other has been closed)
 *
 * An end's receive queue is read with MSG_PEEK and written again by its peer. Descriptors in flight are refused, and so are ends
 * that another process has.
 */
#ifndef GODWIT_IMAGE_SOCKET_PAIR_H
#define GODWIT_IMAGE_SOCKET_PAIR_H

#include "image/file_look.h"
#include "image/refuse.h"

#define SOCKET_QUEUE_MAX (64u << 20)

/* Shared with socket_listen.c. */
Gw__FdSocket *socket_new(int fd);
void socket_capture_options(int fd, Gw__FdSocket *s);
int socket_refuse_connected(const struct fd_look *look, const Gw__FdSocket *s, struct refusals *refusals);
int socket_set_option(int fd, const Gw__FdSockOpt *o, struct err *e);

/* Whether the socket could be an end of a pair: connected, of the unix family, without any address. */
bool socket_pair_is_one(int fd);

/*
 * Fills d->socket except for peer; *ret_peer_ino is the inode of the other end, 0 when that has been closed. The queue is read
 * only when `frozen`. FD_REFUSED with a refusal when it holds what cannot move.
 */
int socket_pair_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, uint64_t *ret_peer_ino, struct refusals *refusals,
	struct err *e);
/* Peers refer to each other, and are of one type. */
int socket_pair_validate(const Gw__FdTable *t, size_t index, struct err *e);
/* Makes both ends: ret_fds[0] is d's. */
int socket_pair_open(const Gw__FdDesc *d, int ret_fds[2], struct err *e);
int socket_pair_set_options(const Gw__FdDesc *d, int fd, struct err *e);
/* Fills the queue of d through its peer. */
int socket_pair_fill(const Gw__FdDesc *d, int peer, struct err *e);
/* After both queues are filled. */
int socket_pair_shut_down(const Gw__FdDesc *d, int fd, struct err *e);

#endif
