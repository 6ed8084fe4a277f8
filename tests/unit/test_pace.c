// SPDX-License-Identifier: GPL-2.0-or-later
/* test_pace.c - a worker on a CPU for which many wait: it gets one, and does not wait for those of its threads that get none */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "migrate/guard.h"
#include "migrate/pace.h"

#define CROWD 40
#define PATIENCE_NS 10000000000ull

static pid_t crowd[CROWD];

/* On one CPU, so that they are many there whatever else the machine does. */
static int begin_crowd(void **state)
{
	cpu_set_t all, one;

	(void)state;
	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return -1;
	CPU_ZERO(&one);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one); cpu++)
		if (CPU_ISSET(cpu, &all))
			CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		return -1;
	for (size_t i = 0; i < CROWD; i++) {
		crowd[i] = fork();
		if (crowd[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			kill(getpid(), SIGSTOP);
			for (;;)
				;
		}
		waitpid(crowd[i], NULL, WUNTRACED);
	}
	return 0;
}

static void let_crowd(int signal)
{
	for (size_t i = 0; i < CROWD; i++)
		kill(crowd[i], signal);
}

static int end_crowd(void **state)
{
	(void)state;
	let_crowd(SIGKILL);
	for (size_t i = 0; i < CROWD; i++)
		waitpid(crowd[i], NULL, 0);
	return 0;
}

/* The threads have been made while nobody else was there. */
static void cooling_waits_for_nobody(void **state)
{
	uint64_t begin;

	(void)state;
	pace_warm_prepare(true);
	let_crowd(SIGCONT);
	pace_warm();
	usleep(50000);
	begin = clock_ns(CLOCK_MONOTONIC);
	pace_cool();
	assert_true(clock_ns(CLOCK_MONOTONIC) - begin < PATIENCE_NS);
	let_crowd(SIGSTOP);
}

/* The process, and another one that it cares for. */
static void who_waits_is_let_through(void **state)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);
	pid_t worker = fork(), agent;
	int status;

	(void)state;
	if (worker == 0) {
		agent = fork();
		if (agent == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				;
		}
		guard_start();
		setpriority(PRIO_PROCESS, 0, 19);
		setpriority(PRIO_PROCESS, (id_t)agent, 19);
		guard_care(agent);
		let_crowd(SIGCONT);
		while (!guard_hurries() && clock_ns(CLOCK_MONOTONIC) - begin < PATIENCE_NS)
			sched_yield();
		for (int i = 0; getpriority(PRIO_PROCESS, (id_t)agent) > 0 && i < 100; i++)
			usleep(10000);
		pace_calm(0); /* which gives way no more */
		_exit(!guard_hurries() || getpriority(PRIO_PROCESS, 0) != PACE_HURRY_NICE || getpriority(PRIO_PROCESS, (id_t)agent) != PACE_HURRY_NICE);
	}
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_int_equal(status, 0);
	let_crowd(SIGSTOP);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(cooling_waits_for_nobody), cmocka_unit_test(who_waits_is_let_through) };

	return cmocka_run_group_tests(tests, begin_crowd, end_crowd);
}
