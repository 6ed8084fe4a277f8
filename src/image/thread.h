/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thread.h - one thread: registers, masks, credentials, scheduling, and what the kernel was told about its memory
 *
 * Capture, in this order: thread_capture_outside for the offer; in the freeze thread_capture_stopped for a task in a ptrace stop, before
 * its registers are changed, and thread_capture_plan/collect with a batch that the task itself runs, all of them into one message.
 *
 * Restore, all of it in the freeze: the task itself runs THREAD_MODES (privileged), then, when nothing that needs privileges is left to do, THREAD_CREDENTIALS,
 * signal_plan_queue and thread_plan_memory, in one list; then the worker calls thread_restore_placement, thread_restore_sched and thread_apply_registers on the stopped task,
 * and detaches.
 */
#ifndef GODWIT_IMAGE_THREAD_H
#define GODWIT_IMAGE_THREAD_H

#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"
#include "image/cred.h"
#include "image/mempolicy.h"
#include "image/refuse.h"
#include "image/signal.h"
#include "image/xstate.h"
#include "kern/remote.h"
#include "task.pb-c.h"

struct thread_query {
	struct cred_query cred;
	struct signal_query signals;
	struct mempolicy_query mempolicy;
	const uint64_t *altstack, *clear_tid;
	const int *pdeath_signal, *tsc_mode;
	const char *name;
	const uint8_t *sched_attr, *affinity;
	struct remote_call *nice, *affinity_call, *ioprio, *slack, *no_new_privs, *mce_kill, *cpuid, *seccomp;
	struct remote_call *spec_store_bypass, *spec_indirect_branch, *spec_l1d_flush;
	const Gw__Thread *offered;
};

enum thread_stage {
	THREAD_MODES,       /* name, timer slack, CPU modes; scheduling is set by thread_restore_sched */
	THREAD_KEPT_CREDENTIALS, /* as the next one, of a task that has the right ones from its birth (cred_are_own) */
	THREAD_CREDENTIALS, /* ids, capabilities, no_new_privs, death signal */
};

/* A new message; gw__thread__free_unpacked(msg, NULL) frees it. */
Gw__Thread *thread_new(pid_t tid);

/* What /proc tells about a running thread, and the reasons why it cannot move. */
int thread_capture_outside(pid_t pid, pid_t tid, Gw__Thread *msg, struct refusals *r, struct err *e);
/* Registers, XSAVE, mask, own pending signals, rseq, robust list of a task in a ptrace stop; about a dozen system calls. */
int thread_capture_stopped(pid_t tid, Gw__Thread *msg, struct err *e);
/* `offered`: what thread_capture_outside gave, or NULL. It must live until collect. */
void thread_capture_plan(struct batch *b, struct thread_query *q, const Gw__Thread *offered);
/*
 * `shared` is the process's pending queue: signals without siginfo are looked for in it, and added to it by the main thread, else to the thread's own.
 * -EAGAIN: plan again with offered NULL. -EBUSY: something that cannot move was begun after the offer.
 */
int thread_capture_collect(const struct thread_query *q, Gw__Thread *msg, ProtobufCBinaryData *shared, bool is_main, struct err *e);

/*
 * Moves a thread out of a restartable sequence (rseq(2)), as the kernel does on preemption: `regs` gets the abort address, and
 * rseq_cs in the memory of `pid` is cleared. The rseq fields of msg must be set. Returns whether it was in one.
 */
int rseq_abort_fix(pid_t pid, const Gw__Thread *msg, struct user_regs_struct *regs, struct err *e);

int thread_encode(const Gw__Thread *msg, uint8_t **ret_data, size_t *ret_len);
/* Decodes and validates. */
int thread_decode(const void *data, size_t len, Gw__Thread **ret_msg, struct err *e);
int thread_validate(const Gw__Thread *msg, struct err *e);
/* What this host cannot give a thread (destination, at the offer). */
void thread_validate_here(const Gw__Thread *msg, struct refusals *r);

int thread_plan_restore(struct batch *b, const Gw__Thread *msg, enum thread_stage stage, struct err *e);
/* Affinity and I/O priority of a task (its number as the worker sees it), by the worker; it may run its list meanwhile. */
int thread_restore_placement(pid_t tid, const Gw__Thread *msg, struct err *e);
/* Then its scheduling, when the list is done: so it can have another priority while it runs that. */
int thread_restore_sched(pid_t tid, const Gw__Thread *msg, struct err *e);
/* Its timer slack, also where thread_restore_sched takes it for the usual one. */
int thread_restore_slack(pid_t tid, const Gw__Thread *msg, struct err *e);
/* Alternate stack, robust list, tid address, rseq; the page with the rseq area must be there. */
void thread_plan_memory(struct batch *b, const Gw__Thread *msg);
/* What is set by ptrace apart from general registers and mask, which come last, at the commit; `source` is the layout of the source's XSAVE area. */
int thread_apply_state(pid_t tid, const Gw__Thread *msg, const struct xstate_layout *source, struct err *e);
/* All three, where nothing is in between. */
int thread_apply_registers(pid_t tid, const Gw__Thread *msg, const struct xstate_layout *source, struct err *e);

#endif
