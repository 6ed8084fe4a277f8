// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_threads_ahead.c - threads of the skeleton that are told ahead of the go message (migrate/dest_threads.c): what they are then, what the go message leaves of it, and that the memory which the
 * kernel writes to for them stays as it came
 *
 * The test is the worker. The go connection and the pages are left out: the one page that "came ahead" is mapped and filled here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/thread.h"
#include "image/thread_abi.h"
#include "image/xstate.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/unit.h"

#define BASE 0x200000000000ull
#define PLACE 0x300000000ull
#define AREA(i) (PLACE + 1024 + 256ull * (i)) /* for rseq(2) of thread i */
#define TID_WORD(i) (PLACE + 8ull * (i))
#define SIGNATURE 0x53053053u
#define FIRST 31001
#define THREADS 3
#define SEED 0x5a
#define RSEQ_CS_AT 8 /* offsetof(struct rseq, rseq_cs) */

struct configuration {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

static struct dest d;
static struct dest_process process;
static struct skeleton_set set;
static uint64_t ahead = PLACE;
static struct go_process go;
static uint8_t page[PAGE_SIZE_BYTES];

static Gw__Thread *make_message(pid_t tid, const char *name)
{
	struct thread_sched_attr attr = { .size = sizeof(attr), .nice = 3 };
	Gw__Thread *m = thread_new(tid);
	struct user_regs_struct regs = { .rip = PLACE, .cs = 0x33 };
	uint8_t state[XSTATE_LEGACY_LEN] = { 0 };
	struct refusals r = { 0 };
	struct err e = ERR_INIT;

	assert_true(thread_capture_outside(getpid(), getpid(), m, &r, &e) >= 0);
	refusals_free(&r);
	m->tid = tid;
	string_set(&m->name, name);
	bytes_set(&m->regs, &regs, sizeof(regs));
	bytes_set(&m->xstate, state, sizeof(state));
	bytes_set(&m->sched_attr, &attr, sizeof(attr));
	m->sigmask = 0;
	m->altstack_flags = SS_DISABLE;
	m->tsc_mode = PR_TSC_ENABLE;
	m->mce_kill = PR_MCE_KILL_DEFAULT;
	m->rseq = AREA(tid - FIRST);
	m->rseq_len = 32;
	m->rseq_signature = SIGNATURE;
	m->clear_tid = TID_WORD(tid - FIRST);
	return m;
}

/* Tells threads ahead, as the source does. */
static void tell(Gw__Thread **msgs, size_t n)
{
	Gw__ThreadsAhead m = GW__THREADS_AHEAD__INIT;
	struct bytes_list threads = { 0 };
	uint8_t *packed;
	struct err e = ERR_INIT;

	assert_true(unit_encode_threads(msgs, n, &threads, &e) >= 0);
	m.n_threads = threads.n;
	m.threads = threads.v;
	packed = malloc(gw__threads_ahead__get_packed_size(&m));
	assert_non_null(packed);
	if (dest_take_threads(&d, packed, gw__threads_ahead__pack(&m, packed), &e) < 0)
		fail_msg("%s", e.message);
	free(packed);
	bytes_list_free(&threads);
}

static void expect_page(void)
{
	uint8_t now[PAGE_SIZE_BYTES];
	struct err e = ERR_INIT;

	assert_int_equal(trace_peek(process.skeleton->mem_fd, PLACE, now, sizeof(now), &e), 0);
	assert_memory_equal(now, page, sizeof(now));
}

static struct skeleton_thread *find(int i)
{
	return skeleton_find_thread(process.skeleton, FIRST + i);
}

static uint64_t rseq_of(int i)
{
	struct configuration c = { 0 };

	assert_true(ptrace(PTRACE_GET_RSEQ_CONFIGURATION, find(i)->task.tid, sizeof(c), &c) >= 0);
	return c.pointer;
}

static int setup(void **state)
{
	static const struct tree_process root = { .pid = FIRST - 1, .parent = TREE_NONE, .sid = FIRST - 1, .pgid = FIRST - 1, .exit_signal = SIGCHLD, .tpgid = -1 };
	static const struct skeleton_terms terms = { BASE, 2 * THREADS + 2, 1u << 20 };
	struct tree_process rows[] = { root };
	const struct tree t = { rows, 1 };
	struct skeleton *s;
	struct err e = ERR_INIT;

	(void)state;
	set = (struct skeleton_set)SKELETON_SET_INIT;
	if (skeleton_set_create(&set, &t, false, &terms, &e) < 0)
		fail_msg("%s", e.message);
	s = set.v[0];
	memset(page, SEED, sizeof(page));
	for (int i = 0; i < THREADS; i++)
		memset(page + (AREA(i) - PLACE) + RSEQ_CS_AT, 0, sizeof(uint64_t));
	assert_true(remote_do(s->threads[0]->batch, &e, "mmap", SYS_mmap, PLACE, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0) > 0);
	assert_int_equal(trace_poke(s->mem_fd, PLACE, page, sizeof(page), &e), 0);
	process = (struct dest_process){ .d = &d, .pid = FIRST - 1, .skeleton = s, .ahead = &ahead, .nahead = 1, .process = process_new(FIRST - 1), .go = &go };
	xstate_describe(process.process);
	vma_list_append(&process.vmas, &(struct vma){ .start = PLACE, .end = PLACE + PAGE_SIZE_BYTES, .prot = PROT_READ | PROT_WRITE, .content = VMA_CONTENT_ANON });
	d = (struct dest){ .procs = &process, .nprocs = 1 };
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(skeleton_add_thread(s, FIRST + i, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	skeleton_set_destroy(&set);
	vma_list_free(&process.vmas);
	gw__process__free_unpacked(process.process, NULL);
	return 0;
}

static void told(Gw__Thread *msgs[THREADS])
{
	for (int i = 0; i < THREADS; i++)
		msgs[i] = make_message(FIRST + i, "as it was");
	tell(msgs, THREADS);
}

static void settle(Gw__Thread **msgs, size_t n)
{
	struct err e = ERR_INIT;

	go = (struct go_process){ .threads = msgs, .nthreads = n };
	if (dest_settle_threads(&process, &e) < 0)
		fail_msg("%s", e.message);
}

static void free_all(Gw__Thread *msgs[THREADS])
{
	for (int i = 0; i < THREADS; i++)
		gw__thread__free_unpacked(msgs[i], NULL);
}

/* The kernel writes numbers of CPUs, and zeros, where the program's own bytes are. */
static void memory_stays_as_it_came(void **state)
{
	Gw__Thread *msgs[THREADS];

	(void)state;
	told(msgs);
	for (int i = 0; i < THREADS; i++) {
		assert_non_null(find(i)->ahead);
		assert_false(find(i)->spoilt);
		assert_int_equal(rseq_of(i), AREA(i));
	}
	expect_page();
	settle(msgs, THREADS);
	for (int i = 0; i < THREADS; i++) {
		assert_true(find(i)->settled);
		assert_true(dest_has_its_sched(find(i), msgs[i]));
		assert_true(dest_has_its_state(find(i), msgs[i]));
	}
	expect_page();
	free_all(msgs);
}

/* What has changed since is made anew, and nothing of what was told is left: neither in the thread nor in memory. */
static void what_has_changed_is_made_anew(void **state)
{
	Gw__Thread *msgs[THREADS];
	struct err e = ERR_INIT;

	(void)state;
	told(msgs);
	msgs[1]->rseq = 0;
	msgs[1]->rseq_len = msgs[1]->rseq_signature = 0;
	string_set(&msgs[2]->name, "as it is");
	settle(msgs, THREADS);
	assert_true(find(0)->settled);
	for (int i = 1; i < THREADS; i++) {
		assert_false(find(i)->settled);
		assert_null(find(i)->ahead);
		assert_int_equal(rseq_of(i), 0);
	}
	expect_page();
	/* One that has ended. */
	assert_int_equal(skeleton_end_thread(process.skeleton, FIRST, &e), 0);
	assert_null(find(0));
	expect_page();
	free_all(msgs);
}

/* Registers alone are set in the freeze anyway. */
static void scheduling_and_state_are_compared(void **state)
{
	struct thread_sched_attr attr = { .size = sizeof(attr), .nice = 4 };
	Gw__Thread *msgs[THREADS];

	(void)state;
	told(msgs);
	bytes_set(&msgs[0]->sched_attr, &attr, sizeof(attr));
	msgs[1]->xstate.data[200] = 1;
	settle(msgs, THREADS);
	for (int i = 0; i < THREADS; i++) {
		assert_true(find(i)->settled);
		assert_int_equal(dest_has_its_sched(find(i), msgs[i]), i != 0);
		assert_int_equal(dest_has_its_state(find(i), msgs[i]), i != 1);
	}
	free_all(msgs);
}

/* Those that would have to wait for a page. */
static void some_are_left_for_the_go_message(void **state)
{
	const uint64_t somewhere = PLACE + (1u << 20);
	Gw__Thread *msgs[THREADS];
	struct err e = ERR_INIT;

	(void)state;
	for (int i = 0; i < THREADS; i++)
		msgs[i] = make_message(FIRST + i, "as it was");
	msgs[0]->rseq = PLACE + PAGE_SIZE_BYTES;
	msgs[1]->clear_tid = PLACE - 8;
	msgs[2]->robust_list = PLACE - 32;
	msgs[2]->robust_list_len = sizeof(struct robust_list_head);
	tell(msgs, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_null(find(i)->ahead);
	free_all(msgs);
	/* what its area points to may be missing as well */
	msgs[0] = make_message(FIRST, "as it was");
	assert_int_equal(trace_poke(process.skeleton->mem_fd, AREA(0) + RSEQ_CS_AT, &somewhere, sizeof(somewhere), &e), 0);
	tell(msgs, 1);
	assert_null(find(0)->ahead);
	gw__thread__free_unpacked(msgs[0], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(memory_stays_as_it_came, setup, teardown),
		cmocka_unit_test_setup_teardown(what_has_changed_is_made_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(scheduling_and_state_are_compared, setup, teardown),
		cmocka_unit_test_setup_teardown(some_are_left_for_the_go_message, setup, teardown),
	};

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
