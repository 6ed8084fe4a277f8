// SPDX-License-Identifier: GPL-2.0-or-later
/* test_cluster_view.c - memory that one process writes and others read: never half a table, whoever dies */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/cluster_view.h"

#define NODES 40
#define ROUNDS 3000

static struct node_shared *shared;
static int wake;

static struct cluster_view *make(void)
{
	struct cluster_view *v;

	assert_int_equal(cluster_view_init(&v, shared, NULL), 0);
	return v;
}

/* A table in which everything says `mark`. */
static void fill(struct cluster_table *table, unsigned mark)
{
	table->n = 1 + mark % NODES;
	for (size_t i = 0; i < table->n; i++) {
		struct cluster_node *node = &table->nodes[i];

		*node = (struct cluster_node){ .reachable = true, .state = NODE_OK, .units = mark };
		snprintf(node->name, sizeof(node->name), "n%zu", i + 1);
		node->id = gossip_id(node->name);
		node->measured_ms = mark;
		for (int j = 0; j < LOAD_INDICES; j++)
			node->load.v[j] = mark;
	}
}

static bool agrees(const struct cluster_node *node, unsigned mark)
{
	return node->units == mark && node->measured_ms == mark && node->load.v[0] == mark && node->load.v[LOAD_INDICES - 1] == mark;
}

static void __attribute__((noreturn)) write_on(struct cluster_view *v)
{
	for (unsigned mark = 2;; mark++) {
		fill(cluster_view_draft(v), mark);
		cluster_view_publish(v);
	}
}

static void check_round(const struct cluster_view *v)
{
	struct cluster_node *nodes, one;
	size_t n;

	assert_int_equal(cluster_view_read(v, &nodes, &n, NULL), 0);
	assert_int_equal(n, 1 + nodes[0].units % NODES);
	for (size_t i = 0; i < n; i++)
		assert_true(agrees(&nodes[i], nodes[0].units));
	free(nodes);
	assert_true(cluster_view_find(v, "n1", &one));
	assert_true(agrees(&one, one.units));
	assert_false(cluster_view_find(v, "nobody", &one));
}

static void test_whole(void **state)
{
	struct cluster_view *v = make();
	pid_t writer;

	fill(cluster_view_draft(v), 1);
	cluster_view_publish(v);
	for (int turn = 0; turn < 3; turn++) {
		writer = fork();
		if (!writer)
			write_on(v);
		for (int i = 0; i < ROUNDS; i++)
			check_round(v);
		kill(writer, SIGKILL); /* wherever it is */
		waitpid(writer, NULL, 0);
		check_round(v);
	}
}

static void test_nothing_yet(void **state)
{
	struct cluster_view *v = make();
	struct cluster_node *nodes, one;
	struct load load;
	struct err e = ERR_INIT;
	size_t n;

	assert_int_equal(cluster_view_read(v, &nodes, &n, &e), -EAGAIN);
	assert_false(cluster_view_find(v, "n1", &one));
	cluster_view_load(v, 1, &load);
	assert_true(load.v[LOAD_MAXMEM] > 0);
}

static void test_state(void **state)
{
	struct cluster_view *v = make();
	struct cluster_node one;
	uint64_t word;

	fill(cluster_view_draft(v), 1);
	cluster_view_publish(v);
	assert_true(read(wake, &word, sizeof(word)) < 0);
	if (!fork()) { /* a worker */
		node_state_set_leaving(shared, true);
		_exit(0);
	}
	wait(NULL);
	assert_int_equal(read(wake, &word, sizeof(word)), sizeof(word)); /* godwit-cluster hears of it */
	assert_true(cluster_view_find(v, "n1", &one)); /* and who reads does not wait for it */
	assert_string_equal(cluster_node_state(&one), "leaving");
	node_state_set_leaving(shared, false);
	node_state_set_busy(shared, true);
	assert_true(cluster_view_find(v, "n1", &one));
	assert_string_equal(cluster_node_state(&one), "busy");
	assert_string_equal(node_state_why(shared), ""); /* somebody may still send something here */
	node_state_set_busy(shared, false);
}

static void test_sent(void **state)
{
	struct cluster_view *v = make();
	struct policy_node seven = { .id = 7 }, eight = { .id = 8 };

	for (int i = 0; i < 4; i++) {
		if (!fork()) {
			cluster_view_sent(v, i == 3 ? 8 : 7, 1, 100);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	cluster_view_add_sent(v, &seven);
	cluster_view_add_sent(v, &eight);
	assert_true(fabs(seven.sent_run - 3) < 1 && fabs(eight.sent_run - 1) < 0.4); /* it fades with seconds */
	assert_true(seven.sent_mib > 2 * eight.sent_mib);
	for (int i = 0; i < 1000; i++)
		cluster_view_sent(v, 9, 1, 0);
	seven = (struct policy_node){ .id = 7 };
	cluster_view_add_sent(v, &seven);
	assert_true(seven.sent_run == 0); /* others have its room */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole), cmocka_unit_test(test_nothing_yet), cmocka_unit_test(test_state), cmocka_unit_test(test_sent),
	};

	if (node_state_init(&shared, "view-test", &wake, NULL) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
