// SPDX-License-Identifier: GPL-2.0-or-later
/* signal.c - victims about signals: masks, dispositions, pending ones with their data and order, a steady stream of them */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

/* ---- masks and dispositions, compared as the kernel tells them ---- */

static const char *const mask_lines[] = { "SigQ", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", NULL };
static pthread_barrier_t started;

static void own_status(struct text *t)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/status", syscall(SYS_gettid));
	text_file(t, path, (const char **)mask_lines + 1);
}

static void *mask_thread(void *arg)
{
	struct text before = { 0 }, after = { 0 };
	sigset_t mask;
	uint64_t bits = mix((uintptr_t)arg);

	memcpy(&mask, &bits, 8);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &bits, NULL, 8);
	own_status(&before);
	pthread_barrier_wait(&started);
	while (!victim_stopping)
		usleep(10000);
	own_status(&after);
	expect_text("signal masks of a thread", before.s, after.s);
	return NULL;
}

static struct text actions_before, status_before;

struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static void snapshot_actions(struct text *t)
{
	for (int sig = 1; sig <= 64; sig++) {
		struct kernel_sigaction ka = { 0 };

		if (!syscall(SYS_rt_sigaction, sig, NULL, &ka, 8))
			text_add(t, "signal %d: handler %p flags %#lx restorer %p mask %#llx\n", sig, ka.handler, ka.flags, ka.restorer,
				 (unsigned long long)ka.mask);
	}
}

static void on_any(int sig)
{
}

static void mask_setup(void)
{
	static const int flags[] = { 0, SA_RESTART, SA_SIGINFO, SA_ONSTACK, SA_NODEFER, (int)SA_RESETHAND, SA_NOCLDSTOP | SA_NOCLDWAIT };

	for (int sig = 1; sig <= 64; sig++) {
		struct sigaction sa = { .sa_handler = sig % 4 == 0 ? SIG_IGN : on_any, .sa_flags = flags[sig % 7] };

		if (sig == SIGKILL || sig == SIGSTOP || sig == SIGTERM || sig == 32 || sig == 33 || sig % 5 == 4)
			continue;
		memset(&sa.sa_mask, sig * 37, 8);
		must(!sigaction(sig, &sa, NULL));
	}
	pthread_barrier_init(&started, NULL, 9);
	for (uintptr_t i = 0; i < 8; i++)
		spawn(mask_thread, (void *)i, NULL);
	pthread_barrier_wait(&started);
	snapshot_actions(&actions_before);
	own_status(&status_before);
}

static void mask_check(void)
{
	struct text after = { 0 }, status = { 0 };

	own_status(&status);
	expect_text("signal masks of the main thread", status_before.s, status.s);
	snapshot_actions(&after);
	expect_text("dispositions", actions_before.s, after.s);
	join_all();
}

/* The check is asked for by a file: SIGTERM would be among the masks. */
VICTIM(signal_mask, V_CHECK_FILE, mask_setup, NULL, mask_check);

/* ---- pending signals ---- */

#define RT(n) (SIGRTMIN + (n))
static sigset_t pending_set;

/* Without the C library, which shows SI_TKILL as SI_USER. */
static int take_signal(const sigset_t *set, siginfo_t *si)
{
	struct timespec none = { 0, 0 };

	return (int)syscall(SYS_rt_sigtimedwait, set, si, &none, 8);
}

static void queue_value(int sig, int value)
{
	union sigval v = { .sival_ptr = (void *)(mix((uint64_t)value) | 1) };

	must(!sigqueue(getpid(), sig, v));
}

static void *pending_thread(void *arg)
{
	union sigval v = { .sival_ptr = (void *)0xabcdef0123456789 };
	siginfo_t si;

	for (int i = 0; i < 3; i++) {
		v.sival_ptr = (void *)(0xabcdef0123456789 + (uintptr_t)i);
		must(!pthread_sigqueue(pthread_self(), RT(5), v));
	}
	pthread_kill(pthread_self(), SIGUSR2);
	pthread_barrier_wait(&started);
	while (!victim_stopping)
		usleep(10000);
	for (uintptr_t i = 0; i < 3; i++) {
		sigset_t one;

		sigemptyset(&one);
		sigaddset(&one, RT(5));
		memset(&si, 0, sizeof(si));
		expect_u64("a thread's own queued signal", (uint64_t)RT(5), (uint64_t)take_signal(&one, &si));
		expect_u64("its value", 0xabcdef0123456789 + i, (uintptr_t)si.si_ptr);
		expect_u64("its si_code", (uint64_t)SI_QUEUE, (uint64_t)si.si_code);
	}
	sigset_t usr2;

	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	expect_u64("a thread's own SIGUSR2", SIGUSR2, (uint64_t)take_signal(&usr2, &si));
	expect_u64("its si_code", (uint64_t)SI_TKILL, (uint64_t)si.si_code);
	expect_u64("its si_pid", (uint64_t)getpid(), (uint64_t)si.si_pid);
	return NULL;
}

static void pending_setup(void)
{
	sigfillset(&pending_set);
	sigdelset(&pending_set, SIGTERM);
	pthread_sigmask(SIG_SETMASK, &pending_set, NULL);
	pthread_barrier_init(&started, NULL, 2);
	spawn(pending_thread, NULL, NULL);
	pthread_barrier_wait(&started);
	for (int i = 0; i < 20; i++) { /* lowest number first, then the order they came in */
		queue_value(RT(3), 100 + i);
		queue_value(RT(1), 200 + i);
	}
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR1); /* merges */
	queue_value(SIGHUP, 7);
}

static void expect_pending(int sig, uint64_t value, int code)
{
	siginfo_t si;
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, sig);
	memset(&si, 0, sizeof(si));
	expect_u64("pending signal", (uint64_t)sig, (uint64_t)take_signal(&one, &si));
	expect_u64("si_code", (uint64_t)code, (uint64_t)si.si_code);
	expect_u64("si_pid", (uint64_t)getpid(), (uint64_t)si.si_pid);
	expect_u64("si_uid", getuid(), si.si_uid);
	if (code == SI_QUEUE)
		expect_u64("value of a queued signal", value, (uintptr_t)si.si_ptr);
}

static void pending_check(void)
{
	sigset_t left, want;

	expect_pending(SIGHUP, mix(7) | 1, SI_QUEUE);
	expect_pending(SIGUSR1, 0, SI_USER);
	for (int i = 0; i < 20; i++)
		expect_pending(RT(1), mix((uint64_t)(200 + i)) | 1, SI_QUEUE);
	for (int i = 0; i < 20; i++)
		expect_pending(RT(3), mix((uint64_t)(100 + i)) | 1, SI_QUEUE);
	join_all();
	sigpending(&left);
	sigemptyset(&want);
	if (memcmp(&left, &want, 8))
		fail("signals left pending, expected none, got %#llx", *(unsigned long long *)&left);
	expect(take_signal(&pending_set, NULL) < 0 && errno == EAGAIN);
}

VICTIM(signal_pending, V_CHECK_FILE | V_NO_STOP, pending_setup, NULL, pending_check);

/* Pending in the main thread, delivered to handlers after the move, in order. */
static volatile int delivered[64], n_delivered;

static void on_rt(int sig, siginfo_t *si, void *ctx)
{
	if (n_delivered < 64)
		delivered[n_delivered++] = si->si_int;
}

static void deliver_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_rt, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigset_t rt;

	sigfillset(&sa.sa_mask);
	must(!sigaction(RT(2), &sa, NULL));
	sigemptyset(&rt);
	sigaddset(&rt, RT(2));
	pthread_sigmask(SIG_BLOCK, &rt, NULL);
	for (int i = 0; i < 32; i++) {
		union sigval v = { .sival_int = 1000 + i };

		must(!sigqueue(getpid(), RT(2), v));
	}
}

static void deliver_check(void)
{
	sigset_t rt;

	expect_u64("handlers before unblocking", 0, (uint64_t)n_delivered);
	sigemptyset(&rt);
	sigaddset(&rt, RT(2));
	pthread_sigmask(SIG_UNBLOCK, &rt, NULL);
	expect_u64("handlers after unblocking", 32, (uint64_t)n_delivered);
	for (int i = 0; i < 32; i++)
		expect_u64("value seen by a handler", (uint64_t)(1000 + i), (uint64_t)delivered[i]);
}

VICTIM(signal_deliver, V_CHECK_FILE, deliver_setup, NULL, deliver_check);

/* More are pending than may be from now on. */
static void limit_setup(void)
{
	struct rlimit limit;
	sigset_t rt;

	sigemptyset(&rt);
	sigaddset(&rt, RT(3));
	pthread_sigmask(SIG_BLOCK, &rt, NULL);
	for (int i = 0; i < 300; i++)
		must(!sigqueue(getpid(), RT(3), (union sigval){ .sival_int = i }));
	must(!getrlimit(RLIMIT_SIGPENDING, &limit));
	limit.rlim_cur = 50;
	must(!setrlimit(RLIMIT_SIGPENDING, &limit));
}

static void limit_check(void)
{
	struct rlimit limit;
	siginfo_t si;
	sigset_t rt;

	sigemptyset(&rt);
	sigaddset(&rt, RT(3));
	expect(!getrlimit(RLIMIT_SIGPENDING, &limit) && limit.rlim_cur == 50);
	for (int i = 0; i < 300; i++)
		expect(take_signal(&rt, &si) == RT(3) && si.si_int == i);
	expect(take_signal(&rt, NULL) < 0 && errno == EAGAIN);
}

VICTIM(signal_limit, V_CHECK_FILE, limit_setup, NULL, limit_check);

/* ---- a stream of queued signals between threads: none lost, none twice ---- */

static volatile uint64_t stream_next, stream_got;
static unsigned long receiver;

static void on_stream(int sig, siginfo_t *si, void *ctx)
{
	if ((uint64_t)si->si_int != stream_got % 1000000)
		fail("stream of signals, expected number %llu, got %d", (unsigned long long)stream_got, si->si_int);
	stream_got++;
}

static void *stream_receiver(void *arg)
{
	sigset_t rt;

	sigemptyset(&rt);
	sigaddset(&rt, RT(6));
	pthread_sigmask(SIG_UNBLOCK, &rt, NULL);
	while (!victim_stopping || stream_got < stream_next)
		asm volatile("pause");
	return NULL;
}

static void stream_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_stream, .sa_flags = SA_SIGINFO | SA_RESTART };

	must(!sigaction(RT(6), &sa, NULL));
	spawn(stream_receiver, NULL, &receiver);
}

static void stream_work(void)
{
	for (int i = 0; i < 20; i++) {
		union sigval v = { .sival_int = (int)(stream_next % 1000000) };

		if (!pthread_sigqueue(receiver, RT(6), v))
			stream_next++;
	}
	usleep(200);
}

static void stream_check(void)
{
	join_all();
	expect_u64("signals received", stream_next, stream_got);
}

VICTIM(signal_stream, 0, stream_setup, stream_work, stream_check);
