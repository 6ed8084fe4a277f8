/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_set.c - making all processes of a unit at the destination; see skeleton_set.h
 *
 * Theory of operation: the plan of image/tree_plan.c is carried out, step by step: the worker makes the first process, every other one is forked by a process that exists. Helpers
 * are skeletons too, with a scratch as small as can be, without an agent; when one ends, its parent in the unit reaps it as it would any child, and takes the signal that
 * told it so out of its queue. Agents come last, when all numbers of processes are taken.
 */
#include "migrate/skeleton_set.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_other.h"
#include "image/pty_session.h"
#include "image/tree_plan.h"
#include "kern/fdpass.h"
#include "migrate/skeleton_internal.h"
#include "migrate/skeleton_set_internal.h"

#define NUMBER_WAIT_MS 2000
#define SPARE_HIGHEST 32700
#define SPARE_NUMBERS 500
#define SMALL_ARENA (96u << 10)
#define SMALL_BASE 0x10000000ull /* free in a blank skeleton, whose program is linked at 0x400000 */

/* What carries out one plan. */
struct making {
	struct skeleton_set *set;
	const struct tree *tree;
	const struct skeleton_terms *terms;
	const struct tree_plan *plan;
	struct skeleton **v;      /* the processes of the tree, then the helpers */
	uint32_t *exit_signal;    /* of each */
	uint32_t *spaces;         /* the pid namespace of each */
	bool late, own_namespace;
	bool begun; /* a process has been made */
};

static struct skeleton *skeleton_new(void)
{
	struct skeleton *s = malloc(sizeof(*s));

	if (s)
		*s = SKELETON_INIT;
	return s;
}

struct skeleton *skeleton_set_find(const struct skeleton_set *set, pid_t pid)
{
	uint32_t i = tree_find(&set->tree, pid);

	return i == TREE_NONE ? NULL : set->v[i];
}

/* --- one step of a plan --- */

/* A signal that a child's end has left in the queue, which no program has caused. */
int skeleton_take_signal(struct skeleton *s, uint32_t signal, struct err *e)
{
	static const struct timespec none;
	struct batch *b = s->threads[0]->batch;
	uint64_t set;
	int ret;

	if (!signal)
		return 0;
	set = 1ull << (signal - 1);
	batch_try(b, "rt_sigtimedwait", SYS_rt_sigtimedwait, batch_data(b, &set, sizeof(set)), 0, batch_data(b, &none, sizeof(none)), sizeof(set));
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

/*
 * A helper with any number: on the host the kernel chooses one that is far from all that are in use. In a namespace of the unit's own it would choose a low one, which
 * may be needed in a moment.
 */
static pid_t spare_number(const struct making *m, uint32_t task)
{
	pid_t number = SPARE_HIGHEST - (pid_t)(task - m->tree->n) % SPARE_NUMBERS;

	if (!m->set->own_pid_namespace)
		return 0;
	while (tree_find(m->tree, number) != TREE_NONE)
		number -= SPARE_NUMBERS;
	return MAX(number, 0);
}

static pid_t number_of(const struct making *m, uint32_t task)
{
	pid_t helper = task < m->tree->n ? 0 : m->plan->helpers[task - m->tree->n];

	return task < m->tree->n ? m->tree->v[task].pid : helper ? helper : spare_number(m, task);
}

static uint64_t shared_flags(const struct making *m, uint32_t task, uint32_t by)
{
	const struct tree_process *p, *c;
	uint64_t flags = 0;

	if (task >= m->tree->n || by >= m->tree->n)
		return 0;
	p = &m->tree->v[task];
	c = &m->tree->v[by];
	flags |= p->memory != task && p->memory == c->memory ? CLONE_VM : 0;
	flags |= p->files != task && p->files == c->files ? CLONE_FILES : 0;
	flags |= p->fs != task && p->fs == c->fs ? CLONE_FS : 0;
	flags |= p->handlers != task && p->handlers == c->handlers ? CLONE_SIGHAND : 0;
	return flags;
}

/* The thread of its parent whose child it was. */
static pid_t forking_tid(const struct making *m, const struct tree_op *op)
{
	const struct tree_process *p = op->task < m->tree->n ? &m->tree->v[op->task] : NULL;

	if (!p || op->sibling || p->parent != op->by || p->parent_tid == m->tree->v[op->by].pid)
		return 0;
	return p->parent_tid;
}

/* The number that a process has for another one of the unit. */
static pid_t seen_from(const struct skeleton *viewer, const struct skeleton *s)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[512];
	unsigned level = skeleton_levels(viewer->pid);

	snprintf(path, sizeof(path), "/proc/%d/status", s->pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		const char *column = strchr(line, '\t');

		if (strncmp(line, "NSpid:", 6))
			continue;
		for (unsigned i = 0; column && i < level; i++)
			column = strchr(column + 1, '\t');
		return column ? (pid_t)atoi(column) : 0;
	}
	return 0;
}

/* Ends a helper, which its parent in the unit waits for. */
static int end_helper(struct skeleton *s, struct skeleton *parent, pid_t number, uint32_t exit_signal, struct err *e)
{
	struct batch *b = s->threads[0]->batch;
	int ret;

	batch_call(b, "exit", SYS_exit_group, 0);
	batch_prepare(b);
	ret = task_wake(&s->threads[0]->task, e);
	if (ret == 0) {
		skeleton_reap(s->pid);
		s->pid = 0;
	}
	skeleton_destroy(s);
	free(s);
	if (ret < 0)
		return ret;
	/* One without parent in the unit is godwitd's, or the namespace's first process's, to reap. */
	if (parent && remote_do(parent->threads[0]->batch, e, "wait4", SYS_wait4, (uint64_t)number, 0, __WALL, 0) < 0)
		return e ? e->code : -ECHILD;
	return parent ? skeleton_take_signal(parent, exit_signal, e) : 0;
}

/* The user namespace that a pid namespace belongs to, as in Process.namespaces. */
static uint32_t owner_of(const struct making *m, uint32_t space)
{
	uint32_t user = m->set->world && m->set->world->msg && space <= m->set->world->msg->n_others ? m->set->world->msg->others[space - 1]->user : 0;

	return user == NS_HOSTS ? 0 : user;
}

/* Far from those that are in use. */
static pid_t helper_number(const struct making *m, uint32_t task)
{
	pid_t number = SPARE_HIGHEST - 2 * SPARE_NUMBERS - (pid_t)task % SPARE_NUMBERS;

	while (number > 0 && (tree_find(m->tree, number) != TREE_NONE || (!m->set->own_pid_namespace && !(kill(number, 0) < 0 && errno == ESRCH))))
		number--;
	return MAX(number, 0);
}

/*
 * The first process of a pid namespace belongs to a user namespace that its creator is not in: a pid namespace belongs to the user namespace of whoever makes it. So
 * a helper, born like it, enters all that it is to be in, and has it for a brother.
 */
static int make_in_user(struct making *m, const struct tree_op *op, struct skeleton *s, const struct skeleton_birth *birth, struct err *e)
{
	static const struct skeleton_terms small = { SMALL_BASE, 2, SMALL_ARENA };
	struct skeleton_birth first = *birth, between = *birth;
	struct skeleton *by = m->v[op->by], *helper = skeleton_new();
	pid_t number;
	int ret;

	if (!helper)
		return err_sys(e, ENOMEM, "processes of the skeleton");
	if (birth->sibling || birth->share || birth->children >= 0) {
		free(helper);
		return err_set(e, -EOPNOTSUPP, "the first process of a pid namespace that belongs to another user namespace shares with its creator");
	}
	between.number = helper_number(m, op->task);
	between.space = m->spaces[op->by];
	between.first = false;
	ret = skeleton_fork(by, helper, &between, &small, e);
	number = ret == 0 ? seen_from(by, helper) : 0;
	if (ret == 0)
		ret = m->set->settle(helper, number_of(m, op->task), m->set->first_arg, e);
	first.sibling = true;
	first.tid = 0;
	if (ret == 0)
		ret = skeleton_fork(helper, s, &first, &m->terms[op->task], e);
	if (ret < 0) {
		skeleton_destroy(helper);
		free(helper);
		return ret;
	}
	return end_helper(helper, by, number, birth->exit_signal, e);
}

static int make_one(struct making *m, const struct tree_op *op, struct err *e)
{
	bool process = op->task < m->tree->n && !m->tree->v[op->task].zombie;
	const struct skeleton_terms small = { SMALL_BASE, 2, SMALL_ARENA }, *terms = process ? &m->terms[op->task] : &small;
	struct skeleton *s = m->v[op->task] = skeleton_new();
	struct skeleton_birth birth;
	uint32_t from;
	int ret;

	if (!s)
		return err_sys(e, ENOMEM, "processes of the skeleton");
	m->exit_signal[op->task] = op->sibling ? m->exit_signal[op->by] : op->exit_signal;
	if (op->by == TREE_OUTSIDE) {
		s->parent = m->set->parent;
		s->world = m->set->world;
		if (m->set->seat && op->task == 0)
			ret = skeleton_sit(s, number_of(m, op->task), terms, m->set->seat, e);
		else
			ret = skeleton_start(s, number_of(m, op->task), m->own_namespace, terms, e);
		m->set->own_pid_namespace = s->own_pid_namespace;
		if (s->namespace_init)
			m->set->namespace_init = s->namespace_init;
		if (ret == 0 && m->set->first && !m->late && !m->begun)
			ret = m->set->first(s, m->set->first_arg, e);
		m->begun = true;
		return ret;
	}
	birth = (struct skeleton_birth){ .number = number_of(m, op->task), .tid = forking_tid(m, op), .sibling = op->sibling, .exit_signal = op->exit_signal,
					 .share = shared_flags(m, op->task, op->by), .tree = m->tree->n_numbers ? &m->set->tree : NULL, .space = m->spaces[op->task],
					 .children = -1, .late = m->late };
	birth.first = op->task < m->tree->n && tree_is_first(m->tree, op->task);
	from = birth.first ? m->tree->above[birth.space] : birth.space;
	if (from != m->spaces[op->by])
		birth.children = ns_others_fd(from);
	if (birth.first && process && m->set->settle && owner_of(m, birth.space) != m->v[op->by]->namespaces[NS_USER])
		ret = make_in_user(m, op, s, &birth, e);
	else
		ret = skeleton_fork(m->v[op->by], s, &birth, terms, e);
	if (ret == 0 && birth.first && m->set->opened)
		ret = m->set->opened(s, birth.space, m->set->first_arg, e);
	return ret == 0 && process && m->set->settle ? m->set->settle(s, number_of(m, op->task), m->set->first_arg, e) : ret;
}

static int end_one(struct making *m, const struct tree_op *op, struct err *e)
{
	struct skeleton *s = m->v[op->task], *parent = op->by == TREE_OUTSIDE ? NULL : m->v[op->by];
	pid_t number = parent && m->tree->n_numbers ? seen_from(parent, s) : s->threads[0]->tid;

	m->v[op->task] = NULL;
	return end_helper(s, parent, number, m->exit_signal[op->task], e);
}

/* Whoever is born to the leader afterwards has its terminal, too. */
static int begin_session(const struct making *m, uint32_t task, struct batch *b, struct err *e)
{
	int64_t ret = remote_do(b, e, "setsid", SYS_setsid);

	if (ret < 0 || !m->set->fds)
		return (int)MIN(ret, 0);
	return pty_restore_controlling(m->set->fds, number_of(m, task), b, e);
}

/* Processes that have left their session's terminal, or were born before the leader took it. */
static int leave_terminals(struct making *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->tree->n && ret == 0 && m->set->fds; i++) {
		const struct tree_process *p = &m->tree->v[i];

		if (!p->zombie && !p->tty && m->v[i] && p->sid != p->pid && pty_of_session(m->set->fds, p->sid) >= 0)
			ret = pty_give_up_controlling(m->v[i]->threads[0]->batch, e);
	}
	return ret;
}

/* Into a group that it does not see its parent puts it. */
static int join_group(struct making *m, const struct tree_op *op, struct batch *b, struct err *e)
{
	pid_t number = tree_seen(m->tree, m->spaces[op->task], op->number);
	uint32_t parent;

	if (number || !op->number)
		return (int)remote_do(b, e, "setpgid", SYS_setpgid, 0, (uint64_t)number);
	parent = m->tree->v[op->task].parent;
	return (int)remote_do(m->v[parent]->threads[0]->batch, e, "setpgid", SYS_setpgid, (uint64_t)tree_seen(m->tree, m->spaces[parent], m->tree->v[op->task].pid),
			      (uint64_t)tree_seen(m->tree, m->spaces[parent], op->number));
}

static int do_op(struct making *m, const struct tree_op *op, struct err *e)
{
	struct batch *b = op->kind == TREE_CREATE ? NULL : m->v[op->task]->threads[0]->batch;

	switch (op->kind) {
	case TREE_CREATE:
		return make_one(m, op, e);
	case TREE_SETSID:
		return begin_session(m, op->task, b, e);
	case TREE_SETPGID:
		return join_group(m, op, b, e);
	case TREE_ADOPT:
		return (int)remote_do(b, e, "prctl", SYS_prctl, PR_SET_CHILD_SUBREAPER, (uint64_t)op->number);
	case TREE_END:
		return end_one(m, op, e);
	}
	return 0;
}

static int carry_out(struct making *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->plan->n && ret == 0; i++) {
		const struct tree_op *op = &m->plan->v[i];

		ret = do_op(m, op, e);
		if (ret < 0)
			err_wrap(e, "process %d", number_of(m, op->task));
	}
	return ret;
}

/* The agents of those that have none yet. */
static int make_agents(struct making *m, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < m->tree->n && ret == 0; i++) {
		struct skeleton *s = m->v[i];

		if (s && !s->agent.pid && !m->tree->v[i].zombie)
			ret = skeleton_make_agent(s, i != 0 || s->seated, e);
	}
	return ret;
}

static void forget(struct skeleton *s)
{
	if (!s)
		return;
	skeleton_destroy(s);
	free(s);
}

static int make(struct making *m, struct err *e)
{
	size_t n = m->tree->n + m->plan->nhelpers;
	int ret;

	m->exit_signal = calloc(n, sizeof(*m->exit_signal));
	m->spaces = calloc(n, sizeof(*m->spaces));
	if (!m->exit_signal || !m->spaces) {
		free(m->exit_signal);
		free(m->spaces);
		return err_sys(e, ENOMEM, "processes of the skeleton");
	}
	for (size_t i = 0; i < m->tree->n; i++)
		m->exit_signal[i] = m->tree->v[i].exit_signal;
	ret = m->tree->n_numbers ? tree_plan_spaces(m->tree, m->plan, m->spaces, e) : 0;
	if (ret == 0)
		ret = carry_out(m, e);
	if (ret == 0)
		ret = leave_terminals(m, e);
	if (ret == 0)
		ret = make_agents(m, e);
	free(m->exit_signal);
	free(m->spaces);
	/* Helpers that are left after an error. */
	for (size_t i = m->tree->n; i < n; i++)
		forget(m->v[i]);
	return ret;
}

/* --- creating --- */

static int copy_tree(const struct tree *from, struct tree *ret, struct err *e)
{
	struct tree t = { calloc(from->n, sizeof(*t.v)), from->n };

	if (!t.v)
		return err_sys(e, ENOMEM, "processes of the skeleton");
	memcpy(t.v, from->v, from->n * sizeof(*t.v));
	if (tree_numbers_copy(from, &t, e) < 0) {
		tree_free(&t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

/* Whether a number belongs to a process, thread or group here, which does not go away in a moment. */
static bool is_taken(pid_t number)
{
	if (number <= 0)
		return false;
	for (int tries = 0; tries < NUMBER_WAIT_MS; tries++) {
		if (kill(number, 0) < 0 && errno == ESRCH && kill(-number, 0) < 0 && errno == ESRCH)
			return false;
		if (!skeleton_about_to_go(number))
			return true;
		usleep(1000);
	}
	return true;
}

/* `seated`: the root's is, by its stub. */
static bool some_number_is_taken(const struct tree *tree, const struct tree_plan *plan, bool seated)
{
	for (size_t i = seated; i < tree->n; i++)
		if (is_taken(tree->v[i].pid))
			return true;
	for (size_t i = 0; i < plan->nhelpers; i++)
		if (is_taken(plan->helpers[i]))
			return true;
	return false;
}

static int create(struct skeleton_set *set, const struct tree *tree, const struct tree_plan *plan, bool own_namespace, const struct skeleton_terms *terms,
		  struct err *e)
{
	struct making m = { .set = set, .tree = tree, .terms = terms, .plan = plan, .own_namespace = own_namespace };
	int ret = copy_tree(tree, &set->tree, e);

	if (ret < 0)
		return ret;
	m.v = set->v = calloc(tree->n + plan->nhelpers, sizeof(*set->v));
	if (!set->v)
		return err_sys(e, ENOMEM, "processes of the skeleton");
	return make(&m, e);
}

int skeleton_set_create(struct skeleton_set *set, const struct tree *tree, bool own_namespace, const struct skeleton_terms *terms, struct err *e)
{
	const struct skeleton_set wanted = { .parent = set->parent, .first = set->first, .first_arg = set->first_arg, .settle = set->settle, .fds = set->fds, .world = set->world,
					     .record = set->record, .committed = set->committed, .opened = set->opened, .seat = set->seat };
	struct tree_plan plan;
	int ret = tree_plan(tree, NULL, &plan, e);

	*set = wanted;
	if (ret < 0)
		return ret;
	if (set->world && set->world->msg && set->world->msg->owned & NS_BIT(NS_PID))
		own_namespace = false;
	else
		own_namespace |= some_number_is_taken(tree, &plan, set->seat);
	if (own_namespace && set->seat) {
		tree_plan_free(&plan);
		return err_set(e, -EAGAIN, "process %d cannot take its stub's place: a number of the unit is taken here", tree->v[0].pid);
	}
	ret = create(set, tree, &plan, own_namespace, terms, e);
	/* Somebody was quicker. */
	if (ret == -EEXIST && !own_namespace && !set->own_pid_namespace && !set->seat) {
		skeleton_set_destroy(set);
		*set = wanted;
		ret = create(set, tree, &plan, true, terms, e);
	}
	tree_plan_free(&plan);
	return ret;
}

/* --- later changes --- */

/* Ends a process that the source has no more; who was its child is its grandparent's now. */
static int end_process(struct skeleton_set *set, uint32_t i, const struct tree *new, struct err *e)
{
	const struct tree_process *p = &set->tree.v[i];
	struct skeleton *s = set->v[i], *parent = p->detached ? NULL : set->v[p->parent], *heir = NULL;
	int ret = 0;

	for (size_t k = 0; k < new->n; k++) {
		uint32_t was = tree_find(&set->tree, new->v[k].pid);

		if (was != TREE_NONE && tree_parent(&set->tree, was) == i && tree_parent(new, k) != TREE_NONE)
			heir = skeleton_set_find(set, new->v[new->v[k].parent].pid);
	}
	if (heir)
		ret = (int)remote_do(heir->threads[0]->batch, e, "prctl", SYS_prctl, PR_SET_CHILD_SUBREAPER, 1);
	if (ret == 0 && s) {
		skeleton_destroy(s);
		free(s);
		set->v[i] = NULL;
	}
	if (ret == 0 && heir)
		ret = (int)remote_do(heir->threads[0]->batch, e, "prctl", SYS_prctl, PR_SET_CHILD_SUBREAPER, 0);
	/* Its parent may have been ended before, and has left it to somebody who does not care. */
	if (ret == 0 && parent)
		ret = remote_do(parent->threads[0]->batch, e, "wait4", SYS_wait4, (uint64_t)p->pid, 0, __WALL, 0) < 0 ? -ECHILD : 0;
	return ret < 0 || !parent ? ret : skeleton_take_signal(parent, p->exit_signal, e);
}

static int end_the_gone(struct skeleton_set *set, const struct tree *new, struct err *e)
{
	int ret = 0;

	/* From the leaves up, so that each still has its parent. */
	for (uint32_t i = (uint32_t)set->tree.n; i-- > 0 && ret == 0;)
		if (tree_find(new, set->tree.v[i].pid) == TREE_NONE)
			ret = i ? end_process(set, i, new, e) : err_set(e, -EAGAIN, "process %d, the root, has ended", set->tree.v[0].pid);
	return ret;
}

/* A process that has ended since, or lives though it has ended in what was made, is no longer the same. */
static int check_same(const struct skeleton_set *set, const struct tree *new, struct err *e)
{
	for (uint32_t i = 0; i < new->n; i++) {
		uint32_t was = tree_find(&set->tree, new->v[i].pid);
		const struct tree_process *p = was == TREE_NONE ? NULL : &set->tree.v[was];

		if (!p)
			continue;
		if ((p->zombie && !new->v[i].zombie) || (p->parent == TREE_NONE) != (new->v[i].parent == TREE_NONE) || p->detached != new->v[i].detached)
			return err_set(e, -EAGAIN, "process %d is another one now", p->pid);
		if (p->exit_signal != new->v[i].exit_signal && p->parent != TREE_NONE && !p->detached &&
		    set->tree.v[p->parent].pid == new->v[new->v[i].parent].pid)
			return err_set(e, -EAGAIN, "process %d has another exit signal now", p->pid);
	}
	return 0;
}

/* Puts the skeletons into the order of the new table. */
static int reorder(struct skeleton_set *set, const struct tree *new, size_t nhelpers, struct skeleton ***ret_old, struct err *e)
{
	struct skeleton **v = calloc(new->n + nhelpers, sizeof(*v));

	if (!v)
		return err_sys(e, ENOMEM, "processes of the skeleton");
	for (uint32_t i = 0; i < new->n; i++)
		v[i] = skeleton_set_find(set, new->v[i].pid);
	*ret_old = set->v;
	set->v = v;
	return 0;
}

int skeleton_set_update(struct skeleton_set *set, const struct tree *tree, const struct skeleton_terms *terms, struct err *e)
{
	struct making m = { .set = set, .tree = tree, .terms = terms, .late = true, .own_namespace = set->own_pid_namespace };
	struct skeleton **old = NULL;
	struct tree_plan plan = { 0 };
	struct tree copy;
	int ret = check_same(set, tree, e);

	if (ret == 0)
		ret = end_the_gone(set, tree, e);
	if (ret == 0)
		ret = tree_plan(tree, &set->tree, &plan, e);
	if (ret == 0)
		ret = copy_tree(tree, &copy, e);
	if (ret < 0) {
		tree_plan_free(&plan);
		return ret;
	}
	ret = reorder(set, tree, plan.nhelpers, &old, e);
	if (ret == 0) {
		free(old);
		m.v = set->v;
		m.plan = &plan;
		tree_free(&set->tree);
		set->tree = copy;
		ret = make(&m, e);
	} else {
		tree_free(&copy);
	}
	tree_plan_free(&plan);
	return ret < 0 ? ret : skeleton_set_bury(set, tree, e);
}
