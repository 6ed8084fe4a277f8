/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_udp.h - UDP and UDP-Lite sockets
 *
 * A socket that is connected to another of the unit is connected again. Datagrams that have not been read are sent once more, by the
 * unit's own socket that has the sender's address, or by one of the moment, before anything is connected: whoever is connected
 * receives from its peer only. What came from another host, or is for one: udp_outside.h; of UDP-Lite it is refused.
 */
#ifndef GODWIT_IMAGE_SOCKET_UDP_H
#define GODWIT_IMAGE_SOCKET_UDP_H

#include "image/file_look.h"
#include "image/refuse.h"

bool socket_udp_is_one(const Gw__FdSocket *s);
/* The peer, and which directions are shut down. */
void socket_udp_capture(int held, Gw__FdSocket *s);
/* Whether an error that the program has not been told yet is one that the destination can be given: that nobody is where it sends to (ECONNREFUSED). */
bool socket_udp_error_can_move(int held, unsigned int error);
/* FD_REFUSED, with a refusal, when a datagram is being put together (UDP_CORK, MSG_MORE). */
int socket_udp_refuse_corked(const struct fd_look *look, struct refusals *refusals);
/* In the freeze. FD_REFUSED with a refusal. */
int socket_udp_capture_queue(const struct fd_look *look, Gw__FdSocket *s, struct refusals *refusals, struct err *e);
/* Whether the peer of this description is in the unit. */
bool socket_udp_peer_is_inside(const Gw__FdTable *t, const Gw__FdSocket *s);
int socket_udp_validate(const Gw__FdSocket *s, struct err *e);
/* All of the table: queues, connections, ends. fds: by description. */
int socket_udp_fill(const Gw__FdTable *t, const int *fds, struct err *e);

#endif
