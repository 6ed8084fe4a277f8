/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trace.h - stopping threads, and the first system calls inside a foreign process
 *
 * All functions are for the one thread of the worker that traces. The bootstrap of the agent needs calls before any code of ours is in
 * the target: they are made at the `syscall` instruction of the vdso, by single steps.
 */
#ifndef GODWIT_KERN_TRACE_H
#define GODWIT_KERN_TRACE_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"
#include "kern/task.h"

/* Seizes a thread without stopping it. */
int trace_seize(pid_t tid, unsigned long options, struct err *e);
/* Asks it to stop; trace_wait_stop waits until it has. A signal that is just being delivered is let through first. */
int trace_interrupt(pid_t tid, struct err *e);
int trace_wait_stop(pid_t tid, struct err *e);
/* The same; *ret_signal is the signal that its process is stopped by (SIGSTOP, SIGTSTP, ...: a group stop), SIGTRAP when it is not stopped. */
int trace_wait_stop_signal(pid_t tid, int *ret_signal, struct err *e);
/*
 * The same for a thread of which nothing has been changed yet: after a second -ETIMEDOUT, since it may wait for a device, or for a child that it made by vfork(2).
 * It is let go when this process ends.
 */
int trace_try_stop(pid_t tid, int *ret_signal, struct err *e);
int trace_detach(pid_t tid, struct err *e);

int trace_get_regs(pid_t tid, struct user_regs_struct *ret_regs, struct err *e);
int trace_set_regs(pid_t tid, const struct user_regs_struct *regs, struct err *e);
/* {number, arguments} of a system call, with the instruction at `at`. */
void trace_regs_to_call(struct user_regs_struct *regs, uint64_t at, const uint64_t call[7]);
int trace_get_mask(pid_t tid, uint64_t *ret_mask, struct err *e);
int trace_set_mask(pid_t tid, uint64_t mask, struct err *e);

/* False: no process whose threads are listed from now on has threads that are the kernel's (workers of io_uring); looking for them takes 5 us a thread. */
extern bool trace_expects_workers;
/* Thread ids of a process without those of the kernel's, ascending; *ret_tids is malloc'ed. */
int trace_list_threads(pid_t pid, pid_t **ret_tids, size_t *ret_n, struct err *e);

/*
 * Address of a `syscall` instruction in the process's vdso, and of room_bytes unused ones (zeros, behind the image's own bytes; 0 if there are none; ret_room
 * may be NULL). The trampoline of an earlier move may lie behind them.
 */
#define TRACE_ERRAND_HEAD 16 /* of which 5 are always the same */
extern const uint8_t trace_errand_head[TRACE_ERRAND_HEAD]; /* what the code of migrate/borrow.c that is put there begins with */
/* The end of the vdso, TRACE_TAIL_BYTES of it: kept for the agent's last call, and from TRACE_TAIL_CONTINUE on for image/partial.h. */
#define TRACE_TAIL_BYTES 64
#define TRACE_TAIL_CONTINUE 12
int trace_find_tail(pid_t pid, uint64_t *ret_start, struct err *e);
int trace_find_gadget(pid_t pid, uint64_t *ret_syscall, size_t room_bytes, uint64_t *ret_room, struct err *e);

/*
 * One system call in a stopped thread, at `gadget`. Registers are left changed: the caller saves and restores them. Returns 0 and the
 * kernel's result in *ret_result.
 */
int trace_syscall(pid_t tid, uint64_t gadget, const struct user_regs_struct *base, const uint64_t call[7], int64_t *ret_result, struct err *e);
/* The same for a clone by a tracee with PTRACE_O_TRACECLONE; *ret_made: the new task's number as the caller sees it, in whatever pid namespace it is. */
int trace_clone(pid_t tid, uint64_t gadget, const struct user_regs_struct *base, const uint64_t call[7], pid_t *ret_made, struct err *e);
/* The new task of a stop that PTRACE_O_TRACECLONE has caused; 0: it was another stop. */
pid_t trace_event_task(pid_t tid, int status);

/* Points a stopped task at the stub with the given slot; it stays stopped. */
int trace_enter_stub(pid_t tid, const struct scratch *s, unsigned slot, const struct user_regs_struct *base, struct err *e);

/* Reads or writes the process's memory whatever its protections; mem_fd is /proc/PID/mem. */
int trace_peek(int mem_fd, uint64_t address, void *to, size_t len, struct err *e);
int trace_poke(int mem_fd, uint64_t address, const void *from, size_t len, struct err *e);

#endif
