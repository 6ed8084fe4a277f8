/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cluster_view.h - the cluster as this node knows it: memory that godwit-cluster (cluster_loop.h) writes and everybody else in godwitd reads
 *
 * What is read is there at once and may be old: each node says how old (measured_ms). Who needs a fresh answer asks the node itself (node_ask.h).
 *
 * Theory: the table is there twice. godwit-cluster fills the half that nobody reads and then counts `seq` up, which makes it the other one; a reader copies the half that seq
 * names and begins again when seq has changed meanwhile. So readers never wait, and a writer that is killed leaves a whole table behind.
 *
 * This node's own state is that of node_state.h for every reader at once; others hear of it by gossip.
 */
#ifndef GODWIT_DAEMON_CLUSTER_VIEW_H
#define GODWIT_DAEMON_CLUSTER_VIEW_H

#include <netinet/in.h>
#include <stdbool.h>

#include "cluster/gossip.h"
#include "cluster/load.h"
#include "cluster/policy.h"
#include "daemon/node_state.h"

#define CLUSTER_NODES_MAX 10240

struct cluster_node {
	uint64_t id;
	char name[GOSSIP_NAME_MAX + 1];       /* always known: others are not in the table */
	char labels[GOSSIP_LABELS_MAX + 1];
	char kernel[GOSSIP_KERNEL_MAX + 1];
	struct sockaddr_in address;           /* of its godwitd */
	bool reachable;                       /* false: it does not answer, has ended, or nothing has been heard of it for a minute */
	uint8_t state;                        /* enum node_state, as it was said last; 0: nothing has been heard */
	uint64_t measured_ms;                 /* by cluster_now_ms: when its figures were so; 0: nothing has been heard */
	unsigned units;
	struct load load;
};

struct cluster_view;

/* Once, before any worker is started. */
int cluster_view_init(struct cluster_view **ret, const struct node_shared *shared, struct err *e);

/* All nodes, this one first; the caller frees *ret. Waits for the first table, a second at most. -ENOMEM, -EAGAIN: there is none. */
int cluster_view_read(const struct cluster_view *v, struct cluster_node **ret, size_t *ret_n, struct err *e);
/* One node by its name. Never waits. */
bool cluster_view_find(const struct cluster_view *v, const char *name, struct cluster_node *ret);
/* The same by its address. */
bool cluster_view_at(const struct cluster_view *v, const struct sockaddr_in *address, struct cluster_node *ret);
/* This node's figures; before there are any, what can be known without having watched. Never waits. */
void cluster_view_load(const struct cluster_view *v, double speed, struct load *ret);
/* The clock of measured_ms. */
uint64_t cluster_now_ms(void);
/* How old what is known of a node is. */
uint64_t cluster_node_age_ms(const struct cluster_node *node);
/* "ok", "busy", "drained", "leaving" or "unreachable". */
const char *cluster_node_state(const struct cluster_node *node);

/* Something is being sent to a node: it counts as load there until its own figures say so (policy.h: policy_sent). */
void cluster_view_sent(struct cluster_view *v, uint64_t id, double run, double mem_mib);
void cluster_view_add_sent(const struct cluster_view *v, struct policy_node *node);

/* For godwit-cluster. */
struct cluster_table {
	size_t n;
	struct cluster_node nodes[CLUSTER_NODES_MAX];
};
/* The half that may be filled; cluster_view_publish makes it what is read. */
struct cluster_table *cluster_view_draft(struct cluster_view *v);
void cluster_view_publish(struct cluster_view *v);

#endif
