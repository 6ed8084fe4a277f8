// SPDX-License-Identifier: LGPL-2.1-or-later
/* load.c - names and bounds of the load indices; see load.h */
#include "cluster/load.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/util.h"

#define REASONABLE_MAX 1e15
#define POWER_MIN 0.01

static const struct {
	const char *name, *other;
	bool better_high;
} indices[LOAD_INDICES] = {
	[LOAD_RUN] = { "run", NULL, false },
	[LOAD_R15S] = { "r15s", NULL, false },      [LOAD_R1M] = { "r1m", NULL, false },       [LOAD_R15M] = { "r15m", NULL, false },
	[LOAD_UT] = { "ut", NULL, false },          [LOAD_PG] = { "pg", NULL, false },         [LOAD_IO] = { "io", NULL, false },
	[LOAD_LS] = { "ls", NULL, false },          [LOAD_IT] = { "it", NULL, true },          [LOAD_TMP] = { "tmp", NULL, true },
	[LOAD_SWP] = { "swp", NULL, true },         [LOAD_MEM] = { "mem", NULL, true },        [LOAD_CORES] = { "cores", "ncpus", true },
	[LOAD_SPEED] = { "speed", "cpuf", true },   [LOAD_MAXMEM] = { "maxmem", NULL, true },  [LOAD_PSI_CPU] = { "psicpu", NULL, false },
	[LOAD_PSI_MEM] = { "psimem", NULL, false }, [LOAD_PSI_IO] = { "psiio", NULL, false },
};

const char *load_name(enum load_index index)
{
	return indices[index].name;
}

static bool is_called(const char *name, const char *text, size_t len)
{
	return name && strlen(name) == len && !memcmp(name, text, len);
}

int load_find(const char *name, size_t len)
{
	for (int i = 0; i < LOAD_INDICES; i++)
		if (is_called(indices[i].name, name, len) || is_called(indices[i].other, name, len))
			return i;
	return -1;
}

bool load_is_better_high(enum load_index index)
{
	return indices[index].better_high;
}

int load_check(const struct load *load, struct err *e)
{
	for (int i = 0; i < LOAD_INDICES; i++)
		if (!isfinite(load->v[i]) || load->v[i] < 0 || load->v[i] > REASONABLE_MAX)
			return err_set(e, -EPROTO, "load vector: %s is no reasonable number", indices[i].name);
	return 0;
}

void load_add(struct load *load, double run, double mem_mib)
{
	double length = run / load_power(load);

	load->v[LOAD_RUN] += run;
	load->v[LOAD_R15S] += length;
	load->v[LOAD_R1M] += length;
	load->v[LOAD_R15M] += length;
	load->v[LOAD_MEM] = load->v[LOAD_MEM] > mem_mib ? load->v[LOAD_MEM] - mem_mib : 0;
}

double load_power(const struct load *load)
{
	return MAX(load->v[LOAD_CORES] * load->v[LOAD_SPEED], POWER_MIN);
}
