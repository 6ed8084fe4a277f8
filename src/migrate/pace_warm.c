/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pace_warm.c - CPUs that do not halt; see pace.h, Documentation/power/pm_qos_interface.rst
 *
 * A task that is woken on a halted CPU begins 15 to 40 us later than on one that polls (in a guest more, since the interrupt leaves it), and who wakes it pays 12 us.
 * Where the kernel has an idle driver with a polling state, a descriptor of /dev/cpu_dma_latency that says 0 makes all idle CPUs poll for as long as it is open.
 * Where it has none, threads of SCHED_IDLE do the same less well: they share their session's part of the CPU with nobody, so that a task of another session that is woken
 * may have to wait for them.
 */
#include "migrate/pace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define LATENCY_PATH "/dev/cpu_dma_latency"
#define IDLE_STATE_PATH "/sys/devices/system/cpu/cpu0/cpuidle/state0/name"
#define WARM_MAX 8 /* CPUs */
#define WARM_NS 20000000ull
#define DEMAND_NS 1000000ull /* between two that are many */
#define DEMAND_MIN 4u

static int latency_fd = -1;

static pthread_t warmers[WARM_MAX];
static unsigned nwarmers;
static volatile bool warm;
static sem_t warm_gate;

static void *keep_warm(void *arg)
{
	uint64_t until;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((unsigned)(uintptr_t)arg, &one);
	sched_setaffinity(0, sizeof(one), &one);
	while (sem_wait(&warm_gate) < 0)
		;
	/* Yielding, not just spinning: with lazy preemption the kernel looks for others that wait at a system call, or at the next tick. */
	for (until = clock_ns(CLOCK_MONOTONIC) + WARM_NS; warm && clock_ns(CLOCK_MONOTONIC) < until;)
		sched_yield();
	return NULL;
}

/* Whether the first idle state is one in which the CPU polls; without an idle driver the request would change nothing. */
static bool can_poll(void)
{
	cleanup_close int fd = open(IDLE_STATE_PATH, O_RDONLY | O_CLOEXEC);
	char name[5] = "";

	return fd >= 0 && read(fd, name, 4) == 4 && strcmp(name, "POLL") == 0;
}

static bool start_warmer(unsigned cpu, pthread_t *ret)
{
	const struct sched_param none = { 0 };

	if (pthread_create(ret, NULL, keep_warm, (void *)(uintptr_t)cpu) != 0)
		return false;
	pthread_setschedparam(*ret, SCHED_IDLE, &none);
	return true;
}

void pace_warm_prepare(bool by_threads)
{
	cpu_set_t mine;

	by_threads = by_threads && !pace_is_crowded(); /* no CPU halts then */
	if (latency_fd < 0 && can_poll())
		latency_fd = open(LATENCY_PATH, O_WRONLY | O_CLOEXEC);
	if (latency_fd >= 0 || !by_threads || nwarmers || sched_getaffinity(0, sizeof(mine), &mine) < 0 || sem_init(&warm_gate, 0, 0) < 0)
		return;
	for (unsigned cpu = 0; cpu < CPU_SETSIZE && nwarmers < WARM_MAX; cpu++)
		if (CPU_ISSET(cpu, &mine) && start_warmer(cpu, &warmers[nwarmers]))
			nwarmers++;
}

static void open_gate(void)
{
	for (unsigned i = 0; i < nwarmers; i++)
		sem_post(&warm_gate);
}

void pace_warm(void)
{
	const int32_t none_us = 0;

	if (latency_fd >= 0 && write(latency_fd, &none_us, sizeof(none_us)) == (ssize_t)sizeof(none_us))
		return;
	warm = true;
	open_gate();
}

void pace_warm_on_demand(struct pace_demand *d, uint64_t count)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), asked = count - d->count;
	bool many = asked >= DEMAND_MIN && asked * DEMAND_NS > now - d->at_ns;

	if (d->at_ns && many && latency_fd < 0) {
		pace_warm_prepare(false);
		pace_warm();
	} else if (d->at_ns && !many && latency_fd >= 0) {
		pace_cool();
	}
	*d = (struct pace_demand){ count, now };
}

/* Where others want the CPUs (since a moment ago, perhaps) one of SCHED_IDLE does not run, and so does not end either: this waited for it as long as they did. */
static void end_warmer(pthread_t warmer)
{
	const struct sched_param first = { .sched_priority = 1 }, none = { 0 };

	if (pthread_setschedparam(warmer, SCHED_FIFO, &first) != 0)
		pthread_setschedparam(warmer, SCHED_OTHER, &none);
	pthread_join(warmer, NULL);
}

void pace_cool(void)
{
	close_fdp(&latency_fd);
	if (!nwarmers)
		return;
	warm = false;
	open_gate(); /* for those that have never been let through */
	while (nwarmers)
		end_warmer(warmers[--nwarmers]);
	sem_destroy(&warm_gate);
}
