/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * process.h - what belongs to a process and not to one of its threads, its memory or its files
 *
 * Capture: process_capture_outside for the offer, while the process runs; in the freeze process_capture_plan (may be called before
 * the stop), run in the main thread, process_capture_look and process_capture_collect into a new message.
 *
 * Restore, stage by stage (other modules' work goes between them):
 *	PROCESS_EARLY     main thread, first: session, root, working directory, umask, personality; all handlers become the default ones
 *	PROCESS_THREADS   when all threads exist: POSIX timers, disarmed
 *	PROCESS_LATE      in the freeze, after memory, files and all credentials: limits, handlers, prctl, and what has become of the working directory and
 *	                  the umask since PROCESS_EARLY. Needs no privileges
 *	PROCESS_ARM       in the freeze: the shared queue of signals and the timers. Needs no privileges
 * process_restore_outside, by the worker, goes with PROCESS_LATE.
 *
 * A moved process is its own session: the leader of its old one stays behind, and process groups do not reach over hosts.
 */
#ifndef GODWIT_IMAGE_PROCESS_H
#define GODWIT_IMAGE_PROCESS_H

#include <sys/types.h>

#include "base/err.h"
#include "image/present.h"
#include "image/refuse.h"
#include "image/signal.h"
#include "image/timer.h"
#include "kern/remote.h"
#include "kern/restart_record.h"
#include "task.pb-c.h"

struct process_query {
	pid_t pid;
	bool pending_taken; /* the caller has peeked the shared queue into the message itself, while the process was in a ptrace stop */
	bool looked; /* process_capture_look has been called */
	int status_fd, oom_fd, filter_fd, login_fd, autogroup_fd;
	struct timer_query timers;
	struct signal_query signals;
	const uint64_t *rlimits, *xcomp, *untag;
	struct remote_call *personality, *dumpable, *thp, *mdwe, *merge, *xcomp_call, *untag_call, *ldt, *membarrier;
	const int *subreaper;
};

enum process_stage { PROCESS_EARLY, PROCESS_THREADS, PROCESS_LATE, PROCESS_ARM };

/* A new message; gw__process__free_unpacked(msg, NULL) frees it. */
Gw__Process *process_new(pid_t pid);

/* What /proc tells about a running process, and every reason why it cannot move (without those of its threads). */
int process_capture_outside(pid_t pid, Gw__Process *msg, struct refusals *r, struct err *e);
/* The query owns descriptors: process_query_close, also after an error. */
int process_capture_plan(struct batch *b, struct process_query *q, pid_t pid, struct err *e);
/* What is seen from outside of a stopped process, which may run its list meanwhile: process_capture_collect does it where this has not been called. */
int process_capture_look(struct process_query *q, Gw__Process *msg, struct err *e);
/* Whether `look`, from before process_capture_look, says the same. While it stays as it is, what has been seen needs not be looked at again in the freeze. */
bool process_is_as_seen(const struct process_query *q, const Gw__Process *msg, const struct process_look *look);
/*
 * Fills the message with all but the clocks' boot id, which the offer has. The process must be stopped and a tracee: its queue of signals
 * is peeked. -EAGAIN: plan and run again. -EBUSY: something that cannot move was begun after the offer.
 */
int process_capture_collect(struct process_query *q, Gw__Process *msg, struct err *e);
void process_query_close(struct process_query *q);
/* Its real user id. -ESRCH. */
int process_read_owner(pid_t pid, uid_t *ret);
/* Of a process or thread, from its status file. False: it has none any more, it is ending. */
bool process_read_umask(const char *status, uint32_t *ret);

int process_encode(const Gw__Process *msg, uint8_t **ret_data, size_t *ret_len);
/* Decodes and validates. `offer`: a message of process_capture_outside, which has less in it. */
int process_decode(const void *data, size_t len, bool offer, Gw__Process **ret_msg, struct err *e);
int process_validate(const Gw__Process *msg, bool offer, struct err *e);
/* What this host cannot give the process (destination). known: a message of the same process that was looked at before; what is as it was there is not looked at again. NULL: all is. */
void process_validate_here(const Gw__Process *msg, const Gw__Process *known, struct refusals *r);

/* For PROCESS_LATE. */
struct process_before {
	const Gw__Process *early;      /* what PROCESS_EARLY was given */
	const struct present *present; /* what the main thread has already; NULL: not known */
};
/* now_ns: the process's CLOCK_MONOTONIC (clock_process_ns), for PROCESS_ARM. before: NULL but for PROCESS_LATE. */
int process_plan_restore(struct batch *b, const Gw__Process *msg, enum process_stage stage, const struct process_before *before, uint64_t now_ns);
/*
 * When all signals are queued, in all threads: how many may be. False: nothing has to be done. PROCESS_LATE leaves this limit alone, which may be lower than what is pending.
 */
bool process_plan_pending_limit(struct batch *b, const Gw__Process *msg, const struct present *present);
/* oom_score_adj and coredump_filter of `pid`, what differs from `done` (NULL: all). */
int process_restore_outside(pid_t pid, const Gw__Process *msg, const Gw__Process *done, struct err *e);

#endif
