/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_restart.c - calls that wait are stopped twice, the second time losing their restart block as in a move, and go on: with the result
 * and after the time that they would have had
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/restart.h"
#include "image/thread.h"
#include "inject_batch.h"
#include "kern/restart_block.h"

#define MS 1000000ull
#define WAIT_MS 200
#define FIRST_STOP_MS 50
#define SECOND_STOP_MS 120
#define TOO_LATE_MS 170 /* a busy machine comes to a stop when the call is over */
#define TRIES 5

static struct shared {
	volatile int ready;
	volatile long result;
	volatile int error;
	volatile uint64_t waited_ns;
	uint32_t word;
	struct timespec rmtp;
} *s;

static struct restart_reader *reader;
static const struct timespec wait_for = { 0, WAIT_MS * 1000000 };

static struct timespec in_a_while(clockid_t clock)
{
	uint64_t at = clock_ns(clock) + WAIT_MS * MS;

	return (struct timespec){ (time_t)(at / 1000000000), (long)(at % 1000000000) };
}

static long do_nanosleep(void) { return syscall(SYS_nanosleep, &wait_for, NULL); }
static long do_nanosleep_rmtp(void) { return syscall(SYS_nanosleep, &wait_for, &s->rmtp); }
static long do_clock_nanosleep(void) { return syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &wait_for, NULL); }
static long do_clock_rmtp(void) { return syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &wait_for, &s->rmtp); }
static long do_poll(void) { return syscall(SYS_poll, NULL, 0, WAIT_MS); }
static long do_futex(void) { return syscall(SYS_futex, &s->word, FUTEX_WAIT, 0, &wait_for, NULL, 0); }

static long do_sleep_until(void)
{
	struct timespec at = in_a_while(CLOCK_MONOTONIC);

	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static long do_futex_until(void)
{
	struct timespec at = in_a_while(CLOCK_MONOTONIC);

	return syscall(SYS_futex, &s->word, FUTEX_WAIT_BITSET, 0, &at, NULL, ~0u);
}

static long do_epoll(void)
{
	struct epoll_event event;

	return syscall(SYS_epoll_wait, epoll_create1(0), &event, 1, WAIT_MS);
}

static long do_epoll_pwait2(void)
{
	struct epoll_event event;

	return syscall(441, epoll_create1(0), &event, 1, &wait_for, NULL, 8);
}

static long do_sigtimedwait(void)
{
	uint64_t set = 1ull << (SIGUSR1 - 1);

	return syscall(SYS_rt_sigtimedwait, &set, NULL, &wait_for, 8);
}

static long do_semtimedop(void)
{
	int id = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf op = { 0, -1, 0 };
	long rc = syscall(SYS_semtimedop, id, &op, 1, &wait_for);
	int error = errno;

	semctl(id, 0, IPC_RMID);
	errno = error;
	return rc;
}

static long do_select(void)
{
	struct timeval t = { 0, WAIT_MS * 1000 };

	return syscall(SYS_select, 0, NULL, NULL, NULL, &t);
}

static long do_ppoll(void)
{
	struct timespec t = wait_for;

	return syscall(SYS_ppoll, NULL, 0, &t, NULL, 8);
}

static long do_receive(void)
{
	struct timeval t = { 0, WAIT_MS * 1000 };
	int pair[2];
	char c;

	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	return syscall(SYS_recvfrom, pair[0], &c, 1, 0, NULL, NULL);
}

static const struct one {
	const char *name;
	long (*call)(void);
	long result;
	int error;
	bool starts_over; /* the kernel keeps no end of it */
} calls[] = {
	{ "nanosleep", do_nanosleep, 0, 0, false },
	{ "nanosleep with rmtp", do_nanosleep_rmtp, 0, 0, false },
	{ "clock_nanosleep on CLOCK_BOOTTIME", do_clock_nanosleep, 0, 0, false },
	{ "clock_nanosleep with rmtp", do_clock_rmtp, 0, 0, false },
	{ "clock_nanosleep, absolute", do_sleep_until, 0, 0, false },
	{ "poll", do_poll, 0, 0, false },
	{ "futex", do_futex, -1, ETIMEDOUT, false },
	{ "futex, absolute", do_futex_until, -1, ETIMEDOUT, false },
	{ "epoll_wait", do_epoll, 0, 0, false },
	{ "epoll_pwait2", do_epoll_pwait2, 0, 0, false },
	{ "rt_sigtimedwait", do_sigtimedwait, -1, EAGAIN, false },
	{ "semtimedop", do_semtimedop, -1, EAGAIN, false },
	{ "select", do_select, 0, 0, false },
	{ "ppoll", do_ppoll, 0, 0, false },
	{ "recv with SO_RCVTIMEO", do_receive, -1, EAGAIN, true },
};

enum how { BY_FINISH, BY_PRIMING, WITHOUT_BPF };

static void must(int rc, const struct err *e)
{
	if (rc < 0)
		fail_msg("%s", e->message);
}

static pid_t start(const struct one *one)
{
	pid_t pid = fork();
	uint64_t begin;

	if (pid)
		return pid;
	begin = clock_ns(CLOCK_MONOTONIC);
	s->ready = 1;
	s->result = one->call();
	s->error = s->result < 0 ? errno : 0;
	s->waited_ns = clock_ns(CLOCK_MONOTONIC) - begin;
	_exit(0);
}

/* Stops the child and captures; the thread stays stopped. */
static Gw__Thread *stop(pid_t pid, struct restart_watch *watch)
{
	struct restart_context c = { .pid = pid };
	struct restart_record before = { 0 }, after = { 0 };
	struct err e = ERR_INIT;
	Gw__Thread *t = thread_new(pid);

	if (watch) {
		must(restart_watch_read(watch, &before, 1, &e), &e);
		c.before = &before;
	}
	inject_stop(pid);
	if (watch) {
		must(restart_watch_read(watch, &after, 1, &e), &e);
		c.after = &after;
	}
	must(thread_capture_stopped(pid, t, &e), &e);
	must(restart_capture(t, &c, &e), &e);
	must(restart_validate(t->restart, &e), &e);
	return t;
}

static void go_on(pid_t pid, Gw__Thread *t, bool finish)
{
	struct user_regs_struct *regs = (void *)t->regs.data;
	struct restart_now now = restart_now_read(0, 0);

	if (finish || t->restart->kind == GW__RESTART__KIND__TIMED_CALL)
		restart_finish_in(pid, regs, t->restart, &now);
	assert_int_equal(ptrace(PTRACE_SETREGS, pid, 0, regs), 0);
	assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
	gw__thread__free_unpacked(t, NULL);
}

/* What the destination's thread has when the move does nothing about it: a restart block of something else. */
static void spoil(pid_t pid)
{
	const struct remote_call other = { .nr = SYS_poll, .arg = { 0, 0, 60000 } };

	assert_int_equal(inject_blocking(pid, &other), RESTART_BLOCK);
}

static bool prime(pid_t pid, Gw__Thread *t)
{
	struct restart_now now = restart_now_read(0, 0);
	struct restart_prime prime;
	struct remote_call call = { 0 };
	struct batch *b;

	if (!restart_prime_call(t, &now, &prime))
		return false;
	b = inject_batch(pid);
	call.nr = prime.nr;
	memcpy(call.arg, prime.arg, sizeof(call.arg));
	if (prime.request_arg >= 0)
		call.arg[prime.request_arg] = batch_data(b, prime.request, sizeof(prime.request));
	restart_prime_done((void *)t->regs.data, inject_blocking(pid, &call));
	inject_free(b);
	return true;
}

static void sleep_until(uint64_t at_ns)
{
	struct timespec at = { (time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static bool time_is_right(void)
{
	return s->waited_ns >= WAIT_MS * MS && s->waited_ns < (WAIT_MS + SECOND_STOP_MS) * MS - 20 * MS;
}

/* A busy machine: the call is over, or as good as over, and what it has become is of no use. */
static bool is_too_late(pid_t pid, uint64_t begin, struct restart_watch *watch)
{
	if (clock_ns(CLOCK_MONOTONIC) <= begin + TOO_LATE_MS * MS)
		return false;
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	restart_watch_close(watch);
	return true;
}

/* Returns whether both stops came while the call waited. */
static bool run(const struct one *one, enum how how)
{
	struct restart_watch *watch = NULL;
	struct err e = ERR_INIT;
	uint64_t begin;
	Gw__Thread *t;
	pid_t pid;

	memset(s, 0, sizeof(*s));
	pid = start(one);
	if (how != WITHOUT_BPF)
		must(restart_watch_open(reader, pid, &watch, &e), &e);
	while (!s->ready)
		usleep(100);
	begin = clock_ns(CLOCK_MONOTONIC);
	sleep_until(begin + FIRST_STOP_MS * MS);
	if (is_too_late(pid, begin, watch))
		return false;
	if (how != WITHOUT_BPF) /* a preparation's stop */
		go_on(pid, stop(pid, watch), false);
	sleep_until(begin + SECOND_STOP_MS * MS);
	if (is_too_late(pid, begin, watch))
		return false;
	t = stop(pid, watch);
	spoil(pid);
	go_on(pid, t, how != BY_PRIMING || !prime(pid, t));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	restart_watch_close(watch);
	if (s->result != one->result || s->error != one->error)
		fail_msg("%s: %ld, %s", one->name, s->result, strerror(s->error));
	print_message("%s: %llu us\n", one->name, (unsigned long long)s->waited_ns / 1000);
	return true;
}

static void run_all(enum how how)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		bool right = false;

		/* a busy machine may delay the program by more than is waited for */
		for (unsigned try = 0; try < TRIES && !right; try++)
			right = run(&calls[i], how) && (calls[i].starts_over || how == WITHOUT_BPF || time_is_right());
		if (!right)
			fail_msg("%s: waited %llu us instead of %d ms", calls[i].name, (unsigned long long)s->waited_ns / 1000, WAIT_MS);
	}
}

static void test_finish(void **state)
{
	(void)state;
	if (!reader)
		skip();
	run_all(BY_FINISH);
}

static void test_prime(void **state)
{
	(void)state;
	if (!reader)
		skip();
	run_all(BY_PRIMING);
}

static void test_without_bpf(void **state)
{
	(void)state;
	run_all(WITHOUT_BPF);
}

static void test_to_call(void **state)
{
	struct user_regs_struct regs = { .rax = (uint64_t)RESTART_SYS, .orig_rax = SYS_read, .rip = 0x1002 };

	(void)state;
	restart_to_call(&regs);
	assert_int_equal(regs.rax, SYS_read);
	assert_int_equal(regs.rip, 0x1000);
	restart_to_call(&regs);
	assert_int_equal(regs.rip, 0x1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_to_call),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_prime),
		cmocka_unit_test(test_without_bpf),
	};
	struct err e = ERR_INIT;

	s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	inject_init();
	if (restart_reader_load(&reader, &e) < 0)
		print_message("skipping what needs BPF: %s\n", e.message);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
