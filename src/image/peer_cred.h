/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * peer_cred.h - what SO_PEERCRED and SO_PEERGROUPS say of the other end of a unix socket
 *
 * The kernel takes it from whoever calls socketpair(2), connect(2) (what the server sees) and listen(2) (what clients see). At the destination that is the worker: for such
 * a call it has the effective ids and groups of the one who called at the source, but not its number.
 */
#ifndef GODWIT_IMAGE_PEER_CRED_H
#define GODWIT_IMAGE_PEER_CRED_H

#include <stdbool.h>

#include "file.pb-c.h"

/* NULL when the socket has none; from malloc. */
Gw__FdUnixCred *peer_cred_capture(int fd);
bool peer_cred_equal(const Gw__FdUnixCred *a, const Gw__FdUnixCred *b);

/* What the calling thread was. */
struct peer_cred_own {
	bool changed;
	unsigned int uid, gid;
	int groups_n, death_signal, dumpable;
	unsigned int groups[64];
};

/* From here to peer_cred_leave this thread has these ids, with all privileges. NULL, or ids that it cannot have: nothing happens. */
void peer_cred_enter(const Gw__FdUnixCred *cred, struct peer_cred_own *own);
void peer_cred_leave(const struct peer_cred_own *own);

#endif
