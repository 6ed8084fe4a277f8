/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_spaces.c - a plan of processes (tree_plan.h) that are in several pid namespaces
 *
 * Theory of operation: a process can be born into its creator's pid namespace, or into one below it (setns(2) with CLONE_NEWPID is for children). The first process of a
 * namespace makes it, so that it has to come before all others in there. Into a group that a process does not see, of a leader in a namespace further up, its parent puts it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "image/tree_plan.h"

bool tree_is_first(const struct tree *t, uint32_t i)
{
	return t->v[i].space && tree_seen(t, t->v[i].space, t->v[i].pid) == 1;
}

static int unsupported(const struct tree *t, uint32_t task, const char *what, struct err *e)
{
	const struct tree_process *v = task < t->n ? &t->v[task] : NULL;

	return v ? err_set(e, -EOPNOTSUPP, "process %d (parent %d, pid namespace %u): %s", v->pid, v->parent == TREE_NONE ? 0 : t->v[v->parent].pid, v->space, what) :
		   err_set(e, -EOPNOTSUPP, "the group or session of a process that has ended: %s", what);
}

/* A helper is of its number's namespace, or of its creator's. */
static uint32_t space_of(const struct tree *t, const struct tree_plan *plan, const uint32_t *spaces, const struct tree_op *op)
{
	pid_t number = op->task < t->n ? 0 : plan->helpers[op->task - t->n];

	if (op->task < t->n)
		return t->v[op->task].space;
	if (number)
		return tree_space_of(t, number, 0);
	return op->by == TREE_OUTSIDE ? 0 : spaces[op->by];
}

static int check_create(const struct tree *t, const struct tree_op *op, const uint32_t *spaces, bool *made, struct err *e)
{
	uint32_t space = spaces[op->task], by = op->by == TREE_OUTSIDE ? 0 : spaces[op->by], from = space;
	bool first = op->task < t->n && tree_is_first(t, op->task);

	if (first) {
		if (made[space])
			return unsupported(t, op->task, "its pid namespace is there before it", e);
		from = t->above[space];
		made[space] = true;
	}
	if (!made[from] || (op->by == TREE_OUTSIDE && space) || !tree_space_sees(t, by, from))
		return unsupported(t, op->task, "nobody can make it in its pid namespace", e);
	if (op->sibling && op->by < t->n && tree_is_first(t, op->by))
		return unsupported(t, op->task, "the first process of a pid namespace cannot have a brother there", e);
	return 0;
}

static int check_group(const struct tree *t, const struct tree_op *op, const uint32_t *spaces, struct err *e)
{
	uint32_t parent = op->task < t->n ? tree_parent(t, op->task) : TREE_NONE;

	if (!op->number || tree_seen(t, spaces[op->task], op->number))
		return 0;
	if (parent == TREE_NONE || !tree_seen(t, t->v[parent].space, op->number))
		return unsupported(t, op->task, "nobody can put it into its group", e);
	return 0;
}

int tree_plan_spaces(const struct tree *t, const struct tree_plan *plan, uint32_t *ret, struct err *e)
{
	cleanup_free bool *made = calloc(t->n_spaces + 1, sizeof(*made));
	int code = 0;

	if (!made)
		return err_sys(e, ENOMEM, "the plan of %zu processes", t->n);
	made[0] = true;
	for (size_t i = 0; i < plan->n && code == 0; i++) {
		const struct tree_op *op = &plan->v[i];

		if (op->kind == TREE_CREATE) {
			ret[op->task] = space_of(t, plan, ret, op);
			code = check_create(t, op, ret, made, e);
		} else if (op->kind == TREE_SETPGID) {
			code = check_group(t, op, ret, e);
		}
	}
	return code;
}

int tree_check_spaces(const struct tree *t, struct err *e)
{
	cleanup_free uint32_t *spaces = NULL;
	struct tree_plan plan;
	int ret = tree_plan(t, NULL, &plan, e);

	if (ret < 0)
		return ret;
	spaces = calloc(t->n + plan.nhelpers, sizeof(*spaces));
	ret = spaces ? tree_plan_spaces(t, &plan, spaces, e) : err_sys(e, ENOMEM, "the plan of %zu processes", t->n);
	tree_plan_free(&plan);
	return ret;
}
