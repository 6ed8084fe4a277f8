/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keep_rules.h - what a node that keeps copies of protected units does with each word that is said to it: pure functions
 *
 * A keeper has one record a unit and protection ("HOME:PID@ID"). Two numbers say which of two things about a unit is the newer one: `moves`, its fencing number, which grows whenever another node becomes its owner (by a move or
 * by failover), and within that `seq`, which grows with each copy.
 *
 *	state    has a copy  means                                             what is still possible
 *	COPY     yes         it runs on `owner`, as far as is known            everything
 *	ENDED    no          it has ended, or is not protected any more        a copy that is newer
 *	SEALED   perhaps     `to` restores it; `owner` has lost it             TAKE where `to` is this node; another seal when that one failed; what has a greater fencing number
 *	TAKING   yes         this node is restoring it at this moment          nothing
 *	TAKEN    no          this node has restored it                         what has a greater fencing number
 *
 * A unit is restored by the one node whose own record says SEALED with itself as `to`. Who asks for it seals it at every node that knows of the unit before it has it taken; a node that takes it, or has taken
 * it, refuses any other seal. So of two who ask at once at most one comes through, whatever each of them has chosen (tests/unit/test_keep_rules.c plays it).
 */
#ifndef GODWIT_DAEMON_KEEP_RULES_H
#define GODWIT_DAEMON_KEEP_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/hello.h"

#define KEEP_UNIT_MAX 320 /* "HOME:PID@ID": numbers of processes come again, ids of protections do not */
#define KEEP_RUN_MAX 40

/* The numbers are part of the protocol and of the files: append, never renumber. */
#define KEEP_IMAGE_BYTES_MAX (1ull << 50)

enum keep_word {
	KEEP_STORE = 1, /* a new copy */
	KEEP_ENDED,     /* the unit has ended, or is not protected any more */
	KEEP_MOVED,     /* it runs on `to` now, with one move more */
	KEEP_LIST,      /* what there is, here */
	KEEP_SEAL,      /* `to` is going to restore it, since `owner` has failed */
	KEEP_TAKE,      /* this node is to restore it */
	KEEP_ASK,       /* is it the owner's still? */
	KEEP_DROP,      /* others keep newer copies: this one is not needed */
	KEEP_WORDS,
};

enum keep_state {
	KEEP_NOTHING, /* no record */
	KEEP_COPY,
	KEEP_HAS_ENDED,
	KEEP_SEALED,
	KEEP_TAKING,
	KEEP_TAKEN,
	KEEP_RUNS, /* only in answers to LIST: it runs on the node that answers */
	KEEP_STATES,
};

enum keep_verdict {
	KEEP_YES = 1,
	KEEP_NO,     /* this node cannot: full, policy, it lacks what the image needs; `why` says it */
	KEEP_STALE,  /* what is known here is newer */
	KEEP_FENCED, /* the unit is another node's (`to`): who runs it must end it */
	KEEP_VERDICTS,
};

struct keep_record {
	enum keep_state state;
	char unit[KEEP_UNIT_MAX];
	char owner[HELLO_NAME_MAX + 1];
	uint64_t moves, seq;
	uint64_t base;  /* seq of the whole image that begins its chain; seq: it is whole itself */
	uint64_t bytes; /* of all images of the chain */
	char to[HELLO_NAME_MAX + 1];
	char run[KEEP_RUN_MAX]; /* of the owner's host */
	bool has_copy;
};

struct keep_question {
	enum keep_word word;
	char unit[KEEP_UNIT_MAX];
	char owner[HELLO_NAME_MAX + 1];
	uint64_t moves, seq;
	uint64_t base;  /* STORE: as in a record */
	uint64_t bytes; /* of this image */
	char to[HELLO_NAME_MAX + 1];
	char run[KEEP_RUN_MAX];
	bool again;
};

/*
 * What becomes of a record (state KEEP_NOTHING: there is none) when that is asked. Returns the verdict; *record is the new one, and is to be written before it is answered. TAKE: *record is TAKING then, and becomes
 * TAKEN, or SEALED again, by keep_taken. `self`: this node. LIST asks nothing of records.
 */
enum keep_verdict keep_judge(struct keep_record *record, const struct keep_question *q, const char *self);
/* The restore that TAKING stands for is over. */
void keep_taken(struct keep_record *record, bool runs);

/* Whether (moves, seq) of a is newer. */
bool keep_is_newer(uint64_t moves_a, uint64_t seq_a, uint64_t moves_b, uint64_t seq_b);

/*
 * Failover: of the records of one unit that all nodes have told (LIST), what is to be done when `dead` have failed: the index of the one that is to restore it, -1 when nobody is to, and why not (a static text).
 * n_entries records, each of the node nodes[i]. A record that is sealed already decides, unless its node is dead, or in `failed`.
 */
struct keep_told {
	const char *node;
	struct keep_record record;
	bool failed; /* it has been tried, and could not; or what it says of itself (TAKEN) was so before it was booted anew */
};
int keep_choose(const struct keep_told *told, size_t n, const char *const *dead, size_t n_dead, const char **ret_why);

#endif
