/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate.h - one migration: what the daemon starts in a worker process
 *
 * migrate_source and migrate_dest block until the migration has ended and are called in a process of their own, forked
 * by godwitd: they use ptrace, change namespaces and may be killed at any moment.
 */
#ifndef GODWIT_MIGRATE_MIGRATE_H
#define GODWIT_MIGRATE_MIGRATE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/fsfile_policy.h"
#include "image/refuse.h"
#include "image/tcp_outside.h"
#include "migrate/caller.h"

enum strategy {
	STRATEGY_FREEZE_FREE,
	STRATEGY_PRE_COPY,
	STRATEGY_HYBRID,
	STRATEGY_STOP_COPY,
	STRATEGY_COPY_ON_REFERENCE,
};

/* Pages follow after the resume. */
static inline bool strategy_is_post_copy(enum strategy s)
{
	return s == STRATEGY_FREEZE_FREE || s == STRATEGY_HYBRID || s == STRATEGY_COPY_ON_REFERENCE;
}

/* The source sends everything by itself. */
static inline bool strategy_pushes(enum strategy s)
{
	return s != STRATEGY_COPY_ON_REFERENCE;
}

/* "freeze-free", "pre-copy", "hybrid", "stop-copy", "copy-on-reference". */
const char *strategy_name(enum strategy strategy);
int strategy_parse(const char *name, enum strategy *ret_strategy, struct err *e);

enum migrate_role { ROLE_CONTROL, ROLE_GO, ROLE_FAULT, ROLE_BULK };

/* What godwitd says of a connection that it hands to a destination's worker. */
struct link_handoff {
	uint32_t role;    /* enum migrate_role */
	uint32_t process; /* of the unit, with ROLE_FAULT and ROLE_BULK */
};

/* What the user is told while and after it happens. Counters are of 4 KiB pages. */
struct migrate_report {
	char unit[300];        /* HOME:PID */
	char from[256], to[256];
	enum strategy strategy;
	bool portable;         /* by the state that the program describes, and not by that strategy */
	const char *phase;     /* name of the step under way, for progress */
	bool left;             /* nothing of the unit is here any more but memory that is being freed */
	uint64_t freeze_us;    /* from the first thread stopped to the destination's threads detached, by the wall clock of both */
	uint64_t stopped_at_ns; /* when that began, by the source's CLOCK_REALTIME */
	double total_ms;       /* from the request to the release */
	uint64_t bytes_sent;
	uint64_t pages_total, pages_sent, pages_skipped_file, pages_skipped_zero, pages_faulted;
	unsigned rounds;
	unsigned attempts;     /* since the unit has changed between offer and freeze, it was begun so often */
	pid_t new_pid;         /* the process's pid as seen on the destination host */
	const char *outcome;   /* "moved", "refused", "failed", "cancelled", "in-doubt" or "possible"; NULL while it runs */
};

struct migrate_image;
struct migrate_plan;

struct migrate_request {
	pid_t pid;
	const pid_t *also;             /* others that belong to the unit, though they do not descend from pid (tree.h: detached) */
	size_t n_also;
	const struct caller *caller;   /* who asks for it; NULL: who may do everything */
	const char *self_name;         /* this node's name */
	struct sockaddr_in self;       /* where this node's godwitd listens; the address may be 0.0.0.0 */
	const char *dest_name;
	bool home_is_bridged;          /* the unit is away, and no other way than a bridge leads to its home (wire/bridge.h) */
	struct sockaddr_in dest;       /* where the destination's godwitd listens */
	enum strategy strategy;
	enum fsfile_policy files;
	enum tcp_outside_policy tcp;
	unsigned timeout_ms;           /* up to the commit; 0: no limit */
	const char *reason;            /* why, a sentence for people; NULL: somebody said so */
	const struct migrate_image *image; /* the destination writes an image (checkpoint.h); NULL: it is a host */
	bool ask_only;                 /* the destination is asked whether it would take the unit, which is not touched: -ECANCELED with the outcome "possible" */
	struct migrate_plan *plan;     /* ask_only: what would move (plan.h); NULL: nobody wants to know */
	/*
	 * Called at the start of each step and about ten times a second; returns true to cancel (ignored after the commit). When the outcome is "moved" the user need not wait
	 * any longer, though there is still something to do here.
	 */
	bool (*progress)(const struct migrate_report *report, void *arg);
	void *progress_arg;
	/* Before the unit is touched, with the name that the destination says it has; perhaps more than once: whether it may leave. Negative, with a refusal: no. NULL: nobody has to be asked. */
	int (*may_leave)(const char *unit, unsigned moves, const char *to, struct refusals *refusals, void *arg, struct err *e);
	/* It has been handed over. Must not wait. */
	void (*has_left)(void *arg);
	void *leave_arg;
};

/*
 * Once, in the daemon before it forks workers: loads what takes long to load and survives fork (the BPF programs that read restart blocks, descriptor
 * tables, credentials and flags of mappings). Failing is no error: interrupted sleeps then start over, the freeze takes longer with many descriptors, and what
 * madvise has changed just before it is not seen. ret_keep: descriptors that
 * workers must keep, -1 when there are none.
 */
#define MIGRATE_KEEP_FDS 9
void migrate_init(int ret_keep[MIGRATE_KEEP_FDS]);

/*
 * Moves request->pid. Returns 0 when the process runs on the destination and nothing is left here; -ECANCELED, -EPERM with
 * refusals filled in (refused), or another error: then the process runs here, unharmed, unless report->outcome is "in-doubt".
 */
int migrate_source(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, struct err *e);

/*
 * Receives a process. `control` is the accepted connection whose HELLO has been read by the daemon into hello_payload; further
 * connections of the same migration arrive on `handoff`, a unix SOCK_SEQPACKET socket: struct link_handoff with the
 * descriptor as SCM_RIGHTS. ret_unit: the name of the unit, also when it has not arrived; "" when that is not known.
 */
#define MIGRATE_UNIT_MAX 300
int migrate_dest(int control, const void *hello_payload, size_t hello_len, int handoff, const char *self_name, char ret_unit[MIGRATE_UNIT_MAX], struct err *e);

/* What faults took in the migrations that this process has received, as in struct agent_counters. */
#define MIGRATE_FAULT_BUCKETS 16
struct migrate_faults {
	uint64_t us, buckets[MIGRATE_FAULT_BUCKETS];
};
const struct migrate_faults *migrate_dest_faults(void);

/* Every reason why pid, with the others of its unit, cannot move from this host, without touching it. */
int migrate_check(pid_t pid, const pid_t *also, size_t n_also, const struct caller *caller, struct refusals *refusals, struct err *e);

#endif
