/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uring_internal.h - what the uring_*.c files share: io_uring.h of newer kernels, and the layout of the memory of a ring */
#ifndef GODWIT_IMAGE_URING_INTERNAL_H
#define GODWIT_IMAGE_URING_INTERNAL_H

#include <fcntl.h>
#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>

#include "image/uring.h"
#include "kern/uring_record.h"

#define TIMEOUT_MULTISHOT (1u << 6)
#define POLL_ADD_LEVEL (1u << 3)
#define RECVSEND_FIXED_BUFFER 4u
#define RECVSEND_FLAGS 0x3fu /* of ioprio; the others are the kernel's own */
#define SETUP_NO_MMAP (1u << 14)
#define SETUP_REGISTERED_FD_ONLY (1u << 15)
#define SETUP_NO_SQARRAY (1u << 16)
#define SETUP_HYBRID_IOPOLL (1u << 17)
#define URING_FLAGS_ALLOWED                                                                                                                                  \
	(IORING_SETUP_IOPOLL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | \
	 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |             \
	 SETUP_NO_SQARRAY | SETUP_HYBRID_IOPOLL)

#define URING_OPEN_FLAGS ((uint32_t)(O_APPEND | O_NONBLOCK)) /* that the program may have changed, without effect */
#define URINGS_MAX 4096u
#define URING_ENTRIES_SQ_MAX 32768u
#define URING_ENTRIES_CQ_MAX 65536u
#define URING_FILES_MAX (1u << 20)
#define URING_BUFFERS_MAX (1u << 14)
#define URING_RING_FDS 16u

/* The memory at IORING_OFF_SQ_RING; completions follow, and behind them the array of submissions. */
struct uring_rings {
	uint32_t sq_head, sq_tail, cq_head, cq_tail;
	uint32_t sq_mask, cq_mask, sq_entries, cq_entries;
	uint32_t sq_dropped, sq_flags, cq_flags, cq_overflow;
	uint32_t unused[4];
};

_Static_assert(sizeof(struct uring_rings) == 64 && sizeof(struct io_uring_sqe) == 64, "io_uring.h");

static inline size_t uring_sqe_bytes(uint32_t flags)
{
	return flags & IORING_SETUP_SQE128 ? 128 : 64;
}

static inline size_t uring_cqe_bytes(uint32_t flags)
{
	return flags & IORING_SETUP_CQE32 ? 32 : 16;
}

/* Applies patches to `to`, of `len` bytes; false: they do not fit. */
bool uring_patch(Gw__UringPatch *const *patches, size_t n, uint8_t *to, size_t len);

/* --- uring_flight.c --- */

const char *uring_operation_name(unsigned opcode);
bool uring_operation_is_known(unsigned opcode);
/* Why it cannot be submitted again; NULL: it can. */
const char *uring_flight_obstacle(const struct uring_request *r);
Gw__UringRequest *uring_flight_add(Gw__Uring *ring, const struct uring_request *r, const struct uring_clocks *clocks);
int uring_flight_validate(const Gw__Uring *ring, struct err *e);
/* A time of this host on the process's clock. */
uint64_t uring_host_to_process(const struct uring_clocks *c, uint32_t clock, uint64_t ns);

/* --- destination --- */

struct uring_made {
	int number;          /* in the process */
	uint32_t array;      /* where in `memory` the array of submissions begins */
	uint64_t mapped_at;  /* where the process has `memory`, to be written; 0: nowhere */
	uint8_t *memory, *sqes; /* here, shared with the process */
	size_t memory_bytes, sqes_bytes;
	uint8_t *base_memory, *base_sqes; /* as in the offer */
};

struct uring_set {
	struct uring_made *v;
	size_t n;
};

/* The list of the thread that may submit. */
struct batch *uring_batch(const struct uring_skeleton *s, const Gw__Uring *ring, struct err *e);
struct uring_counts {
	uint32_t sq_head, cq_tail;
};

/* uring_advance.c: brings the kernel's counts to these. Writes all over the ring's memory. */
int uring_advance(struct batch *b, int pidfd, const Gw__Uring *ring, struct uring_counts to, struct uring_made *m, struct err *e);
/* uring_resume.c: submits what was in flight, when the memory is as at the source and all is registered. */
int uring_resume(const struct uring_skeleton *s, const Gw__Uring *ring, struct uring_made *m, struct err *e);

#endif
