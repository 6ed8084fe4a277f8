// SPDX-License-Identifier: GPL-2.0-or-later
/* timer.c - victims about time: interval timers, POSIX timers, clocks */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "victim.h"

#define MS 1000000ull
#define SLACK (20 * MS)

/* ---- interval timers ---- */

static volatile uint64_t alarms, vtalarms, profs;
static uint64_t t0, armed; /* before and after the timers were */

/*
 * What is left of a time that ran from some moment between t0 and armed. `asked`: the moment before it was read. However long the machine does something else in between,
 * the bounds hold. cpu: of the CPU time between none and all of it was used.
 */
static void expect_left(const char *what, uint64_t whole, uint64_t left, uint64_t asked, bool cpu)
{
	uint64_t most = now_ns(CLOCK_MONOTONIC) - t0, least = cpu ? 0 : asked - armed;

	if (left + most + SLACK < whole || left + least > whole + SLACK)
		fail("%s, expected %llu ns less %llu to %llu, got %llu", what, (unsigned long long)whole, (unsigned long long)least, (unsigned long long)most,
		     (unsigned long long)left);
}

static void on_tick(int sig)
{
	if (sig == SIGALRM)
		alarms++;
	else if (sig == SIGVTALRM)
		vtalarms++;
	else
		profs++;
}

static void set_itimer(int which, int sig, long first_ms, long interval_ms)
{
	struct itimerval it = { { interval_ms / 1000, interval_ms % 1000 * 1000 }, { first_ms / 1000, first_ms % 1000 * 1000 } };
	struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };

	must(!sigaction(sig, &sa, NULL));
	must(!setitimer(which, &it, NULL));
}

static void itimer_tick_setup(void)
{
	t0 = now_ns(CLOCK_MONOTONIC);
	set_itimer(ITIMER_REAL, SIGALRM, 10, 10);
	set_itimer(ITIMER_VIRTUAL, SIGVTALRM, 10, 10);
	set_itimer(ITIMER_PROF, SIGPROF, 10, 10);
}

static void burn(void)
{
	for (volatile int i = 0; i < 100000; i++)
		;
}

static void itimer_tick_check(void)
{
	uint64_t a = alarms, v = vtalarms, p = profs, end = now_ns(CLOCK_MONOTONIC) + 5000 * MS, elapsed = now_ns(CLOCK_MONOTONIC) - t0;
	uint64_t ran = now_ns(CLOCK_PROCESS_CPUTIME_ID); /* while it waits for a CPU signals are one */

	if (a < (ran < elapsed ? ran : elapsed) / (10 * MS) / 2 || a > elapsed / (10 * MS) + 2)
		fail("SIGALRM every 10 ms in %llu ms (%llu on a CPU), expected %llu, got %llu", (unsigned long long)(elapsed / MS),
		     (unsigned long long)(ran / MS), (unsigned long long)(elapsed / (10 * MS)), (unsigned long long)a);
	while ((alarms < a + 5 || vtalarms < v + 5 || profs < p + 5) && now_ns(CLOCK_MONOTONIC) < end)
		burn();
	if (alarms < a + 5 || vtalarms < v + 5 || profs < p + 5)
		fail("ticks after the check began, expected 5 of each, got %llu %llu %llu", (unsigned long long)(alarms - a),
		     (unsigned long long)(vtalarms - v), (unsigned long long)(profs - p));
}

VICTIM(timer_itimer_tick, 0, itimer_tick_setup, burn, itimer_tick_check);

/* The timer's signal is blocked and pending: the kernel has stopped the timer and starts it again when the signal is taken. */
static void itimer_pending_setup(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	must(!sigprocmask(SIG_BLOCK, &set, NULL));
	set_itimer(ITIMER_REAL, SIGALRM, 10, 10);
	do {
		burn();
		must(!sigpending(&set));
	} while (!sigismember(&set, SIGALRM));
}

static void itimer_pending_check(void)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 5000 * MS;
	sigset_t set;

	expect_u64("ticks while SIGALRM was blocked", 0, alarms);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	must(!sigprocmask(SIG_UNBLOCK, &set, NULL));
	while (alarms < 5 && now_ns(CLOCK_MONOTONIC) < end)
		burn();
	if (alarms < 5)
		fail("ticks after SIGALRM was unblocked, expected 5, got %llu", (unsigned long long)alarms);
}

VICTIM(timer_itimer_pending, 0, itimer_pending_setup, NULL, itimer_pending_check);

static void itimer_left_setup(void)
{
	t0 = now_ns(CLOCK_MONOTONIC);
	set_itimer(ITIMER_REAL, SIGALRM, 1000000, 7777);
	set_itimer(ITIMER_VIRTUAL, SIGVTALRM, 1000000, 8888);
	set_itimer(ITIMER_PROF, SIGPROF, 1000000, 9999);
	armed = now_ns(CLOCK_MONOTONIC);
}

static uint64_t tv_ns(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000 * MS + (uint64_t)tv->tv_usec * 1000;
}

static void itimer_left_check(void)
{
	static const struct {
		int which;
		uint64_t interval_ms;
		const char *name;
	} t[] = { { ITIMER_REAL, 7777, "ITIMER_REAL" }, { ITIMER_VIRTUAL, 8888, "ITIMER_VIRTUAL" }, { ITIMER_PROF, 9999, "ITIMER_PROF" } };

	for (int i = 0; i < 3; i++) {
		uint64_t asked = now_ns(CLOCK_MONOTONIC);
		struct itimerval it;

		expect(!getitimer(t[i].which, &it));
		expect_left(t[i].name, 1000000 * MS, tv_ns(&it.it_value), asked, i > 0);
		if (tv_ns(&it.it_interval) / MS - t[i].interval_ms > 16) /* the kernel rounds to its tick */
			fail("interval of %s, expected %llu ms, got %llu", t[i].name, (unsigned long long)t[i].interval_ms,
			     (unsigned long long)(tv_ns(&it.it_interval) / MS));
	}
}

VICTIM(timer_itimer_left, 0, itimer_left_setup, NULL, itimer_left_check);

/* ---- POSIX timers, through the raw calls: the kernel's own ids are the state ---- */

struct posix_kind {
	clockid_t clock;
	int notify, sig;
	uint64_t first_ms, interval_ms;
	bool absolute;
};

static const struct posix_kind posix_kinds[] = {
	{ CLOCK_REALTIME, SIGEV_SIGNAL, 40, 500000, 3333, false },
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, 41, 600000, 0, false },
	{ CLOCK_BOOTTIME, SIGEV_NONE, 0, 700000, 4444, false },
	{ CLOCK_MONOTONIC, SIGEV_THREAD_ID, 42, 800000, 5555, false },
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, 43, 900000, 6666, true },
	{ CLOCK_REALTIME, SIGEV_SIGNAL, 44, 900000, 0, true },
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, 45, 0, 0, false }, /* never armed */
	{ CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 46, 500000, 0, false },
};
#define N_POSIX (int)(sizeof(posix_kinds) / sizeof(*posix_kinds))

static int posix_ids[N_POSIX], overrun_id, live_id;
static volatile uint64_t live_ticks;
static volatile void *live_value;

static int make_timer(clockid_t clock, int notify, int sig, void *value)
{
	struct sigevent ev = { 0 };
	int id;

	ev.sigev_notify = notify;
	ev.sigev_signo = sig;
	ev.sigev_value.sival_ptr = value;
	if (notify == SIGEV_THREAD_ID)
		ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	must(!syscall(SYS_timer_create, clock, &ev, &id));
	return id;
}

static void arm_timer(int id, clockid_t clock, uint64_t first_ms, uint64_t interval_ms, bool absolute)
{
	uint64_t first = first_ms * MS + (absolute ? now_ns(clock) : 0);
	struct itimerspec its = { { (time_t)(interval_ms / 1000), (long)(interval_ms % 1000 * MS) },
				  { (time_t)(first / (1000 * MS)), (long)(first % (1000 * MS)) } };

	must(!syscall(SYS_timer_settime, id, absolute ? TIMER_ABSTIME : 0, &its, NULL));
}

static void on_live(int sig, siginfo_t *si, void *ctx)
{
	live_ticks += 1 + (uint64_t)si->si_overrun; /* on a busy machine it comes late for several */
	live_value = si->si_ptr;
}

static void posix_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_live, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigset_t blocked;
	int hole = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, NULL);

	t0 = now_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < N_POSIX; i++) {
		posix_ids[i] = make_timer(posix_kinds[i].clock, posix_kinds[i].notify, posix_kinds[i].sig, (void *)(uintptr_t)(i * 1111));
		if (posix_kinds[i].first_ms)
			arm_timer(posix_ids[i], posix_kinds[i].clock, posix_kinds[i].first_ms, posix_kinds[i].interval_ms, posix_kinds[i].absolute);
		if (i == 3)
			must(!syscall(SYS_timer_delete, hole)); /* ids with a gap */
	}
	armed = now_ns(CLOCK_MONOTONIC);
	sigemptyset(&blocked);
	sigaddset(&blocked, 50);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	overrun_id = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, 50, (void *)0x5050);
	arm_timer(overrun_id, CLOCK_MONOTONIC, 1, 1, false);
	must(!sigaction(51, &sa, NULL));
	live_id = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, 51, (void *)0x123456789abcdef);
	arm_timer(live_id, CLOCK_MONOTONIC, 10, 10, false);
}

static void posix_check(void)
{
	uint64_t passed = now_ns(CLOCK_MONOTONIC) - t0, ticks = live_ticks, end = now_ns(CLOCK_MONOTONIC) + 3000 * MS;
	struct timespec soon = { 1, 0 };
	sigset_t one;
	siginfo_t si;

	for (int i = 0; i < N_POSIX; i++) {
		const struct posix_kind *k = &posix_kinds[i];
		struct itimerspec its = { 0 };
		uint64_t asked = now_ns(CLOCK_MONOTONIC), left;

		if (syscall(SYS_timer_gettime, posix_ids[i], &its)) {
			fail("timer_gettime of timer %d (kind %d): errno %d", posix_ids[i], i, errno);
			return;
		}
		expect_u64("interval of a POSIX timer", k->interval_ms * MS, (uint64_t)its.it_interval.tv_sec * 1000 * MS + (uint64_t)its.it_interval.tv_nsec);
		left = (uint64_t)its.it_value.tv_sec * 1000 * MS + (uint64_t)its.it_value.tv_nsec;
		if (k->first_ms)
			expect_left("remaining time of a POSIX timer", k->first_ms * MS, left, asked, k->clock == CLOCK_PROCESS_CPUTIME_ID);
		else
			expect_u64("remaining time of a POSIX timer that is not armed", 0, left);
	}
	sigemptyset(&one);
	sigaddset(&one, 50);
	memset(&si, 0, sizeof(si));
	expect_u64("blocked signal of an interval timer", 50, (uint64_t)sigtimedwait(&one, &si, &soon));
	expect_u64("its si_code", (uint64_t)SI_TIMER, (uint64_t)si.si_code);
	expect_u64("its value", 0x5050, (uintptr_t)si.si_ptr);
	expect_u64("its timer", (uint64_t)overrun_id, (uint64_t)si.si_timerid);
	/* Not its overrun: what of it was counted before a move while the signal was pending is lost. */
	while (live_ticks < ticks + 5 && now_ns(CLOCK_MONOTONIC) < end)
		burn();
	if (live_ticks < ticks + 5)
		fail("ticks of a 10 ms POSIX timer, expected 5 more, got %llu", (unsigned long long)(live_ticks - ticks));
	expect_u64("value of a POSIX timer's signal", 0x123456789abcdef, (uintptr_t)live_value);
	if (ticks < passed / (10 * MS) / 2 || ticks > passed / (10 * MS) + 2)
		fail("ticks of a 10 ms timer in %llu ms, expected %llu, got %llu", (unsigned long long)(passed / MS),
		     (unsigned long long)(passed / (10 * MS)), (unsigned long long)ticks);
	expect_u64("the next timer id is free", 0, (uint64_t)(make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, NULL) < 0));
}

VICTIM(timer_posix, 0, posix_setup, burn, posix_check);

/* ---- clocks ---- */

static uint64_t largest_gap;

static void *clock_thread(void *arg)
{
	static const clockid_t ids[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE };
	uint64_t last[5], first[5];

	for (int i = 0; i < 5; i++)
		last[i] = first[i] = now_ns(ids[i]);
	while (!victim_stopping && !failed()) {
		uint64_t now[5], again;

		for (int i = 0; i < 5; i++) {
			now[i] = now_ns(ids[i]);
			if (now[i] < last[i]) {
				fail("clock %d went back, from %llu to %llu", ids[i], (unsigned long long)last[i], (unsigned long long)now[i]);
				return NULL;
			}
			last[i] = now[i];
		}
		again = now_ns(CLOCK_MONOTONIC);
		if (again - now[0] > largest_gap)
			largest_gap = again - now[0];
		if (again - now[0] > 20 * MS) /* stopped between the readings: they say nothing about each other */
			continue;
		for (int i = 1; i < 3; i++) {
			uint64_t mono = now[0] - first[0], other = now[i] - first[i], diff = mono > other ? mono - other : other - mono;

			if (diff > 50 * MS) {
				fail("clock %d against CLOCK_MONOTONIC since the start, expected %llu, got %llu ns", ids[i],
				     (unsigned long long)mono, (unsigned long long)other);
				return NULL;
			}
		}
		usleep(200);
	}
	return NULL;
}

static void clock_setup(void)
{
	spawn(clock_thread, NULL, NULL);
}

VICTIM(timer_clocks, 0, clock_setup, NULL, join_all);
