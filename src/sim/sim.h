/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim.h - a simulated cluster that runs the policies and the gossip of the real one (src/cluster)
 *
 * Model. A node has cores of a speed and memory; its jobs share the cores equally (processor sharing), each on one core at most. Jobs arrive in a Poisson stream or from a recorded
 * file. Their CPU time is the heavy-tailed one that Harchol-Balter and Downey (1997) measured: P(T > t) = 1 / t, t >= 1 s, cut off at lifetime_max_s; their memory is log-normal. Once a
 * second each node measures itself, sends one gossip message, and asks the policy what to do; the phases of nodes are spread evenly. A destination is asked before
 * anything is sent, knows its own true figures, and may refuse. A move takes the job off its CPU for the freeze time, and uses CPU time on both sides for its memory (a job of
 * its own that shares with the others).
 *
 * The slowdown of a job is its time in the system over its CPU time on an unloaded core of speed 1. Jobs that arrived before warm_s, or have not ended at end_s, do not count.
 *
 * The omniscient scheduler against which policies are measured knows all loads at every moment, moves without cost, and keeps no node idle that could help another.
 */
#ifndef GODWIT_SIM_SIM_H
#define GODWIT_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/policy.h"

enum sim_scheduler {
	SIM_NONE,       /* jobs run where they arrive */
	SIM_PLACE,      /* they begin where it is best, and stay */
	SIM_MIGRATE,    /* they begin where they arrive, and move */
	SIM_BOTH,       /* begin where it is best, and move: what Godwit does */
	SIM_OMNISCIENT,
	SIM_SCHEDULERS
};

struct sim_config {
	enum sim_scheduler scheduler;
	struct policy policy;
	size_t nodes;
	double cores, speed_spread;  /* speeds are 1 / spread to spread; 1: all alike */
	double mem_mib;
	double load;                 /* offered: part of all CPUs that the jobs need */
	double hot;                  /* part of the jobs that arrive at a tenth of the nodes; 0.1: no difference */
	double lifetime_max_s;
	double job_mem_mib, job_mem_sigma; /* median; of the logarithm */
	double end_s, warm_s;
	double freeze_s;             /* a job that moves does not run for so long, */
	double freeze_mib_s;         /* and for so long for each MiB (0: freeze-free) */
	double overhead_mib_s;       /* CPU seconds on each side for each MiB that moves */
	double fail_at_s, fail_part; /* so many nodes die at once; 0: none */
	double recover_s;            /* their jobs begin anew elsewhere after so long */
	size_t table;                /* entries that gossip keeps */
	uint64_t seed;
	const char *trace;           /* "seconds cpu_seconds mib" a line, instead of made-up jobs; NULL: made up */
};

void sim_config_init(struct sim_config *c);
/* -EINVAL with the name of what makes no sense. */
int sim_config_check(const struct sim_config *c, struct err *e);
const char *sim_scheduler_name(enum sim_scheduler s);

#define SIM_SAMPLES 240 /* of the time series */

struct sim_result {
	uint64_t jobs;              /* that count */
	double slowdown_mean, slowdown_p50, slowdown_p99;
	double long_mean;           /* of jobs of more than 10 s */
	uint64_t moves, refused, placed_elsewhere, messages, lost;
	double moves_a_job;
	double utilisation;
	double age_mean_s, age_p99_s; /* of the entries in the tables, sampled */
	double messages_node_s;
	double dead_known_s;        /* after a mass failure: until no table of a living node holds a dead one that policies would use */
	double wall_s;              /* that the simulation took */
	double series_slowdown[SIM_SAMPLES]; /* mean of the jobs that ended in each part of the time, 0: none */
	double series_busy[SIM_SAMPLES];     /* part of all CPUs in use */
};

int sim_run(const struct sim_config *c, struct sim_result *ret, struct err *e);

/* report.c: `names` and `results` go together */
void report_table(const char *title, const char *const *names, const struct sim_result *results, size_t n);
int report_svg(const char *path, const char *title, const char *x_label, const char *y_label, const char *const *names, const double *x, const double *const *y,
	       size_t n_series, size_t n_points, bool log_x, struct err *e);

#endif
