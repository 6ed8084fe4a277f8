/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_netlink.h - netlink(7) and packet(7) sockets
 *
 * Netlink: protocol, port, group memberships, options. Packet: protocol, interface (by name), memberships, options, without rings.
 * What lies in their queues came from this host's kernel or network and cannot be put into another queue: then the freeze asks for
 * another attempt.
 */
#ifndef GODWIT_IMAGE_SOCKET_NETLINK_H
#define GODWIT_IMAGE_SOCKET_NETLINK_H

#include "image/file_look.h"
#include "image/refuse.h"

bool socket_host_is_one(const Gw__FdSocket *s);
/* Fills d->socket, whose family, type and protocol are known. FD_REFUSED with a refusal. */
int socket_host_capture(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals, struct err *e);
/* In the freeze: -EAGAIN when something is queued. */
int socket_host_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct err *e);
/* Whether the socket held at fd is as d says. */
bool socket_host_same(const Gw__FdDesc *d, int fd);
int socket_host_validate(const Gw__FdSocket *s, struct err *e);
/* Not bound yet: from then on it would receive. */
int socket_host_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
int socket_host_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
