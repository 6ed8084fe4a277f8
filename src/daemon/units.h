/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * units.h - the units of this host and what they use, read from /proc
 *
 * A unit is a process of the registry (migrate/registry.h) with all its descendants. One below another one is part of that.
 */
#ifndef GODWIT_DAEMON_UNITS_H
#define GODWIT_DAEMON_UNITS_H

#include "daemon/daemon.h"
#include "migrate/registry.h"

struct unit_info {
	struct registry_entry entry;
	bool foreign;         /* its home is another node */
	double cpu_s;         /* used here and before */
	double run;           /* tasks of it that want a CPU */
	double mem_mib;       /* memory of its own */
	double grows_mib_s;   /* since the last time; 0 the first time */
	uint64_t demand_ns;   /* that its threads have run and waited for a CPU */
	char command[80];
};

/* A process of a unit, or of Godwit's that works for it. */
struct unit_process {
	pid_t pid;
	size_t unit; /* index */
};

struct units {
	struct unit_info *v; /* in the order of their numbers */
	size_t n;
	struct unit_process *procs;
	size_t n_procs, room_procs;
	uint64_t at_ns;      /* 0: nothing has been read yet */
};

/*
 * Reads them anew; `run` is the mean since the last time, or, the first time, how many are runnable now. also[]: further processes that count as units (with names
 * and ages as those that were started here); those that have ended are left out.
 */
int units_read(struct units *u, const struct daemon *d, const pid_t *also, size_t n_also, struct err *e);
void units_free(struct units *u);
/* How a policy sees one. Who sleeps gains nothing from another CPU, however much it has computed before: its age counts as far as it wants a CPU now. */
struct policy_unit units_policy(const struct unit_info *unit);
const struct unit_info *units_find(const struct units *u, pid_t pid, uint64_t start_ticks);

#endif
