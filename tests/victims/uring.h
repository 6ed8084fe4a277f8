/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uring.h - a ring of io_uring, by its system calls only */
#ifndef GODWIT_VICTIM_URING_H
#define GODWIT_VICTIM_URING_H

#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
	int fd;
	struct io_uring_params p;
	uint8_t *memory, *sqes;
	size_t memory_bytes, sqes_bytes;
	uint32_t sq_tail, cq_head; /* as the program counts */
};

void ring_open(struct ring *r, unsigned entries, unsigned cq_entries, unsigned flags);
void ring_close(struct ring *r);
/* A word of the shared memory, at one of the offsets in p. */
uint32_t ring_word(const struct ring *r, uint32_t offset);
/* A place for a request, cleared; submitted by ring_submit. */
struct io_uring_sqe *ring_next(struct ring *r);
/* Tells the kernel of all new requests and waits for `wait` completions. */
int ring_submit(struct ring *r, unsigned wait);
/* Takes a completion if there is one. */
int ring_take(struct ring *r, struct io_uring_cqe *ret);
/* Waits for it. */
void ring_expect(struct ring *r, uint64_t data, int32_t result);
/* That the kernel's and the program's counts agree. */
void ring_check_counts(const struct ring *r);

#endif
