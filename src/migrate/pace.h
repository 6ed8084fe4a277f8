/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pace.h - the worker's share of the CPU: all of it inside the freeze, little of it otherwise
 *
 * Where the program that moves wants a CPU for itself (and on small machines every CPU counts) the worker must stay out of its way, except
 * between the stop and the resume, when the program cannot run anyway.
 */
#ifndef GODWIT_MIGRATE_PACE_H
#define GODWIT_MIGRATE_PACE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PACE_HURRY_NICE (-15)

/* At the beginning of a worker. `forks`: it will, before the freeze, and what it touched now would be copied for that. */
void pace_prepare(bool forks);
/*
 * Touches the heap that the freeze of a unit of so many threads will need, so that no page fault happens there. After the worker's last fork: what has been touched before that is shared with the child,
 * and costs a page fault each once more.
 */
void pace_prepare_for(size_t threads);
/* Touches all that this process has in memory, shortly before the freeze, and after its last fork: what it shares with a child or its parent is copied now. */
void pace_touch(void);
/*
 * Keeps every CPU from halting between pace_warm and pace_cool: for the time in which the program stands still. `by_threads`: where the kernel cannot be asked for that, threads
 * do it (for at most 20 ms); see pace_warm.c.
 */
void pace_warm_prepare(bool by_threads);
void pace_warm(void);
void pace_cool(void);
/*
 * The same after the resume, while many pages are asked for: each costs two wake-ups on each side. To be called often, with the number so far; CPUs are kept from halting (where the
 * kernel can be asked for that) while there are more than a thousand a second. Starts as { 0 }; pace_cool ends it.
 */
struct pace_demand {
	uint64_t count, at_ns;
};
void pace_warm_on_demand(struct pace_demand *d, uint64_t count);
/* Not to be pushed aside, not even by the program when it wakes: for a few hundred microseconds without waiting for anybody in a loop. */
void pace_rule(void);
/* The same for a task of the skeleton: until its list of calls gives it the program's own scheduling. */
void pace_boost(pid_t tid);
/* For a preparation during which the program stands still: before nearly everything else, by the ordinary scheduler. pace_calm ends it. Also for another task. */
void pace_hurry(pid_t tid);
/* The end of pace_rule, without preempting anybody when it wakes: when the program may go on at any moment. */
void pace_give_way(void);
/*
 * An ordinary process that gives way: nice 19 and slices of 0.1 ms (EEVDF) where there is a CPU to spare. Where each CPU has a task, a tenth of one; where tasks wait for CPUs a
 * growing part of one, a quarter beside eight for each: who empties an overloaded host must not take his turn with those whom he is to help. Also for another task,
 * such as an agent. Who has to wait for a CPU nevertheless is let through, and from then on this gives way to nobody (guard.h).
 */
void pace_calm(pid_t tid);
/* The same for a task that competes with at least that many threads. */
void pace_calm_beside(pid_t tid, size_t nthreads);

/* Whether each CPU has a task other than this one, or somebody who moves the unit has had to wait for one. */
bool pace_is_crowded(void);

/*
 * pace_remember notes on which CPU the process runs, just before it is stopped; when it has left, pace_take_place puts a task there: that CPU is free now,
 * and nobody is left to whom it would have to give way.
 */
void pace_remember(pid_t pid);
void pace_take_place(pid_t tid);
/*
 * For a task that is to run beside the caller while that rules: keeps it off the caller's CPU, where it has others. It ran there last, mostly, and would be woken there again, and wait until
 * the caller does. It is before others there. What it may use otherwise is kept in *ret_before (no CPU: nothing was changed) for pace_together.
 */
void pace_apart(pid_t tid, cpu_set_t *ret_before);
void pace_together(pid_t tid, cpu_set_t *before);
/*
 * Keeps a task (and the calling thread) off the CPUs on which the threads of a process run, as long as there are others. The scheduler would wake it there
 * again and again (where it ran last, or where its packets arrive), and there it waits for a tick of the clock or takes the CPU from the program.
 * To be called often: it looks every 10 ms, and does nothing while they run where they ran. Starts as { 0 }.
 */
struct pace_aside {
	uint64_t next_ns;
	cpu_set_t all, set;
};
void pace_aside(struct pace_aside *a, pid_t tid, pid_t pid);

#endif
