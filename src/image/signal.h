/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * signal.h - handlers and pending signals
 *
 * Handlers travel as the kernel's table (64 entries of struct signal_kernel_action). Pending signals travel as 128-byte siginfo_t in their order;
 * they are peeked, not taken, from a task in a ptrace stop. See rt_sigaction(2), ptrace(2) PTRACE_PEEKSIGINFO, rt_sigqueueinfo(2).
 */
#ifndef GODWIT_IMAGE_SIGNAL_H
#define GODWIT_IMAGE_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define SIGNAL_COUNT 64
#define SIGNAL_INFO_LEN 128
#define SIGNAL_BIT(signo) (1ull << ((signo) - 1))

struct signal_kernel_action {
	uint64_t handler, flags, restorer, mask;
};

/* All that a task can be asked about its handlers and what is pending for it (its own and its process's), run by the task. */
struct signal_query {
	const struct signal_kernel_action *actions; /* NULL when only pending was asked */
	const uint64_t *pending;
};

void signal_capture_plan(struct batch *b, struct signal_query *q, bool with_actions);
void signal_capture_collect_actions(const struct signal_query *q, Gw__Process *msg);
/*
 * Signals that are pending without a siginfo of their own (the kernel had no memory for one) get a plain one, appended to `queue`
 * unless they are in `queue` or in `other`.
 */
void signal_complete(const struct signal_query *q, pid_t tid, ProtobufCBinaryData *queue, const ProtobufCBinaryData *other);

/* Copies the queue of a stopped tracee: its own, or its process's (shared). */
int signal_peek(pid_t tid, bool shared, ProtobufCBinaryData *ret_queue, struct err *e);
/* The set of signals in a queue. */
uint64_t signal_set_of(const ProtobufCBinaryData *queue);

int signal_validate_actions(const ProtobufCBinaryData *actions, struct err *e);
int signal_validate_queue(const ProtobufCBinaryData *queue, struct err *e);

/* Sets the handlers of all signals that can have one. */
/* Where all handlers are the default ones: those of the message that are not. */
void signal_plan_actions(struct batch *b, const Gw__Process *msg);
/* Makes all the default ones. */
void signal_plan_defaults(struct batch *b);
/*
 * Queues a thread's signals, or with shared the process's (then only in the main thread), run by the task itself with all signals blocked.
 * SIGKILL and SIGSTOP cannot be blocked, and SIGCONT does not stay: a skeleton's thread rests by SIGSTOP, which throws it away. These are left out.
 */
void signal_plan_queue(struct batch *b, pid_t pid, pid_t tid, bool shared, const ProtobufCBinaryData *queue);
/* Sends what SIGCONT is in the queue, to a process (tid 0) or a thread with all signals blocked: when none of its threads will rest any more. */
void signal_send_continue(pid_t pid, pid_t tid, const ProtobufCBinaryData *queue);
/* Whether SIGSTOP is in the queue. */
bool signal_has_stop(const ProtobufCBinaryData *queue);

#endif
