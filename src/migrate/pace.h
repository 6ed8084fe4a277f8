/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pace.h - the worker's share of the CPU: all of it inside the freeze, little of it otherwise
 *
 * Where the program that moves wants a CPU for itself (and on small machines every CPU counts) the worker must stay out of its way, except
 * between the stop and the resume, when the program cannot run anyway.
 */
#ifndef GODWIT_MIGRATE_PACE_H
#define GODWIT_MIGRATE_PACE_H

#include <sys/types.h>

/* Touches the heap that the freeze will need, so that no page fault happens there. */
void pace_prepare(void);
/* First at the CPU. */
void pace_hurry(void);
/* Not to be pushed aside, not even by the program when it wakes: for a few hundred microseconds without waiting for anybody in a loop. */
void pace_rule(void);
/* An ordinary process that gives way: nice 10 and slices of 0.1 ms (EEVDF). Also for another task, such as an agent. */
void pace_calm(pid_t tid);

#endif
