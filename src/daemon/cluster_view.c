// SPDX-License-Identifier: GPL-2.0-or-later
/* cluster_view.c - see cluster_view.h */
#include "daemon/cluster_view.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/util.h"
#include "cluster/measure.h"

#define FIRST_TABLE_MS 1000
#define WAIT_US 5000
#define SENT_MAX 64 /* the one longest ago gives its room */

#define GONE_FASTER 3 /* what has left a node is out of its figures after the next second; what comes needs longer to get there and to begin */

/* Something that was sent: `turn` is odd while it is written. A writer that dies then leaves one that nobody counts, until its turn comes again. */
struct sent {
	uint32_t turn;
	uint64_t id, at_ms;
	double run, mem_mib;
};

struct cluster_view {
	const struct node_shared *shared;
	uint64_t seq;                    /* 0: there is no table yet; the current one is tables[seq % 2] */
	struct cluster_table tables[2];
	uint64_t n_sent;
	struct sent sent[SENT_MAX];
};

uint64_t cluster_now_ms(void)
{
	return clock_ns(CLOCK_BOOTTIME) / 1000000;
}

uint64_t cluster_node_age_ms(const struct cluster_node *node)
{
	uint64_t now = cluster_now_ms();

	return now > node->measured_ms ? now - node->measured_ms : 0;
}

const char *cluster_node_state(const struct cluster_node *node)
{
	return node->reachable ? node_state_name((enum node_state)node->state) : "unreachable";
}

int cluster_view_init(struct cluster_view **ret, const struct node_shared *shared, struct err *e)
{
	struct cluster_view *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (v == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	v->shared = shared;
	*ret = v;
	return 0;
}

/* --- the table --- */

struct cluster_table *cluster_view_draft(struct cluster_view *v)
{
	return &v->tables[(v->seq + 1) % 2];
}

void cluster_view_publish(struct cluster_view *v)
{
	__atomic_store_n(&v->seq, v->seq + 1, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the next draft is written */
}

/* Copies `n` nodes from `at` on; false when the table is no longer the current one. */
static bool copy(const struct cluster_view *v, uint64_t seq, size_t at, size_t n, struct cluster_node *ret)
{
	memcpy(ret, &v->tables[seq % 2].nodes[at], n * sizeof(*ret));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&v->seq, __ATOMIC_RELAXED) == seq;
}

int cluster_view_read(const struct cluster_view *v, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	uint64_t deadline = cluster_now_ms() + FIRST_TABLE_MS, seq;
	struct cluster_node *nodes = NULL;
	size_t n, size = 0;

	while (!__atomic_load_n(&v->seq, __ATOMIC_ACQUIRE)) {
		if (cluster_now_ms() >= deadline)
			return err_set(e, -EAGAIN, "godwit-cluster does not run: godwitd's log says why");
		usleep(WAIT_US);
	}
	do {
		seq = __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE);
		n = MIN(v->tables[seq % 2].n, (size_t)CLUSTER_NODES_MAX);
		if (n > size) {
			free(nodes);
			nodes = calloc(n, sizeof(*nodes));
			size = n;
		}
		if (!nodes)
			return err_sys(e, -ENOMEM, "%zu nodes", n);
	} while (!copy(v, seq, 0, n, nodes));
	nodes[0].state = (uint8_t)node_state(v->shared);
	*ret = nodes;
	*ret_n = n;
	return 0;
}

bool cluster_view_find(const struct cluster_view *v, const char *name, struct cluster_node *ret)
{
	uint64_t id = gossip_id(name), seq;
	size_t n, i;

	do {
		seq = __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE);
		n = seq ? MIN(v->tables[seq % 2].n, (size_t)CLUSTER_NODES_MAX) : 0;
		for (i = 0; i < n && v->tables[seq % 2].nodes[i].id != id; i++)
			;
		if (i == n && __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE) == seq)
			return false;
	} while (i == n || !copy(v, seq, i, 1, ret));
	if (i == 0)
		ret->state = (uint8_t)node_state(v->shared);
	return !strcmp(ret->name, name);
}

bool cluster_view_at(const struct cluster_view *v, const struct sockaddr_in *address, struct cluster_node *ret)
{
	uint64_t seq;
	size_t n, i;

	do {
		const struct cluster_node *nodes;

		seq = __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE);
		n = seq ? MIN(v->tables[seq % 2].n, (size_t)CLUSTER_NODES_MAX) : 0;
		nodes = v->tables[seq % 2].nodes;
		for (i = 0; i < n && (nodes[i].address.sin_addr.s_addr != address->sin_addr.s_addr || nodes[i].address.sin_port != address->sin_port); i++)
			;
		if (i == n && __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE) == seq)
			return false;
	} while (i == n || !copy(v, seq, i, 1, ret));
	return true;
}

void cluster_view_load(const struct cluster_view *v, double speed, struct load *ret)
{
	struct cluster_node self;
	struct measure m;
	uint64_t seq;

	do {
		seq = __atomic_load_n(&v->seq, __ATOMIC_ACQUIRE);
		if (seq && copy(v, seq, 0, 1, &self)) {
			*ret = self.load;
			return;
		}
	} while (seq);
	measure_init(&m, speed, NULL);
	measure_sample(&m);
	measure_take(&m, clock_ns(CLOCK_BOOTTIME), ret);
	measure_free(&m);
}

/* --- what was sent --- */

void cluster_view_sent(struct cluster_view *v, uint64_t id, double run, double mem_mib)
{
	struct sent *s = &v->sent[__atomic_fetch_add(&v->n_sent, 1, __ATOMIC_RELAXED) % SENT_MAX];
	uint32_t turn = __atomic_load_n(&s->turn, __ATOMIC_RELAXED) | 1;

	__atomic_store_n(&s->turn, turn, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	s->id = id;
	s->at_ms = cluster_now_ms();
	s->run = run;
	s->mem_mib = mem_mib;
	__atomic_store_n(&s->turn, turn + 1, __ATOMIC_RELEASE);
}

void cluster_view_add_sent(const struct cluster_view *v, struct policy_node *node)
{
	uint64_t now = cluster_now_ms();

	for (size_t i = 0; i < SENT_MAX; i++) {
		uint32_t turn = __atomic_load_n(&v->sent[i].turn, __ATOMIC_ACQUIRE);
		struct sent s = v->sent[i];
		struct policy_node one = { .id = s.id };

		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!turn || turn % 2 || __atomic_load_n(&v->sent[i].turn, __ATOMIC_RELAXED) != turn || s.id != node->id)
			continue;
		policy_sent(&one, s.run, s.mem_mib);
		policy_sent_fade(&policy_default, &one, (double)(now - MIN(s.at_ms, now)) / 1000 * (s.run < 0 ? GONE_FASTER : 1));
		policy_sent(node, one.sent_run, one.sent_mib);
	}
}
