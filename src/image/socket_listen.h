/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_listen.h - sockets that nobody is connected to: TCP and unix listeners, unconnected UDP, fresh sockets
 *
 * They are made anew at the destination with the same local address, backlog and options. An address that the destination does not have
 * is bound all the same (IP_FREEBIND). Listening starts in socket_listen_fill, inside the freeze, so that no client is accepted
 * by a host that may yet give up. A unix socket's file is replaced there, too. Everything with a peer or with something queued is
 * refused.
 */
#ifndef GODWIT_IMAGE_SOCKET_LISTEN_H
#define GODWIT_IMAGE_SOCKET_LISTEN_H

#include "image/file_look.h"
#include "image/refuse.h"

/* Fills d->socket, or adds a refusal and returns FD_REFUSED. */
int socket_listen_capture(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals, struct err *e);
/* Inside the freeze: whether something is queued by now; adds a refusal and returns FD_REFUSED then. One system call. */
int socket_listen_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals);
/* Whether address, options and backlog of the socket held at fd are d's. */
bool socket_listen_same(const Gw__FdDesc *d, int fd);
int socket_listen_validate(const Gw__FdDesc *d, struct err *e);
/* Socket, options, and bind for internet addresses. -EADDRINUSE with words when the address is taken on this host. */
int socket_listen_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/*
 * Binds unix sockets, listens. A socket file that lies at the place of a unix socket (the source's own, on a shared file system) is moved
 * aside; *ret_aside is its old path then (malloc'ed), else NULL, also when the function fails.
 */
int socket_listen_fill(const Gw__FdDesc *d, int fd, char **ret_aside, struct err *e);
/* After the commit: removes the file moved aside. */
void socket_aside_remove(const char *path);
/* On abort: puts it back in the place of the new one. */
void socket_aside_restore(const char *path);

#endif
