/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * policy.h - which unit moves where, and why: pure functions over what a node knows of the cluster
 *
 * A decision has the parts that the literature gives it. *Transfer*: does this node have to give or to take (sender-initiated, receiver-initiated, both)?
 * *Selection*: which unit? A process that has used a seconds of CPU will use about a more (lifetimes are heavy-tailed), so it pays to move it when
 *
 *	a * (n - m) > cost,    n and m: how much slower than alone it runs here and would run there, itself counted on both sides
 *
 * (Harchol-Balter and Downey, 1997). What it talks to and reads from other nodes counts as slowness, too: bytes a second over what a link carries, for as long as it has been talking; and of nodes that would do alike the one
 * that it talks to is the better one. The cost is
 * the measured one of Godwit's moves: a part for each move, one for each connection, and the time of the link and of two CPUs for each MiB of memory.
 * *Location*: where? By opportunity cost: CPU, memory and I/O each cost base to the power of their utilisation, and the unit goes where it adds least (Amir, Awerbuch, Barak et
 * al., 2000); or to the better of two nodes taken at random (Mitzenmacher), the tightest that has room, or any.
 * *Memory ushering*: before a node pages, units go to where memory is free, whatever the CPUs say. *Eviction*: everything leaves a node that is drained.
 *
 * What was sent to a node since it measured itself is added to what it said, and fades (policy_sent), so that nobody is flooded. A unit that has moved stays for a
 * while (stay_s), and a move must gain more than gain_min_s, so that nothing swings.
 *
 * The daemon and godwit-sim run the same code. Seconds are CPU or wall clock seconds as said, sizes MiB, rates MiB a second. Nothing here allocates, blocks or asks the clock.
 */
#ifndef GODWIT_CLUSTER_POLICY_H
#define GODWIT_CLUSTER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/gossip.h"
#include "cluster/load.h"
#include "cluster/rng.h"

enum policy_transfer { POLICY_SENDER, POLICY_RECEIVER, POLICY_SYMMETRIC };
enum policy_location { POLICY_OPPORTUNITY, POLICY_TWO_CHOICES, POLICY_BEST_FIT, POLICY_RANDOM };

/* The cost of a move, as the benchmarks measure it (docs/benchmarks.md). */
struct policy_cost {
	double move_s;        /* each: what the unit loses, and what the two workers use */
	double connection_s;  /* for each connection */
	double mib_s;         /* of link and CPU for each MiB of memory */
};

struct policy {
	enum policy_transfer transfer;
	enum policy_location location;
	struct policy_cost cost;
	double gain_min_s;      /* a move gains more than this */
	double stay_s;          /* after a move a unit stays for so long */
	double age_max_s;       /* information that is older does not count */
	double link_mib_s;      /* what a link carries */
	double mem_low;         /* part of the memory that has to be free, or units are ushered away */
	double mem_enough;      /* part that is free then, here and at the destination */
	double psi_mem_high;    /* so much waiting for memory counts as too little of it */
	double sent_fade_s;     /* how long it takes until a node's own figures contain what was sent to it */
	size_t choices;         /* nodes looked at by TWO_CHOICES */
};

/* "sender", "receiver", "symmetric"; "opportunity", "two-choices", "best-fit", "random". False: it is none. */
bool policy_transfer_parse(const char *name, enum policy_transfer *ret);
bool policy_location_parse(const char *name, enum policy_location *ret);
const char *policy_transfer_name(enum policy_transfer transfer);
const char *policy_location_name(enum policy_location location);

/* What measurement and the simulator found best. */
extern const struct policy policy_default;

/* A node as this one knows it. */
struct policy_node {
	uint64_t id;
	struct load load;
	double age_s;
	enum node_state state;
	double sent_run, sent_mib;  /* sent there since, faded: policy_sent_fade */
};

#define POLICY_TALKS_MAX 4

struct policy_talk {
	uint64_t id;        /* of a node */
	double mib_s;       /* what is exchanged with it: connections, files */
};

struct policy_unit {
	uint64_t number;            /* the caller's */
	double cpu_s;               /* that it has used */
	double run;                 /* tasks of it that want a CPU; below 1 for one that mostly waits */
	double mem_mib;
	unsigned connections;
	bool pinned;                /* the user, or something that cannot move */
	double since_move_s;        /* wall clock; HUGE_VAL: it never moved */
	struct policy_talk talks[POLICY_TALKS_MAX];
	size_t n_talks;
	double talk_s;              /* wall clock: for how long it has been talking like that; less than cpu_s counts as that */
};

enum policy_reason { POLICY_STAYS, POLICY_BALANCE, POLICY_MEMORY, POLICY_EVICTED };

/* Why it stays. The first that holds. */
enum policy_obstacle { POLICY_NONE, POLICY_PINNED, POLICY_JUST_MOVED, POLICY_NOT_LOADED, POLICY_NO_NODE, POLICY_TOO_YOUNG };

/* What was found out about one unit: `godwit balance explain`. */
struct policy_verdict {
	enum policy_reason reason;
	enum policy_obstacle obstacle;
	size_t node;                /* its destination: an index into the nodes; with an obstacle behind NO_NODE the best one */
	double here, there;         /* n and m */
	double gain_s, cost_s;      /* a * (n - m), and what the move would cost */
};

/* How much slower than alone on a machine of speed 1 one task runs where `run` tasks want the CPU; HUGE_VAL: not at all. */
double policy_slowness(const struct load *load, double run);
double policy_cost_s(const struct policy *p, const struct policy_unit *unit);
/* What it would add to the opportunity cost of a node. */
double policy_opportunity(const struct policy_node *node, double run, double mem_mib, double base);

/* Whether a node takes anything at all, and has room for so much memory. */
bool policy_takes(const struct policy *p, const struct policy_node *node, double mem_mib);

/*
 * One unit of the node nodes[self]: whether it goes, and where. `why` other than POLICY_BALANCE: it has to go, and where it is best is all that is asked.
 * `only`: the one node that it may go to (which asked for work), SIZE_MAX: any.
 */
struct policy_verdict policy_judge(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *unit,
				   enum policy_reason why, size_t only, struct rng *rng);

struct policy_move {
	size_t unit; /* index */
	struct policy_verdict verdict;
};

/*
 * All that this node does now: at most `max` moves, the most urgent first; each counts as done for those behind it (in `nodes`, which is changed).
 * With an `only` the node has been asked by that one, and gives at most what makes both even.
 */
size_t policy_plan(const struct policy *p, struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *units, size_t n_units, size_t only,
		   struct rng *rng, struct policy_move *ret, size_t max);

/* A receiver: the node that it asks for work, SIZE_MAX: none. */
size_t policy_ask(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, struct rng *rng);

/* Where something new begins: where its opportunity cost is least, this node included. SIZE_MAX: nobody takes it. */
size_t policy_place(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, double run, double mem_mib, struct rng *rng);

/* The destination's word when it is asked to take a unit: its figures are the true ones. */
bool policy_accept(const struct policy *p, const struct policy_node *self, const struct policy_unit *unit, enum policy_reason reason, double here);

/* Something was sent to this node. */
void policy_sent(struct policy_node *node, double run, double mem_mib);
/* `dt_s` later. */
void policy_sent_fade(const struct policy *p, struct policy_node *node, double dt_s);

#endif
