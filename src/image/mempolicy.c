/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mempolicy.c - see mempolicy.h */
#include "image/mempolicy.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"

#define NODES_MAX 1024u
#define NODE_BYTES (NODES_MAX / 8)
#define AT_ONCE 256u

void mempolicy_plan_get(struct batch *b, uint64_t address, struct mempolicy_query *q)
{
	uint64_t mode_at, nodes_at;

	q->mode = batch_space(b, sizeof(*q->mode), &mode_at);
	q->nodes = batch_space(b, NODE_BYTES, &nodes_at);
	q->call = batch_try(b, "get_mempolicy", SYS_get_mempolicy, mode_at, nodes_at, NODES_MAX, address, address ? MPOL_F_ADDR : 0);
}

Gw__MemoryPolicy *mempolicy_collect(const struct mempolicy_query *q)
{
	Gw__MemoryPolicy *p;
	size_t len = NODE_BYTES;

	if (q->call->ret < 0 || *q->mode == MPOL_DEFAULT)
		return NULL;
	p = must_alloc(sizeof(*p));
	gw__memory_policy__init(p);
	p->mode = (uint32_t)*q->mode;
	while (len && !q->nodes[len - 1])
		len--;
	bytes_set(&p->nodes, q->nodes, len);
	return p;
}

/* The nodes as the calls want them; the number of bits, which the kernel takes for one more. */
static uint64_t put_nodes(struct batch *b, const Gw__MemoryPolicy *p)
{
	uint8_t nodes[NODE_BYTES] = { 0 };

	if (p->nodes.len)
		memcpy(nodes, p->nodes.data, p->nodes.len);
	return batch_data(b, nodes, sizeof(nodes));
}

void mempolicy_plan_set(struct batch *b, const Gw__MemoryPolicy *p)
{
	if (p)
		batch_call(b, "set_mempolicy (nodes that this host lacks?)", SYS_set_mempolicy, p->mode, put_nodes(b, p), NODES_MAX + 1);
}

static void add(Gw__Process *msg, Gw__MemoryPolicy *p)
{
	Gw__MemoryPolicy **grown = realloc(msg->memory_policies, (msg->n_memory_policies + 1) * sizeof(*grown));

	if (!grown)
		abort();
	msg->memory_policies = grown;
	grown[msg->n_memory_policies++] = p;
}

static bool may_have_one(const struct vma *v)
{
	return !vma_is_kernels(v);
}

static int find_some(struct batch *agent, const struct vma *v, size_t n, Gw__Process *msg, struct err *e)
{
	struct mempolicy_query q[AT_ONCE];
	int rc;

	for (size_t i = 0; i < n; i++)
		if (may_have_one(&v[i]))
			mempolicy_plan_get(agent, v[i].start, &q[i]);
	rc = batch_run(agent, e);
	for (size_t i = 0; i < n && rc == 0; i++) {
		Gw__MemoryPolicy *p = may_have_one(&v[i]) ? mempolicy_collect(&q[i]) : NULL;

		if (!p)
			continue;
		p->start = v[i].start;
		p->len = v[i].end - v[i].start;
		add(msg, p);
	}
	batch_reset(agent);
	return rc;
}

int mempolicy_find(struct batch *agent, const struct vma_list *layout, Gw__Process *msg, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < msg->n_memory_policies; i++)
		gw__memory_policy__free_unpacked(msg->memory_policies[i], NULL);
	msg->n_memory_policies = 0;
	for (size_t i = 0; i < layout->n && rc == 0; i += AT_ONCE)
		rc = find_some(agent, &layout->v[i], MIN(layout->n - i, (size_t)AT_ONCE), msg, e);
	return rc;
}

void mempolicy_keep(const Gw__Process *found, const struct vma_list *layout, Gw__Process *msg)
{
	for (size_t i = 0; i < found->n_memory_policies; i++) {
		const Gw__MemoryPolicy *p = found->memory_policies[i];
		const struct vma *v = vma_find(layout, p->start);
		Gw__MemoryPolicy *copy;

		if (!v || v->start > p->start || v->end < p->start + p->len)
			continue;
		copy = must_alloc(sizeof(*copy));
		gw__memory_policy__init(copy);
		copy->start = p->start;
		copy->len = p->len;
		copy->mode = p->mode;
		bytes_set(&copy->nodes, p->nodes.data, p->nodes.len);
		add(msg, copy);
	}
}

void mempolicy_plan_bind(struct batch *b, const Gw__Process *msg)
{
	for (size_t i = 0; i < msg->n_memory_policies; i++) {
		const Gw__MemoryPolicy *p = msg->memory_policies[i];

		batch_call(b, "mbind (nodes that this host lacks?)", SYS_mbind, p->start, p->len, p->mode, put_nodes(b, p), NODES_MAX + 1, 0);
	}
}

int mempolicy_validate(const Gw__MemoryPolicy *p, struct err *e)
{
	if (p && (p->mode > UINT16_MAX || p->nodes.len > NODE_BYTES || p->start % PAGE_SIZE_BYTES || p->len % PAGE_SIZE_BYTES || p->start >= VMA_TASK_SIZE ||
		  p->len > VMA_TASK_SIZE - p->start))
		return err_set(e, -EBADMSG, "a memory policy without sense");
	return 0;
}
