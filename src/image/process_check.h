/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_check.h - why a process cannot move, as seen from outside */
#ifndef GODWIT_IMAGE_PROCESS_CHECK_H
#define GODWIT_IMAGE_PROCESS_CHECK_H

#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"

/* The fields of /proc/PID/stat that matter here. */
struct process_stat {
	char state;
	pid_t ppid, pgid, sid;
	int tty;
	unsigned long flags;
};

/* -ESRCH when there is no such process. */
int process_stat_read(pid_t pid, struct process_stat *ret_stat, struct err *e);
int process_check(pid_t pid, const struct process_stat *stat, struct refusals *r, struct err *e);

#endif
