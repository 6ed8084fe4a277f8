/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * restart.h - system calls that the freeze interrupts go on, and a sleep does not start over
 *
 * A thread in a ptrace stop whose orig_rax is a system call shows in rax how the kernel means to go on: -512, -513, -514 call again,
 * -516 call restart_syscall, which knows the absolute end (the restart block); -EINTR from some calls, only because they were stopped. When
 * the tracer detaches from a stop for a signal or an interrupt (not from a system call stop), the kernel looks at rax and orig_rax and does just that, on the destination
 * too, and returns EINTR to the program when a handler runs. So:
 *
 *  - restart_capture turns -EINTR of such calls into -514 and records until when the call was to wait; what a call has done in part is recorded (partial.h);
 *  - the destination calls restart_finish, which puts the remaining time into the arguments; or, for sleeps, poll and relative futex
 *    waits, the thread of the skeleton issues the call of restart_prime_call, is interrupted in it, and so has a restart block of its
 *    own: exact, and no register that the program can see differs;
 *  - a stop of the source that does not become a move (preparation, undo): the registers captured, after restart_finish when the
 *    kind is TIMED_CALL or PARTIAL, are right for a detach. restart_to_call makes registers for a thread that goes on without a tracer (its restart block, if any, is its own).
 *
 * Times on the process clock (clocks.h). The timespec that restart_finish needs lies below the red zone, where nothing lives during a
 * system call; the kernel copies it when the call begins.
 */
#ifndef GODWIT_IMAGE_RESTART_H
#define GODWIT_IMAGE_RESTART_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"
#include "image/partial.h"
#include "kern/restart_record.h"
#include "task.pb-c.h"

#define RESTART_SYS (-512)
#define RESTART_NOINTR (-513)
#define RESTART_NOHAND (-514)
#define RESTART_BLOCK (-516)

/* Clocks as the process reads them. */
struct restart_now {
	uint64_t monotonic_ns, boottime_ns, realtime_ns, tai_ns;
};

struct restart_context {
	bool stopped; /* the process was stopped by a signal: what ended with EINTR because of that stays so */
	pid_t tid; /* as this process sees it */
	pid_t pid; /* whose memory is read, when there are no records */
	/* Read shortly before the stop and in it (kern/restart_block.h); NULL where BPF is not to be had. Then epoll_wait and the like start
	 * over, and nanosleep and poll too unless nanosleep was given a place for the remaining time. */
	const struct restart_record *before, *after;
	int64_t monotonic_offset_ns, boottime_offset_ns;
};

/* What restart_finish wants written into the process's memory before it runs; len 0: nothing. */
struct restart_patch {
	uint64_t address;
	unsigned len;
	uint8_t data[PARTIAL_FRAME_BYTES];
};

/* A call for a thread of the skeleton to be interrupted in. */
struct restart_prime {
	uint64_t nr;
	uint64_t arg[6];
	int request_arg;    /* argument that is to point at a copy of request; -1: none */
	int64_t request[2]; /* struct timespec */
};

struct restart_now restart_now_read(int64_t monotonic_offset_ns, int64_t boottime_offset_ns);

/* Whether the kernel would make the interrupted call again with all of its time, as io_pgetevents(2) is made. */
bool restart_has_all_time(const struct user_regs_struct *regs);
/*
 * Looks at the registers in msg (thread_capture_stopped), changes them where needed, and sets msg->restart. -EBUSY when a sleep was
 * interrupted for the second time and BPF cannot tell its end.
 */
int restart_capture(Gw__Thread *msg, const struct restart_context *c, struct err *e);
int restart_validate(const Gw__Restart *restart, struct err *e);

/* Puts the time that is left into regs (msg's, or a copy); ret_patch goes into memory first. */
void restart_finish(struct user_regs_struct *regs, const Gw__Restart *restart, const struct restart_now *now, struct restart_patch *ret_patch);
/*
 * restart_finish, with the patch written into the memory of `pid`. Where that fails the time in memory is left as it was: the call starts
 * over.
 */
void restart_finish_in(pid_t pid, struct user_regs_struct *regs, const Gw__Restart *restart, const struct restart_now *now);
/* Whether the thread's call can be primed, and how. For POLL the files must be there, for FUTEX the page of the word. */
bool restart_prime_call(const Gw__Thread *msg, const struct restart_now *now, struct restart_prime *ret_prime);
/*
 * The registers after the primed call was interrupted with -516 (result: its rax), or has ended by itself with another result, which is
 * then the program's.
 */
void restart_prime_done(struct user_regs_struct *regs, int64_t result);
/* Whether the registers captured are right for going on here only after restart_finish. */
static inline bool restart_is_unfinished(const Gw__Restart *restart)
{
	return restart && (restart->kind == GW__RESTART__KIND__TIMED_CALL || restart->kind == GW__RESTART__KIND__PARTIAL);
}
/* -512, -513, -514 become the call itself. */
void restart_to_call(struct user_regs_struct *regs);

#endif
