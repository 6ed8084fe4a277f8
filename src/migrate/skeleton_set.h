/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_set.h - all processes of a unit at the destination before they run
 *
 * skeleton_set_create makes every process of the tree (image/tree_plan.h says how), one skeleton each: with its number, parent, session and group, a blank
 * address space, one thread at rest, and its agent. What one process is made of is skeleton.h's. All are children of who is their parent in the unit, and the root is a child
 * of godwitd. If any number is taken on this host, or own_namespace says so, all of them are in a pid namespace of their own.
 *
 * The commit is that of one process (skeleton_commit.c): each thread of each process is held, and the point of no return is where the root's main thread loses its
 * PTRACE_O_EXITKILL. When the worker dies about it, all threads wait in the stub for the state word of the unit's page (agent/abi.h), which all scratches share.
 */
#ifndef GODWIT_MIGRATE_SKELETON_SET_H
#define GODWIT_MIGRATE_SKELETON_SET_H

#include "file.pb-c.h"
#include "image/tree.h"
#include "migrate/skeleton.h"

struct skeleton_set {
	struct tree tree;    /* a copy of what it was made from last */
	struct skeleton **v; /* v[i]: tree.v[i]; [0]: the root. NULL: a zombie that has been buried */
	const struct skeleton_world *world; /* set before skeleton_set_create */
	bool own_pid_namespace;
	pid_t namespace_init;
	const Gw__FdTable *fds; /* set before skeleton_set_create: which terminals control which sessions; they have been made. NULL: none do */
	/* Before skeleton_set_create, NULL: none. Called with the first process, which holds nothing yet, before the others are forked from it. */
	int (*first)(struct skeleton *s, void *arg, struct err *e);
	void *first_arg;
	/* The same for each other one that lives, before others are forked from it; it has no agent yet. */
	int (*settle)(struct skeleton *s, pid_t number, void *arg, struct err *e);
	/* When the first process of a pid namespace below the root's is there, before others are made in that. NULL: there are none. */
	int (*opened)(struct skeleton *s, uint32_t space, void *arg, struct err *e);
	/* Behind the commit point: makes the commit known for good (outcome.h). After a failure nothing has run, nor will. NULL: nobody asks. */
	int (*record)(void *arg, struct err *e);
	/* Between the commit and the moment when the processes run; NULL: none. */
	void (*committed)(void *arg);
	const struct skeleton_seat *seat; /* set before skeleton_set_create: the root gets a stub's place; NULL: it is made */
	struct parent *parent; /* set before skeleton_set_create: the surrogate parent that clones the root; NULL: it is a child of godwitd */
};

#define SKELETON_SET_INIT ((struct skeleton_set){ 0 })

/*
 * terms[tree->n]; ignored for zombies. A process that shares its memory with an earlier one (tree.memory) has a scratch and an agent of its own in there. Zombies exist as processes until skeleton_set_bury. After an error: skeleton_set_destroy.
 */
int skeleton_set_create(struct skeleton_set *set, const struct tree *tree, bool own_namespace, const struct skeleton_terms *terms, struct err *e);

struct skeleton *skeleton_set_find(const struct skeleton_set *set, pid_t pid);

/* Lets the zombies of the tree end, with their status; their parents have not noticed (no signal is pending for it). Before handlers are restored. */
int skeleton_set_bury(struct skeleton_set *set, const struct tree *tree, struct err *e);
/*
 * What has become of the tree since: ends processes that are in `tree` no more, adds new ones, buries new zombies; set->v is as `tree` then (pointers of those that stay are
 * the same). `terms` as above, looked at for new ones only. Before any credentials or handlers are restored. -EAGAIN: this cannot be made out of what is there.
 */
int skeleton_set_update(struct skeleton_set *set, const struct tree *tree, const struct skeleton_terms *terms, struct err *e);

/*
 * The commit. Lets every thread go on with what skeleton_hold was told. After an error with the state FROZEN or ABORTED nothing has run, nor will; otherwise the processes
 * may be running.
 */
int skeleton_set_release(struct skeleton_set *set, struct err *e);

/* Kills all that has been built. */
void skeleton_set_destroy(struct skeleton_set *set);

#endif
