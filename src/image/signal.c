/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* signal.c - handlers and pending signals; see signal.h */
#include "image/signal.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"

#define PEEK_AT_ONCE 32
#define QUEUE_MAX 100000 /* signals; RLIMIT_SIGPENDING is of this order */

_Static_assert(sizeof(siginfo_t) == SIGNAL_INFO_LEN, "siginfo_t");
_Static_assert(sizeof(struct signal_kernel_action) == 32, "kernel sigaction");

void signal_capture_plan(struct batch *b, struct signal_query *q, bool with_actions)
{
	uint64_t at;

	*q = (struct signal_query){ 0 };
	if (with_actions) {
		q->actions = batch_space(b, SIGNAL_COUNT * sizeof(*q->actions), &at);
		for (unsigned i = 0; i < SIGNAL_COUNT; i++)
			batch_call(b, "rt_sigaction", SYS_rt_sigaction, i + 1, 0, at + i * sizeof(*q->actions), 8);
	}
	q->pending = batch_space(b, 8, &at);
	batch_call(b, "rt_sigpending", SYS_rt_sigpending, at, 8);
}

void signal_capture_collect_actions(const struct signal_query *q, Gw__Process *msg)
{
	bytes_set(&msg->sigactions, q->actions, SIGNAL_COUNT * sizeof(*q->actions));
}

uint64_t signal_set_of(const ProtobufCBinaryData *queue)
{
	uint64_t set = 0;

	for (size_t i = 0; i + SIGNAL_INFO_LEN <= queue->len; i += SIGNAL_INFO_LEN) {
		int signo;

		memcpy(&signo, queue->data + i, sizeof(signo));
		if (signo >= 1 && signo <= SIGNAL_COUNT)
			set |= SIGNAL_BIT(signo);
	}
	return set;
}

/* Whether as many signals are queued as the limit allows (RLIMIT_SIGPENDING): only then the kernel drops what belongs to a signal. */
static bool queue_is_full(pid_t tid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256];
	unsigned long n, limit;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "SigQ: %lu/%lu", &n, &limit) == 2)
			return n >= limit;
	return false;
}

void signal_complete(const struct signal_query *q, pid_t tid, ProtobufCBinaryData *queue, const ProtobufCBinaryData *other)
{
	uint64_t bare = *q->pending & ~signal_set_of(queue);

	if (other)
		bare &= ~signal_set_of(other);
	/* Otherwise they came after the queues had been read, and are not part of the image (migrate/late.h). */
	if (bare && !queue_is_full(tid))
		return;
	for (int signo = 1; bare && signo <= SIGNAL_COUNT; signo++) {
		siginfo_t info;

		if (!(bare & SIGNAL_BIT(signo)))
			continue;
		memset(&info, 0, sizeof(info));
		info.si_signo = signo;
		info.si_code = SI_USER;
		bytes_append(queue, &info, sizeof(info));
	}
}

int signal_peek(pid_t tid, bool shared, ProtobufCBinaryData *ret_queue, struct err *e)
{
	uint8_t infos[PEEK_AT_ONCE * SIGNAL_INFO_LEN];
	struct __ptrace_peeksiginfo_args args = { .flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0, .nr = PEEK_AT_ONCE };
	long n;

	bytes_set(ret_queue, NULL, 0);
	for (;;) {
		n = ptrace(PTRACE_PEEKSIGINFO, tid, &args, infos);
		if (n < 0)
			return err_sys(e, -errno, "thread %d: PTRACE_PEEKSIGINFO", tid);
		if (n > 0)
			bytes_append(ret_queue, infos, (size_t)n * SIGNAL_INFO_LEN);
		if (n < PEEK_AT_ONCE)
			return 0;
		args.off += (uint64_t)n;
		if (args.off > QUEUE_MAX)
			return err_set(e, -E2BIG, "thread %d: more than %d signals are pending", tid, QUEUE_MAX);
	}
}

int signal_validate_actions(const ProtobufCBinaryData *actions, struct err *e)
{
	if (actions->len != SIGNAL_COUNT * sizeof(struct signal_kernel_action))
		return err_set(e, -EBADMSG, "signal handlers: %zu bytes", actions->len);
	return 0;
}

int signal_validate_queue(const ProtobufCBinaryData *queue, struct err *e)
{
	if (queue->len % SIGNAL_INFO_LEN || queue->len / SIGNAL_INFO_LEN > QUEUE_MAX)
		return err_set(e, -EBADMSG, "pending signals: %zu bytes", queue->len);
	for (size_t i = 0; i < queue->len; i += SIGNAL_INFO_LEN) {
		int signo;

		memcpy(&signo, queue->data + i, sizeof(signo));
		if (signo < 1 || signo > SIGNAL_COUNT)
			return err_set(e, -EBADMSG, "pending signal %d", signo);
	}
	return 0;
}

void signal_plan_defaults(struct batch *b)
{
	static const struct signal_kernel_action deflt;
	uint64_t at = batch_data(b, &deflt, sizeof(deflt));

	for (unsigned i = 0; i < SIGNAL_COUNT; i++)
		if (i + 1 != SIGKILL && i + 1 != SIGSTOP)
			batch_call(b, "rt_sigaction", SYS_rt_sigaction, i + 1, at, 0, 8);
}

void signal_plan_actions(struct batch *b, const Gw__Process *msg)
{
	static const struct signal_kernel_action deflt;
	uint64_t at = batch_data(b, msg->sigactions.data, msg->sigactions.len);

	for (unsigned i = 0; i < SIGNAL_COUNT; i++)
		if (i + 1 != SIGKILL && i + 1 != SIGSTOP && memcmp(msg->sigactions.data + i * sizeof(deflt), &deflt, sizeof(deflt)) != 0)
			batch_call(b, "rt_sigaction", SYS_rt_sigaction, i + 1, at + i * sizeof(deflt), 0, 8);
}

void signal_plan_queue(struct batch *b, pid_t pid, pid_t tid, bool shared, const ProtobufCBinaryData *queue)
{
	uint64_t at;

	if (!queue->len)
		return;
	at = batch_data(b, queue->data, queue->len);
	for (size_t i = 0; i < queue->len; i += SIGNAL_INFO_LEN) {
		int signo;

		memcpy(&signo, queue->data + i, sizeof(signo));
		if (signo == SIGKILL || signo == SIGSTOP || signo == SIGCONT)
			continue;
		if (shared)
			batch_call(b, "rt_sigqueueinfo", SYS_rt_sigqueueinfo, pid, signo, at + i);
		else
			batch_call(b, "rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, pid, tid, signo, at + i);
	}
}

void signal_send_continue(pid_t pid, pid_t tid, const ProtobufCBinaryData *queue)
{
	for (size_t i = 0; i + SIGNAL_INFO_LEN <= queue->len; i += SIGNAL_INFO_LEN) {
		siginfo_t info;

		memcpy(&info, queue->data + i, sizeof(info));
		if (info.si_signo != SIGCONT)
			continue;
		/* The kernel lets nobody pretend to be another process or itself: those are sent in this worker's name. */
		if (tid && (info.si_code >= 0 || info.si_code == SI_TKILL || syscall(SYS_rt_tgsigqueueinfo, pid, tid, SIGCONT, &info) < 0))
			syscall(SYS_tgkill, pid, tid, SIGCONT);
		else if (!tid && (info.si_code >= 0 || info.si_code == SI_TKILL || syscall(SYS_rt_sigqueueinfo, pid, SIGCONT, &info) < 0))
			kill(pid, SIGCONT);
	}
}

bool signal_has_stop(const ProtobufCBinaryData *queue)
{
	return signal_set_of(queue) & SIGNAL_BIT(SIGSTOP);
}
