/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timeline.h - where the microseconds of a freeze go
 *
 * Marks cost a clock reading each and are written to the log, at level debug, when the migration has ended. Times are CLOCK_REALTIME, so that those of
 * two hosts with one clock can be laid side by side.
 */
#ifndef GODWIT_MIGRATE_TIMELINE_H
#define GODWIT_MIGRATE_TIMELINE_H

/* what: a static string. */
void timeline_mark(const char *what);
/* Logs all marks with their distance from the one before. */
void timeline_log(void);

#endif
