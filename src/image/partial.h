/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial.h - calls that a stop has ended with a part of what they were to do
 *
 * A blocking write of more than a pipe, a stream socket or a terminal takes (write, writev, sendto, sendmsg, sendfile) and a receive with MSG_WAITALL (recvfrom, recvmsg) wait in the
 * kernel with a part done; getrandom and a read of /dev/zero, /dev/random or /dev/urandom work for long. Whatever stops the thread makes them return that part, which the program would
 * not have seen. So the rest goes on: the thread continues in a few instructions behind the code of the vdso. They make the call for the rest, add up, and go on behind the program's own
 * call with the registers that it expects. What they need lies in a frame below the red zone, as that of a signal handler would; what is left of an array of buffers lies behind it.
 *
 * The part is left to the program where it would have seen it without a stop as well: a signal is about to be handled, or the call waits for a limited time only; and where the rest
 * cannot be told from what has been done: control messages of which nobody knows whether they are still to come or to go, and more than PARTIAL_BUFFERS buffers.
 */
#ifndef GODWIT_IMAGE_PARTIAL_H
#define GODWIT_IMAGE_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "base/err.h"

#define PARTIAL_CODE_BYTES 32
#define PARTIAL_BUFFERS 64
#define PARTIAL_FRAME_BYTES (64 + sizeof(struct msghdr) + PARTIAL_BUFFERS * sizeof(struct iovec))

extern const uint8_t partial_code[PARTIAL_CODE_BYTES];

/* What a call is to go on with. */
struct partial {
	uint64_t nr, done;
	uint64_t code; /* where it is, or can be put */
	struct iovec buffers[PARTIAL_BUFFERS]; /* of writev, sendmsg and recvmsg: those that are left, the first one perhaps in part */
	size_t n_buffers;
};

/* By what the registers of a stopped thread say. Costs nothing. */
bool partial_may_be(const struct user_regs_struct *regs);
/* Whether it is to go on, by all else. pid, tid: as this process sees them. */
bool partial_is_one(pid_t pid, pid_t tid, const struct user_regs_struct *regs, struct partial *ret);
/* Source: puts the code there. 0 or -errno. */
int partial_put_code(pid_t pid, uint64_t code);
/* Makes the registers those of the code. The frame, whose length is returned, is to be written into memory at regs->rsp. */
size_t partial_go_on(struct user_regs_struct *regs, const struct partial *p, uint8_t ret_frame[PARTIAL_FRAME_BYTES]);

#endif
