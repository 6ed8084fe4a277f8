/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * registry.h - the units of this host: those that arrived from another one, and those that `godwit run` started here
 *
 * One small JSON file a unit, DIRECTORY/PID.json, written by the destination's worker when the process runs (or when it is started) and
 * removed by the source's worker when the process has left. An entry holds as long as a process with that pid and that start time
 * exists; others are dropped when they are met. A unit keeps its name (HOME:PID) and its count of moves when it moves on:
 * the source reads them with registry_lookup and sends them along.
 */
#ifndef GODWIT_MIGRATE_REGISTRY_H
#define GODWIT_MIGRATE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/cpu_uses.h"
#include "migrate/protection.h"

#define REGISTRY_REASON_MAX 240
#define REGISTRY_DEFAULT_DIRECTORY "/run/godwit/units"

struct registry_entry {
	char unit[300];       /* HOME:PID, for life */
	pid_t pid;            /* as godwitd sees it */
	uint64_t start_ticks; /* field 22 of /proc/PID/stat; filled in by registry_add */
	char from[256];       /* the host it came from last */
	char strategy[32];
	int64_t since;        /* CLOCK_REALTIME seconds of the arrival; 0: registry_add takes now */
	uint64_t freeze_us;   /* of the last move; 0 when not known yet */
	unsigned moves;       /* how often it has moved, 1 after the first time */
	char home[100];       /* door of its surrogate parent (home/door.h); "": nobody at home waits for it */
	pid_t parent;         /* number of its parent at home */
	bool local;           /* it is at home, and never left or came back: nothing of it is elsewhere; `from`, `home` and `parent` mean nothing */
	bool started;         /* by `godwit run`: at home, too, it is a unit */
	uint64_t cpu_ms;      /* CPU time that it had used when it came: /proc counts anew after each move */
	char reason[REGISTRY_REASON_MAX]; /* why it moved last, a sentence; "": somebody said so */
	struct protection protection;
	struct cpu_programs programs; /* of its processes, that have begun elsewhere */
};

/* Where the files are, for this process and its children; the default is REGISTRY_DEFAULT_DIRECTORY. */
void registry_use_directory(const char *directory);

/* That. */
const char *registry_directory(void);

/* Makes a directory that may be there already, and the one above it. */
int registry_make_directory(const char *path, mode_t mode, struct err *e);

/* Writes or replaces the entry of entry->pid atomically. -ESRCH when there is no such process. */
int registry_add(const struct registry_entry *entry, struct err *e);
/* Removes the entry: 1, or 0 when there is none. */
int registry_remove(pid_t pid, struct err *e);
/* Finds the entry of a live process: 0, or -ENOENT when pid is no unit (e is not set then). */
int registry_lookup(pid_t pid, struct registry_entry *ret, struct err *e);
/* Calls `each` for every entry of a live process, in no order, until it returns non-zero; drops the others. Returns how many. */
int registry_list(int (*each)(const struct registry_entry *entry, void *arg), void *arg, struct err *e);
/* How many entries there are: a look at the directory only, so that ones of processes that have just ended may be counted. */
unsigned registry_count(void);
/* The start time of a process in clock ticks since boot, 0 when there is none (a zombie counts as none). */
uint64_t registry_start_ticks(pid_t pid);
/* CPU time that a process has used, threads and those that it has waited for included; 0: there is none. */
uint64_t registry_cpu_ms(pid_t pid);
/* As registry_lookup: 0, or -ENOENT when pid did not arrive from another host. */
int registry_lookup_foreign(pid_t pid, struct registry_entry *ret, struct err *e);

#endif
