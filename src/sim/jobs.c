// SPDX-License-Identifier: GPL-2.0-or-later
/* jobs.c - arrivals; see jobs.h */
#include "sim/jobs.h"

#include <errno.h>
#include <math.h>

#include "base/util.h"

#define LIFETIME_MIN_S 1.0
#define HOT_NODES 0.1 /* part of the nodes */

/* P(T > t) = 1 / t from 1 s to the cut. */
static double lifetime(struct jobs *j)
{
	double cut = LIFETIME_MIN_S / j->c->lifetime_max_s;

	return LIFETIME_MIN_S / (1 - rng_unit(&j->rng) * (1 - cut));
}

static double lifetime_mean(double max_s)
{
	double cut = LIFETIME_MIN_S / max_s;

	return LIFETIME_MIN_S * log(max_s / LIFETIME_MIN_S) / (1 - cut);
}

/* Box and Muller; one of the two is thrown away. */
static double normal(struct rng *rng)
{
	double u = 1 - rng_unit(rng), v = rng_unit(rng);

	return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

int jobs_open(struct jobs *j, const struct sim_config *c, double power, struct err *e)
{
	*j = (struct jobs){ .c = c, .rng = { c->seed } };
	j->rate = c->load * power / lifetime_mean(c->lifetime_max_s);
	if (!c->trace)
		return 0;
	j->trace = fopen(c->trace, "re");
	return j->trace ? 0 : err_sys(e, -errno, "%s", c->trace);
}

void jobs_close(struct jobs *j)
{
	fclosep(&j->trace);
}

static int read_line(struct jobs *j, struct job *ret, struct err *e)
{
	char line[256];

	do {
		if (!fgets(line, sizeof(line), j->trace))
			return 0;
		j->line++;
	} while (line[0] == '#' || line[0] == '\n');
	if (sscanf(line, "%lf %lf %lf", &ret->arrival_s, &ret->cpu_s, &ret->mem_mib) == 3 && ret->arrival_s >= j->at_s && ret->cpu_s > 0 && ret->mem_mib >= 0)
		return 1;
	return err_set(e, -EINVAL, "%s:%lu: seconds (not before the line above), CPU seconds and MiB were expected", j->c->trace, j->line);
}

static uint32_t node_of(struct jobs *j)
{
	size_t n = j->c->nodes, hot = MAX((size_t)((double)n * HOT_NODES), 1);

	if (hot == n || rng_unit(&j->rng) < j->c->hot)
		return (uint32_t)rng_below(&j->rng, hot);
	return (uint32_t)(hot + rng_below(&j->rng, n - hot));
}

int jobs_next(struct jobs *j, struct job *ret, struct err *e)
{
	int r = 1;

	if (j->trace) {
		r = read_line(j, ret, e);
	} else {
		ret->arrival_s = j->at_s - log(1 - rng_unit(&j->rng)) / j->rate;
		ret->cpu_s = lifetime(j);
		ret->mem_mib = j->c->job_mem_mib * exp(j->c->job_mem_sigma * normal(&j->rng));
	}
	if (r <= 0)
		return r;
	ret->mem_mib = MIN(ret->mem_mib, j->c->mem_mib / 2);
	ret->node = node_of(j);
	j->at_s = ret->arrival_s;
	return 1;
}
