/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * balance.h - godwit-balance, the process of godwitd that moves units by itself, and what it and `godwit balance explain` say
 *
 * Once a second it takes the nodes (nodes_view.h) and the units (units.h), has cluster/policy.h plan, reserves room (reserve.h) and begins the moves (move.h); when there is room here it asks a node that is
 * loaded for work (work.h), and it gives work to a node that asks. Only a node's own
 * godwit-balance begins moves from it. It runs while balancing is on (`godwit balance on`, off at first) or a person may come back (workstation); it ends with godwitd.
 */
#ifndef GODWIT_DAEMON_BALANCE_H
#define GODWIT_DAEMON_BALANCE_H

#include "cluster/policy.h"
#include "daemon/daemon.h"
#include "daemon/nodes_view.h"
#include "daemon/talks.h"
#include "daemon/units.h"

#define BALANCE_NOTES 64
#define BALANCE_TEXT_MAX REGISTRY_REASON_MAX
#define BALANCE_MOVES_MAX 8 /* at once: each waits most of the time, for the other side and, where CPUs are short, for a turn */

/* A unit that could not be moved a moment ago. */
struct balance_note {
	pid_t pid;
	uint64_t start_ticks;
	uint64_t until_ns;  /* CLOCK_BOOTTIME; it is not tried before */
	char why[200];
};

/* Written by godwit-balance only; readers may see a note that is being written. */
struct balance_shared {
	uint64_t moves, failures; /* since godwitd began */
	double cost_factor;       /* what moves have cost here, in relation to the policy's figures; 0: none has been measured */
	double took_s;            /* how long they took, in the mean */
	double ahead_mib;         /* memory that will be used until a move that is begun now is over, as it is used now */
	struct balance_note notes[BALANCE_NOTES];
	struct talks_shared talks;
};

/* Once, before any worker is started. */
int balance_init(struct balance_shared **ret, struct err *e);
/* In the main process: starts it when it should run and does not; the time until that is looked at again, -1: never. */
int balance_tick(struct daemon *d);
/* `daemon`: the main process. */
void __attribute__((noreturn)) balance_loop(const struct daemon *d, pid_t daemon);

/* The policy of the configuration with costs as they have been measured here. */
struct policy balance_policy(const struct daemon *d);
/* The note about a unit that holds now, or NULL. */
const struct balance_note *balance_note_of(const struct balance_shared *s, const struct unit_info *unit);
/* A person works on this host, which is a workstation. */
bool balance_owner_works(const struct config *config, const struct load *load);

/* Takes what will be used in a moment from what this node has free; returns how much that is. */
double balance_look_ahead(const struct balance_shared *s, struct nodes_view *view);

/* A question to a policy about the units of this node: the caller's arrays. */
struct balance_question {
	const struct policy *policy;
	struct nodes_view *view;
	bool owner;    /* foreign units have to go */
	double ahead_mib; /* taken from what this node has free */
};
/* A unit as policies see it: with those that it talks with, and staying while there is a note about it. */
struct policy_unit balance_unit(const struct balance_shared *s, const struct unit_info *unit);

struct balance_move {
	const struct unit_info *unit;
	struct policy_unit seen;
	struct policy_verdict verdict;
};

/* What this node does now with n units of it, as policy_plan() says; nothing when there is no memory. */
size_t balance_plan(const struct balance_question *q, const struct balance_shared *s, const struct unit_info *const *units, size_t n, size_t only, struct rng *rng, struct balance_move *ret, size_t max);

/* Why a unit goes, in one line. */
void balance_reason(const struct balance_question *q, const struct policy_unit *unit, const struct policy_verdict *v, char ret[BALANCE_TEXT_MAX]);
/* Why it stays. */
void balance_obstacle(const struct balance_question *q, const struct policy_unit *unit, const struct policy_verdict *v, const struct balance_note *note, char ret[BALANCE_TEXT_MAX]);
const char *balance_obstacle_name(enum policy_obstacle obstacle);

#endif
