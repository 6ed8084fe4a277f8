/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owned_users.h - which sockets of this host have one of some addresses as their own (sock_diag(7)) */
#ifndef GODWIT_NET_OWNED_USERS_H
#define GODWIT_NET_OWNED_USERS_H

#include "net/address.h"
#include "net/redirect.h"

struct owned_user {
	struct redirect_flow flow;
	uint32_t inode;     /* of the socket, as in /proc/PID/fd; 0: no process has it */
	bool undelivered;   /* a connection that has been closed, and that its peer has not heard of, or not acknowledged all that was said */
};

/* Sockets of TCP and UDP, without those of connections that are over on both sides. ns: the network namespace, or -1. *ret is malloc'ed. */
int owned_users(int ns, const struct owned_address *v, size_t n, struct owned_user **ret, size_t *ret_n, struct err *e);

#endif
