// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_tree.c - tables of processes: plans that make them, messages, and reading them from /proc
 *
 * Plans are carried out by a model of the kernel that knows its rules for sessions, groups and orphans, and refuses what it would refuse. The tables come from two
 * sources: written by hand, and from random histories of the same model: what a program can have come to must be made again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/tree.h"
#include "image/tree_plan.h"

/* --- the model --- */

#define MODEL_MAX 4096
#define OUTSIDE_PID 1 /* whoever makes the unit: godwitd, a subreaper, in session and group 1 */

struct model_process {
	int pid, parent, sid, pgid; /* parent: index */
	unsigned exit_signal;
	bool subreaper, dead, reaped;
};

struct model {
	struct model_process v[MODEL_MAX];
	int n, next_pid;
};

static void model_start(struct model *m)
{
	memset(m, 0, sizeof(*m));
	m->v[0] = (struct model_process){ OUTSIDE_PID, -1, OUTSIDE_PID, OUTSIDE_PID, SIGCHLD, true, false, false };
	m->n = 1;
	m->next_pid = 1000;
}

static bool number_in_use(const struct model *m, int number)
{
	for (int i = 0; i < m->n; i++)
		if (!m->v[i].reaped && (m->v[i].pid == number || m->v[i].sid == number || m->v[i].pgid == number))
			return true;
	return false;
}

static int model_clone(struct model *m, int by, int pid, bool sibling, unsigned exit_signal)
{
	struct model_process *p = &m->v[m->n], *c = &m->v[by];

	assert_true(m->n < MODEL_MAX);
	assert_false(c->dead);
	if (!pid)
		do
			pid = m->next_pid++;
		while (number_in_use(m, pid));
	else if (number_in_use(m, pid))
		return -EEXIST;
	*p = (struct model_process){ pid, sibling ? c->parent : by, c->sid, c->pgid, sibling ? c->exit_signal : exit_signal, false, false, false };
	return m->n++;
}

static bool group_in_use(const struct model *m, int group, int sid)
{
	for (int i = 0; i < m->n; i++)
		if (!m->v[i].reaped && m->v[i].pgid == group && (!sid || m->v[i].sid == sid))
			return true;
	return false;
}

static int model_setsid(struct model *m, int i)
{
	struct model_process *p = &m->v[i];

	if (p->sid == p->pid || group_in_use(m, p->pid, 0))
		return -EPERM;
	p->sid = p->pgid = p->pid;
	return 0;
}

static int model_setpgid(struct model *m, int i, int group)
{
	struct model_process *p = &m->v[i];

	if (p->sid == p->pid)
		return -EPERM;
	if (group != p->pid && !group_in_use(m, group, p->sid))
		return -EPERM;
	p->pgid = group;
	return 0;
}

static void model_exit(struct model *m, int i)
{
	int heir = m->v[i].parent;

	m->v[i].dead = true;
	while (heir && (!m->v[heir].subreaper || m->v[heir].dead))
		heir = m->v[heir].parent;
	for (int k = 0; k < m->n; k++)
		if (m->v[k].parent == i && !m->v[k].reaped) {
			m->v[k].parent = heir;
			m->v[k].exit_signal = SIGCHLD;
			if (m->v[k].dead && !heir)
				m->v[k].reaped = true;
		}
}

static void model_reap(struct model *m, int i)
{
	assert_true(m->v[i].dead);
	m->v[i].reaped = true;
}

/* --- tables from the model --- */

static int index_in_tree(const struct tree *t, const struct model *m, int i)
{
	return (int)tree_find(t, m->v[i].pid);
}

#define SHELL 1 /* in histories */

/* Whoever has left the tree, for init. */
static bool is_daemon(const struct model *m, int i, int root)
{
	return i > SHELL && i != root && m->v[i].parent == 0 && !m->v[i].dead;
}

/* The tree below the process `root`, brothers by age; `daemons`: with all that have left it. */
static struct tree table_of(const struct model *m, int root, bool daemons)
{
	struct tree t = { calloc(MODEL_MAX, sizeof(*t.v)), 0 };
	int order[MODEL_MAX], n = 0;

	order[n++] = root;
	for (int i = 0; daemons && i < m->n; i++)
		if (is_daemon(m, i, root))
			order[n++] = i;
	for (int k = 0; k < n; k++)
		for (int i = 0; i < m->n; i++)
			if (!m->v[i].reaped && m->v[i].parent == order[k])
				order[n++] = i;
	for (int k = 0; k < n; k++) {
		const struct model_process *p = &m->v[order[k]];
		uint32_t self = (uint32_t)t.n;

		t.v[t.n] = (struct tree_process){ .pid = p->pid, .pgid = p->pgid, .sid = p->sid, .exit_signal = p->exit_signal, .zombie = p->dead, .tpgid = -1,
						  .memory = self, .files = self, .fs = self, .handlers = self };
		t.v[t.n].detached = is_daemon(m, order[k], root);
		t.v[t.n].parent = !k ? TREE_NONE : t.v[t.n].detached ? 0 : (uint32_t)index_in_tree(&t, m, p->parent);
		t.n++;
	}
	return t;
}

/* --- carrying out a plan --- */

static void print_tree(const struct tree *t)
{
	for (size_t i = 0; i < t->n; i++)
		fprintf(stderr, "  %zu: pid %d parent %d sid %d pgid %d signal %u%s\n", i, t->v[i].pid,
			t->v[i].parent == TREE_NONE ? 0 : t->v[t->v[i].parent].pid, t->v[i].sid, t->v[i].pgid, t->v[i].exit_signal, t->v[i].zombie ? " zombie" : "");
}

static int do_op(struct model *m, const struct tree *t, const struct tree_plan *plan, int *where, const struct tree_op *op)
{
	int i = where[op->task], by = op->kind == TREE_CREATE && op->by == TREE_OUTSIDE ? 0 : op->kind == TREE_CREATE ? where[op->by] : 0;

	switch (op->kind) {
	case TREE_CREATE:
		where[op->task] = model_clone(m, by, op->task < t->n ? t->v[op->task].pid : plan->helpers[op->task - t->n], op->sibling, op->exit_signal);
		return where[op->task] < 0 ? where[op->task] : 0;
	case TREE_SETSID:
		return model_setsid(m, i);
	case TREE_SETPGID:
		return model_setpgid(m, i, op->number);
	case TREE_ADOPT:
		m->v[i].subreaper = op->number;
		return 0;
	case TREE_END:
		assert_int_equal(m->v[i].parent, op->by == TREE_OUTSIDE ? 0 : where[op->by]);
		model_exit(m, i);
		model_reap(m, i);
		return 0;
	}
	return -EINVAL;
}

static void expect_made(const struct model *m, const struct tree *t, const int *where)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct model_process *p = &m->v[where[i]];
		int parent = tree_parent(t, i) == TREE_NONE ? 0 : where[t->v[i].parent];

		if (p->pid == t->v[i].pid && p->sid == t->v[i].sid && p->pgid == t->v[i].pgid && p->parent == parent && !p->subreaper &&
		    (i == 0 || p->exit_signal == t->v[i].exit_signal))
			continue;
		print_tree(t);
		fail_msg("%zu: pid %d sid %d pgid %d parent %d signal %u", i, p->pid, p->sid, p->pgid, m->v[p->parent].pid, p->exit_signal);
	}
	for (int i = 1; i < m->n; i++)
		if (!m->v[i].reaped && tree_find(t, m->v[i].pid) == TREE_NONE)
			fail_msg("a helper is left: %d", m->v[i].pid);
}

/* Plans and makes the tree; `m` and `where` hold what exists when `have` is given. */
static void make(struct model *m, int *where, const struct tree *t, const struct tree *have)
{
	struct err e = ERR_INIT;
	struct tree_plan plan;
	int ret = tree_plan(t, have, &plan, &e);

	if (ret < 0) {
		print_tree(t);
		fail_msg("no plan: %s", e.message);
	}
	for (size_t i = 0; i < plan.n; i++) {
		ret = do_op(m, t, &plan, where, &plan.v[i]);
		if (ret < 0) {
			print_tree(t);
			fail_msg("step %zu (kind %d, task %u, by %d, number %d): %s", i, plan.v[i].kind, plan.v[i].task, (int)plan.v[i].by, plan.v[i].number,
				 strerror(-ret));
		}
	}
	expect_made(m, t, where);
	tree_plan_free(&plan);
}

static void make_anew(const struct tree *t)
{
	struct model *m = malloc(sizeof(*m));
	int *where = calloc(MODEL_MAX, sizeof(*where));

	model_start(m);
	m->next_pid = 100000; /* not a number that will be needed */
	make(m, where, t, NULL);
	free(where);
	free(m);
}

/* --- by hand --- */

struct row {
	int pid, parent, sid, pgid; /* parent: index */
	unsigned exit_signal;       /* 0: SIGCHLD */
};

static struct tree from_rows(const struct row *rows, size_t n)
{
	struct tree t = { calloc(n, sizeof(*t.v)), n };

	for (uint32_t i = 0; i < n; i++)
		t.v[i] = (struct tree_process){ .pid = rows[i].pid, .parent = i ? (uint32_t)rows[i].parent : TREE_NONE, .sid = rows[i].sid, .pgid = rows[i].pgid,
						.exit_signal = rows[i].exit_signal ? rows[i].exit_signal : SIGCHLD, .tpgid = -1, .memory = i, .files = i, .fs = i,
						.handlers = i };
	return t;
}

#define CASE(name, ...)                                                              \
	static void name(void **state)                                               \
	{                                                                            \
		static const struct row rows[] = { __VA_ARGS__ };                    \
		struct tree t = from_rows(rows, sizeof(rows) / sizeof(rows[0]));     \
		struct err e = ERR_INIT;                                             \
									     \
		(void)state;                                                         \
		if (tree_validate(&t, &e) < 0)                                       \
			fail_msg("%s", e.message);                                   \
		make_anew(&t);                                                       \
		tree_free(&t);                                                       \
	}

CASE(alone, { 100, 0, 100, 100, 0 })
CASE(child_of_a_shell, { 100, 0, 50, 100, 0 })                       /* a job: its session's leader stays behind */
CASE(in_a_pipeline, { 101, 0, 50, 100, 0 })                          /* its group's leader stays behind, or has ended */
CASE(in_the_shells_group, { 101, 0, 50, 50, 0 })
CASE(children, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 100, 0 }, { 102, 0, 100, 100, SIGUSR1 }, { 103, 1, 100, 100, 0 })
CASE(jobs, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 101, 0 }, { 102, 0, 100, 101, 0 }, { 103, 0, 100, 103, 0 }, { 104, 3, 100, 103, 0 })
CASE(a_daemon, { 100, 0, 100, 100, 0 }, { 101, 0, 101, 101, 0 }, { 102, 1, 101, 101, 0 })
CASE(before_setsid, { 100, 0, 100, 100, 0 }, { 101, 0, 101, 101, 0 }, { 102, 1, 100, 100, 0 })
CASE(root_before_setsid, { 100, 0, 100, 100, 0 }, { 101, 0, 50, 50, 0 }, { 102, 0, 100, 100, 0 })
CASE(leader_gone, { 100, 0, 100, 100, 0 }, { 101, 0, 70, 70, 0 }, { 102, 0, 70, 101, 0 })
CASE(group_leader_gone, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 90, 0 }, { 102, 0, 100, 90, 0 }, { 103, 0, 100, 103, 0 })
CASE(leader_below, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 100, 0 }, { 102, 1, 102, 102, 0 }, { 103, 0, 102, 102, 0 })
CASE(leader_brother, { 100, 0, 100, 100, 0 }, { 102, 0, 102, 102, 0 }, { 103, 0, 102, 102, 0 }, { 104, 0, 102, 104, 0 })
CASE(founder_left, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 100, 0 }, { 102, 0, 100, 101, 0 })
CASE(founders_swapped, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 102, 0 }, { 102, 0, 100, 101, 0 })
CASE(dead_session_twice, { 100, 0, 100, 100, 0 }, { 101, 0, 100, 100, 0 }, { 102, 1, 70, 70, 0 }, { 103, 0, 70, 102, 0 })
CASE(other_exit_signal, { 100, 0, 100, 100, 0 }, { 101, 0, 70, 70, SIGUSR1 }, { 102, 0, 70, 70, SIGUSR1 })

static void a_session_led_from_below_is_refused(void **state)
{
	static const struct row rows[] = { { 100, 0, 101, 101, 0 }, { 101, 0, 101, 101, 0 } };
	struct tree t = from_rows(rows, 2);
	struct tree_plan plan;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(tree_plan(&t, NULL, &plan, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "100"));
	tree_free(&t);
}

/* --- random histories --- */

static unsigned long seed;
static bool daemons_act; /* those that have left the tree are picked, too */

static unsigned dice(unsigned n)
{
	seed = seed * 6364136223846793005ul + 1442695040888963407ul;
	return (unsigned)(seed >> 33) % n;
}

static int pick(const struct model *m, int root, bool dead)
{
	for (int tries = 0; tries < 200; tries++) {
		int i = (int)dice((unsigned)m->n), above = i;

		while (above > 0 && above != root && !(daemons_act && is_daemon(m, above, root)))
			above = m->v[above].parent;
		if (above > SHELL && !m->v[i].reaped && m->v[i].dead == dead)
			return i;
	}
	return -1;
}

static void something_happens(struct model *m, int root)
{
	int i = pick(m, root, dice(6) == 0), other = pick(m, root, false);

	if (i < 0 || other < 0)
		return;
	if (m->v[i].dead) {
		model_reap(m, i);
		return;
	}
	switch (dice(9)) {
	case 0 ... 3:
		model_clone(m, i, 0, i != root && dice(12) == 0, dice(8) ? SIGCHLD : SIGUSR2);
		break;
	case 4:
		model_setsid(m, i);
		break;
	case 5:
		model_setpgid(m, i, dice(2) ? m->v[i].pid : m->v[other].pgid);
		break;
	case 6:
		m->v[i].subreaper = dice(2);
		break;
	default:
		if (i != root)
			model_exit(m, i);
	}
}

/* A shell outside, which may be the leader of the root's session and group, and ends or not. */
static int begin_history(struct model *m)
{
	int shell, root;

	model_start(m);
	shell = model_clone(m, 0, 0, false, SIGCHLD);
	model_setsid(m, shell);
	root = model_clone(m, shell, 0, false, SIGCHLD);
	if (dice(2))
		model_setpgid(m, root, m->v[root].pid);
	if (dice(2))
		model_setsid(m, root);
	return root;
}

static void can_be_made_again(bool daemons, unsigned *made, unsigned *refused)
{
	struct model *m = malloc(sizeof(*m));

	daemons_act = daemons;
	for (unsigned round = 0; round < 4000; round++) {
		struct tree t;
		struct tree_plan plan;
		struct err e = ERR_INIT;
		int root;

		seed = round;
		root = begin_history(m);
		for (unsigned k = 0, n = 5 + dice(120); k < n; k++)
			something_happens(m, root);
		t = table_of(m, root, daemons);
		if (tree_validate(&t, &e) < 0) {
			print_tree(&t);
			fail_msg("%s", e.message);
		}
		if (tree_plan(&t, NULL, &plan, &e) < 0) {
			++*refused;
			if (getenv("VERBOSE")) {
				fprintf(stderr, "round %u: %s\n", round, e.message);
				print_tree(&t);
			}
		} else {
			tree_plan_free(&plan);
			make_anew(&t);
			++*made;
		}
		tree_free(&t);
	}
	daemons_act = false;
	printf("%u trees made, %u refused\n", *made, *refused);
	free(m);
}

/* Histories in which a process is made by a brother of a dead intermediate can have no other way than the one that they took; few are of that kind. */
static void random_histories_can_be_made_again(void **state)
{
	unsigned made = 0, refused = 0;

	(void)state;
	can_be_made_again(false, &made, &refused);
	assert_true(refused * 200 < made);
}

/* Also with those that have left the tree, and what is below them. A process whose session is led by one of these, but not below it, has no known way. */
static void random_histories_with_daemons(void **state)
{
	unsigned made = 0, refused = 0;

	(void)state;
	can_be_made_again(true, &made, &refused);
	assert_true(refused * 200 < made);
}

/* What was made before goes on: some end, some are new, some have changed their group. */
static void trees_are_brought_up_to_date(void **state)
{
	struct model *source = malloc(sizeof(*source)), *here = malloc(sizeof(*here));
	unsigned made = 0, again = 0;

	(void)state;
	for (unsigned round = 0; round < 1000; round++) {
		int where[2][MODEL_MAX] = { { 0 } };
		struct tree before, after;
		struct tree_plan plan;
		struct err e = ERR_INIT;
		int root, ret;

		seed = 1000000 + round;
		root = begin_history(source);
		for (unsigned k = 0, n = 5 + dice(60); k < n; k++)
			something_happens(source, root);
		before = table_of(source, root, false);
		if (tree_plan(&before, NULL, &plan, &e) < 0) {
			tree_free(&before);
			continue;
		}
		tree_plan_free(&plan);
		model_start(here);
		here->next_pid = 100000;
		make(here, where[0], &before, NULL);
		for (unsigned k = 0, n = dice(12); k < n; k++)
			something_happens(source, root);
		after = table_of(source, root, false);
		/* As skeleton_set_update does: the gone end, from the leaves up, and their children go where they are now. */
		for (size_t i = before.n; i-- > 0;) {
			uint32_t k = tree_find(&after, before.v[i].pid);

			if (k == TREE_NONE) {
				model_exit(here, where[0][i]);
				model_reap(here, where[0][i]);
				continue;
			}
			where[1][k] = where[0][i];
			if (before.v[i].zombie)
				here->v[where[0][i]].dead = true;
		}
		for (size_t k = 1; k < after.n; k++) {
			uint32_t i = tree_find(&before, after.v[k].pid);

			if (i == TREE_NONE)
				continue;
			here->v[where[1][k]].parent = where[1][after.v[k].parent];
			here->v[where[1][k]].exit_signal = after.v[k].exit_signal;
		}
		ret = tree_plan(&after, &before, &plan, &e);
		if (ret == 0) {
			tree_plan_free(&plan);
			make(here, where[1], &after, &before);
			made++;
		} else {
			assert_int_equal(ret, -EAGAIN);
			again++;
		}
		tree_free(&before);
		tree_free(&after);
	}
	printf("%u brought up to date, %u to be made anew\n", made, again);
	assert_true(again * 4 < made);
	free(source);
	free(here);
}

/* --- messages --- */

static void messages_keep_everything(void **state)
{
	static const struct row rows[] = { { 100, 0, 50, 90, 0 }, { 101, 0, 101, 101, SIGUSR1 }, { 102, 1, 101, 103, 0 } };
	struct tree t = from_rows(rows, 3), again;
	struct err e = ERR_INIT;
	uint8_t *data;
	size_t len;

	(void)state;
	t.v[1].files = 0;
	t.v[1].tty = 0x8800;
	t.v[1].tpgid = 103;
	t.v[1].stopped = true;
	t.v[1].parent_tid = 77;
	t.v[2].zombie = true;
	t.v[2].exit_status = 7 << 8;
	t.v[2].uid = 1000;
	t.v[2].gid = 1001;
	strcpy(t.v[2].name, "a name of it");
	assert_int_equal(tree_encode(&t, &data, &len), 0);
	assert_int_equal(tree_decode(data, len, &again, &e), 0);
	assert_int_equal(again.n, 3);
	assert_memory_equal(t.v, again.v, 3 * sizeof(*t.v));
	free(data);
	tree_free(&t);
	tree_free(&again);
}

static void nonsense_is_not_believed(void **state)
{
	static const struct row rows[] = { { 100, 0, 100, 100, 0 }, { 101, 0, 100, 100, 0 }, { 102, 1, 102, 102, 0 } };
	struct err e = ERR_INIT;

	(void)state;
	for (int k = 0; k < 16; k++) {
		struct tree t = from_rows(rows, 3);

		switch (k) {
		case 0: t.v[0].parent = 1; break;
		case 1: t.v[1].parent = 1; break;
		case 2: t.v[1].parent = TREE_NONE; break;
		case 3: t.v[2].pid = 101; break;
		case 4: t.v[0].zombie = true; break;
		case 5: t.v[1].zombie = true; break; /* it has a child */
		case 6: t.v[1].exit_status = 1; break;
		case 7: t.v[2].zombie = true; t.v[2].exit_status = 0x7f; break;
		case 8: t.v[1].sid = 102; t.v[2].sid = 100; break;
		case 9: t.v[2].pgid = 100; break;
		case 10: t.v[1].memory = 2; break;
		case 11: t.v[1].handlers = 0; break; /* without the memory */
		case 12: t.v[1].exit_signal = 65; break;
		case 13: t.v[1].pid = -1; break;
		case 14: t.v[0].detached = true; break;
		case 15: t.v[2].detached = true; break; /* with another parent than the root */
		}
		if (tree_validate(&t, &e) == 0)
			fail_msg("case %d is taken for a tree", k);
		tree_free(&t);
	}
}

/* --- /proc --- */

static pid_t start(int (*run)(void *), int flags)
{
	static char stack[2][65536];
	static int used;

	return clone(run, stack[used++ % 2] + 65536, flags, NULL);
}

static int sleep_forever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

static void wait_for_state(pid_t pid, char state)
{
	for (int i = 0; i < 2000; i++) {
		char path[64], line[512] = "", *p;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		f = fopen(path, "re");
		assert_non_null(f);
		p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		fclose(f);
		if (p && p[2] == state)
			return;
		usleep(1000);
	}
	fail_msg("process %d does not come into state %c", pid, state);
}

/* The unit under test is a child: a child that has ended, one with its descriptors, one stopped, one in a session of its own with another exit signal. */
static void unit(int told)
{
	pid_t pids[4];

	setsid();
	pids[0] = fork();
	if (!pids[0])
		_exit(3);
	wait_for_state(pids[0], 'Z');
	pids[1] = start(sleep_forever, CLONE_FILES | CLONE_FS | SIGCHLD);
	pids[2] = fork();
	if (!pids[2])
		raise(SIGSTOP);
	wait_for_state(pids[2], 'T');
	pids[3] = start(sleep_forever, SIGUSR1);
	(void)!write(told, pids, sizeof(pids));
	sleep_forever(NULL);
}

static void processes_are_read(void **state)
{
	int told[2];
	pid_t pids[4], root;
	struct tree t;
	struct tree_watch *w;
	struct refusals r = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(pipe(told), 0);
	root = fork();
	if (!root)
		unit(told[1]);
	assert_int_equal(read(told[0], pids, sizeof(pids)), sizeof(pids));
	if (tree_capture(root, NULL, 0, &t, &r, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(r.n, 0);
	assert_int_equal(t.n, 5);
	assert_int_equal(t.v[0].sid, root);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(t.v[i + 1].host_pid, pids[i]);
		assert_int_equal(t.v[i + 1].parent, 0);
		assert_int_equal(t.v[i + 1].parent_tid, root);
		assert_int_equal(t.v[i + 1].memory, i + 1);
	}
	assert_true(t.v[1].zombie);
	assert_int_equal(t.v[1].exit_status, 3 << 8);
	assert_int_equal(t.v[2].files, 0);
	assert_int_equal(t.v[2].fs, 0);
	assert_int_equal(t.v[2].handlers, 2);
	assert_true(t.v[3].stopped);
	assert_int_equal(t.v[4].exit_signal, SIGUSR1);
	assert_int_equal(tree_watch_open(&t, &w, &e), 0);
	assert_int_equal(tree_watch_changed(w, &e), 0);
	kill(root, SIGSTOP);
	wait_for_state(root, 'T');
	assert_int_equal(tree_watch_changed(w, &e), 0);
	assert_int_equal(setpgid(pids[1], pids[1]), -1); /* no child of ours */
	tree_watch_free(w);
	for (int i = 1; i < 4; i++)
		kill(pids[i], SIGKILL);
	kill(root, SIGKILL);
	waitpid(root, NULL, 0);
	tree_free(&t);
}

/* Has a child that has ended. At SIGUSR1 it waits for it and, if told so, makes another: one gone and one come leave as many as before. */
static void reaper(int told, bool born)
{
	sigset_t usr1;
	int got;
	pid_t pid = fork();

	if (!pid)
		_exit(3);
	wait_for_state(pid, 'Z');
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	(void)!write(told, "", 1);
	sigwait(&usr1, &got);
	waitpid(pid, NULL, 0);
	if (born && !fork())
		sleep_forever(NULL);
	(void)!write(told, "", 1);
	sleep_forever(NULL);
}

static void watch_zombie(bool born)
{
	struct tree t;
	struct tree_watch *w;
	struct refusals r = { 0 };
	struct err e = ERR_INIT;
	int told[2];
	char byte;
	pid_t root;

	assert_int_equal(pipe(told), 0);
	root = fork();
	if (!root)
		reaper(told[1], born);
	assert_int_equal(read(told[0], &byte, 1), 1);
	assert_int_equal(tree_capture(root, NULL, 0, &t, &r, &e), 0);
	assert_int_equal(t.n, 2);
	assert_int_equal(tree_watch_open(&t, &w, &e), 0);
	assert_int_equal(tree_watch_changed(w, &e), 0);
	kill(root, SIGUSR1);
	assert_int_equal(read(told[0], &byte, 1), 1);
	assert_int_equal(tree_watch_changed(w, &e), 1);
	tree_watch_free(w);
	tree_free(&t);
	assert_int_equal(tree_capture(root, NULL, 0, &t, &r, &e), 0);
	for (size_t i = t.n; i-- > 0;)
		kill(t.v[i].host_pid, SIGKILL);
	waitpid(root, NULL, 0);
	tree_free(&t);
	refusals_free(&r);
	close(told[0]);
	close(told[1]);
}

static void a_zombie_is_waited_for(void **state)
{
	(void)state;
	watch_zombie(false);
	watch_zombie(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone), cmocka_unit_test(child_of_a_shell), cmocka_unit_test(in_a_pipeline), cmocka_unit_test(in_the_shells_group),
		cmocka_unit_test(children), cmocka_unit_test(jobs), cmocka_unit_test(a_daemon), cmocka_unit_test(before_setsid),
		cmocka_unit_test(root_before_setsid), cmocka_unit_test(leader_gone), cmocka_unit_test(group_leader_gone), cmocka_unit_test(leader_below),
		cmocka_unit_test(leader_brother), cmocka_unit_test(founder_left), cmocka_unit_test(founders_swapped), cmocka_unit_test(dead_session_twice),
		cmocka_unit_test(other_exit_signal), cmocka_unit_test(a_session_led_from_below_is_refused),
		cmocka_unit_test(random_histories_can_be_made_again),
		cmocka_unit_test(random_histories_with_daemons), cmocka_unit_test(trees_are_brought_up_to_date),
		cmocka_unit_test(messages_keep_everything), cmocka_unit_test(nonsense_is_not_believed), cmocka_unit_test(processes_are_read),
		cmocka_unit_test(a_zombie_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
