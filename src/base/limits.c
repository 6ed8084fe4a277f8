/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* limits.c - resource limits of Godwit's own processes; see limits.h */
#include "base/limits.h"

#include <stdio.h>
#include <sys/resource.h>

#include "base/util.h"

void limits_raise_descriptors(void)
{
	cleanup_fclose FILE *f = fopen("/proc/sys/fs/nr_open", "re");
	struct rlimit limit;
	unsigned long most;

	if (f && fscanf(f, "%lu", &most) == 1 && setrlimit(RLIMIT_NOFILE, &(struct rlimit){ most, most }) == 0)
		return;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}
