/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidy.h - the table of ends is kept true: what has ended goes; and a list for people */
#ifndef GODWIT_NET_TIDY_H
#define GODWIT_NET_TIDY_H

#include "net/redirect.h"

/* How long it is remembered how often an end had moved that is where its address says, and that a listener has ended here: 600 s, less in tests. */
extern uint64_t tidy_forget_ns;
/* How long the first packet of a connection may be on its way to its listener: 20 s, less in tests. */
extern uint64_t tidy_young_ns;

/*
 * Removes ends that are here whose socket is gone, ends moves whose owner has died, and makes neighbours that are dead pass for living. With nothing left, programs, maps, rules and
 * settings go: *ret_empty. Milliseconds.
 */
int redirect_tidy(struct redirect *r, bool *ret_empty, struct err *e);

/* An end as it is now. */
struct redirect_item {
	struct redirect_flow flow;
	enum redirect_state state;
	uint32_t flags, moves_made;
	uint8_t own_host[16], peer_host[16]; /* as own and peer of the flow; or IPv4 addresses of the same hosts, where the others are of version 6 and on a link */
	bool listener, own_is_ours, peer_is_ours; /* addresses of this host */
	uint64_t idle_ns;
	const char *node;  /* THERE: its name; else "" */
	const char *other; /* the node of the other end; "": where its address says */
};

/* Calls `each` for every end. */
int redirect_list(struct redirect *r, int (*each)(const struct redirect_item *item, void *arg), void *arg, struct err *e);

#endif
