/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_address.h - addresses that belong to a unit leave this host with it (net/owned.h)
 *
 *	look     before the worker enters namespaces of the unit
 *	begin    when the unit has been captured: which addresses it has; refused when a process outside uses one
 *	hold     right before the freeze, when new connections are held: those that have been closed have delivered what had been said
 *	check    in the freeze: the same of those that have been closed since
 *	release  after the commit: they are removed here
 */
#ifndef GODWIT_MIGRATE_SOURCE_ADDRESS_H
#define GODWIT_MIGRATE_SOURCE_ADDRESS_H

#include "control.pb-c.h"
#include "net/owned.h"

struct source;

struct source_addresses {
	int host;                   /* the host's network namespace, that the worker began in; -1: not known yet */
	size_t n;
	struct owned_address v[OWNED_MAX];
	uint32_t process[OWNED_MAX]; /* of the unit */
	uint8_t hardware[OWNED_MAX][6];
	struct owned_user *users;    /* sockets that had them right before the freeze */
	size_t n_users;
};

/* Calls `each` for every descriptor of the process that is a socket. */
void source_each_socket(pid_t pid, void (*each)(pid_t pid, uint32_t inode, void *arg), void *arg);
void source_address_look(struct source *s);
int source_address_begin(struct source *s, struct err *e);
/* Puts them into the offer; freed by source_address_offered. */
void source_address_offer(struct source *s, Gw__Offer *o);
void source_address_offered(Gw__Offer *o);
/* The same for redirection, once that is open. */
int source_address_redirect(struct source *s, struct err *e);
int source_address_hold(struct source *s, struct err *e);
int source_address_check(struct source *s, struct err *e);
void source_address_release(struct source *s);
void source_address_free(struct source *s);

#endif
