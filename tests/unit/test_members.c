// SPDX-License-Identifier: GPL-2.0-or-later
/* test_members.c - who belongs to the cluster, and who counts as unreachable */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cluster/members.h"

#define START_MS 1000000
#define SELF 1

struct node {
	struct gossip gossip;
	struct members members;
	struct rng rng;
};

static const uint8_t an_address[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 7 }, another[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 8 };

static void make(struct node *node, size_t capacity)
{
	struct gossip_entry self = { .id = SELF, .version = 1, .state = NODE_OK, .measured_ms = START_MS };

	node->rng = (struct rng){ 3 };
	assert_int_equal(gossip_init(&node->gossip, &self, capacity + 1, NULL), 0);
	assert_int_equal(members_init(&node->members, SELF, capacity, NULL), 0);
}

static void end(struct node *node)
{
	gossip_free(&node->gossip);
	members_free(&node->members);
}

static struct gossip_entry entry_of(uint64_t id, uint64_t version, const uint8_t address[16])
{
	struct gossip_entry entry = { .id = id, .version = version, .state = NODE_OK, .port = 4470 };

	if (address)
		memcpy(entry.address, address, sizeof(entry.address));
	return entry;
}

/* A message from the first of the entries, out of an_address. */
static void hear(struct node *node, const struct gossip_entry *entries, size_t n, uint64_t now_ms)
{
	struct gossip_message m = { .n = n };

	memcpy(m.entries, entries, n * sizeof(*entries));
	members_heard(&node->members, &node->gossip, &m, an_address, 4471, now_ms);
	gossip_merge(&node->gossip, &m, now_ms);
}

static void test_learned(void **state)
{
	struct gossip_entry entries[] = { entry_of(2, 5, NULL), entry_of(3, 9, another), entry_of(SELF, 9, another), entry_of(4, 1, NULL) };
	struct node node;

	make(&node, 8);
	hear(&node, entries, ARRAY_SIZE(entries), START_MS);
	assert_int_equal(node.members.n, 2); /* not itself, and not the one of which nobody says where it is */
	assert_memory_equal(members_find(&node.members, 2)->address, an_address, 16);
	assert_int_equal(members_find(&node.members, 2)->port, 4471);
	assert_memory_equal(gossip_find(&node.gossip, 2)->address, an_address, 16); /* as it is told on */
	assert_memory_equal(members_find(&node.members, 3)->address, another, 16);
	assert_int_equal(members_find(&node.members, 3)->answered_ms, 0);
	entries[0] = entry_of(2, 5, another); /* nothing new: nobody moves for it */
	hear(&node, &entries[1], 1, START_MS + 10);
	hear(&node, entries, 1, START_MS + 20);
	members_expire(&node.members, START_MS + MEMBERS_DROP_MS - 1);
	assert_int_equal(node.members.n, 2);
	members_expire(&node.members, START_MS + MEMBERS_DROP_MS);
	assert_int_equal(node.members.n, 0);
	end(&node);
}

static void test_fixed(void **state)
{
	struct gossip_entry lies = entry_of(gossip_id("n2"), 5, another);
	struct node node;

	make(&node, 2);
	assert_true(members_fix(&node.members, "n2", an_address, 4470, START_MS));
	assert_true(members_fix(&node.members, "n3", another, 4470, START_MS));
	assert_false(members_fix(&node.members, "n4", another, 4470, START_MS));
	hear(&node, &lies, 1, START_MS);
	assert_memory_equal(members_find(&node.members, gossip_id("n2"))->address, an_address, 16); /* the configuration knows better */
	hear(&node, &(struct gossip_entry){ .id = 77, .version = 1, .state = NODE_OK }, 1, START_MS); /* there is no room */
	assert_int_equal(node.members.n, 2);
	members_expire(&node.members, START_MS + 10 * MEMBERS_DROP_MS);
	assert_int_equal(node.members.n, 2);
	members_unfix(&node.members, gossip_id("n3"));
	members_expire(&node.members, START_MS + 10 * MEMBERS_DROP_MS);
	assert_int_equal(node.members.n, 1);
	end(&node);
}

/* Two that do not answer, of twenty: both are found, nobody else is suspected, and no period has more than three probes. */
static void test_unreachable(void **state)
{
	enum { NODES = 20 };
	uint64_t version = 1, now = START_MS, both = 0;
	struct node node;

	make(&node, 64);
	for (uint64_t id = 2; id < 2 + NODES; id++)
		hear(&node, &(struct gossip_entry){ .id = id, .version = version, .state = NODE_OK }, 1, now);
	while (!both && now < START_MS + 200000) {
		struct member *to[1 + MEMBERS_DOUBTED];
		size_t n;

		now += GOSSIP_PERIOD_MS;
		version++;
		gossip_measured(&node.gossip, &(struct load){ 0 }, NODE_OK, now);
		members_expire(&node.members, now);
		n = members_probe(&node.members, &node.gossip, &node.rng, now, to);
		assert_in_range(n, 1, 1 + MEMBERS_DOUBTED);
		for (size_t i = 0; i < n; i++)
			if (to[i]->id != 2 && to[i]->id != 3)
				hear(&node, &(struct gossip_entry){ .id = to[i]->id, .version = version, .state = NODE_OK }, 1, now + 1);
		if (!member_reachable(members_find(&node.members, 2)) && !member_reachable(members_find(&node.members, 3)))
			both = now;
	}
	assert_true(both > 0);
	print_message("two dead of %d are found after %.0f s\n", NODES, (double)(both - START_MS) / 1000);
	assert_true(both - START_MS < 60000);
	for (uint64_t id = 4; id < 2 + NODES; id++)
		assert_true(member_reachable(members_find(&node.members, id)));
	hear(&node, &(struct gossip_entry){ .id = 2, .version = 1, .state = NODE_OK }, 1, now); /* an old datagram */
	hear(&node, (struct gossip_entry[]){ { .id = 4, .version = version, .state = NODE_OK }, { .id = 2, .version = version, .state = NODE_OK } }, 2, now); /* hearsay */
	assert_int_equal(members_find(&node.members, 2)->missed >= MEMBERS_MISSES, 1);
	hear(&node, &(struct gossip_entry){ .id = 2, .version = version, .state = NODE_OK }, 1, now);
	assert_true(member_reachable(members_find(&node.members, 2)));
	end(&node);
}

static void test_facts(void **state)
{
	struct gossip_facts facts = { .id = gossip_id("n2"), .name = "n2", .labels = "gpu" }, old = facts;
	struct gossip_entry entry = { .id = facts.id, .version = 1, .state = NODE_OK, .facts = gossip_facts_hash(&facts) };
	struct member *to[2];
	struct node node;

	make(&node, 8);
	hear(&node, &entry, 1, START_MS);
	assert_int_equal(members_unknown(&node.members, &node.gossip, START_MS, to, 2), 1);
	assert_int_equal(members_unknown(&node.members, &node.gossip, START_MS + MEMBERS_ASK_MS - 1, to, 2), 0);
	assert_int_equal(members_unknown(&node.members, &node.gossip, START_MS + MEMBERS_ASK_MS, to, 2), 1);
	assert_true(members_facts(&node.members, &node.gossip, &facts));
	assert_string_equal(members_find(&node.members, facts.id)->facts.labels, "gpu");
	assert_int_equal(members_unknown(&node.members, &node.gossip, START_MS + 9000, to, 2), 0);
	strcpy(facts.labels, "gpu big");
	assert_false(members_facts(&node.members, &node.gossip, &facts)); /* its entry does not say so yet */
	entry.version++;
	entry.facts = gossip_facts_hash(&facts);
	hear(&node, &entry, 1, START_MS + 10000);
	assert_int_equal(members_unknown(&node.members, &node.gossip, START_MS + 10000, to, 2), 1);
	assert_false(members_facts(&node.members, &node.gossip, &old)); /* told anew by a stranger */
	assert_true(members_facts(&node.members, &node.gossip, &facts));
	end(&node);
}

static void test_choose(void **state)
{
	struct member *to[4];
	unsigned chosen[10] = { 0 };
	struct node node;

	make(&node, 16);
	for (uint64_t id = 2; id < 10; id++)
		hear(&node, &(struct gossip_entry){ .id = id, .version = 1, .state = NODE_OK }, 1, START_MS);
	members_find(&node.members, 9)->missed = MEMBERS_MISSES;
	for (int i = 0; i < 700; i++) {
		assert_int_equal(members_choose(&node.members, &node.rng, to, 4), 4);
		for (int j = 0; j < 4; j++) {
			chosen[to[j]->id]++;
			for (int k = 0; k < j; k++)
				assert_ptr_not_equal(to[j], to[k]);
		}
	}
	for (uint64_t id = 2; id < 9; id++)
		assert_in_range(chosen[id], 300, 500);
	assert_int_equal(chosen[9], 0);
	end(&node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learned), cmocka_unit_test(test_fixed), cmocka_unit_test(test_unreachable), cmocka_unit_test(test_facts), cmocka_unit_test(test_choose),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
