/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_socket.h - unix(7) sockets of the unit, the source's side: every type, in every state
 *
 * What there is to know is in three places: the socket's own calls on a duplicate (type, name, options), sock_diag (unix_diag.h: who
 * is connected to whom, who waits in an accept queue), and the queue (unix_queue.h). Sockets refer to each other by the index of their
 * description. One that is connected to somebody outside of the unit is relayed (relay.h).
 *
 * All sockets of the table are looked at together, after the table is complete: members of the unit are found by inode.
 */
#ifndef GODWIT_IMAGE_UNIX_SOCKET_H
#define GODWIT_IMAGE_UNIX_SOCKET_H

#include "image/file_look.h"
#include "image/refuse.h"

/* One unix socket of the unit. */
struct unix_member {
	uint32_t desc;
	pid_t pid;           /* a process that has it, and its number there, for messages; number -1: in flight */
	int fd;
	int held;
	uint64_t ino;
	bool refused;        /* out: a refusal has been added */
	uint64_t peer_ino;   /* out: of a relayed one, its other end's */
	bool renew;          /* out: it is no longer what the offer had: the description must become a new one */
};

/*
 * Fills members' messages in t (all but the queues). `frozen`: the unit stands still, and what is found is compared with what the offer
 * said. Sorts m by inode.
 */
int unix_sockets_capture(struct unix_member *m, size_t n, Gw__FdTable *t, bool frozen, struct refusals *refusals, struct err *e);

/* Whether the socket held at fd, which has the inode of d's, is still one that d describes, as far as its own calls tell. */
bool unix_socket_same(const Gw__FdDesc *d, int fd);

/*
 * Whether somebody outside of the unit who has the socket open too stands in the way. Listeners and unconnected sockets may be shared
 * with the one who made them (socket activation): that copy stays behind.
 */
bool unix_socket_must_be_alone(const Gw__FdUnix *u);

void unix_queue_refuse(const struct unix_member *m, int code, struct refusals *refusals);

int unix_socket_validate(const Gw__FdTable *t, size_t index, struct err *e);
/* Marks the descriptions that are in flight in queues of others. */
void unix_socket_mark_in_flight(const Gw__FdTable *t, uint8_t *used);
/* Whether `now` may follow `was` without the socket being made anew. */
bool unix_socket_is_construction_same(const Gw__FdUnix *was, const Gw__FdUnix *now);

#endif
