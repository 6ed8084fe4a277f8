/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_plan.c - in which order a tree of processes is made; see tree_plan.h
 *
 * Theory of operation: a process that does not lead a session must be born in the one that it is in; one that leads may be born in any, unless children of it were born before it
 * began its own. So each process has a session of its birth, found from the leaves up. Then the tree is made from the root down:
 *
 *	- children of the session in which the parent itself was born, then the parent's setsid(), then its other children;
 *	- then their subtrees;
 *	- then the *strangers*: children of a session that the parent never was in. Such a process was adopted, or made by a brother. It is made by somebody
 *	  of its session among the parent's descendants, a brother with CLONE_PARENT or else through a helper in between, which ends. If nobody is left of that session, a
 *	  helper begins it.
 *
 * Then the detached ones: made by somebody of their session through a helper in between, whose end leaves them to whoever adopts orphans outside of the unit; then their subtrees.
 *
 * After this each process is in the group of its session's leader. Groups come last: first they are founded (by the process with that number, or a helper), then
 * everybody goes where it belongs. At the end all helpers end; their numbers stay in use as those of sessions and groups.
 */
#include "image/tree_plan.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define ANY (-1)

enum birth { BIRTH_LATER, BIRTH_EARLY, BIRTH_STRANGE, BIRTH_DETACHED }; /* after the parent's setsid; before it; see above */

struct task_now {
	uint32_t parent;
	pid_t sid, pgid; /* as far as it has come */
	uint32_t exit_signal;
	bool exists, ended; /* ended: it can make nothing any more */
};

struct planner {
	const struct tree *t;
	const struct tree *have;
	struct tree_plan plan;
	struct task_now *now; /* processes, then helpers */
	size_t capacity, op_capacity;
	pid_t *birth;         /* session of birth; ANY */
	enum birth *kind;
	struct err *e;
};

void tree_plan_free(struct tree_plan *p)
{
	free(p->v);
	free(p->helpers);
	*p = (struct tree_plan){ 0 };
}

static int unsupported(struct planner *p, uint32_t i, const char *what)
{
	const struct tree_process *v = &p->t->v[i];

	return err_set(p->e, p->have ? -EAGAIN : -EOPNOTSUPP, "process %d (parent %d, session %d, group %d): %s", v->pid,
		       v->parent == TREE_NONE ? 0 : p->t->v[v->parent].pid, v->sid, v->pgid, what);
}

static int add_op(struct planner *p, struct tree_op op)
{
	if (p->plan.n == p->op_capacity) {
		size_t capacity = p->op_capacity ? p->op_capacity * 2 : 64;
		struct tree_op *grown = realloc(p->plan.v, capacity * sizeof(*grown));

		if (!grown)
			return err_sys(p->e, ENOMEM, "the plan of %zu processes", p->t->n);
		p->plan.v = grown;
		p->op_capacity = capacity;
	}
	p->plan.v[p->plan.n++] = op;
	return 0;
}

/* The number of a new helper. */
static int add_helper(struct planner *p, pid_t number, uint32_t *ret_task)
{
	size_t n = p->t->n + p->plan.nhelpers;

	if (n == p->capacity) {
		size_t capacity = n + 16;
		struct task_now *now = realloc(p->now, capacity * sizeof(*now));
		pid_t *helpers;

		if (now)
			p->now = now;
		helpers = realloc(p->plan.helpers, (capacity - p->t->n) * sizeof(*helpers));
		if (helpers)
			p->plan.helpers = helpers;
		if (!now || !helpers)
			return err_sys(p->e, ENOMEM, "the plan of %zu processes", p->t->n);
		p->capacity = capacity;
	}
	p->now[n] = (struct task_now){ 0 };
	p->plan.helpers[p->plan.nhelpers++] = number;
	*ret_task = (uint32_t)n;
	return 0;
}

static int create(struct planner *p, uint32_t task, uint32_t by, bool sibling, uint32_t exit_signal)
{
	struct task_now *now = &p->now[task];

	*now = (struct task_now){ .parent = by, .exit_signal = exit_signal, .exists = true };
	if (by != TREE_OUTSIDE) {
		now->sid = p->now[by].sid;
		now->pgid = p->now[by].pgid;
	}
	if (sibling) {
		now->parent = p->now[by].parent;
		now->exit_signal = p->now[by].exit_signal;
	}
	return add_op(p, (struct tree_op){ TREE_CREATE, task, by, 0, sibling ? 0 : exit_signal, sibling });
}

static int begin_session(struct planner *p, uint32_t task, pid_t number)
{
	p->now[task].sid = p->now[task].pgid = number;
	return add_op(p, (struct tree_op){ .kind = TREE_SETSID, .task = task });
}

static int end_helper(struct planner *p, uint32_t task)
{
	p->now[task].ended = true;
	return add_op(p, (struct tree_op){ .kind = TREE_END, .task = task, .by = p->now[task].parent });
}

/* Whether `a` is above `task`. */
static bool is_above(const struct planner *p, uint32_t a, uint32_t task)
{
	for (uint32_t i = p->now[task].parent; i != TREE_OUTSIDE; i = p->now[i].parent)
		if (i == a)
			return true;
	return false;
}

static bool leads(const struct tree_process *v)
{
	return v->sid == v->pid;
}

static bool may_create(const struct planner *p, uint32_t task)
{
	return p->now[task].exists && !p->now[task].ended;
}

/* --- sessions of birth --- */

static bool in_subtree(const struct tree *t, uint32_t top, uint32_t i)
{
	for (; i != TREE_NONE; i = t->v[i].parent)
		if (i == top)
			return true;
	return false;
}

/* Whether a session came to the process `q` and what is below it from above. */
static bool comes_from_above(const struct tree *t, uint32_t q, pid_t sid)
{
	bool outside = sid == 0;

	for (uint32_t i = 0; i < t->n; i++) {
		if (t->v[i].sid != sid)
			continue;
		if (!in_subtree(t, q, i))
			outside = true;
		else if (leads(&t->v[i]))
			return false;
	}
	return outside;
}

static void find_births(struct planner *p)
{
	const struct tree *t = p->t;

	for (size_t i = 0; i < t->n; i++)
		p->birth[i] = leads(&t->v[i]) ? ANY : t->v[i].sid;
	for (size_t i = t->n; i-- > 1;) {
		uint32_t q = t->v[i].parent;
		pid_t b = p->birth[i];

		p->kind[i] = t->v[i].detached ? BIRTH_DETACHED : BIRTH_LATER;
		if (t->v[i].detached)
			continue;
		if (b == ANY || b == t->v[q].sid)
			continue;
		p->kind[i] = BIRTH_STRANGE;
		if (!leads(&t->v[q]) || (p->birth[q] != ANY && p->birth[q] != b) || !comes_from_above(t, q, b))
			continue;
		p->kind[i] = BIRTH_EARLY;
		p->birth[q] = b;
	}
	/* A brother's memory, or the like, that the parent does not share. */
	for (size_t i = 1; i < t->n; i++) {
		const struct tree_process *v = &t->v[i], *q = &t->v[v->parent];

		if (v->detached)
			continue;
		if ((v->memory != i && v->memory != q->memory) || (v->files != i && v->files != q->files) || (v->fs != i && v->fs != q->fs))
			p->kind[i] = BIRTH_STRANGE;
	}
}

static int found_group(struct planner *p, uint32_t i);
static int join(struct planner *p, uint32_t task, pid_t group);

/* A group of a namespace further up, which it does not see, it has to be in before others are born to it: they can only inherit it. */
static int enter_unseen_group(struct planner *p, uint32_t i)
{
	const struct tree_process *v = &p->t->v[i];
	int ret;

	if (!v->space || !v->pgid || tree_seen(p->t, v->space, v->pgid) || p->now[i].pgid == v->pgid)
		return 0;
	ret = found_group(p, i);
	return ret < 0 ? ret : join(p, i, v->pgid);
}

/* --- strangers --- */

static bool can_share(const struct planner *p, uint32_t i, uint32_t by)
{
	const struct tree_process *v = &p->t->v[i], *c = by < p->t->n ? &p->t->v[by] : NULL;

	if (v->memory == i && v->files == i && v->fs == i)
		return true;
	return c && (v->memory == i || v->memory == c->memory) && (v->files == i || v->files == c->files) && (v->fs == i || v->fs == c->fs);
}

/* Somebody of the session among the descendants of q, a brother who gives the right exit signal if there is one. */
static uint32_t find_creator(const struct planner *p, uint32_t i, uint32_t q, pid_t sid, bool *ret_brother)
{
	size_t n = p->t->n + p->plan.nhelpers;
	uint32_t found = TREE_NONE;

	*ret_brother = false;
	for (uint32_t k = 0; k < n; k++) {
		if (!may_create(p, k) || (sid != ANY && p->now[k].sid != sid) || !can_share(p, i, k) || !is_above(p, q, k))
			continue;
		if (p->now[k].parent == q && p->now[k].exit_signal == p->t->v[i].exit_signal) {
			*ret_brother = true;
			return k;
		}
		if (found == TREE_NONE)
			found = k;
	}
	return found;
}

static bool session_is_led(const struct tree *t, pid_t sid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->v[i].pid == sid)
			return true;
	return false;
}

/* Begun already, by a helper below somebody else. */
static bool session_is_there(const struct planner *p, pid_t sid)
{
	for (size_t k = 0; k < p->t->n + p->plan.nhelpers; k++)
		if (p->now[k].exists && p->now[k].sid == sid)
			return true;
	return false;
}

static int create_adopted(struct planner *p, uint32_t i, uint32_t q, uint32_t by)
{
	uint32_t between = TREE_NONE;
	int ret = add_helper(p, 0, &between);

	if (ret < 0)
		return ret;
	if (p->t->v[i].exit_signal != SIGCHLD || !can_share(p, i, between))
		return unsupported(p, i, "it cannot be made with what it shares, and its exit signal, in that session");
	ret = add_op(p, (struct tree_op){ TREE_ADOPT, q, 0, 1, 0, false });
	if (ret == 0)
		ret = create(p, between, by, false, 0);
	if (ret == 0)
		ret = create(p, i, between, false, SIGCHLD);
	if (ret == 0)
		ret = end_helper(p, between);
	p->now[i].parent = q;
	return ret < 0 ? ret : add_op(p, (struct tree_op){ TREE_ADOPT, q, 0, 0, 0, false });
}

/* 1: made; 0: somebody has to be made before. */
static int try_stranger(struct planner *p, uint32_t i)
{
	uint32_t q = p->t->v[i].parent, by;
	pid_t sid = p->birth[i];
	bool brother;
	int ret;

	by = find_creator(p, i, q, sid, &brother);
	if (by == TREE_NONE && sid != ANY && sid != 0 && !session_is_led(p->t, sid) && !session_is_there(p, sid) && can_share(p, i, TREE_NONE)) {
		ret = add_helper(p, sid, &by);
		if (ret == 0)
			ret = create(p, by, q, false, p->t->v[i].exit_signal);
		if (ret == 0)
			ret = begin_session(p, by, sid);
		if (ret < 0)
			return ret;
		brother = true;
	}
	if (by == TREE_NONE)
		return 0;
	ret = brother ? create(p, i, by, true, 0) : create_adopted(p, i, q, by);
	if (ret == 0)
		ret = enter_unseen_group(p, i);
	return ret < 0 ? ret : 1;
}

/* --- from the root down --- */

static int make_children(struct planner *p, uint32_t q, enum birth kind)
{
	int ret = 0;

	for (uint32_t i = q + 1; i < p->t->n && ret == 0; i++) {
		if (p->t->v[i].parent != q || p->kind[i] != kind || p->now[i].exists)
			continue;
		if (kind == BIRTH_EARLY && p->now[q].sid == p->t->v[q].pid)
			return unsupported(p, i, "its parent has begun another session already");
		ret = create(p, i, q, false, p->t->v[i].exit_signal);
		if (ret == 0)
			ret = enter_unseen_group(p, i);
	}
	return ret;
}

static int make_below(struct planner *p, uint32_t q);

static int make_strangers(struct planner *p, uint32_t q)
{
	for (;;) {
		uint32_t left = TREE_NONE;
		bool some = false;

		for (uint32_t i = q + 1; i < p->t->n; i++) {
			int ret;

			if (tree_parent(p->t, i) != q || p->now[i].exists)
				continue;
			ret = try_stranger(p, i);
			if (ret == 0)
				left = i;
			if (ret > 0) {
				some = true;
				ret = make_below(p, i);
			}
			if (ret < 0)
				return ret;
		}
		if (left == TREE_NONE)
			return 0;
		if (!some)
			return unsupported(p, left, "nobody can make it in that session with that parent");
	}
}

/* q exists: its session, and everything below it. */
static int make_below(struct planner *p, uint32_t q)
{
	const struct tree_process *v = p->t->v;
	int ret = make_children(p, q, BIRTH_EARLY);

	if (ret == 0 && leads(&v[q]) && p->now[q].sid != v[q].pid)
		ret = begin_session(p, q, v[q].pid);
	if (ret == 0)
		ret = make_children(p, q, BIRTH_LATER);
	for (uint32_t i = q + 1; i < p->t->n && ret == 0; i++)
		if (tree_parent(p->t, i) == q && p->kind[i] != BIRTH_STRANGE)
			ret = make_below(p, i);
	for (uint32_t i = q + 1; i < p->t->n && ret == 0; i++)
		if (v[i].parent == q && p->kind[i] == BIRTH_STRANGE && p->now[i].exists)
			ret = make_below(p, i);
	return ret < 0 ? ret : make_strangers(p, q);
}

/* A root whose session's leader stays behind, or is gone. */
static int make_root(struct planner *p)
{
	pid_t sid = p->birth[0];
	uint32_t leader;
	int ret;

	if (p->now[0].exists)
		return make_below(p, 0);
	if (sid == ANY || sid == 0) {
		ret = create(p, 0, TREE_OUTSIDE, false, p->t->v[0].exit_signal);
		return ret < 0 ? ret : make_below(p, 0);
	}
	if (session_is_led(p->t, sid))
		return unsupported(p, 0, "its session is led from below it");
	ret = add_helper(p, sid, &leader);
	if (ret == 0)
		ret = create(p, leader, TREE_OUTSIDE, false, p->t->v[0].exit_signal);
	if (ret == 0)
		ret = begin_session(p, leader, sid);
	if (ret == 0)
		ret = create(p, 0, leader, true, 0);
	return ret < 0 ? ret : make_below(p, 0);
}

/* --- detached ones --- */

static int make_one_detached(struct planner *p, uint32_t i, uint32_t by)
{
	uint32_t between = TREE_NONE;
	int ret = add_helper(p, 0, &between);

	if (ret == 0 && !can_share(p, i, between))
		ret = unsupported(p, i, "it shares memory, descriptors or a working directory with another one by clone(2), and neither is the other's parent");
	if (ret == 0)
		ret = create(p, between, by, false, 0);
	if (ret == 0)
		ret = create(p, i, between, false, SIGCHLD);
	if (ret == 0)
		ret = end_helper(p, between);
	p->now[i].parent = TREE_OUTSIDE;
	return ret < 0 ? ret : make_below(p, i);
}

/* Who can make it: somebody of its session, or a helper that begins that. TREE_NONE: nobody yet. */
static int find_maker(struct planner *p, uint32_t i, uint32_t *ret_by)
{
	pid_t sid = p->birth[i];
	int ret;

	*ret_by = TREE_NONE;
	for (uint32_t k = 0; k < p->t->n + p->plan.nhelpers && *ret_by == TREE_NONE; k++)
		if (may_create(p, k) && (sid == ANY || p->now[k].sid == sid))
			*ret_by = k;
	if (*ret_by != TREE_NONE || sid == 0 || session_is_led(p->t, sid))
		return 0;
	ret = add_helper(p, sid, ret_by);
	if (ret == 0)
		ret = create(p, *ret_by, 0, false, 0);
	return ret < 0 ? ret : begin_session(p, *ret_by, sid);
}

static int make_detached(struct planner *p)
{
	for (bool some = true; some;) {
		some = false;
		for (uint32_t i = 1; i < p->t->n; i++) {
			uint32_t by = TREE_NONE;
			int ret = 0;

			if (!p->t->v[i].detached)
				continue;
			if (!p->now[i].exists)
				ret = find_maker(p, i, &by);
			else if (p->have)
				ret = make_below(p, i);
			if (ret == 0 && by != TREE_NONE) {
				some = true;
				ret = make_one_detached(p, i, by);
			}
			if (ret < 0)
				return ret;
		}
	}
	return 0;
}

/* --- groups --- */

static int join(struct planner *p, uint32_t task, pid_t group)
{
	p->now[task].pgid = group;
	return add_op(p, (struct tree_op){ .kind = TREE_SETPGID, .task = task, .number = group });
}

static bool group_exists(const struct planner *p, pid_t group)
{
	size_t n = p->t->n + p->plan.nhelpers;

	for (uint32_t k = 0; k < n; k++)
		if ((k < p->t->n || !p->now[k].ended) && p->now[k].exists && p->now[k].pgid == group)
			return true;
	return false;
}

/* Makes the group of process i exist. */
static int found_group(struct planner *p, uint32_t i)
{
	const struct tree_process *v = &p->t->v[i];
	uint32_t founder;
	int ret;

	if (group_exists(p, v->pgid))
		return 0;
	for (uint32_t k = 0; k < p->t->n; k++) {
		if (p->t->v[k].pid != v->pgid)
			continue;
		if (p->t->v[k].sid != v->sid || !may_create(p, k))
			return unsupported(p, i, "its group cannot be made in its session");
		ret = join(p, k, v->pgid);
		if (ret < 0 || p->t->v[k].pgid == v->pgid)
			return ret;
		/* It will leave: a child of it, which is born into the group, keeps it until the others are there. */
		ret = add_helper(p, 0, &founder);
		return ret < 0 ? ret : create(p, founder, k, false, 0);
	}
	for (uint32_t k = 0; k < p->t->n; k++) {
		if (p->now[k].sid != v->sid || !may_create(p, k))
			continue;
		ret = add_helper(p, v->pgid, &founder);
		if (ret == 0)
			ret = create(p, founder, k, false, 0);
		return ret < 0 ? ret : join(p, founder, v->pgid);
	}
	return unsupported(p, i, "its group cannot be made");
}

static int make_groups(struct planner *p)
{
	const struct tree *t = p->t;
	int ret = 0;

	for (uint32_t i = 0; i < t->n && ret == 0; i++) {
		if (p->now[i].pgid == t->v[i].pgid)
			continue;
		if (leads(&t->v[i]) || !may_create(p, i))
			return unsupported(p, i, "it cannot change its group");
		ret = found_group(p, i);
	}
	for (uint32_t i = 0; i < t->n && ret == 0; i++)
		if (p->now[i].pgid != t->v[i].pgid)
			ret = join(p, i, t->v[i].pgid);
	return ret;
}

static int end_helpers(struct planner *p)
{
	int ret = 0;

	for (size_t k = p->t->n + p->plan.nhelpers; k-- > p->t->n && ret == 0;)
		if (p->now[k].exists && !p->now[k].ended)
			ret = end_helper(p, (uint32_t)k);
	return ret;
}

static int check_result(struct planner *p)
{
	const struct tree *t = p->t;

	for (uint32_t i = 0; i < t->n; i++) {
		const struct task_now *now = &p->now[i];
		uint32_t parent = tree_parent(t, i) == TREE_NONE ? TREE_OUTSIDE : t->v[i].parent;

		if (!now->exists || now->sid != t->v[i].sid || now->pgid != t->v[i].pgid || now->parent != parent)
			return unsupported(p, i, "no order is known in which it could be made");
	}
	return 0;
}

static void take_what_is_made(struct planner *p)
{
	for (size_t i = 0; p->have && i < p->t->n; i++) {
		const struct tree_process *v = &p->t->v[i];
		uint32_t k = tree_find(p->have, v->pid);

		if (k != TREE_NONE)
			p->now[i] = (struct task_now){ tree_parent(p->t, i) == TREE_NONE ? TREE_OUTSIDE : v->parent, p->have->v[k].sid, p->have->v[k].pgid, v->exit_signal, true,
						       p->have->v[k].zombie };
	}
}

int tree_plan(const struct tree *t, const struct tree *have, struct tree_plan *ret_plan, struct err *e)
{
	struct planner p = { .t = t, .have = have, .capacity = t->n, .e = e };
	int ret;

	if (!t->n)
		return err_set(e, -EINVAL, "a unit without processes");
	p.now = calloc(t->n, sizeof(*p.now));
	p.birth = calloc(t->n, sizeof(*p.birth));
	p.kind = calloc(t->n, sizeof(*p.kind));
	ret = p.now && p.birth && p.kind ? 0 : err_sys(e, ENOMEM, "the plan of %zu processes", t->n);
	if (ret == 0) {
		take_what_is_made(&p);
		find_births(&p);
		ret = make_root(&p);
	}
	if (ret == 0)
		ret = make_detached(&p);
	if (ret == 0)
		ret = make_groups(&p);
	if (ret == 0)
		ret = end_helpers(&p);
	if (ret == 0)
		ret = check_result(&p);
	free(p.now);
	free(p.birth);
	free(p.kind);
	if (ret < 0) {
		tree_plan_free(&p.plan);
		return ret;
	}
	*ret_plan = p.plan;
	return 0;
}
