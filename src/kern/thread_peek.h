/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thread_peek.h - reading all threads of a process at once, by BPF: registers, processor state, and what the kernel keeps for them
 *
 * Load once, before the process is forked from in which it is used; attach per process. Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel.
 */
#ifndef GODWIT_KERN_THREAD_PEEK_H
#define GODWIT_KERN_THREAD_PEEK_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/thread_record.h"

/* The program's descriptor, which a forked child must not close; negative: it cannot be loaded here. */
int thread_peek_load(struct err *e);

/* The threads of one process. { .next_fd = -1 } is an empty one. */
struct thread_peek {
	int next_fd;       /* an iteration that is ready */
	unsigned char *buffer;
	size_t room, len;
	const struct thread_record **v;
	size_t n, max;
};

/* Room for so many threads, touched. */
int thread_peek_open(struct thread_peek *t, pid_t pid, size_t threads, struct err *e);
/* Reads; one after each thread_peek_open or thread_peek_again. What does not fit is left out: see thread_peek_find. */
int thread_peek_read(struct thread_peek *t, struct err *e);
int thread_peek_again(struct thread_peek *t, pid_t pid, struct err *e);
void thread_peek_close(struct thread_peek *t);
/* near: where it is, mostly. NULL: not known. */
const struct thread_record *thread_peek_find(const struct thread_peek *t, pid_t tid, size_t near);

static inline const unsigned char *thread_record_xstate(const struct thread_record *r)
{
	return (const unsigned char *)(r + 1);
}

#endif
