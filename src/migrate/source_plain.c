/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_plain.c - threads of a process that are read by BPF, all at once, and stay in their ptrace stops
 *
 * Theory of operation: a plain thread (image/thread_plain.h) runs no list of calls, so there is no need for it to run at all in the freeze. It is pointed at the stub like any other, with
 * its signals blocked, but is not let go before the commit; should the worker die, the kernel lets it go, and it waits in the stub for what the agent decides. When nothing comes of the
 * move it gets its registers back in the stop that it is in, and the kernel goes on with its interrupted call. A process that is stopped, has system call filters, or
 * has io_urings, whose completions its threads make, has no plain threads.
 */
#include <errno.h>
#include <limits.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "image/thread_plain.h"
#include "image/xstate.h"
#include "kern/trace.h"
#include "migrate/source.h"

#define RSEQ_CS_AT 8 /* offsetof(struct rseq, rseq_cs) */

void source_plain_prepare(struct source_process *p)
{
	struct err ignored = ERR_INIT;

	thread_peek_close(&p->peek);
	if (p->u->nthreads > 1 && !p->u->urings && thread_peek_open(&p->peek, p->u->pid, p->u->nthreads, &ignored) < 0)
		thread_peek_close(&p->peek);
	xstate_from_kernel_prepare();
}

/* Which of those that could be plain are in a restartable sequence, perhaps: these are asked themselves. One that cannot be read is, too. */
static void leave_out_sequences(struct source_process *p)
{
	struct iovec local[IOV_MAX], remote[IOV_MAX];
	struct parked *of[IOV_MAX];
	uint64_t words[IOV_MAX];

	for (size_t i = 1; i < p->nparked;) {
		size_t n = 0;
		ssize_t got;

		for (; i < p->nparked && n < IOV_MAX; i++) {
			if (!p->parked[i].record || !p->parked[i].record->rseq)
				continue;
			of[n] = &p->parked[i];
			words[n] = 0;
			remote[n] = (struct iovec){ (void *)(uintptr_t)(p->parked[i].record->rseq + RSEQ_CS_AT), sizeof(*words) };
			local[n] = (struct iovec){ &words[n], sizeof(*words) };
			n++;
		}
		got = n ? process_vm_readv(p->u->pid, local, n, remote, n, 0) : 0;
		for (size_t k = 0; k < n; k++)
			if ((ssize_t)((k + 1) * sizeof(*words)) > got || words[k])
				of[k]->record = NULL;
	}
}

void source_plain_read(struct source_process *p)
{
	const struct thread_record *main;

	if (p->peek.next_fd < 0 || p->nparked < 2 || p->stop_signal || seccomp_in_use(p->u->threads, p->u->nthreads) || thread_peek_read(&p->peek, NULL) < 0)
		return;
	main = thread_peek_find(&p->peek, p->parked[0].tid, 0);
	for (size_t i = 1; i < p->nparked && main; i++) {
		const struct thread_record *r = thread_peek_find(&p->peek, p->parked[i].tid, i);

		p->parked[i].record = r && thread_is_plain(r, main) ? r : NULL;
	}
	leave_out_sequences(p);
}

int source_plain_capture(struct source_process *p, struct parked *t, struct err *e)
{
	const Gw__Thread *main = p->parked[0].msg;
	int ret;

	/* What ptrace has told of the main thread, and a record does not say. */
	if (!t->record || main->syscall_dispatch.len || main->n_seccomp_filters)
		return 0;
	ret = thread_fill_plain(t->record, t->msg);
	if (ret == 0 && t->record->state & THREAD_MASK_UNKNOWN)
		ret = trace_get_mask(t->tid, &t->msg->sigmask, e);
	if (ret < 0 && ret != -EAGAIN)
		return ret;
	t->plain = ret == 0;
	return t->plain;
}

static void let_go(struct parked *t)
{
	int status;

	/* Of one that has been killed its tracer has to take notice. */
	while (trace_detach(t->tid, NULL) < 0 && waitpid(t->tid, &status, __WALL) == t->tid && WIFSTOPPED(status))
		;
	t->traced = false;
}

void source_plain_release(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++)
		if (p->parked[i].plain && p->parked[i].traced)
			let_go(&p->parked[i]);
}

void source_plain_thaw(struct source_process *p, struct parked *t)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	struct restart_now now = restart_now_read(clocks->monotonic_offset_ns, clocks->boottime_offset_ns);
	struct user_regs_struct regs;

	memcpy(&regs, t->msg->regs.data, sizeof(regs));
	if (restart_is_unfinished(t->msg->restart))
		restart_finish_in(p->u->pid, &regs, t->msg->restart, &now);
	if (trace_set_regs(t->tid, &regs, NULL) < 0 || trace_set_mask(t->tid, t->msg->sigmask, NULL) < 0)
		log_warning("event=not-given-back pid=%d tid=%d", p->u->pid, t->tid);
	let_go(t);
}
