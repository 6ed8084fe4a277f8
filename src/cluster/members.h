/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * members.h - who belongs to the cluster, what they are, and whether they answer: whom gossip is sent to
 *
 * Members are the ones of the configuration or of a store (*fixed*: they stay), and those that gossip tells of (*learned*: dropped when nobody has heard of them for
 * MEMBERS_DROP_MS). Seeds are addresses only; who answers there tells its name.
 *
 * A node is *reachable* as long as it answers probes. In every period one member taken at random is probed, and beside it at most MEMBERS_DOUBTED of those that are
 * in doubt: who has not answered the last time, or of whom only old things are known. Who has not answered MEMBERS_MISSES times in a row is unreachable, and is probed on. So
 * the work in a period does not depend on how many members there are, a node that dies is found in seconds by who is to talk to it, and the loss of one datagram says nothing.
 *
 * What a member is (name, labels, kernel) is asked for once, and again when its entry has other facts (gossip.h).
 *
 * Pure, as gossip.h: no I/O, no clock, no memory but what members_init allocates.
 */
#ifndef GODWIT_CLUSTER_MEMBERS_H
#define GODWIT_CLUSTER_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/gossip.h"
#include "cluster/rng.h"

#define MEMBERS_MISSES 2
#define MEMBERS_DOUBTED 2        /* probed in a period beside the one taken at random */
#define MEMBERS_ANSWER_MS 900    /* a probe that is not answered until then is a miss */
#define MEMBERS_OLD_MS 15000     /* of whom nothing newer is known is probed */
#define MEMBERS_DROP_MS 600000
#define MEMBERS_ASK_MS 1000      /* facts are not asked for more often, of one node */
#define MEMBERS_SEEDS_MAX 16

struct member {
	uint64_t id;
	uint8_t address[16];     /* IPv6, or IPv4 mapped into it */
	uint16_t port;
	bool fixed;
	struct gossip_facts facts; /* of a fixed one the name is always there */
	uint32_t facts_hash;     /* of what is known; 0: nothing yet */
	uint64_t heard_ms;       /* anything new of it, over whom ever; 0: never */
	uint64_t answered_ms;    /* something from itself; 0: never */
	uint64_t probed_ms;      /* a probe that is not answered yet; 0: there is none */
	uint64_t asked_ms;       /* for its facts */
	unsigned missed;         /* probes in a row */
};

struct members {
	size_t n, capacity;
	uint64_t self;           /* this node, which is no member of its own */
	uint64_t *ids;           /* of the members; 0: none */
	struct id_index index;   /* over ids */
	struct member *v;
	size_t next_doubted;     /* who is looked at first */
};

int members_init(struct members *m, uint64_t self, size_t capacity, struct err *e);
void members_free(struct members *m);

/* NULL: there is none. Valid until the next change. */
struct member *members_find(const struct members *m, uint64_t id);
/* A fixed one, also one that was learned before. False: the table is full of fixed ones. */
bool members_fix(struct members *m, const char *name, const uint8_t address[16], uint16_t port, uint64_t now_ms);
/* A fixed one is not in the store any more: it is as one that was learned. */
void members_unfix(struct members *m, uint64_t id);
/*
 * What a message that has been checked says of members: new ones, addresses, versions that are new to `before`, the gossip table as it was before the message was merged.
 * `from`: where it came from. May change the message: the sender's address where it does not know it.
 */
void members_heard(struct members *m, const struct gossip *before, struct gossip_message *message, const uint8_t from[16], uint16_t from_port, uint64_t now_ms);
/* False: nobody has asked, or they are not those of its entry. */
bool members_facts(struct members *m, const struct gossip *g, const struct gossip_facts *facts);
/* Those whose facts are to be asked for now; they count as asked. */
size_t members_unknown(struct members *m, const struct gossip *g, uint64_t now_ms, struct member *ret[], size_t max);

/* Once a period: what was not answered is missed, and who is gone is dropped. True: somebody has become unreachable. */
bool members_expire(struct members *m, uint64_t now_ms);
/* Whom to probe in this period, at most 1 + MEMBERS_DOUBTED; they count as probed. */
size_t members_probe(struct members *m, const struct gossip *g, struct rng *rng, uint64_t now_ms, struct member *ret[1 + MEMBERS_DOUBTED]);
/* At most `max` different ones that are reachable: for urgent news. */
size_t members_choose(struct members *m, struct rng *rng, struct member *ret[], size_t max);
/* It has not failed to answer. Of who has never been heard of this says nothing yet: there is no entry of it. */
bool member_reachable(const struct member *member);

#endif
