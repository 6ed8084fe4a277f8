// SPDX-License-Identifier: GPL-2.0-or-later
/* odd_more.c - victims of rare calls: every code of a pending signal, mappings that mremap left empty, pipes filled by splice(2), clocks of timers */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "victim.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* ---- signals that wait, with every code, for the process and for its main thread ---- */

static const int codes[] = { SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_TKILL, -60, 1, 2, 5 };
#define CODES (int)(sizeof(codes) / sizeof(*codes))

static void make(siginfo_t *info, int number, int i)
{
	memset(info, 0, sizeof(*info));
	for (size_t k = 0; k < sizeof(*info) / 4; k++)
		((uint32_t *)info)[k] = (uint32_t)mix((uint64_t)i * 100 + k);
	info->si_signo = number;
	info->si_errno = i * 3;
	info->si_code = codes[i];
}

static void signals_setup(void)
{
	sigset_t all;
	siginfo_t info;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (int i = 0; i < CODES; i++) {
		make(&info, SIGRTMIN + 4, i);
		must(!syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN + 4, &info));
		make(&info, SIGRTMIN + 5, i);
		must(!syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGRTMIN + 5, &info));
	}
	make(&info, SIGSEGV, CODES - 1);
	must(!syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSEGV, &info));
	make(&info, SIGCHLD, CODES - 2);
	must(!syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &info));
}

/* Without the C library, which shows SI_TKILL as SI_USER. */
static int take_one(int number, siginfo_t *ret)
{
	uint64_t one = 1ull << (number - 1);
	struct timespec none = { 0 };

	memset(ret, 0, sizeof(*ret));
	return (int)syscall(SYS_rt_sigtimedwait, &one, ret, &none, sizeof(one));
}

/* What the kernel copies of it depends on number and code; it is asked how it shows one that has not moved. */
static void take(int number, int i, const char *what)
{
	siginfo_t expected, got;

	if (take_one(number, &got) != number) {
		fail("%s, code %d: it does not wait", what, codes[i]);
		return;
	}
	make(&expected, number, i);
	must(!syscall(SYS_rt_sigqueueinfo, getpid(), number, &expected));
	must(take_one(number, &expected) == number);
	for (size_t k = 0; k < sizeof(got) / 4; k++)
		if (((uint32_t *)&got)[k] != ((uint32_t *)&expected)[k])
			fail("%s, code %d: word %zu, expected %#x, got %#x", what, codes[i], k, ((uint32_t *)&expected)[k], ((uint32_t *)&got)[k]);
}

static void signals_check(void)
{
	siginfo_t got;

	take(SIGSEGV, CODES - 1, "SIGSEGV of the thread");
	take(SIGCHLD, CODES - 2, "SIGCHLD of the process");
	/* In the order in which they were sent. */
	for (int number = SIGRTMIN + 4; number <= SIGRTMIN + 5; number++)
		for (int i = 0; i < CODES; i++) {
			if (take_one(number, &got) != number || got.si_code != codes[i] || got.si_errno != i * 3)
				fail("signal %d, place %d: expected code %d, got %d", number, i, codes[i], got.si_code);
		}
}

VICTIM(odd_signals, V_CHECK_FILE, signals_setup, NULL, signals_check);

/* ---- mremap that leaves the old mapping, empty ---- */

#define LEN (32 * 4096ul)
static char *from, *to, *shared_from, *shared_to;

static void remap_setup(void)
{
	from = map_anon(LEN, PROT_READ | PROT_WRITE, 0);
	to = map_anon(LEN, PROT_NONE, 0);
	fill(from, LEN, 5);
	must(mremap(from, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to);
	from[4096] = 7;
	shared_from = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fill(shared_from, LEN, 6);
	shared_to = mremap(shared_from, 0, LEN, MREMAP_MAYMOVE); /* another view of it */
	must(shared_to != MAP_FAILED);
}

static void remap_check(void)
{
	verify("moved by mremap", to, LEN, 5);
	expect(from[4096] == 7);
	from[4096] = 0;
	verify_zero("left empty by mremap", from, LEN);
	verify("another view", shared_to, LEN, 6);
	shared_from[100] = 9;
	expect(shared_to[100] == 9);
}

VICTIM(odd_remap, 0, remap_setup, NULL, remap_check);

/* ---- pipes that are filled by splice, tee and vmsplice ---- */

static int pipes[4][2];
static char *gift;

static void splice_setup(void)
{
	int file = open(beside("splice"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	char block[10000];
	loff_t at = 123;
	struct iovec v;

	fill(block, sizeof(block), 8);
	must(file >= 0 && write(file, block, sizeof(block)) == sizeof(block));
	for (int i = 0; i < 4; i++)
		must(!pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK));
	must(splice(file, &at, pipes[0][1], NULL, 9000, 0) > 0);                   /* pages of the file, the first in part */
	gift = map_anon(3 * 4096, PROT_READ | PROT_WRITE, 0);
	fill(gift, 3 * 4096, 9);
	v = (struct iovec){ gift + 100, 9000 };
	must(vmsplice(pipes[1][1], &v, 1, 0) == 9000);                            /* pages of the program's own */
	must(tee(pipes[1][0], pipes[2][1], 5000, 0) > 0);                         /* the same pages in another pipe */
	must(write(pipes[3][1], block, 3000) == 3000 && read(pipes[3][0], block, 1000) == 1000);
	must(splice(pipes[3][0], NULL, pipes[2][1], NULL, 500, 0) == 500);
	close(file);
}

static void expect_bytes(const char *what, int fd, size_t n, uint64_t seed, size_t skip)
{
	static char got[20000], expected[20000];
	ssize_t len = 0, one;

	while ((one = read(fd, got + len, sizeof(got) - (size_t)len)) > 0)
		len += one;
	fill(expected, sizeof(expected), seed);
	if (n && (size_t)len != n)
		fail("%s, expected %zu bytes, got %zd", what, n, len);
	if (memcmp(got, expected + skip, n ? n : 1))
		fail("%s: other bytes", what);
}

static void splice_check(void)
{
	static char got[20000], expected[20000];
	ssize_t len, tail = 500;

	fill(expected, sizeof(expected), 8);
	len = read(pipes[0][0], got, sizeof(got));
	if (len <= 0 || memcmp(got, expected + 123, (size_t)len))
		fail("pages of a file in a pipe: %zd bytes, or others", len);
	expect_bytes("pages of the program in a pipe", pipes[1][0], 9000, 9, 100);
	len = read(pipes[2][0], got, sizeof(got));
	fill(expected, sizeof(expected), 9);
	if (len <= tail || memcmp(got, expected + 100, (size_t)(len - tail)))
		fail("pages of another pipe: %zd bytes, or others", len);
	fill(expected, sizeof(expected), 8);
	if (len > tail && memcmp(got + len - tail, expected + 1000, (size_t)tail))
		fail("bytes moved from pipe to pipe differ");
	expect_bytes("the rest of that pipe", pipes[3][0], 1500, 8, 1500);
	verify("given pages", gift, 3 * 4096, 9);
}

VICTIM(odd_splice, 0, splice_setup, NULL, splice_check);

/* ---- timers of every clock, with every way to tell ---- */

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };
#define CLOCKS (int)(sizeof(clocks) / sizeof(*clocks))
static timer_t timers[CLOCKS][3];
static bool made[CLOCKS][3];

static void clocks_setup(void)
{
	for (int i = 0; i < CLOCKS; i++)
		for (int k = 0; k < 3; k++) {
			struct sigevent sev = { .sigev_notify = k == 0 ? SIGEV_NONE : k == 1 ? SIGEV_SIGNAL : SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + i };
			struct itimerspec its = { .it_value.tv_sec = 10000 + i * 100, .it_interval.tv_sec = 7 + k };

			sev.sigev_value.sival_int = i * 10 + k;
			sev._sigev_un._tid = gettid();
			made[i][k] = timer_create(clocks[i], &sev, &timers[i][k]) == 0;
			if (made[i][k])
				must(!timer_settime(timers[i][k], 0, &its, NULL));
		}
}

static void clocks_check(void)
{
	for (int i = 0; i < CLOCKS; i++)
		for (int k = 0; k < 3; k++) {
			struct itimerspec its;
			struct itimerspec soon = { .it_value.tv_nsec = 1 };
			struct timespec limit = { 20, 0 };
			siginfo_t info;
			sigset_t one;

			if (!made[i][k])
				continue;
			if (timer_gettime(timers[i][k], &its) < 0) {
				fail("clock %d, way %d: the timer is gone", clocks[i], k);
				continue;
			}
			if (its.it_interval.tv_sec != 7 + k || its.it_value.tv_sec > 10000 + i * 100 || its.it_value.tv_sec < 9900 + i * 100)
				fail("clock %d, way %d: %ld s left, every %ld s", clocks[i], k, (long)its.it_value.tv_sec, (long)its.it_interval.tv_sec);
			if (k == 0 || i >= 6)
				continue;
			sigemptyset(&one);
			sigaddset(&one, SIGRTMIN + i);
			sigprocmask(SIG_BLOCK, &one, NULL);
			must(!timer_settime(timers[i][k], 0, &soon, NULL));
			if (sigtimedwait(&one, &info, &limit) != SIGRTMIN + i || info.si_code != SI_TIMER || info.si_value.sival_int != i * 10 + k)
				fail("clock %d, way %d: expected its signal, got code %d, value %d", clocks[i], k, info.si_code, info.si_value.sival_int);
		}
}

VICTIM(odd_clocks, V_CHECK_FILE, clocks_setup, NULL, clocks_check);

/* ---- the slice of a thread in a class that has none to set: the kernel's own ---- */

static uint64_t slice_was;

static uint64_t slice_now(void)
{
	struct sched_attr_slice {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = { .size = sizeof(attr) };

	must(!syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0));
	return attr.runtime;
}

static void slice_setup(void)
{
	struct sched_param none = { 0 };

	must(!setpriority(PRIO_PROCESS, 0, 7) && !sched_setscheduler(0, SCHED_IDLE, &none));
	slice_was = slice_now();
}

static void slice_check(void)
{
	struct sched_param none = { 0 };

	expect_u64("scheduling class", SCHED_IDLE, (uint64_t)sched_getscheduler(0));
	expect_u64("slice", slice_was, slice_now());
	expect_u64("niceness", 7, (uint64_t)getpriority(PRIO_PROCESS, 0));
	expect(!sched_setscheduler(0, SCHED_OTHER, &none));
	expect_u64("slice when it is in the ordinary class again", slice_was, slice_now());
}

VICTIM(odd_slice, 0, slice_setup, NULL, slice_check);
