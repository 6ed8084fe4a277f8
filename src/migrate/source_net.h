/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_net.h - connections with others, while their unit leaves this host (net/redirect.h, image/tcp_outside.h)
 *
 *	begin    when the unit has been captured: asks the destination, and whether packets can be led there
 *	depart   right before the freeze: the ends are entered
 *	hold     then: new connections are held, and those that are about to come are waited for
 *	park     in the freeze, when all threads are stopped: what arrives is held
 *	add      in the freeze, when descriptors have been captured: ends that have come since are held as well; what they are is to be read again then
 *	forward  after the commit: what was held, and all that comes, goes to the destination
 *	stay     nothing came of it: what was held is delivered here
 */
#ifndef GODWIT_MIGRATE_SOURCE_NET_H
#define GODWIT_MIGRATE_SOURCE_NET_H

#include "migrate/net_flows.h"

struct source;

struct source_net {
	struct redirect *r;          /* NULL: nothing is led anywhere */
	struct redirect_move *move;  /* of connections */
	struct redirect_move *calls; /* of what listens */
	struct redirect_node self, dest;
	struct net_flows offered, entered;
	bool parked, asked;
	char obstacle[ERR_MESSAGE_MAX]; /* why nothing can be led to the destination; empty: none known */
	size_t told_ahead; /* connections, in the rounds */
};

/* Before a unit stands still for long: what both hosts load for the first process with sockets is loaded now, if this one has any. */
int source_net_ready(struct source *s, struct err *e);
/* Before the unit is captured: other ends may be elsewhere than their addresses say. */
void source_net_look(struct source *s);
int source_net_begin(struct source *s, struct err *e);
/* Puts the ends into the offer; freed by source_net_offered. */
void source_net_offer(struct source *s, Gw__Offer *o);
void source_net_offered(Gw__Offer *o);
/*
 * While the unit runs: connections that are idle, and have been used since the destination was told of them, are made there with the numbers that they have now, in rounds until there are
 * few. So only those that are used in the last moment are made in the freeze. fd: the control connection before the last round of pages, the go connection after it.
 */
int source_net_tell_ahead(struct source *s, int fd, struct err *e);
int source_net_depart(struct source *s, struct err *e);
void source_net_hold(struct source *s);
void source_net_park(struct source *s);
/* 1: there were some. */
int source_net_add(struct source *s, struct err *e);
/* Those that are not in the offer; freed by source_net_gone. */
void source_net_go(struct source *s, Gw__Go *go);
void source_net_gone(Gw__Go *go);
void source_net_forward(struct source *s);
/* When nothing is hurried any more. */
void source_net_settle(struct source *s);
void source_net_stay(struct source *s);
void source_net_free(struct source *s);

#endif
