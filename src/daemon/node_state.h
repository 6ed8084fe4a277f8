/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * node_state.h - whether this node takes units and gives them away: memory that the main process shares with its workers
 *
 * What somebody has said (drain, balance on) is kept in STATE_DIRECTORY/NAME.state, so that it holds over restarts of godwitd and of the host. What godwitd knows by itself (it
 * shuts down, a person works here, it is busy) is not. Each change wakes godwit-cluster, which tells other nodes at once.
 */
#ifndef GODWIT_DAEMON_NODE_STATE_H
#define GODWIT_DAEMON_NODE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/gossip.h"

#define STATE_DIRECTORY "/var/lib/godwit"

struct node_shared;

/* Once, before any worker is started; reads what was kept for a node of this name. A file that cannot be read is an error: what somebody said must not be forgotten. ret_wake_fd: readable when
 * something has changed; workers keep it. */
int node_state_init(struct node_shared **ret, const char *name, int *ret_wake_fd, struct err *e);
enum node_state node_state(const struct node_shared *s);
/* Why it takes nothing, with the way out, for a peer or a person; "" when it does. A busy node is not chosen, and takes what somebody sends there. */
const char *node_state_why(const struct node_shared *s);
const char *node_state_name(enum node_state state);

/* Each is kept before it counts. */
int node_state_set_drained(struct node_shared *s, bool drained, struct err *e);
int node_state_set_balance(struct node_shared *s, bool on, struct err *e);
bool node_state_balances(const struct node_shared *s);

/* A person works here: it takes nothing for as long. */
void node_state_set_owner(struct node_shared *s, bool works);
/* godwitd shuts down and gives everything away. */
void node_state_set_leaving(struct node_shared *s, bool leaving);
/* Its own figures say that it is busy: for godwit-cluster. */
void node_state_set_busy(struct node_shared *s, bool busy);
/* Units that are on their way here, counted by the main process. */
void node_state_set_arriving(struct node_shared *s, unsigned n);
unsigned node_state_arriving(const struct node_shared *s);

#endif
