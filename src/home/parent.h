/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parent.h - the surrogate parent: who is the parent of a unit's root where the unit runs, in place of the one at home
 *
 * A process of its own (godwit-away), forked by the destination's worker to clone the root's skeleton, and a child of godwitd. It has the number of the
 * parent at home where that is free, and leads a session, so that the root's getppid() is what it was, its group is not orphaned (SIGTSTP stops it), and its
 * end and stops are seen by waitid(2). It outlives worker and godwitd; away.c is what it does then.
 */
#ifndef GODWIT_HOME_PARENT_H
#define GODWIT_HOME_PARENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct parent {
	/* set by the caller */
	char unit[300];        /* HOME:PID */
	uint8_t mig_id[16];
	pid_t wanted_pid;      /* number of the parent at home; 0: any */
	bool leads;            /* the root leads its session, and will make one */
	int slave;             /* of the terminal that stands for the root's one at home; -1. Closed by parent_commit and _abort */
	bool controls;         /* it is the terminal of the session that the surrogate leads */
	/* Clones the child instead of clone3(2) with a number alone, as child of its caller; NULL. Returns 0 in the child, its number or a negative errno. */
	pid_t (*clone)(void *arg, pid_t pid, int *ret_pidfd);
	void *clone_arg;
	/* set by parent_clone */
	pid_t pid;             /* as the worker sees it; 0: none */
	int control;           /* its closing tells it that the worker has done with it, or is dead */
};

#define PARENT_INIT ((struct parent){ .control = -1, .slave = -1 })

/*
 * Forks the surrogate and has it clone a child with the number `pid`, which runs child(arg). Returns the child's number as the caller sees it. -EEXIST: that
 * number is taken here; nothing is left then.
 */
pid_t parent_clone(struct parent *p, pid_t pid, void (*child)(void *arg), void *arg, struct err *e);
/* What the worker says to the surrogate, with a descriptor where it is a channel. */
enum parent_words { PARENT_CHANNEL = 'R', PARENT_COMMIT = 'C', PARENT_ABORT = 'A' };

struct parent_word {
	uint32_t word, id, kind;
};

/* The end of a relay (home/channel.h) that godwit-away is to hold; fd stays the caller's. */
int parent_add_channel(struct parent *p, uint32_t id, unsigned kind, int fd, struct err *e);
/* The unit runs: from now on its state is told to whoever comes with a connection. */
void parent_commit(struct parent *p);
/* It never will (it has been killed). */
void parent_abort(struct parent *p);

/* away.c: the surrogate's life. `root` as it sees it. */
void away_run(const struct parent *p, int control, pid_t root) __attribute__((noreturn));

#endif
