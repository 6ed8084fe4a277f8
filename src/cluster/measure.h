/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * measure.h - the load vector of this host, read from /proc and /sys once a period
 *
 * A host may be less than the machine: a control group limits CPUs and memory (either version), and a pid namespace shows only some of the tasks. Then the limits count, and tasks
 * are counted one by one (/proc/PID/task/TID/schedstat: time that it ran and waited), but Godwit's own; else the kernel says how many are runnable (/proc/stat), and several samples a period are taken.
 * What cannot be read counts as nothing. Averages are exponential ones. proc(5), cgroups(7), kernel.org: accounting/psi, scheduler/sched-stats.
 */
#ifndef GODWIT_CLUSTER_MEASURE_H
#define GODWIT_CLUSTER_MEASURE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "cluster/load.h"

#define MEASURE_SAMPLES 5 /* of the runnable tasks, in a period */

struct measure_task {
	int tid;
	uint64_t ran_ns, waited_ns;
};

/* A terminal, and whether a person is at it; found out anew now and then. */
struct measure_terminal {
	dev_t device; /* 0: none */
	bool persons;
	time_t until;
};

#define MEASURE_TERMINALS 16

struct measure {
	char root[PATH_MAX / 4];        /* "": the real files; for tests */
	bool own_tasks;                 /* the pid namespace is not the machine's */
	double speed;                   /* of the configuration */
	uint64_t at_ns;                 /* of the last measurement; 0: none yet */
	struct measure_task *tasks;     /* sorted by tid */
	size_t n_tasks;
	double busy_s, paged, moved_kib; /* counters of then */
	double runnable;                /* sum of the samples */
	unsigned n_samples;
	struct measure_terminal terminals[MEASURE_TERMINALS]; /* touched lately */
	struct load load;
};

/* speed: of a core; 0: 1. root NULL: the real files. */
void measure_init(struct measure *m, double speed, const char *root);
void measure_free(struct measure *m);
/* A sample of the runnable tasks; MEASURE_SAMPLES times a period. */
void measure_sample(struct measure *m);
/* At the end of a period. The first one knows no rates. Always a vector that load_check likes. */
void measure_take(struct measure *m, uint64_t now_ns, struct load *ret);

#endif
