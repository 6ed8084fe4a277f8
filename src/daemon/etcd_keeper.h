/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * etcd_keeper.h - what godwit-etcd does, a process of godwit-cluster's in clusters with etcd: it may wait for a store that does not answer, which nobody else does
 *
 * It keeps this node entered, tells godwit-cluster who else is, answers who is about to move a unit (owner.h), and sees to it that the record of each unit that is here says so. Once a second the
 * registry (migrate/registry.h) is compared with what was written. A unit that has come is taken over by a transaction on the number that its record has, and only from a record with fewer moves: of two nodes
 * that claim the same unit the one that has the older state of it finds the newer record, leaves it alone and says so in the log. A unit that has gone is given the time to be taken over by who has it now; then its
 * record is removed. What etcd has not taken in because it was away is written when it is back. Nothing that runs waits for any of this; a move does.
 */
#ifndef GODWIT_DAEMON_ETCD_KEEPER_H
#define GODWIT_DAEMON_ETCD_KEEPER_H

#include <sys/types.h>

#include "cluster/membership.h"
#include "daemon/config.h"

/*
 * Who starts it, for godwit-cluster, which may start nothing itself (base/confine.h): a process that answers each byte with such a descriptor, or none. Ends with the caller.
 */
int etcd_starter(const struct config *config, const struct sockaddr_in *self, struct err *e);
/* Starts it. The descriptor gives lists of nodes, each a message with the descriptor of a file of struct membership_node[]; its end is the end of the process. */
int etcd_keeper_start(const struct config *config, const struct sockaddr_in *self, struct err *e);

#endif
