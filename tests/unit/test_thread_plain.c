// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_thread_plain.c - what BPF tells of threads (kern/thread_peek.h, image/thread_plain.h) is what ptrace(2) and the threads themselves tell
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "image/thread.h"
#include "image/thread_plain.h"
#include "image/xstate.h"
#include "kern/thread_peek.h"
#include "kern/trace.h"

#define THREADS 6

/* Shared with the child. */
struct shared {
	volatile pid_t tids[THREADS];
	volatile int ready;
};

static struct shared *s;

typedef double vector __attribute__((vector_size(16)));

/* What makes thread i different. */
static void become(unsigned i)
{
	const struct sched_param none = { 0 };
	sigset_t set;

	sigemptyset(&set);
	switch (i) {
	case 1:
		prctl(PR_SET_NAME, "number one");
		sigaddset(&set, SIGUSR1);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		sigaltstack(&(stack_t){ .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 }, NULL);
		break;
	case 2:
		sched_setscheduler(0, SCHED_BATCH, &none);
		break;
	case 3:
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		break;
	case 4:
		sigaddset(&set, SIGUSR2);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		raise(SIGUSR2);
		break;
	case 5:
		prctl(PR_SET_TIMERSLACK, 12345);
		break;
	default:
		break;
	}
}

static void *live(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	vector v = { 1.5 + i, -7.25 };

	become(i);
	s->tids[i] = (pid_t)syscall(SYS_gettid);
	__atomic_add_fetch(&s->ready, 1, __ATOMIC_SEQ_CST);
	/* Asleep with something in its vector registers and on its x87 stack. */
	if (__builtin_cpu_supports("avx") && i != 5)
		asm volatile("movapd %0, %%xmm9\n\tvinsertf128 $1, %0, %%ymm9, %%ymm10\n\tfld1\n\tsyscall" : : "m"(v), "a"(SYS_pause) : "xmm9", "xmm10", "rcx", "r11", "memory");
	asm volatile("movapd %0, %%xmm9\n\tfld1\n\tfldpi\n\tsyscall" : : "m"(v), "a"(SYS_pause) : "xmm9", "rcx", "r11", "memory");
	return NULL;
}

static pid_t start(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uintptr_t i = 1; i < THREADS; i++)
			pthread_create(&t, NULL, live, (void *)i);
		prctl(PR_SET_PDEATHSIG, 0);
		live(NULL);
	}
	while (s->ready < THREADS)
		sched_yield();
	return pid;
}

static void stop_all(void)
{
	struct err e = ERR_INIT;

	for (unsigned i = 0; i < THREADS; i++) {
		/* asleep first, so that the stop finds it in its call */
		assert_int_equal(trace_seize(s->tids[i], 0, &e), 0);
		assert_int_equal(trace_interrupt(s->tids[i], &e), 0);
		assert_int_equal(trace_wait_stop(s->tids[i], &e), 0);
		trace_get_mask(s->tids[i], &(uint64_t){ 0 }, &e); /* it is off its CPU */
	}
}

static void compare(const Gw__Thread *asked, const Gw__Thread *plain)
{
	uint8_t *a = asked->xstate.data, *b = plain->xstate.data;

	assert_int_equal(asked->regs.len, plain->regs.len);
	assert_memory_equal(asked->regs.data, plain->regs.data, asked->regs.len);
	assert_int_equal(asked->xstate.len, plain->xstate.len);
	memcpy(a + 28, b + 28, 4); /* the mask of MXCSR is no state */
	assert_memory_equal(a, b, asked->xstate.len);
	assert_int_equal(asked->sigmask, plain->sigmask);
	assert_int_equal(asked->robust_list, plain->robust_list);
	assert_int_equal(asked->robust_list_len, plain->robust_list_len);
	assert_int_equal(asked->rseq, plain->rseq);
	assert_int_equal(asked->rseq_len, plain->rseq_len);
	assert_int_equal(asked->rseq_signature, plain->rseq_signature);
	assert_int_equal(asked->pending.len, 0);
}

static void test_plain_is_what_ptrace_tells(void **state)
{
	/* of threads 0 to 5: which may be plain beside thread 0 */
	static const bool expected[THREADS] = { true, true, false, false, false, false };
	struct thread_peek peek = { .next_fd = -1 };
	const struct thread_record *main;
	struct err e = ERR_INIT;
	pid_t pid;

	(void)state;
	if (thread_peek_load(&e) < 0)
		fail_msg("%s", e.message);
	pid = start();
	stop_all();
	assert_int_equal(thread_peek_open(&peek, pid, THREADS, &e), 0);
	assert_int_equal(thread_peek_read(&peek, &e), 0);
	assert_int_equal(peek.n, THREADS);
	main = thread_peek_find(&peek, s->tids[0], 3);
	assert_non_null(main);
	for (unsigned i = 0; i < THREADS; i++) {
		const struct thread_record *r = thread_peek_find(&peek, s->tids[i], i);
		Gw__Thread *asked = thread_new(s->tids[i]), *plain = thread_new(s->tids[i]);

		assert_non_null(r);
		assert_int_equal(thread_is_plain(r, main), expected[i]);
		assert_int_equal(thread_fill_plain(r, plain), 0);
		assert_int_equal(thread_capture_stopped(s->tids[i], asked, &e), 0);
		if (i != 4)
			compare(asked, plain);
		assert_string_equal(plain->name, i == 1 ? "number one" : main->name);
		assert_int_equal(plain->altstack_size, i == 1 ? 1 << 16 : 0);
		assert_int_equal(plain->altstack_flags, i == 1 ? 0 : SS_DISABLE);
		gw__thread__free_unpacked(asked, NULL);
		gw__thread__free_unpacked(plain, NULL);
	}
	thread_peek_close(&peek);
	kill(pid, SIGKILL);
}

/* One that runs is never plain: what is on its stack is of its last system call. */
static void test_running_is_not_plain(void **state)
{
	struct thread_peek peek = { .next_fd = -1 };
	struct err e = ERR_INIT;

	(void)state;
	assert_true(thread_peek_load(&e) >= 0);
	assert_int_equal(thread_peek_open(&peek, getpid(), 1, &e), 0);
	assert_int_equal(thread_peek_read(&peek, &e), 0);
	assert_int_equal(peek.n, 1);
	assert_false(thread_is_plain(peek.v[0], peek.v[0]));
	thread_peek_close(&peek);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_plain_is_what_ptrace_tells), cmocka_unit_test(test_running_is_not_plain) };

	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return s == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
