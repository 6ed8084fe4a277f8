/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_plan.h - in which order a tree of processes is made, so that each ends up with its number, parent, session and group
 *
 * A pure function: from a struct tree to a list of operations. A session can only be inherited from the creator or begun by its leader, a parent is the
 * creator (or the creator's parent, with CLONE_PARENT), or whoever adopts an orphan. So some processes need a *helper* that lives only while the tree is made: one with the number
 * of a leader that is gone or outside of the unit, or one in between whose end makes an orphan of its child.
 *
 * Tasks are numbered: 0 .. tree->n - 1 the processes, then the helpers.
 */
#ifndef GODWIT_IMAGE_TREE_PLAN_H
#define GODWIT_IMAGE_TREE_PLAN_H

#include "image/tree.h"

#define TREE_OUTSIDE UINT32_MAX /* as creator: whoever makes the unit */

enum tree_op_kind {
	TREE_CREATE,   /* `by` makes `task`, with CLONE_PARENT if `sibling`, and with `exit_signal` (0 if sibling: it inherits the creator's) */
	TREE_SETSID,   /* `task` becomes the leader of a session */
	TREE_SETPGID,  /* `task` goes into the group `number` */
	TREE_ADOPT,    /* `task` becomes a subreaper (number 1) or stops to be one (0) */
	TREE_END,      /* the helper `task` ends and is reaped by its parent `by`; its children are adopted */
};

struct tree_op {
	enum tree_op_kind kind;
	uint32_t task, by;
	pid_t number;
	uint32_t exit_signal;
	bool sibling;
};

struct tree_plan {
	struct tree_op *v;
	size_t n;
	pid_t *helpers; /* the helpers' numbers; 0: any */
	size_t nhelpers;
};

/*
 * `have`: NULL, or what has been made of it already (an earlier table; processes are the same that have the same number): they change their session and group where
 * they can, and only the others are created. Parents are taken for what `t` says; zombies of `have` make nothing any more.
 * -EOPNOTSUPP: no order is known by which this comes about; the message names the process. -EAGAIN (with `have` only): it could perhaps be made anew, but not out of what is there.
 */
int tree_plan(const struct tree *t, const struct tree *have, struct tree_plan *ret_plan, struct err *e);
/*
 * In which pid namespace each task of a plan is made (ret, as long as there are tasks). -EOPNOTSUPP: one of them cannot be made there by who is to make it, or a group cannot be
 * entered; the message names it.
 */
int tree_plan_spaces(const struct tree *t, const struct tree_plan *plan, uint32_t *ret, struct err *e);
/* Whether a process is the first of its pid namespace, which is not the root's. */
bool tree_is_first(const struct tree *t, uint32_t i);
void tree_plan_free(struct tree_plan *p);

#endif
