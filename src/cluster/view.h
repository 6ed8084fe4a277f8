/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * view.h - the cluster as one node knows it: what gossip says, and what this node has sent since
 *
 * LSF adds an artificial load to a host just chosen, so that it is not flooded before its own figures say what was sent to it; here as well (policy.h: policy_sent). Pure, as gossip.h.
 */
#ifndef GODWIT_CLUSTER_VIEW_H
#define GODWIT_CLUSTER_VIEW_H

#include "cluster/gossip.h"
#include "cluster/policy.h"

#define VIEW_SENT_MAX 32 /* nodes that something was sent to lately; the one longest ago is dropped */

struct view_sent {
	uint64_t id;
	double run, mem_mib;
	uint64_t at_ms;
};

struct view {
	struct gossip gossip;
	struct view_sent sent[VIEW_SENT_MAX];
	size_t n_sent;
};

/* Something was sent to a node, or is about to come to this one. */
void view_note_sent(struct view *v, const struct policy *p, uint64_t id, double run, double mem_mib, uint64_t now_ms);
/* All nodes that are known, at most `max`; the first is this one. Returns how many. */
size_t view_nodes(const struct view *v, const struct policy *p, uint64_t now_ms, struct policy_node *ret, size_t max);
/* What was sent to a node, faded until now. */
void view_add_sent(const struct view *v, const struct policy *p, struct policy_node *node, uint64_t now_ms);
/* This node alone. */
struct policy_node view_self(const struct view *v, const struct policy *p, uint64_t now_ms);

#endif
