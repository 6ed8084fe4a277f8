/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mempolicy.h - on which NUMA nodes memory is taken: of a thread (set_mempolicy(2)), and of mappings (mbind(2))
 *
 * A thread's is read and set by the thread itself, in the freeze. Those of mappings are read by the agent just before the freeze, and set in it. Nodes are
 * numbers; a policy none of whose nodes exists at the destination ends the migration.
 */
#ifndef GODWIT_IMAGE_MEMPOLICY_H
#define GODWIT_IMAGE_MEMPOLICY_H

#include "base/err.h"
#include "image/vma.h"
#include "kern/remote.h"
#include "task.pb-c.h"

struct mempolicy_query {
	struct remote_call *call;
	const int *mode;
	const uint8_t *nodes;
};

/* `address` 0: of the task that runs the list. */
void mempolicy_plan_get(struct batch *b, uint64_t address, struct mempolicy_query *q);
/* NULL: the default, or a kernel without NUMA. Owned by the caller (malloc). */
Gw__MemoryPolicy *mempolicy_collect(const struct mempolicy_query *q);
void mempolicy_plan_set(struct batch *b, const Gw__MemoryPolicy *p);

/* Source, by the agent: what mappings have a policy of their own goes into msg. Runs the batch. */
int mempolicy_find(struct batch *agent, const struct vma_list *layout, Gw__Process *msg, struct err *e);
/* In the freeze, those that are still there: from the message of mempolicy_find to that of the freeze. */
void mempolicy_keep(const Gw__Process *found, const struct vma_list *layout, Gw__Process *msg);
void mempolicy_plan_bind(struct batch *b, const Gw__Process *msg);

int mempolicy_validate(const Gw__MemoryPolicy *p, struct err *e);

#endif
