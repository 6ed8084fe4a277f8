/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reserve.h - room for a unit is reserved before it is sent, and may be refused
 *
 * Before godwitd moves a unit by itself it asks the destination (ROLE_RESERVE), whose own figures are the true ones and who knows what others are sending there: cluster/policy.h:
 * policy_accept. What has been granted counts there as load until its own figures contain it (who has arrived may as well have ended since), and is over after RESERVE_MS in any case. A unit has one reservation at a time on a node, of
 * one sender, so that who believes to have a unit that has moved on meanwhile is refused.
 */
#ifndef GODWIT_DAEMON_RESERVE_H
#define GODWIT_DAEMON_RESERVE_H

#include "cluster/policy.h"
#include "daemon/daemon.h"

#define RESERVE_FRAME 70u /* of FRAME_*: Reserve, and ReserveAnswer */
#define RESERVE_MS 10000u
#define RESERVE_MAX 32    /* at a time on one node */
#define RESERVE_WHY_MAX 200

struct reserve_table;

/* Once, before any worker is started: memory that all share. */
int reserve_init(struct reserve_table **ret, struct err *e);
/* What has been granted and is not yet contained in the figures of this node is added to them. */
void reserve_add(struct reserve_table *t, struct policy_node *self);
/* Its migration has ended, and it is here or not. */
void reserve_over(struct reserve_table *t, const char *unit_name, bool arrived);
/* The decision. 0, or -EBUSY with why not. `here`: how slow the unit is at the sender's. */
int reserve_decide(const struct daemon *d, const char *from, const char *unit_name, const struct policy_unit *unit, enum policy_reason reason, double here, struct err *e);

/* Asks the node at that address: 0 granted, -EBUSY refused by it, with its words; other errors: it does not answer. Waits RESERVE_WAIT_MS at most. */
int reserve_ask(const struct daemon *d, const struct sockaddr_in *address, const char *unit_name, const struct policy_unit *unit, enum policy_reason reason, double here,
		struct err *e);
/* In the main process: another node asks; takes over a copy of fd. */
int reserve_serve(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e);
/* The payload of a question. -EPROTO. */
int reserve_decode(const void *data, size_t len, Gw__Reserve **ret, struct err *e);

#endif
