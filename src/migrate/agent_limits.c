/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agent_limits.c - resource limits of a process that are not meant for the agent in it; see agent_limits.h */
#include "migrate/agent_limits.h"

#include <stddef.h>

#include "base/util.h"

#define AGENT_FILES 64u

/* Without CAP_SYS_RESOURCE as far as the hard limit goes. */
static bool lift(pid_t pid, enum __rlimit_resource what)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	struct rlimit most;

	if (prlimit(pid, what, &none, NULL) == 0)
		return true;
	if (prlimit(pid, what, NULL, &most) < 0 || most.rlim_cur == most.rlim_max)
		return false;
	most.rlim_cur = most.rlim_max;
	return prlimit(pid, what, &most, NULL) == 0;
}

void agent_lift_limits(pid_t agent)
{
	static const enum __rlimit_resource lifted[] = { RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_SIGPENDING, RLIMIT_NPROC };
	struct rlimit files;

	for (size_t i = 0; i < ARRAY_SIZE(lifted); i++)
		lift(agent, lifted[i]);
	if (prlimit(agent, RLIMIT_NOFILE, NULL, &files) == 0 && files.rlim_cur < AGENT_FILES) {
		files.rlim_cur = MIN(files.rlim_max, AGENT_FILES);
		prlimit(agent, RLIMIT_NOFILE, &files, NULL);
	}
}

bool agent_lift_processes(pid_t pid, struct rlimit *ret_before)
{
	return prlimit(pid, RLIMIT_NPROC, NULL, ret_before) == 0 && ret_before->rlim_cur != RLIM_INFINITY && lift(pid, RLIMIT_NPROC);
}

void agent_restore_processes(pid_t pid, const struct rlimit *before)
{
	prlimit(pid, RLIMIT_NPROC, before, NULL);
}
