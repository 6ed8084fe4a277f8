/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * borrow.h - a thread of a running process runs system calls for the worker, and goes on as it was
 *
 * A thread of the process, stopped to run system calls for us. When this worker dies meanwhile, the kernel lets the thread go on with whatever registers it
 * has; so it is pointed at code (the "errand", in the unused end of the vdso) that runs the one call and then by itself restores the signal mask and all
 * registers that a system call changes, and goes on where the program was. A child made by a clone ends there, and is reaped.
 */
#ifndef GODWIT_MIGRATE_BORROW_H
#define GODWIT_MIGRATE_BORROW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"
#include "kern/restart_block.h"

#define ERRAND_BYTES 192u /* room for the errand */

struct borrowed {
	pid_t tid;
	int mem;
	bool masked, filtered, held; /* held: it stays stopped afterwards (hold.h) */
	pid_t made; /* the task that it has cloned last, as the worker sees it */
	uint64_t errand, mask;
	struct user_regs_struct regs; /* what it goes on with */
};

/* Stops the thread that is least disturbed by it. `errand`: where ERRAND_BYTES of the vdso are free. `watch` may be NULL. */
int borrow_thread(pid_t pid, uint64_t errand, struct restart_watch *watch, struct borrowed *ret, struct err *e);

/* Runs {number, arguments}. The result, which may be an error of the call's, is *ret_result. */
int borrow_call(struct borrowed *b, const uint64_t call[7], int64_t *ret_result, struct err *e);

/* Lets it go; also after a failure of borrow_call. */
int borrow_return(struct borrowed *b, struct err *e);

/* Lets a thread that has been stopped go on with what it did: a call that the stop has ended is gone on with. `signal`: by which its process was stopped, SIGTRAP: by none. */
void borrow_let_go(pid_t pid, pid_t tid, int signal);

/* Where it is in its code, by a short stop. 0: it has ended. */
uint64_t borrow_ask_where(pid_t pid, pid_t tid);

/* Stops one thread, has it run `call`, and lets it go as it was. */
int borrow_for_call(pid_t pid, uint64_t errand, const uint64_t call[7], int64_t *ret_result, struct err *e);

#endif
