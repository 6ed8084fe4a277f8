/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timeline.h - where the microseconds of a freeze go
 *
 * Marks cost a clock reading each. They are written to the log, at level debug, when the migration has ended, and whoever has begun it may read them. Times are
 * CLOCK_REALTIME, so that those of two hosts with one clock can be laid side by side.
 */
#ifndef GODWIT_MIGRATE_TIMELINE_H
#define GODWIT_MIGRATE_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#define TIMELINE_MARKS_MAX 96u

struct timeline_mark {
	const char *what; /* a static string */
	uint64_t ns;      /* CLOCK_REALTIME */
	bool is_step;     /* of the step table, which begins here */
};

/* Forgets the marks of an earlier attempt. */
void timeline_begin(void);
/* Both take static strings. What finds no place is left out, marks before steps. */
void timeline_mark(const char *what);
void timeline_step(const char *name);
/* All since timeline_begin, in the order of time; they stay this module's. Returns how many. */
unsigned timeline_read(const struct timeline_mark **ret);
/* Logs all marks with their distance from the one before. */
void timeline_log(void);

#endif
