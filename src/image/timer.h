/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timer.h - interval timers and POSIX timers
 *
 * Timers that count real time travel as an expiry on the process clock, timers that count CPU time as what is left. On the
 * destination timers are created, disarmed, during the preparation (all threads must exist, for those that signal a thread), and armed in the
 * freeze. Periodic timers on CLOCK_MONOTONIC and CLOCK_BOOTTIME keep their phase. What is lost: the overrun count of a signal already
 * taken (timer_getoverrun). CLOCK_REALTIME timers are armed relative, as the kernel does not say whether they were absolute.
 */
#ifndef GODWIT_IMAGE_TIMER_H
#define GODWIT_IMAGE_TIMER_H

#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define TIMERS_MAX 1024

struct timer_query {
	char *listing;       /* /proc/PID/timers as of the plan */
	char *again;         /* and as of timer_capture_look */
	int listing_fd;
	size_t n;
	struct timer_query_one {
		const struct itimerspec *setting;
		const struct timespec *now;
		struct remote_call *call;
	} *one;
	const struct itimerval *itimers;
	const struct timespec *monotonic;
};

/* Timers that cannot move: dynamic clocks, too many. Reads /proc. */
int timer_check(pid_t pid, struct refusals *r, struct err *e);
/* Plans the questions; run by any thread of the process. The query owns memory: timer_query_close. */
int timer_capture_plan(struct batch *b, struct timer_query *q, pid_t pid, struct err *e);
/* Reads /proc once more, when the process has been stopped. -EAGAIN when a timer was created or deleted since the plan. */
int timer_capture_look(struct timer_query *q, struct err *e);
int timer_capture_collect(struct timer_query *q, Gw__Process *msg, struct err *e);
void timer_query_close(struct timer_query *q);

int timer_validate(const Gw__Process *msg, struct err *e);

/* Creates the timers, disarmed, with their ids; needs the threads that they signal, and CAP_WAKE_ALARM for alarm clocks. */
void timer_plan_create(struct batch *b, const Gw__Process *msg);
/* Arms all timers: for the freeze, last. now_ns: the process's CLOCK_MONOTONIC (clock_process_ns). Needs no privileges. */
void timer_plan_arm(struct batch *b, const Gw__Process *msg, uint64_t now_ns);

#endif
