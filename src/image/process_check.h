/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_check.h - why a process cannot move, as seen from outside */
#ifndef GODWIT_IMAGE_PROCESS_CHECK_H
#define GODWIT_IMAGE_PROCESS_CHECK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"

/* The fields of /proc/PID/stat that matter here. */
struct process_stat {
	char name[16];
	char state;
	pid_t ppid, pgid, sid;
	int tty, tpgid;
	unsigned long flags;
	unsigned threads;
	unsigned long long start_ticks; /* of CLOCK_BOOTTIME */
	int exit_signal;
	int cpu;
	unsigned exit_status; /* of a zombie, as wait(2) gives it; of a stopped one, when nobody has been told of the stop yet */
};

/* -ESRCH when there is no such process. */
int process_stat_read(pid_t pid, struct process_stat *ret_stat, struct err *e);
int process_check(pid_t pid, const struct process_stat *stat, struct refusals *r, struct err *e);

/* Whether Godwit has put the process into a pid namespace because its number was taken here; that and its mounts are not the unit's own then. */
bool process_in_own_numbers(pid_t pid);

#endif
