// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_skeleton.c - all processes of a unit at the destination: made from a table, brought up to date, let go, given up, and left by a worker that dies
 *
 * The test is godwitd's part: the parent of the unit's root, and subreaper. A child of it is the worker. What has been made is read from /proc by tree_capture and
 * compared with the table. Let go, each process runs three instructions that call pause() again and again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "image/tree.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/outcome.h"
#include "migrate/skeleton_set.h"
#include "migrate/unit_page.h"

#define BASE 0x200000000000ull
#define CODE 0x300000000ull
#define N_MAX 8
#define CROWD 4 /* threads beside the main one */

/* mov $34 (pause), %eax; syscall; jmp -9 */
static const uint8_t program[] = { 0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7 };

struct row {
	int pid, parent, sid, pgid;
	unsigned exit_signal, exit_status;
};

static struct tree make_tree(const struct row *rows, size_t n)
{
	struct tree t = { calloc(n, sizeof(*t.v)), n };

	for (uint32_t i = 0; i < n; i++)
		t.v[i] = (struct tree_process){ .pid = rows[i].pid, .parent = i ? (uint32_t)rows[i].parent : TREE_NONE, .sid = rows[i].sid, .pgid = rows[i].pgid,
						.exit_signal = rows[i].exit_signal ? rows[i].exit_signal : SIGCHLD, .tpgid = -1, .zombie = rows[i].exit_status != 0,
						.exit_status = rows[i].exit_status, .name = "ended", .memory = i, .files = i, .fs = i, .handlers = i };
	return t;
}

/* A child with its own, a job, one below that was born before its parent's session, one with the number of a dead leader, an orphan's table of exit signals. */
static const struct row family[] = {
	{ 31000, 0, 31000, 31000, 0, 0 },       { 31001, 0, 31000, 31001, 0, 0 }, { 31002, 0, 31002, 31002, 0, 0 },
	{ 31003, 2, 31000, 31000, SIGUSR1, 0 }, { 31004, 0, 30900, 30901, 0, 0 },
};

/* --- the worker --- */

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "worker: %s: %s\n", what, e->message);
	_exit(2);
}

#define DO(x) do { if ((x) < 0) die(#x, &e); } while (0)

static void terms_for(struct skeleton_terms *terms, size_t n)
{
	for (size_t i = 0; i < n; i++)
		terms[i] = (struct skeleton_terms){ BASE + i * (64u << 20), 8, 1u << 20 };
}

static bool same_process(const struct tree_process *a, const struct tree_process *b, bool numbers)
{
	return (!numbers || a->pid == b->pid) && a->parent == b->parent && a->sid == b->sid && a->pgid == b->pgid && a->zombie == b->zombie &&
	       (a->parent == TREE_NONE || a->exit_signal == b->exit_signal) && (!a->zombie || a->exit_status == b->exit_status) && a->memory == b->memory &&
	       a->files == b->files && a->fs == b->fs && a->handlers == b->handlers;
}

/* Brothers in any order. */
static bool same_tree(const struct tree *expected, const struct tree *got)
{
	struct tree sorted = { calloc(expected->n, sizeof(*sorted.v)), expected->n };
	uint32_t where[N_MAX];
	bool same = expected->n == got->n;

	for (uint32_t i = 0; same && i < expected->n; i++) {
		where[i] = tree_find(got, expected->v[i].pid);
		if (where[i] == TREE_NONE) {
			same = false;
			break;
		}
		sorted.v[i] = got->v[where[i]];
	}
	for (uint32_t i = 0; same && i < expected->n; i++) {
		struct tree_process *p = &sorted.v[i];
		uint32_t *const index[] = { &p->parent, &p->memory, &p->files, &p->fs, &p->handlers };

		for (size_t k = 0; k < ARRAY_SIZE(index); k++)
			for (uint32_t j = 0; j < expected->n; j++)
				if (*index[k] == where[j]) {
					*index[k] = j;
					break;
				}
		same = same_process(&expected->v[i], p, true);
	}
	free(sorted.v);
	return same;
}

static void print(const char *what, const struct tree *t)
{
	for (size_t i = 0; i < t->n; i++)
		fprintf(stderr, "%s %zu: %d, parent %d, session %d, group %d, signal %u, zombie %d %#x, shares %u %u %u %u\n", what, i, t->v[i].pid, (int)t->v[i].parent,
			t->v[i].sid, t->v[i].pgid, t->v[i].exit_signal, t->v[i].zombie, t->v[i].exit_status, t->v[i].memory, t->v[i].files, t->v[i].fs,
			t->v[i].handlers);
}

static void expect_tree(pid_t root, const struct tree *expected)
{
	struct err e = ERR_INIT;
	struct tree got;

	DO(tree_capture(root, NULL, 0, &got, NULL, &e));
	if (!same_tree(expected, &got)) {
		print("expected", expected);
		print("got", &got);
		_exit(3);
	}
	tree_free(&got);
}

/* Threads that have lost EXITKILL long before the commit, as those have that are told ahead of the go message (dest_threads.c). */
static void add_crowd(struct skeleton_set *set)
{
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i < set->tree.n; i++)
		for (pid_t k = 0; set->v[i] && k < CROWD; k++) {
			pid_t tid = 31100 + (pid_t)i * CROWD + k;
			struct skeleton_thread *t;

			DO(skeleton_add_thread(set->v[i], tid, &e));
			t = skeleton_find_thread(set->v[i], tid);
			DO(ptrace(PTRACE_SETOPTIONS, t->task.tid, 0, 0));
			t->no_exitkill = true;
		}
}

/* Three instructions, and registers that stand in an interrupted pause(). */
static void give_program(struct skeleton *s, struct user_regs_struct *regs)
{
	struct err e = ERR_INIT;
	struct skeleton_thread *t = s->threads[0];

	DO(remote_do(t->batch, &e, "mmap", SYS_mmap, CODE, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0));
	DO(trace_poke(s->mem_fd, CODE, program, sizeof(program), &e));
	DO(trace_get_regs(t->task.tid, regs, &e));
	regs->rip = CODE + 7;
	regs->rsp = CODE + 4096;
	regs->rax = (uint64_t)-514;
	regs->orig_rax = SYS_pause;
}

static const uint8_t mig_id[HELLO_MIG_ID_BYTES] = { 31 };

static int record_commit(void *arg, struct err *e)
{
	return outcome_commit(*(int *)arg, e);
}

static void equip(struct skeleton_set *set, int go)
{
	static int record;
	struct err e = ERR_INIT;
	int self = pidfd_open_process(getpid(), &e);

	outcome_forget(mig_id, -1); /* of a test that did not look */
	record = outcome_begin(mig_id, &e);
	assert_true(record >= 0);
	set->record = record_commit;
	set->first_arg = &record;

	for (size_t i = 0; i < set->tree.n; i++) {
		struct skeleton *s = set->v[i];
		struct agent_fds fds = { go, -1, -1, -1, s ? s->mem_fd : -1, s ? s->pidfd : -1, self,
					 i ? set->v[0]->agent.scratch.memfd : -1, i ? set->v[0]->pidfd : -1, -1, i ? -1 : record };

		if (!s)
			continue;
		DO(agent_equip(&s->agent, s->agent_end, &fds, &e));
		if (i == 0)
			DO(outcome_share(s->agent.batch, scratch_header(&s->agent.scratch)->record_fd, &e));
	}
	close(self);
}

/* Everything up to the commit. */
static void prepare_commit(struct skeleton_set *set, int go)
{
	struct err e = ERR_INIT;
	struct user_regs_struct regs;

	equip(set, go);
	for (size_t i = 0; i < set->tree.n; i++) {
		if (!set->v[i])
			continue;
		give_program(set->v[i], &regs);
		for (size_t k = 0; k < set->v[i]->nthreads; k++)
			DO(skeleton_hold(set->v[i]->threads[k], &regs, 0, &e));
	}
}

static void take_exitkill_from_others(struct skeleton_set *set)
{
	for (size_t i = 1; i < set->tree.n; i++)
		if (set->v[i])
			ptrace(PTRACE_SETOPTIONS, set->v[i]->threads[0]->task.tid, 0, 0);
}

enum scenario { MADE, DIES_AT_REST, DESTROYED, UPDATED, RELEASED, DIES_BEFORE, DIES_COMMITTING, DIES_AFTER_POINT, DIES_UNRECORDED, DIES_DECIDED, DIES_RECORDED, DIES_COMMITTED };

static bool crowded;

static void act(struct skeleton_set *set, enum scenario scenario, int go)
{
	struct err e = ERR_INIT;
	uint64_t word = GO_RESUMED;

	if (crowded)
		add_crowd(set);
	if (scenario == DIES_AT_REST)
		equip(set, go);
	if (scenario >= RELEASED)
		prepare_commit(set, go);
	if (scenario >= DIES_BEFORE)
		take_exitkill_from_others(set);
	switch (scenario) {
	case DESTROYED:
		skeleton_set_destroy(set);
		break;
	case RELEASED:
		DO(skeleton_set_release(set, &e));
		scratch_unit(&set->v[0]->agent.scratch)->told = 1;
		(void)!write(go, &word, sizeof(word));
		break;
	case DIES_COMMITTING:
		scratch_slot(&set->v[0]->agent.scratch, 1)->flags |= SLOT_ROOT;
		unit_step(&set->v[0]->agent, HANDOVER_RELEASE_BEGINS);
		break;
	case DIES_AFTER_POINT:
	case DIES_UNRECORDED:
	case DIES_DECIDED:
	case DIES_RECORDED:
	case DIES_COMMITTED:
		scratch_slot(&set->v[0]->agent.scratch, 1)->flags |= SLOT_ROOT;
		unit_step(&set->v[0]->agent, HANDOVER_RELEASE_BEGINS);
		ptrace(PTRACE_SETOPTIONS, set->v[0]->threads[0]->task.tid, 0, 0);
		if (scenario == DIES_UNRECORDED)
			scratch_header(&set->v[0]->agent.scratch)->record_fd = -1;
		if (scenario >= DIES_DECIDED)
			unit_step(&set->v[0]->agent, HANDOVER_ROOT_RELEASED);
		if (scenario >= DIES_RECORDED)
			DO(set->record(set->first_arg, &e));
		if (scenario == DIES_COMMITTED)
			unit_step(&set->v[0]->agent, HANDOVER_RECORDED);
		break;
	default:
		break;
	}
}

/* Ends without taking leave of anything: what is traced with EXITKILL dies. */
static void worker(const struct tree *t, const struct tree *later, bool own_namespace, enum scenario scenario, int go)
{
	struct skeleton_terms terms[N_MAX];
	struct skeleton_set set = SKELETON_SET_INIT;
	struct err e = ERR_INIT;

	terms_for(terms, N_MAX);
	DO(skeleton_set_create(&set, t, own_namespace, terms, &e));
	DO(skeleton_set_bury(&set, t, &e));
	expect_tree(set.v[0]->pid, t);
	if (later) {
		DO(skeleton_set_update(&set, later, terms, &e));
		expect_tree(set.v[0]->pid, later);
	}
	act(&set, scenario, go);
	_exit(0);
}

/* --- godwitd's part --- */

/* Runs a worker to its end; the process's end of the go connection stays in *ret_go. */
static void run_worker(const struct tree *t, const struct tree *later, bool own_namespace, enum scenario scenario, int *ret_go)
{
	int go[2], status;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go), 0);
	pid = fork();
	if (!pid) {
		close(go[0]);
		worker(t, later, own_namespace, scenario, go[1]);
	}
	close(go[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	*ret_go = go[0];
}

static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
		;
}

/* Waits until no process of the tree is left, nor any child of ours. */
static void expect_gone(const struct tree *t)
{
	for (int tries = 0; tries < 5000; tries++) {
		bool some = false;

		reap();
		for (size_t i = 0; i < t->n; i++)
			some |= kill(t->v[i].pid, 0) == 0;
		if (!some && waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD)
			return;
		usleep(1000);
	}
	for (size_t i = 0; i < t->n; i++)
		fprintf(stderr, "process %d: %s\n", t->v[i].pid, kill(t->v[i].pid, 0) ? "gone" : "there");
	fail_msg("something is left");
}

static bool pauses(pid_t pid, pid_t tid)
{
	char path[64], text[128] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	f = fopen(path, "re");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = 0;
	if (f)
		fclose(f);
	return atoi(text) == SYS_pause && strtoull(strrchr(text, ' '), NULL, 16) == CODE + 7;
}

static bool all_pause(const struct tree *t, uint32_t i)
{
	bool all = pauses(t->v[i].pid, t->v[i].pid);

	for (pid_t k = 0; crowded && all && k < CROWD; k++)
		all = pauses(t->v[i].pid, 31100 + (pid_t)i * CROWD + k);
	return all;
}

static void expect_running(const struct tree *t, const struct tree_process *root)
{
	struct err e = ERR_INIT;
	struct tree got;

	for (uint32_t i = 0; i < t->n; i++)
		for (int tries = 0; !t->v[i].zombie && !all_pause(t, i); tries++) {
			if (tries == 3000)
				fail_msg("process %d does not run", t->v[i].pid);
			usleep(1000);
		}
	assert_int_equal(tree_capture(root->pid, NULL, 0, &got, NULL, &e), 0);
	if (!same_tree(t, &got)) {
		print("expected", t);
		print("got", &got);
		fail_msg("it is another tree now");
	}
	tree_free(&got);
}

static void end(const struct tree *t)
{
	for (size_t i = 0; i < t->n; i++)
		kill(t->v[i].pid, SIGKILL);
	expect_gone(t);
}

/* The one word on the go connection, and its end; and what the record says, when nobody can write it any more. */
static void expect_word(int go, uint64_t expected)
{
	enum outcome outcome = OUTCOME_PENDING;
	struct err e = ERR_INIT;
	uint64_t word = 0, more;

	for (int tries = 0; outcome == OUTCOME_PENDING && tries < 3000; tries++) {
		DO(outcome_query(mig_id, &outcome, &e));
		usleep(1000);
	}
	assert_int_equal(outcome, expected == GO_RESUMED ? OUTCOME_COMMITTED : OUTCOME_ABORTED);
	outcome_forget(mig_id, -1);

	assert_int_equal(recv(go, &word, sizeof(word), MSG_WAITALL), sizeof(word));
	assert_true(word == expected);
	assert_int_equal(recv(go, &more, sizeof(more), 0), 0);
	close(go);
}

static void try(const struct row *rows, size_t n, enum scenario scenario)
{
	struct tree t = make_tree(rows, n);
	int go;

	run_worker(&t, NULL, false, scenario, &go);
	switch (scenario) {
	case RELEASED:
	case DIES_AFTER_POINT:
	case DIES_DECIDED:
	case DIES_RECORDED:
	case DIES_COMMITTED:
		expect_running(&t, &t.v[0]);
		expect_word(go, GO_RESUMED);
		end(&t);
		break;
	case DIES_AT_REST:
	case DIES_BEFORE:
	case DIES_COMMITTING:
	case DIES_UNRECORDED:
		expect_word(go, GO_ABORTED);
		expect_gone(&t);
		break;
	default:
		close(go);
		expect_gone(&t);
	}
	tree_free(&t);
}

#define TRY(name, rows, scenario) static void name(void **state) { (void)state; try(rows, ARRAY_SIZE(rows), scenario); }

TRY(a_family_is_made_and_dies_with_the_worker, family, MADE)
TRY(a_family_is_given_up, family, DESTROYED)
TRY(a_family_is_let_go, family, RELEASED)
TRY(a_worker_that_dies_before_the_commit_leaves_nothing, family, DIES_BEFORE)
TRY(a_worker_that_dies_when_it_is_about_to_commit_leaves_nothing, family, DIES_COMMITTING)
TRY(a_worker_that_dies_at_the_commit_leaves_all, family, DIES_AFTER_POINT)
TRY(a_worker_that_dies_before_the_record_leaves_all, family, DIES_DECIDED)
TRY(a_worker_that_dies_behind_the_record_leaves_all, family, DIES_RECORDED)
TRY(a_worker_that_dies_after_the_commit_leaves_all, family, DIES_COMMITTED)
TRY(what_cannot_be_recorded_does_not_run, family, DIES_UNRECORDED)

static const struct row single[] = { { 31000, 0, 31000, 31000, 0, 0 } };

TRY(one_process_is_let_go, single, RELEASED)
TRY(one_process_is_left_at_the_commit, single, DIES_AFTER_POINT)

/* The same with threads that do not die with the worker by themselves. */
static void try_crowd(enum scenario scenario)
{
	crowded = true;
	try(family, ARRAY_SIZE(family), scenario);
	crowded = false;
}

#define TRY_CROWD(name, scenario) static void name(void **state) { (void)state; try_crowd(scenario); }

TRY_CROWD(a_crowd_is_let_go, RELEASED)
TRY_CROWD(a_crowd_at_rest_dies_with_the_worker, DIES_AT_REST)
TRY_CROWD(a_crowd_dies_with_a_worker_that_dies_before_the_commit, DIES_BEFORE)
TRY_CROWD(a_crowd_dies_with_a_worker_that_is_about_to_commit, DIES_COMMITTING)
TRY_CROWD(a_crowd_is_left_by_a_worker_that_dies_at_the_commit, DIES_AFTER_POINT)
TRY_CROWD(a_crowd_is_left_by_a_worker_that_dies_after_the_commit, DIES_COMMITTED)

static const struct row zombies[] = {
	{ 31000, 0, 31000, 31000, 0, 0 }, { 31001, 0, 31000, 31000, 0, 7 << 8 }, { 31002, 0, 31000, 31000, SIGUSR2, SIGKILL }, { 31003, 0, 31000, 31000, 0, SIGSEGV },
	{ 31004, 0, 31004, 31004, 0, 34 }, { 31005, 0, 31004, 31004, 0, 0 },
};

TRY(zombies_are_made, zombies, RELEASED)

/* A number that is taken. */
static void a_taken_number_means_a_namespace(void **state)
{
	struct tree t = make_tree(family, ARRAY_SIZE(family));
	int go;

	(void)state;
	t.v[3].pid = getpid();
	run_worker(&t, NULL, false, MADE, &go);
	t.v[3].pid = 31003;
	expect_gone(&t);
	run_worker(&t, NULL, true, DESTROYED, &go);
	expect_gone(&t);
	tree_free(&t);
}

static void sharers_are_made(void **state)
{
	struct tree t = make_tree(family, ARRAY_SIZE(family));
	int go;

	(void)state;
	t.v[1].files = t.v[1].fs = 0;
	t.v[2].memory = t.v[2].handlers = 0;
	t.v[3].files = t.v[3].fs = 2;
	run_worker(&t, NULL, false, MADE, &go);
	close(go);
	expect_gone(&t);
	run_worker(&t, NULL, false, RELEASED, &go);
	expect_running(&t, &t.v[0]);
	close(go);
	end(&t);
	tree_free(&t);
}

/* One has ended and been waited for, one has ended, its child is an orphan, one has another group; two are new, one of them below a new one. */
static void changes_are_made(void **state)
{
	static const struct row before[] = {
		{ 31000, 0, 31000, 31000, 0, 0 }, { 31001, 0, 31000, 31001, 0, 0 }, { 31002, 0, 31000, 31000, 0, 0 }, { 31003, 2, 31000, 31000, 0, 0 },
		{ 31004, 0, 31000, 31000, 0, 0 }, { 31005, 0, 31000, 31000, 0, 0 },
	};
	static const struct row after[] = {
		{ 31000, 0, 31000, 31000, 0, 0 }, { 31001, 0, 31000, 31001, 0, 0 }, { 31003, 0, 31000, 31001, 0, 0 }, { 31004, 0, 31000, 31000, 0, 3 << 8 },
		{ 31006, 0, 31006, 31006, 0, 0 }, { 31007, 4, 31006, 31006, 0, 0 },
	};
	struct tree t = make_tree(before, ARRAY_SIZE(before)), later = make_tree(after, ARRAY_SIZE(after));
	int go;

	(void)state;
	run_worker(&t, &later, false, RELEASED, &go);
	expect_running(&later, &later.v[0]);
	expect_word(go, GO_RESUMED);
	end(&later);
	expect_gone(&t);
	tree_free(&t);
	tree_free(&later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_process_is_let_go), cmocka_unit_test(one_process_is_left_at_the_commit),
		cmocka_unit_test(a_family_is_made_and_dies_with_the_worker), cmocka_unit_test(a_family_is_given_up), cmocka_unit_test(a_family_is_let_go),
		cmocka_unit_test(a_worker_that_dies_before_the_commit_leaves_nothing),
		cmocka_unit_test(a_worker_that_dies_when_it_is_about_to_commit_leaves_nothing),
		cmocka_unit_test(a_worker_that_dies_at_the_commit_leaves_all), cmocka_unit_test(a_worker_that_dies_before_the_record_leaves_all),
		cmocka_unit_test(a_worker_that_dies_behind_the_record_leaves_all), cmocka_unit_test(a_worker_that_dies_after_the_commit_leaves_all),
		cmocka_unit_test(what_cannot_be_recorded_does_not_run),
		cmocka_unit_test(a_crowd_is_let_go), cmocka_unit_test(a_crowd_at_rest_dies_with_the_worker),
		cmocka_unit_test(a_crowd_dies_with_a_worker_that_dies_before_the_commit), cmocka_unit_test(a_crowd_dies_with_a_worker_that_is_about_to_commit),
		cmocka_unit_test(a_crowd_is_left_by_a_worker_that_dies_at_the_commit), cmocka_unit_test(a_crowd_is_left_by_a_worker_that_dies_after_the_commit),
		cmocka_unit_test(zombies_are_made), cmocka_unit_test(sharers_are_made), cmocka_unit_test(changes_are_made),
		cmocka_unit_test(a_taken_number_means_a_namespace),
	};

	char records[] = "/tmp/godwit-test-XXXXXX";
	int ret;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	alarm(120);
	if (!mkdtemp(records))
		return 1;
	outcome_use_directory(records);
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(records);
	return ret;
}
