/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pace.c - the worker's share of the CPU; see pace.h, sched_setattr(2) */
#include "migrate/pace.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define HEAP_BYTES (4u << 20)
#define CALM_NICE 19
#define BESIDE_NICE 10
#define WARM_MAX 8 /* CPUs */
#define WARM_NS 20000000ull
#define CALM_SLICE_NS 100000

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

void pace_prepare(void)
{
	void *p;

	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	p = malloc(HEAP_BYTES);
	if (p)
		explicit_bzero(p, HEAP_BYTES);
	free(p);
}

static pthread_t warmers[WARM_MAX];
static unsigned nwarmers;
static volatile bool warm;
static sem_t warm_gate;

static void *keep_warm(void *arg)
{
	struct sched_param none = { 0 };
	uint64_t until;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((unsigned)(uintptr_t)arg, &one);
	sched_setscheduler(0, SCHED_IDLE, &none);
	sched_setaffinity(0, sizeof(one), &one);
	while (sem_wait(&warm_gate) < 0)
		;
	/* Yielding, not just spinning: with lazy preemption the kernel looks for others that wait at a system call, or at the next tick. */
	for (until = clock_ns(CLOCK_MONOTONIC) + WARM_NS; warm && clock_ns(CLOCK_MONOTONIC) < until;)
		sched_yield();
	return NULL;
}

void pace_warm_prepare(void)
{
	cpu_set_t mine;

	if (nwarmers || sched_getaffinity(0, sizeof(mine), &mine) < 0 || sem_init(&warm_gate, 0, 0) < 0)
		return;
	for (unsigned cpu = 0; cpu < CPU_SETSIZE && nwarmers < WARM_MAX; cpu++)
		if (CPU_ISSET(cpu, &mine) && pthread_create(&warmers[nwarmers], NULL, keep_warm, (void *)(uintptr_t)cpu) == 0)
			nwarmers++;
}

static void open_gate(void)
{
	for (unsigned i = 0; i < nwarmers; i++)
		sem_post(&warm_gate);
}

void pace_warm(void)
{
	warm = true;
	open_gate();
}

void pace_cool(void)
{
	if (!nwarmers)
		return;
	warm = false;
	open_gate(); /* for those that have never been let through */
	while (nwarmers)
		pthread_join(warmers[--nwarmers], NULL);
	sem_destroy(&warm_gate);
}

void pace_boost(pid_t tid)
{
	struct sched_param p = { .sched_priority = 1 };

	sched_setscheduler(tid, SCHED_FIFO, &p);
}

void pace_rule(void)
{
	struct sched_param p = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p) < 0)
		setpriority(PRIO_PROCESS, 0, -20);
}

static void set_nice(pid_t tid, int nice)
{
	struct attr a = { .size = sizeof(a), .policy = SCHED_OTHER, .nice = nice, .runtime = CALM_SLICE_NS };

	if (syscall(SYS_sched_setattr, tid, &a, 0) < 0)
		setpriority(PRIO_PROCESS, (id_t)tid, nice);
}

void pace_calm(pid_t tid)
{
	set_nice(tid, CALM_NICE);
}

void pace_calm_beside(pid_t tid, size_t nthreads)
{
	cpu_set_t mine;
	size_t cpus = sched_getaffinity(0, sizeof(mine), &mine) == 0 ? (size_t)CPU_COUNT(&mine) : 1;
	int nice = nthreads < cpus ? CALM_NICE : BESIDE_NICE;

	/* While there is a CPU to spare it may be the last everywhere. A step of niceness is a factor of 1.25. */
	for (size_t share = cpus * 100; nice > 0 && share < nthreads * 100; share += share / 4)
		nice--;
	set_nice(tid, nice);
}
