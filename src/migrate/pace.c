/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pace.c - the worker's share of the CPU; see pace.h, sched_setattr(2) */
#include "migrate/pace.h"

#include <malloc.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HEAP_BYTES (4u << 20)
#define CALM_NICE 10
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

void pace_hurry(void)
{
	setpriority(PRIO_PROCESS, 0, -20);
}

void pace_rule(void)
{
	struct sched_param p = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p) < 0)
		pace_hurry();
}

void pace_calm(pid_t tid)
{
	struct attr a = { .size = sizeof(a), .policy = SCHED_OTHER, .nice = CALM_NICE, .runtime = CALM_SLICE_NS };

	if (syscall(SYS_sched_setattr, tid, &a, 0) < 0)
		setpriority(PRIO_PROCESS, (id_t)tid, CALM_NICE);
}
