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
/*
 * Keeps every CPU from halting between pace_warm and pace_cool (at most 20 ms): a task that is woken on a halted CPU starts 15 to 40 us later than on one that
 * runs. Done by threads of SCHED_IDLE, made by pace_warm_prepare. Only for the time in which the program stands still: even the least of competitors
 * makes it wait for a tick of the clock (4 ms) where the kernel preempts lazily.
 */
void pace_warm_prepare(void);
void pace_warm(void);
void pace_cool(void);
/* Not to be pushed aside, not even by the program when it wakes: for a few hundred microseconds without waiting for anybody in a loop. */
void pace_rule(void);
/* The same for a task of the skeleton: until its list of calls gives it the program's own scheduling. */
void pace_boost(pid_t tid);
/* An ordinary process that gives way: nice 19 and slices of 0.1 ms (EEVDF). Also for another task, such as an agent. */
void pace_calm(pid_t tid);
/* The same for a task that competes with that many threads, so that what it gets does not shrink with their number; at most a thread's own share. */
void pace_calm_beside(pid_t tid, size_t nthreads);

#endif
