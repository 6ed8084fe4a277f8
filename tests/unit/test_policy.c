// SPDX-License-Identifier: GPL-2.0-or-later
/* test_policy.c - which unit moves where, in clusters of a few nodes */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/util.h"
#include "cluster/view.h"

static struct policy_node node(uint64_t id, double run, double cores, double mem)
{
	struct policy_node n = { .id = id, .state = NODE_OK };

	n.load.v[LOAD_RUN] = run;
	n.load.v[LOAD_CORES] = cores;
	n.load.v[LOAD_SPEED] = 1;
	n.load.v[LOAD_MAXMEM] = 10000;
	n.load.v[LOAD_MEM] = mem;
	return n;
}

static struct policy_unit unit(double cpu_s, double mem_mib)
{
	return (struct policy_unit){ .cpu_s = cpu_s, .run = 1, .mem_mib = mem_mib, .since_move_s = HUGE_VAL };
}

static struct policy_verdict judge(struct policy_node *nodes, size_t n, struct policy_unit u)
{
	struct rng rng = { 1 };

	return policy_judge(&policy_default, nodes, n, 0, &u, POLICY_BALANCE, SIZE_MAX, &rng);
}

/* age * (n - m) > cost */
static void test_selection(void **state)
{
	struct policy_node nodes[] = { node(1, 4, 1, 9000), node(2, 0, 1, 9000) };
	struct policy_verdict v = judge(nodes, 2, unit(10, 100));
	double cost;
	struct policy_unit u = unit(0, 1000);

	assert_int_equal(v.obstacle, POLICY_NONE);
	assert_int_equal(v.node, 1);
	assert_float_equal(v.here, 4, 1e-9);
	assert_float_equal(v.there, 1, 1e-9);
	assert_float_equal(v.gain_s, 30, 1e-9);
	cost = policy_cost_s(&policy_default, &u) + policy_default.gain_min_s;
	u.cpu_s = cost / 3 * 0.99;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_TOO_YOUNG);
	u.cpu_s = cost / 3 * 1.01;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NONE);
	u.connections = 1000000;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_TOO_YOUNG);
}

static void test_obstacles(void **state)
{
	struct policy_node nodes[] = { node(1, 4, 1, 9000), node(2, 0, 1, 9000) };
	struct policy_unit u = unit(10, 100);

	u.pinned = true;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_PINNED);
	u = unit(10, 100);
	u.since_move_s = policy_default.stay_s / 2;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_JUST_MOVED);
	u.since_move_s = policy_default.stay_s * 2;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NONE);
	nodes[1].load.v[LOAD_RUN] = 3; /* it would be as bad there */
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NOT_LOADED);
	nodes[1] = node(2, 0, 1, 1050); /* no room */
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NO_NODE);
	nodes[1] = node(2, 0, 1, 9000);
	nodes[1].age_s = policy_default.age_max_s + 1;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NO_NODE);
	nodes[1].age_s = 0;
	nodes[1].state = NODE_DRAINED;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NO_NODE);
	nodes[1].state = NODE_BUSY;
	assert_int_equal(judge(nodes, 2, u).obstacle, POLICY_NO_NODE);
}

/* Slow nodes, faster ones, and parts of a core. */
static void test_speed(void **state)
{
	struct policy_node nodes[] = { node(1, 1, 1, 9000), node(2, 0, 1, 9000) };

	assert_int_equal(judge(nodes, 2, unit(100, 10)).obstacle, POLICY_NOT_LOADED);
	nodes[1].load.v[LOAD_SPEED] = 2;
	assert_int_equal(judge(nodes, 2, unit(100, 10)).node, 1);
	nodes[1].load.v[LOAD_SPEED] = 0.5;
	assert_int_equal(judge(nodes, 2, unit(100, 10)).obstacle, POLICY_NOT_LOADED);
	nodes[0].load.v[LOAD_CORES] = 0.25;
	assert_int_equal(judge(nodes, 2, unit(100, 10)).node, 1);
}

/* A unit goes to the node that it reads from, although no CPU is busy. */
static void test_locality(void **state)
{
	struct policy_node nodes[] = { node(1, 1, 2, 9000), node(2, 0, 2, 9000), node(3, 0, 2, 9000) };
	struct policy_unit u = unit(20, 10);

	u.talks[0].id = 3;
	u.talks[0].mib_s = 50;
	u.n_talks = 1;
	assert_int_equal(judge(nodes, 3, u).node, 2);
	u.talks[0].id = 1;
	assert_int_equal(judge(nodes, 3, u).obstacle, POLICY_NOT_LOADED);
	u = unit(0.01, 10); /* it computes little, and talks for long */
	u.run = 0.1;
	u.talks[0] = (struct policy_talk){ 3, 50 };
	u.n_talks = 1;
	assert_int_equal(judge(nodes, 3, u).obstacle, POLICY_TOO_YOUNG);
	u.talk_s = 30;
	assert_int_equal(judge(nodes, 3, u).node, 2);
	nodes[0].load.v[LOAD_RUN] = 8; /* two would do: the one that it talks to */
	nodes[2].load.v[LOAD_RUN] = 0.5;
	u = unit(20, 10);
	assert_int_equal(judge(nodes, 3, u).node, 1);
	u.talks[0] = (struct policy_talk){ 3, 50 };
	u.n_talks = 1;
	assert_int_equal(judge(nodes, 3, u).node, 2);
}

static size_t plan(struct policy_node *nodes, size_t n, const struct policy_unit *units, size_t n_units, struct policy_move *moves, size_t max)
{
	struct rng rng = { 3 };

	return policy_plan(&policy_default, nodes, n, 0, units, n_units, SIZE_MAX, &rng, moves, max);
}

/* Eight jobs on one of four nodes: two stay, two go to each other one. The oldest go first. */
static void test_spreads(void **state)
{
	struct policy_node nodes[] = { node(1, 8, 1, 9000), node(2, 0, 1, 9000), node(3, 0, 1, 9000), node(4, 0, 1, 9000) };
	struct policy_unit units[8];
	struct policy_move moves[8];
	size_t n, to[4] = { 0 };

	for (size_t i = 0; i < 8; i++)
		units[i] = unit(10 + (double)i, 10);
	n = plan(nodes, 4, units, 8, moves, 8);
	assert_int_equal(n, 6);
	assert_int_equal(moves[0].unit, 7);
	for (size_t i = 0; i < n; i++)
		to[moves[i].verdict.node]++;
	for (size_t i = 1; i < 4; i++)
		assert_int_equal(to[i], 2);
}

static void test_memory(void **state)
{
	struct policy_node nodes[] = { node(1, 3, 4, 300), node(2, 9, 1, 9000), node(3, 0, 1, 2000) };
	struct policy_unit units[] = { unit(1, 200), unit(1, 900), unit(1, 5000) };
	struct policy_move moves[4];
	size_t n = plan(nodes, 3, units, 3, moves, 4);

	assert_int_equal(n, 1); /* 1,000 have to be free: 700 more; the smallest that is enough */
	assert_int_equal(moves[0].unit, 1);
	assert_int_equal(moves[0].verdict.reason, POLICY_MEMORY);
	units[1].mem_mib = 100;
	units[2].pinned = true;
	nodes[0] = node(1, 3, 4, 300);
	nodes[1] = node(2, 9, 1, 9000);
	n = plan(nodes, 2, units, 3, moves, 4);
	assert_int_equal(n, 2); /* not enough, but all that can go */
	assert_int_equal(moves[0].unit, 0);
}

static void test_eviction(void **state)
{
	struct policy_node nodes[] = { node(1, 1, 4, 9000), node(2, 9, 1, 9000), node(3, 8, 1, 1000) };
	struct policy_unit units[] = { unit(0, 50), unit(0, 50), unit(0, 20000), unit(0, 50) };
	struct policy_move moves[4];
	size_t n;

	units[1].pinned = true;
	nodes[0].state = NODE_DRAINED;
	n = plan(nodes, 3, units, 4, moves, 4);
	assert_int_equal(n, 2); /* not the pinned one, and not the one that has no room anywhere */
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(moves[i].verdict.node, 1);
		assert_int_equal(moves[i].verdict.reason, POLICY_EVICTED);
	}
}

static void test_every_location(void **state)
{
	for (int location = POLICY_OPPORTUNITY; location <= POLICY_RANDOM; location++) {
		struct policy_node nodes[12];
		struct policy p = policy_default;
		struct policy_unit u = unit(100, 100);
		struct rng rng = { 5 };

		p.location = (enum policy_location)location;
		for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
			nodes[i] = node(i + 1, i ? (double)(i % 3) : 5, 1, 9000);
		for (int i = 0; i < 200; i++) {
			struct policy_verdict v = policy_judge(&p, nodes, ARRAY_SIZE(nodes), 0, &u, POLICY_BALANCE, SIZE_MAX, &rng);

			assert_int_equal(v.obstacle, POLICY_NONE);
			assert_true(v.node > 0 && v.node < ARRAY_SIZE(nodes) && v.there < v.here);
			if (location == POLICY_OPPORTUNITY)
				assert_float_equal(nodes[v.node].load.v[LOAD_RUN], 0, 0);
		}
	}
}

/* What was sent is counted at once, and fades. */
static void test_sent(void **state)
{
	struct view v = { 0 };
	struct gossip_entry self = { .id = 1, .state = NODE_OK, .measured_ms = 5000 };
	struct policy_node nodes[4];

	assert_int_equal(gossip_init(&v.gossip, &self, 16, NULL), 0);
	for (uint64_t id = 100; id < 100 + 2 * VIEW_SENT_MAX; id++)
		view_note_sent(&v, &policy_default, id, 1, 1, 5000 + id);
	assert_int_equal(v.n_sent, VIEW_SENT_MAX);
	view_note_sent(&v, &policy_default, 1, 2, 100, 6000);
	view_note_sent(&v, &policy_default, 1, 1, 50, 6000);
	assert_int_equal(view_nodes(&v, &policy_default, 6000, nodes, 4), 1);
	assert_float_equal(nodes[0].sent_run, 3, 1e-9);
	assert_float_equal(nodes[0].sent_mib, 150, 1e-9);
	assert_true(view_self(&v, &policy_default, 6000 + 20000).sent_run < 0.01);
	gossip_free(&v.gossip);
}

static void test_accept(void **state)
{
	struct policy_node self = node(1, 1, 2, 9000);
	struct policy_unit u = unit(10, 100);

	assert_true(policy_accept(&policy_default, &self, &u, POLICY_BALANCE, 2));
	assert_false(policy_accept(&policy_default, &self, &u, POLICY_BALANCE, 1));
	assert_true(policy_accept(&policy_default, &self, &u, POLICY_EVICTED, 1));
	policy_sent(&self, 3, 0);
	assert_false(policy_accept(&policy_default, &self, &u, POLICY_BALANCE, 2));
	policy_sent(&self, 0, 8000);
	assert_false(policy_accept(&policy_default, &self, &u, POLICY_EVICTED, 1));
}

static void test_ask(void **state)
{
	struct policy_node nodes[] = { node(1, 0, 1, 9000), node(2, 1, 1, 9000), node(3, 6, 1, 9000), node(4, 4, 1, 9000) };
	struct rng rng = { 9 };

	assert_int_equal(policy_ask(&policy_default, nodes, 4, 0, &rng), 2);
	assert_int_equal(policy_ask(&policy_default, nodes, 2, 0, &rng), SIZE_MAX);
	nodes[0].load.v[LOAD_CORES] = 0.25; /* one more would be slower here than there: four times */
	nodes[2].load.v[LOAD_RUN] = 4;
	assert_int_equal(policy_ask(&policy_default, nodes, 4, 0, &rng), SIZE_MAX);
	nodes[0].load.v[LOAD_CORES] = 0.5;
	nodes[2].load.v[LOAD_RUN] = 6;
	assert_int_equal(policy_ask(&policy_default, nodes, 4, 0, &rng), 2);
	nodes[0].load.v[LOAD_CORES] = 1;
	nodes[0].load.v[LOAD_RUN] = 1;
	assert_int_equal(policy_ask(&policy_default, nodes, 4, 0, &rng), SIZE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_selection), cmocka_unit_test(test_obstacles), cmocka_unit_test(test_speed),    cmocka_unit_test(test_locality),
		cmocka_unit_test(test_spreads),   cmocka_unit_test(test_memory),    cmocka_unit_test(test_eviction), cmocka_unit_test(test_every_location),
		cmocka_unit_test(test_sent),      cmocka_unit_test(test_accept),    cmocka_unit_test(test_ask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
