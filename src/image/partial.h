/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial.h - calls that a stop has ended with a part of what they were to do
 *
 * A blocking write of more than a pipe, a stream socket or a terminal takes, and a receive with MSG_WAITALL, wait in the kernel with a part done. Whatever stops the thread makes them
 * return that part, which the program would not have seen. So the rest goes on: the thread continues in a few instructions behind the code of the vdso. They make the call for the
 * rest, add up, and go on behind the program's own call with the registers that it expects. What they need lies in a frame below the red zone, as that of a signal handler would.
 *
 * The part is left to the program where it would have seen it without a stop as well: a signal is about to be handled, or the call waits for a limited time only.
 */
#ifndef GODWIT_IMAGE_PARTIAL_H
#define GODWIT_IMAGE_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"

#define PARTIAL_CODE_BYTES 47
#define PARTIAL_FRAME_BYTES 32

extern const uint8_t partial_code[PARTIAL_CODE_BYTES];

/* By what the registers of a stopped thread say. Costs nothing. */
bool partial_may_be(const struct user_regs_struct *regs);
/* Whether it is to go on, by all else. *ret_code: where the code is, or can be put. pid, tid: as this process sees them. */
bool partial_is_one(pid_t pid, pid_t tid, const struct user_regs_struct *regs, uint64_t *ret_code);
/* Source: puts the code there. 0 or -errno. */
int partial_put_code(pid_t pid, uint64_t code);
/* Makes the registers those of the code. ret_frame is to be written into memory at regs->rsp. */
void partial_go_on(struct user_regs_struct *regs, uint64_t nr, uint64_t done, uint64_t code, uint64_t ret_frame[4]);

#endif
