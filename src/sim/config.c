// SPDX-License-Identifier: GPL-2.0-or-later
/* config.c - what a simulation is made of; see sim.h */
#include <errno.h>

#include "base/util.h"
#include "sim/sim.h"

void sim_config_init(struct sim_config *c)
{
	*c = (struct sim_config){
		.scheduler = SIM_BOTH, .policy = policy_default, .nodes = 100, .cores = 1, .speed_spread = 1, .mem_mib = 16384, .load = 0.5, .hot = 0.1,
		.lifetime_max_s = 1000, .job_mem_mib = 64, .job_mem_sigma = 1.5, .end_s = 3600, .warm_s = 300, .freeze_s = 0.001, .overhead_mib_s = 0.0006,
		.fail_at_s = 1800, .recover_s = 10, .table = 64, .seed = 1,
	};
}

const char *sim_scheduler_name(enum sim_scheduler s)
{
	static const char *const names[] = { "none", "place", "migrate", "both", "omniscient" };

	return s < SIM_SCHEDULERS ? names[s] : "?";
}

int sim_config_check(const struct sim_config *c, struct err *e)
{
	const struct {
		const char *name;
		double value, min, max;
	} all[] = {
		{ "nodes", (double)c->nodes, 2, 1e6 },
		{ "cores", c->cores, 0.1, 1024 },
		{ "spread", c->speed_spread, 1, 16 },
		{ "memory", c->mem_mib, 64, 1e8 },
		{ "load", c->load, 0.01, 0.99 },
		{ "hot", c->hot, 0, 1 },
		{ "lifetime", c->lifetime_max_s, 1.01, 1e6 },
		{ "job-memory", c->job_mem_mib, 0.01, 1e7 },
		{ "seconds", c->end_s, 1, 1e7 },
		{ "warm", c->warm_s, 0, c->end_s },
		{ "freeze", c->freeze_s, 0, 1e4 },
		{ "fail", c->fail_part, 0, 0.95 },
		{ "table", (double)c->table, GOSSIP_WINDOW + 1, 256 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!(all[i].value >= all[i].min && all[i].value <= all[i].max))
			return err_set(e, -EINVAL, "%s: %g is not between %g and %g", all[i].name, all[i].value, all[i].min, all[i].max);
	return 0;
}
