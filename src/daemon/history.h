/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history.h - what has become of the moves that began on this node: memory that godwitd shares with its workers, for `godwit trace` and metrics
 *
 * There is a place for each worker, in which it says how the move that it makes goes on, a ring of the last HISTORY_MOVES moves that have ended, and sums of all since godwitd began.
 * Who writes may be killed at any moment, so there is no lock: each place has one writer, and a number that is odd while it is written; who reads and meets an odd number, or another one afterwards, goes
 * without it. Sums are added to atomically. Strings of static storage are the same in all workers: they are forks.
 */
#ifndef GODWIT_DAEMON_HISTORY_H
#define GODWIT_DAEMON_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"

#define HISTORY_MOVES 256u
#define HISTORY_TRACE_BYTES 16u
#define HISTORY_BUCKETS 16u /* of a histogram, with the one for all that is longer */
#define HISTORY_STRATEGIES 5u

/* How moves end. HISTORY_UNKNOWN: the worker has died, and who has the unit now is for others to say. */
enum history_outcome { HISTORY_MOVED, HISTORY_REFUSED, HISTORY_FAILED, HISTORY_CANCELLED, HISTORY_IN_DOUBT, HISTORY_UNKNOWN, HISTORY_OUTCOMES };

struct history_move {
	uint64_t number;                   /* from 1 on, of those that have ended here; 0: it has not */
	uint8_t trace[HISTORY_TRACE_BYTES]; /* random: its name in traces */
	pid_t pid;
	bool has_uid;
	uid_t uid;                         /* the process's */
	char reason[REGISTRY_REASON_MAX];  /* why, "": somebody said so */
	char error[240];                   /* why not */
	uint64_t began_ns, ended_ns;       /* CLOCK_REALTIME; ended_ns 0: it is under way */
	const char *outcome;               /* of history_outcome_name, or "in-doubt" while that is so; NULL: it is under way */
	struct migrate_report report;      /* as it was last */
	unsigned n_marks;
	struct timeline_mark marks[TIMELINE_MARKS_MAX];
};

struct history_histogram {
	uint64_t buckets[HISTORY_BUCKETS]; /* each for itself */
	uint64_t sum_us;
};

struct history_sums {
	uint64_t moves[HISTORY_OUTCOMES][HISTORY_STRATEGIES];
	struct history_histogram freeze[HISTORY_STRATEGIES], total[HISTORY_STRATEGIES]; /* of what has moved */
	uint64_t bytes_sent, pages_sent, pages_in_files, pages_zero, pages_faulted, rounds, attempts;
	uint64_t arrived, not_arrived; /* moves to this node, */
	struct history_histogram faults; /* and how long their programs waited for a page */
};

struct history;

/* Once, before any worker is started: for so many workers. */
int history_init(struct history **ret, size_t n_workers, struct err *e);

/* In the worker of that place: it begins to move pid. report: what is known so far. */
void history_begin(struct history *h, size_t place, pid_t pid, const char *reason, const struct migrate_report *report);
/* How far it is. Costs next to nothing. */
void history_progress(struct history *h, size_t place, const struct migrate_report *report);
/* It has ended, or the user has his answer and it goes on (`last` false): then it is called again. error: why not, NULL for none. */
void history_end(struct history *h, size_t place, const struct migrate_report *report, const char *outcome, const char *error, bool last);
/* In the main process: the worker of that place is no more. signal: which has ended it, 0: none. */
void history_gone(struct history *h, size_t place, int signal);

/* A move to this node has ended. */
void history_arrived(struct history *h, bool arrived, const struct migrate_faults *faults);

const char *history_outcome_name(enum history_outcome outcome);
/* The upper ends of buckets in microseconds, ascending; the last is UINT64_MAX. */
extern const uint64_t history_freeze_us[HISTORY_BUCKETS], history_total_us[HISTORY_BUCKETS], history_fault_us[HISTORY_BUCKETS];

/* What has ended, the oldest first, and what is under way, which may be what a user has his answer of already. Stops when `each`, within which the move is good, returns non-zero. -ENOMEM. */
int history_list_ended(const struct history *h, int (*each)(const struct history_move *move, void *arg), void *arg);
int history_list_running(const struct history *h, int (*each)(const struct history_move *move, void *arg), void *arg);
void history_read_sums(const struct history *h, struct history_sums *ret);

#endif
