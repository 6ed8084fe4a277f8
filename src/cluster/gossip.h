/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gossip.h - how nodes learn of each other's load: a table of entries, and what of it is told to whom
 *
 * The algorithm is that of MOSIX (Amir, Barak et al.; Drezner and Barak, 1986): in every period a node measures itself and sends the entries that it has acquired most
 * recently, its own first, to one node chosen at random. A message has a fixed size, a table a fixed capacity: the work of a node does not depend on
 * how many there are. How old the information is does: it is known and told (gossip_age_ms), and policies count with it.
 *
 * Which of two entries of a node is newer is said by `version`, which only that node counts; no two clocks are compared. An age travels as a duration, so that it errs by the time a
 * message is under way. A node that restarts begins with a higher version (its wall clock); if that has been set back, it takes the higher one up as soon as it hears of it.
 *
 * Urgent news (a node is drained, goes away, is short of memory) are handed on at once: gossip_merge says so, and `hops` says how many times more.
 *
 * Pure: no I/O, no clock, no memory but what gossip_init allocates. `now_ms` is any clock that only goes forward. The daemon and the simulator run the same code.
 */
#ifndef GODWIT_CLUSTER_GOSSIP_H
#define GODWIT_CLUSTER_GOSSIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/id_index.h"
#include "cluster/load.h"

#define GOSSIP_PERIOD_MS 1000
#define GOSSIP_WINDOW 8       /* entries of a message */
#define GOSSIP_HOPS 3         /* of urgent news: FANOUT to the power of this hear of it at once */
#define GOSSIP_FANOUT 4
#define GOSSIP_FORGET_MS 60000 /* an entry that is older is not told any more */

enum node_state {
	NODE_OK = 1,
	NODE_BUSY,    /* takes nothing: one of its limits is reached */
	NODE_DRAINED, /* takes nothing, and what is there leaves */
	NODE_LEAVING, /* shuts down, and gives away what is there */
	NODE_GONE,    /* has shut down */
	NODE_STATES
};

struct gossip_entry {
	uint64_t id;           /* of the node, never 0: gossip_id of its name */
	uint64_t version;      /* the higher one is newer */
	uint64_t measured_ms;  /* in a table: when, by the clock of the table's owner; in a message: how long ago */
	uint8_t address[16];   /* IPv6, or IPv4 mapped into it; all 0 in the sender's own entry: where the message comes from */
	uint16_t port;
	uint8_t state;         /* enum node_state */
	uint8_t hops;          /* of urgent news: how often it is handed on still */
	uint32_t facts;        /* gossip_facts_hash of what the node is; 0: it does not say */
	uint16_t units;        /* that have come there; 65535: or more */
	struct load load;
};

#define GOSSIP_NAME_MAX 64
#define GOSSIP_LABELS_MAX 255
#define GOSSIP_KERNEL_MAX 128

/* What a node is, which changes when it is started anew at most: it is asked for when `facts` of an entry is not what is known. */
struct gossip_facts {
	uint64_t id;                         /* gossip_id of the name */
	char name[GOSSIP_NAME_MAX + 1];
	char labels[GOSSIP_LABELS_MAX + 1];
	char kernel[GOSSIP_KERNEL_MAX + 1];
};

struct gossip_message {
	size_t n;
	struct gossip_entry entries[GOSSIP_WINDOW]; /* the first is the sender's own */
};

struct gossip {
	size_t capacity, n;           /* the first entry is always the node's own */
	uint64_t *ids;                /* of the entries; 0: none */
	struct id_index index;        /* over ids */
	struct gossip_entry *entries;
};

/* FNV-1a. Two nodes of a cluster must not have the same: membership sees to that. */
uint64_t gossip_id(const char *name);
/* Of all texts; never 0. */
uint32_t gossip_facts_hash(const struct gossip_facts *facts);

/* `version`: where the node begins to count, seconds of the wall clock times 1,000, say. capacity > GOSSIP_WINDOW. */
int gossip_init(struct gossip *g, const struct gossip_entry *self, size_t capacity, struct err *e);
void gossip_free(struct gossip *g);

/* What the node has measured; its units and facts are set in entries[0] before. A change of state is urgent: true when it is to be sent at once to GOSSIP_FANOUT nodes. */
bool gossip_measured(struct gossip *g, const struct load *load, enum node_state state, uint64_t now_ms);
/* The most recent entries, the node's own first. */
void gossip_tell(const struct gossip *g, uint64_t now_ms, struct gossip_message *ret);
/* Enters what is newer. True when there was urgent news among it: then what gossip_tell says goes to GOSSIP_FANOUT nodes at once. The message has been checked. */
bool gossip_merge(struct gossip *g, const struct gossip_message *m, uint64_t now_ms);
/* A node did not answer: what it said counts as old, until it is heard of anew. Its version stays known, so that nothing old can be told anew. */
void gossip_forget(struct gossip *g, uint64_t id);

/* NULL: nothing is known of it. Valid until the table changes. Entries stay until others need their room: it is their age that says what they are worth. */
const struct gossip_entry *gossip_find(const struct gossip *g, uint64_t id);
uint64_t gossip_age_ms(const struct gossip_entry *entry, uint64_t now_ms);

#endif
