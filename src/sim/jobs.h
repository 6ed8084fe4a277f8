/* SPDX-License-Identifier: GPL-2.0-or-later */
/* jobs.h - where jobs come from: made up (sim.h says how), or recorded */
#ifndef GODWIT_SIM_JOBS_H
#define GODWIT_SIM_JOBS_H

#include <stdio.h>

#include "cluster/rng.h"
#include "sim/model.h"
#include "sim/sim.h"

struct jobs {
	const struct sim_config *c;
	struct rng rng;
	FILE *trace;
	unsigned long line;
	double at_s, rate; /* arrivals a second */
};

/* `power`: of all nodes together. */
int jobs_open(struct jobs *j, const struct sim_config *c, double power, struct err *e);
void jobs_close(struct jobs *j);
/* The next one: 1; 0: there is none any more; -EINVAL: a line of the recording is none. Only arrival_s, cpu_s, mem_mib and node are set. */
int jobs_next(struct jobs *j, struct job *ret, struct err *e);

#endif
