/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sockets.h - which TCP and UDP sockets this host has (sock_diag(7)) */
#ifndef GODWIT_NET_SOCKETS_H
#define GODWIT_NET_SOCKETS_H

#include "net/redirect.h"

struct sockets {
	struct redirect_flow *v; /* ascending; of listeners the peer is zero, of those bound to every address own, too */
	size_t n, room;
};

int sockets_read(struct sockets *s, struct err *e);
void sockets_free(struct sockets *s);
/* Whether one of them has that end; for a listener, whether one bound to its address or to every one has its port. */
bool sockets_have(const struct sockets *s, const struct redirect_flow *flow);

#endif
