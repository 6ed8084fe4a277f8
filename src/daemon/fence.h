/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fence.h - with etcd: a node that has lost its lease has no protected units any more (docs/protect.md)
 *
 * Theory of operation: when this node's lease in etcd has run out, others take its protected units over. So these run here only before a deadline: that of the lease, which is at least lease_s after the moment
 * at which it was renewed last (the moment at which that was *asked*, which is earlier), less a margin for scheduling and for clocks that go at different speeds. Each renewal moves it on. It is CLOCK_BOOTTIME,
 * which counts while the host is suspended.
 *
 * The deadline lies in a file of the host's run (/run/godwit/fence) that all map, so it holds when godwitd is dead or hangs, and over its restart. Two processes kill at it: godwit-watch, which does nothing
 * else, outlives godwitd and runs before everything else (SCHED_FIFO, in locked memory), and godwit-etcd, which renews. Nothing of it waits for a store, a lock, or another process. Before a unit is killed KEY.lost says so
 * (protect_journal.h), so that its end is not taken for that of a unit that has ended. The node enters the store again with another epoch, by which others know that what it ran is lost, also when they had no time to miss it: a
 * host that was booted, or all nodes of a cluster whose store was away. A unit that nobody has taken over after FENCE_LOST_S is given up.
 */
#ifndef GODWIT_DAEMON_FENCE_H
#define GODWIT_DAEMON_FENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/registry.h"

#define FENCE_LOST_S 60

struct daemon;

/* In the main process, once. wanted: there is a store with leases. Without, a deadline that was there holds no more. */
int fence_init(const char *run_directory, bool wanted, struct err *e);
bool fence_wanted(void);
/* The lease was asked for at that moment (CLOCK_BOOTTIME), and granted. */
void fence_renew(uint64_t asked_ns, unsigned lease_s);
/* Whether protected units may run here now. */
bool fence_holds(void);
/* A sentence why they may not; NULL: they may. */
const char *fence_why_not(void);
/* It has been lost before its time: everything is killed now. */
void fence_lose(void);
/* Whether there has been a lease, and its time is over. */
bool fence_is_over(void);
/* Grows whenever protected units of this host have been killed: a part of keep_run(). */
unsigned fence_epoch(void);
/* Everything has been killed: a new one begins. */
void fence_next_epoch(void);
/* Whether there are any here. */
bool fence_has_units(void);
/* Kills all protected units of this host; returns how many. */
unsigned fence_kill_all(const char *why);
void fence_kill(const struct registry_entry *entry, const char *why);

/* In the main process: sees to it that godwit-watch runs; the time until it looks again, -1: never. */
int fence_tick(struct daemon *d);

/* From the moment at which the lease was asked for until units must be dead, less what it takes to kill them: pure. */
uint64_t fence_span_ns(unsigned lease_s);

#endif
