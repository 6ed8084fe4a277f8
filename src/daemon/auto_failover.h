/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * auto_failover.h - with etcd: what was protected on a node whose lease has run out is restored here, when this node keeps the newest copy (docs/protect.md)
 *
 * A part of godwit-etcd (etcd_keeper.h), which has the connection to the store.
 *
 * Theory of operation: a node is lost when it is not entered any more, or is, but as another run of its host than the one that sent the copy. For each unit of which this node has a copy and whose record in the store names a lost owner:
 *
 *	stage      what is done                                                                                     then
 *	NEW        a child asks all living nodes what they have (as `godwit failover` does)                          MINE, OTHERS, or OVER
 *	OTHERS     another one has a newer copy: it is given OTHERS_NS, and if the record is still the lost node's   MINE
 *	MINE       the record is taken: a transaction on its number, and on the lost node being lost still           RESTORING, or OVER: another one was faster
 *	RESTORING  a child seals the copy for this node and restores it                                              OVER, or FAILED
 *	FAILED     the record is given back, so that others may                                                      after FAILED_NS: NEW
 *	OVER       nothing, for OVER_NS                                                                               forgotten
 *
 * A record that names a living node to which the unit was being moved is left alone for MOVING_NS: that node says by then whether it has it.
 */
#ifndef GODWIT_DAEMON_AUTO_FAILOVER_H
#define GODWIT_DAEMON_AUTO_FAILOVER_H

#include "cluster/membership.h"
#include "daemon/config.h"

struct auto_failover;

struct auto_failover *auto_failover_new(const struct config *config, struct err *e);
/* Whether copies are kept here, so that the list of nodes should be fresh. */
bool auto_failover_has_copies(const struct auto_failover *a);
/*
 * Looks, and takes the next steps; blocks for questions to the store only. nodes[]: those that are entered now. `taken`: called for each record that is this node's from then on.
 */
int auto_failover_tick(struct auto_failover *a, struct membership *store, const struct membership_node *nodes, size_t n, void (*taken)(const struct membership_record *record, void *arg), void *arg,
		       struct err *e);
/* It has something to do soon. */
bool auto_failover_is_busy(const struct auto_failover *a);
/* A unit of that name is being restored here: it will be in the registry. */
bool auto_failover_is_taking(const struct auto_failover *a, const char *unit);

#endif
