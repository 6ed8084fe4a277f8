/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * owner.h - whose a unit is, in clusters with etcd: who moves one takes its record first
 *
 * The record (cluster/membership.h) is changed by transactions on the number that it has. Before a unit is touched, the source writes into it that it moves the unit: only when it is its own, or one
 * with fewer moves than the unit has made (the hand-over to this node has not been written down yet). Of two nodes that would move the same unit, whatever they believe, one fails, and refuses the
 * move; so it does when etcd does not answer. After the commit the record gets its new owner, at once from here and, should that fail, from the destination within a second (etcd_keeper.h); a move that
 * has failed gives it back.
 *
 * Workers ask godwit-etcd, which has a connection to the store, at a door (home/door.h): one question a connection. Without etcd in the configuration all of this does nothing.
 */
#ifndef GODWIT_DAEMON_OWNER_H
#define GODWIT_DAEMON_OWNER_H

#include "cluster/membership.h"
#include "daemon/config.h"
#include "image/refuse.h"

enum owner_word {
	OWNER_ASK = 'A',   /* may it be moved from here? */
	OWNER_CLAIM = 'C', /* it is about to be */
	OWNER_MOVED = 'M', /* it has been; no answer */
	OWNER_BACK = 'B',  /* it has not been; no answer */
};

struct owner_question {
	uint8_t word;
	uint8_t made;      /* MOVED, BACK: the claim has made the record */
	char unit[MEMBERSHIP_UNIT_MAX];
	char to[GOSSIP_NAME_MAX + 1];
	uint64_t moves;    /* that the unit has made */
	uint64_t fence;    /* MOVED, BACK: the claim's */
};

struct owner_answer {
	int32_t code;      /* 0, -EEXIST: it is another node's, or what was wrong with etcd */
	uint8_t made;
	uint64_t fence;
	char why[ERR_MESSAGE_MAX];
};

/* A claim of this worker's. */
struct owner_claim {
	const struct config *config;
	bool held;
	struct owner_question question;
};

/* Takes the record of a unit that is about to move, once. -EPERM with a refusal: it is another node's, or nobody knows. */
int owner_claim_take(struct owner_claim *c, const char *unit, unsigned moves, const char *to, struct refusals *refusals, struct err *e);
/* What has become of it; does not wait. Nothing without a claim. */
void owner_claim_end(struct owner_claim *c, bool moved);
/* Whether a process could be moved from here; -EPERM with a refusal. */
int owner_ask(const struct config *config, pid_t pid, struct refusals *refusals, struct err *e);

/* For godwit-etcd. */
int owner_open(struct err *e);
/* Answers one question. `known`: whether the records of this node are to have that unit. */
void owner_serve(int door, struct membership *store, const char *name, bool (*known)(const char *unit, void *arg), void *arg);

#endif
