// SPDX-License-Identifier: GPL-2.0-or-later
/* test_gossip.c - what nodes tell each other of their load: tables, datagrams, how news spread */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cluster/gossip_packet.h"
#include "cluster/rng.h"

#define START_MS 1000000

static struct load some_load(double run)
{
	struct load load = { 0 };

	load.v[LOAD_RUN] = run;
	load.v[LOAD_CORES] = load.v[LOAD_SPEED] = 1;
	return load;
}

static void make(struct gossip *g, uint64_t id, size_t capacity)
{
	struct gossip_entry self = { .id = id, .version = 1, .state = NODE_OK, .measured_ms = START_MS };

	assert_int_equal(gossip_init(g, &self, capacity, NULL), 0);
}

static void say(struct gossip *from, struct gossip *to, uint64_t now_ms)
{
	struct gossip_message m;

	gossip_tell(from, now_ms, &m);
	gossip_merge(to, &m, now_ms);
}

static double run_of(const struct gossip *g, uint64_t id)
{
	const struct gossip_entry *entry = gossip_find(g, id);

	return entry ? entry->load.v[LOAD_RUN] : -1;
}

static void test_newer_wins(void **state)
{
	struct gossip a, b, c;
	struct gossip_message old;
	struct load one = some_load(1), two = some_load(2);

	make(&a, 1, 16);
	make(&b, 2, 16);
	make(&c, 3, 16);
	gossip_measured(&a, &one, NODE_OK, START_MS);
	gossip_tell(&a, START_MS, &old);
	gossip_measured(&a, &two, NODE_OK, START_MS + 1000);
	say(&a, &b, START_MS + 1000);
	assert_float_equal(run_of(&b, 1), 2, 0);
	gossip_merge(&b, &old, START_MS + 1100); /* a datagram that was late, or is told anew by a stranger */
	assert_float_equal(run_of(&b, 1), 2, 0);
	say(&b, &c, START_MS + 3000); /* over a third one */
	assert_float_equal(run_of(&c, 1), 2, 0);
	assert_int_equal(gossip_age_ms(gossip_find(&c, 1), START_MS + 4000), 3000);
	gossip_forget(&c, 1);
	gossip_merge(&c, &old, START_MS + 4000);
	assert_true(gossip_age_ms(gossip_find(&c, 1), START_MS + 4000) >= GOSSIP_FORGET_MS); /* who is dead stays dead */
	gossip_free(&a);
	gossip_free(&b);
	gossip_free(&c);
}

/* Its own entry comes back with a higher version: it was restarted with its clock set back. */
static void test_own_version(void **state)
{
	struct gossip a, b, again;
	struct load load = some_load(1);

	make(&a, 1, 16);
	make(&b, 2, 16);
	for (int i = 0; i < 50; i++)
		gossip_measured(&a, &load, NODE_OK, START_MS);
	say(&a, &b, START_MS);
	make(&again, 1, 16);
	load = some_load(7);
	gossip_measured(&again, &load, NODE_OK, START_MS);
	say(&again, &b, START_MS);
	assert_float_equal(run_of(&b, 1), 1, 0);
	say(&b, &again, START_MS);
	gossip_measured(&again, &load, NODE_OK, START_MS + 1000);
	say(&again, &b, START_MS + 1000);
	assert_float_equal(run_of(&b, 1), 7, 0);
	gossip_free(&a);
	gossip_free(&b);
	gossip_free(&again);
}

static void test_full_table(void **state)
{
	struct gossip g, other;
	struct load load = some_load(1);

	make(&g, 1, 16);
	for (uint64_t id = 2; id < 100; id++) {
		make(&other, id, 16);
		gossip_measured(&other, &load, NODE_OK, START_MS + id);
		say(&other, &g, START_MS + id);
		gossip_free(&other);
	}
	assert_int_equal(g.n, 16);
	assert_int_equal(g.ids[0], 1);
	for (uint64_t id = 85; id < 100; id++)
		assert_non_null(gossip_find(&g, id));
	gossip_free(&g);
}

#define NODES 200

struct cluster {
	struct gossip g[NODES];
	struct rng rng;
	uint64_t now_ms, messages;
};

static size_t other(struct cluster *c, size_t i)
{
	size_t to = (size_t)rng_below(&c->rng, NODES - 1);

	return to + (to >= i);
}

static void tell_on(struct cluster *c, size_t from, const size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct gossip_message m;
		size_t to = other(c, from);

		gossip_tell(&c->g[from], c->now_ms, &m);
		c->messages++;
		if (gossip_merge(&c->g[to], &m, c->now_ms))
			tell_on(c, to, GOSSIP_FANOUT);
	}
}

/* Age and number of messages do not depend on luck: 60 seconds of 200 nodes. Then one is drained, and most know it at once. */
static void test_spreads(void **state)
{
	static struct cluster c = { .rng = { 7 }, .now_ms = START_MS };
	struct load load = some_load(1);
	size_t known = 0, drained = 0;
	double age = 0;

	for (size_t i = 0; i < NODES; i++)
		make(&c.g[i], i + 1, NODES + 1);
	for (int second = 0; second < 60; second++, c.now_ms += GOSSIP_PERIOD_MS)
		for (size_t i = 0; i < NODES; i++) {
			gossip_measured(&c.g[i], &load, NODE_OK, c.now_ms);
			tell_on(&c, i, 1);
		}
	assert_int_equal(c.messages, 60 * NODES);
	for (size_t i = 1; i < c.g[0].n; i++) {
		known++;
		age += (double)gossip_age_ms(&c.g[0].entries[i], c.now_ms) / 1000;
	}
	print_message("%zu of %d nodes are known, %.1f s old in the mean\n", known, NODES, age / (double)known);
	assert_true(known > NODES * 8 / 10);
	assert_true(age / (double)known < 25);
	assert_true(gossip_measured(&c.g[3], &load, NODE_DRAINED, c.now_ms));
	tell_on(&c, 3, GOSSIP_FANOUT);
	for (size_t i = 0; i < NODES; i++)
		drained += i != 3 && gossip_find(&c.g[i], 4) && gossip_find(&c.g[i], 4)->state == NODE_DRAINED;
	print_message("%zu know at once that one is drained\n", drained);
	assert_true(drained > 40);
	for (size_t i = 0; i < NODES; i++)
		gossip_free(&c.g[i]);
}

static void must_be_whole(const uint8_t packet[GOSSIP_PACKET_BYTES], const uint8_t *key)
{
	uint8_t changed[GOSSIP_PACKET_BYTES];
	struct gossip_packet back;

	for (size_t i = 0; i < GOSSIP_PACKET_BYTES; i++) { /* no byte of it may be changed */
		memcpy(changed, packet, GOSSIP_PACKET_BYTES);
		changed[i] ^= 1;
		assert_true(gossip_packet_decode(changed, sizeof(changed), key, &back, NULL) < 0);
	}
}

static void test_packet(void **state)
{
	static const uint8_t key[GOSSIP_KEY_BYTES] = "one", another[GOSSIP_KEY_BYTES] = "two";
	uint8_t packet[GOSSIP_PACKET_BYTES];
	struct gossip a, b;
	struct gossip_packet m = { .kind = GOSSIP_PROBE }, back;
	struct load load = some_load(3.5);

	make(&a, 11, 16);
	make(&b, 12, 16);
	a.entries[0].facts = 0xfedcba98;
	a.entries[0].units = 65535;
	gossip_measured(&a, &load, NODE_BUSY, START_MS);
	say(&b, &a, START_MS);
	gossip_tell(&a, START_MS + 250, &m.message);
	assert_int_equal(gossip_packet_encode(&m, key, packet, NULL), 0);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), key, &back, NULL), 0);
	assert_int_equal(back.kind, GOSSIP_PROBE);
	assert_int_equal(back.message.n, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct gossip_entry *got = &back.message.entries[i], *sent = &m.message.entries[i];

		assert_int_equal(got->id, sent->id);
		assert_int_equal(got->version, sent->version);
		assert_int_equal(got->measured_ms, 250);
		assert_int_equal(got->state, sent->state);
		assert_int_equal(got->facts, sent->facts);
		assert_int_equal(got->units, sent->units);
		assert_memory_equal(&got->load, &sent->load, sizeof(load));
	}
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), another, &back, NULL), -EACCES);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), NULL, &back, NULL), -EACCES);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet) - 1, key, &back, NULL), -EPROTO);
	must_be_whole(packet, key);
	gossip_free(&a);
	gossip_free(&b);
}

static void test_facts(void **state)
{
	uint8_t packet[GOSSIP_PACKET_BYTES];
	struct gossip_packet p = { .kind = GOSSIP_FACTS, .facts = { .id = gossip_id("n1"), .name = "n1", .labels = "gpu zone=east", .kernel = "6.18" } }, back;
	uint32_t hash = gossip_facts_hash(&p.facts);

	assert_int_equal(gossip_packet_encode(&p, NULL, packet, NULL), 0);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), NULL, &back, NULL), 0);
	assert_int_equal(back.kind, GOSSIP_FACTS);
	assert_int_equal(back.facts.id, p.facts.id);
	assert_int_equal(gossip_facts_hash(&back.facts), hash);
	assert_string_equal(back.facts.labels, "gpu zone=east");
	memmove(p.facts.labels, "gp\0u zone=east", 15); /* nothing is hidden behind the end of a text, */
	assert_int_equal(gossip_packet_encode(&p, NULL, packet, NULL), 0);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), NULL, &back, NULL), -EPROTO);
	strncpy(p.facts.labels, "gpu\n", sizeof(p.facts.labels)); /* and no character that moves a cursor in it */
	assert_true(gossip_facts_hash(&p.facts) != hash);
	assert_int_equal(gossip_packet_encode(&p, NULL, packet, NULL), 0);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), NULL, &back, NULL), -EPROTO);
	p.facts.labels[0] = 0;
	p.facts.id++; /* it speaks for itself only */
	memset(p.facts.labels, 0, sizeof(p.facts.labels));
	assert_int_equal(gossip_packet_encode(&p, NULL, packet, NULL), 0);
	assert_int_equal(gossip_packet_decode(packet, sizeof(packet), NULL, &back, NULL), -EPROTO);
}

/* Entries come and go in a table that is full: each is found where it is, and none that has gone. */
static void test_many(void **state)
{
	enum { CAPACITY = 10240, IDS = 15000 };
	struct gossip g;
	size_t found = 0;

	make(&g, 1, CAPACITY);
	for (uint64_t i = 0; i < 30000; i++) {
		struct gossip_message m = { .n = 1, .entries[0] = { .id = 2 + (i * 7919) % IDS, .version = i + 1, .state = NODE_OK } };

		gossip_merge(&g, &m, START_MS + i);
		assert_true(gossip_find(&g, m.entries[0].id)->version == i + 1);
	}
	assert_int_equal(g.n, CAPACITY);
	for (size_t i = 0; i < g.n; i++)
		assert_ptr_equal(gossip_find(&g, g.ids[i]), &g.entries[i]);
	for (uint64_t id = 1; id < 2 + IDS; id++)
		found += gossip_find(&g, id) != NULL;
	assert_int_equal(found, CAPACITY);
	gossip_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_newer_wins), cmocka_unit_test(test_own_version), cmocka_unit_test(test_full_table),
		cmocka_unit_test(test_spreads), cmocka_unit_test(test_packet), cmocka_unit_test(test_facts), cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
