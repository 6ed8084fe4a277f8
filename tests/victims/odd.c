// SPDX-License-Identifier: GPL-2.0-or-later
/* odd.c - victims with state that few programs have: system calls that the program handles itself, futexes with priority inheritance */
#include <asm/ldt.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "victim.h"

/* ---- system calls of a thread that are handed to the program (PR_SET_SYSCALL_USER_DISPATCH) ---- */

#define DISPATCH 59
#define DISPATCH_ON 1
#define ALLOW 0
#define BLOCK 1
#define EMULATED 0x4711

static volatile char selector = ALLOW;
static volatile uint64_t dispatched, made;
static volatile int dispatch_ready;

static void on_sys(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	selector = ALLOW; /* sigreturn has to pass */
	if (info->si_code != 2 /* SYS_USER_DISPATCH */)
		fail("si_code of SIGSYS, expected 2, got %d", info->si_code);
	u->uc_mcontext.gregs[REG_RAX] = (long long)info->si_syscall + EMULATED;
	dispatched++;
}

static long raw_call(long nr)
{
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr) : "rcx", "r11", "memory");
	return ret;
}

static void *dispatching(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	must(!prctl(DISPATCH, DISPATCH_ON, 0, 0, &selector));
	dispatch_ready = 1;
	while (!victim_stopping && !failed()) {
		long got;

		selector = BLOCK;
		for (volatile int spin = 0; spin < 20000; spin++) /* most of the time it stands here */
			;
		got = raw_call(SYS_getppid);
		made++;
		selector = ALLOW;
		if (got != SYS_getppid + EMULATED)
			fail("a system call of the thread that handles its own, expected %d, got %ld", SYS_getppid + EMULATED, got);
	}
	return NULL;
}

static void dispatch_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO };

	must(!sigaction(SIGSYS, &sa, NULL));
	spawn(dispatching, NULL, NULL);
	while (!dispatch_ready)
		usleep(1000);
}

static void dispatch_check(void)
{
	join_all();
	expect_u64("system calls that the program handled", made, dispatched);
	expect(made > 0);
}

VICTIM_TEXT(victim_refuse_dispatch, "refuse_dispatch", dispatch_setup, NULL, dispatch_check, V_REFUSED, "system calls are handed to the program");

/* ---- a local descriptor table ---- */

static void ldt_setup(void)
{
	struct user_desc d = { .entry_number = 2, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1, .useable = 1 };

	must(!syscall(SYS_modify_ldt, 1, &d, sizeof(d)));
}

static void ldt_check(void)
{
	uint64_t table[16] = { 0 };

	expect(syscall(SYS_modify_ldt, 0, table, sizeof(table)) > 0 && !table[1] && table[2] && !table[3]);
}

VICTIM_TEXT(victim_refuse_ldt, "refuse_ldt", ldt_setup, NULL, ldt_check, V_REFUSED, "segments of its own \\(modify_ldt\\)");

/* ---- a futex with priority inheritance that is held, with threads that wait for it ---- */

#define WAITERS 3
static uint32_t pi_word;
static volatile int got_it, waiting;
static pthread_mutex_t pi_mutex;

static void *wait_for_it(void *arg)
{
	waiting++;
	if (syscall(SYS_futex, &pi_word, FUTEX_LOCK_PI, 0, NULL, NULL, 0) != 0)
		fail("FUTEX_LOCK_PI, expected 0, got errno %d", errno);
	expect((pi_word & FUTEX_TID_MASK) == (uint32_t)syscall(SYS_gettid));
	__atomic_add_fetch(&got_it, 1, __ATOMIC_SEQ_CST);
	if (syscall(SYS_futex, &pi_word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) != 0)
		fail("FUTEX_UNLOCK_PI, expected 0, got errno %d", errno);
	must(!pthread_mutex_lock(&pi_mutex));
	must(!pthread_mutex_unlock(&pi_mutex));
	return NULL;
}

static void pi_setup(void)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	must(!pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT) && !pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST));
	must(!pthread_mutex_init(&pi_mutex, &a) && !pthread_mutex_lock(&pi_mutex));
	must(!syscall(SYS_futex, &pi_word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	for (int i = 0; i < WAITERS; i++)
		spawn(wait_for_it, NULL, NULL);
	while (!(__atomic_load_n(&pi_word, __ATOMIC_SEQ_CST) & FUTEX_WAITERS))
		usleep(1000);
}

static void pi_check(void)
{
	expect_u64("threads that have it", 0, (uint64_t)got_it);
	expect((pi_word & FUTEX_TID_MASK) == (uint32_t)getpid());
	expect(syscall(SYS_futex, &pi_word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
	expect(pthread_mutex_unlock(&pi_mutex) == 0);
	join_all();
	expect_u64("threads that have had it", WAITERS, (uint64_t)got_it);
	expect_u64("the futex", 0, pi_word & FUTEX_TID_MASK);
}

VICTIM(odd_pi, 0, pi_setup, NULL, pi_check);

/* ---- how an epoll polls (EPIOCSPARAMS), a timer that ends when the clock is set ---- */

struct poll_params {
	uint32_t busy_poll_usecs;
	uint16_t busy_poll_budget;
	uint8_t prefer_busy_poll, pad;
};
#define SET_PARAMS _IOW(0x8a, 1, struct poll_params)
#define GET_PARAMS _IOR(0x8a, 2, struct poll_params)

static int poller, timer;
static struct poll_params params = { 64, 8, 1, 0 };

static void params_setup(void)
{
	struct itimerspec far = { .it_value.tv_sec = (long)(now_ns(CLOCK_REALTIME) / 1000000000) + 100000 };

	poller = epoll_create1(EPOLL_CLOEXEC);
	if (ioctl(poller, SET_PARAMS, &params) < 0)
		params = (struct poll_params){ 0 }; /* an older kernel */
	timer = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	must(!timerfd_settime(timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL));
}

static void params_check(void)
{
	struct poll_params now = { 0 };

	if (params.busy_poll_usecs)
		expect(!ioctl(poller, GET_PARAMS, &now) && !memcmp(&now, &params, sizeof(now)));
}

VICTIM(odd_epoll, 0, params_setup, NULL, params_check);
