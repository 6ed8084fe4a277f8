/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring_advance.c - brings the counts of a new io_uring to where those of the old one were; see uring.h
 *
 * The kernel counts for itself what it has taken from the ring of submissions and put into that of completions; what the memory says is only a copy. Nothing sets
 * these counts, so the new ring does as much as the old one has done, modulo 2^32: requests that do nothing (0.2 us each). Where completions alone are to be counted
 * (one request may have had many) another ring sends them (IORING_OP_MSG_RING); where submissions alone, requests without a completion, or, since those have a side
 * effect (uring.h: no_drain), entries of the array that refer to none.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/uring_internal.h"
#include "kern/fdpass.h"

#define LIST_CALLS 64u       /* calls in one list */
#define SENDER_ENTRIES 128u
#define DEFERRED_AT_ONCE 16u /* the kernel makes twenty in one call */
#define DROPS_MAX 65536u     /* each takes a call */

static struct uring_rings *rings_of(const struct uring_made *m)
{
	return (void *)m->memory;
}

static void write_nops(const Gw__Uring *ring, struct uring_made *m, uint8_t sqe_flags)
{
	size_t step = uring_sqe_bytes(ring->flags);
	uint32_t *array = (void *)(m->memory + m->array);

	memset(m->sqes, 0, m->sqes_bytes);
	for (uint32_t i = 0; i < ring->sq_entries; i++) {
		struct io_uring_sqe *sqe = (void *)(m->sqes + i * step);

		sqe->opcode = IORING_OP_NOP;
		sqe->flags = sqe_flags;
		if (!(ring->flags & SETUP_NO_SQARRAY))
			array[i] = i;
	}
}

static void plan_enter(struct batch *b, const struct uring_made *m, uint32_t n)
{
	batch_call(b, "io_uring_enter", SYS_io_uring_enter, m->number, n, 0, 0, 0, 0);
}

/* Adds a power of two to the count of completions that the program has taken: by the process itself, so that one list is enough for many rounds. */
static void plan_take(struct batch *b, const struct uring_made *m, uint32_t n)
{
	uint64_t word, op = (uint64_t)(FUTEX_OP_ADD | FUTEX_OP_OPARG_SHIFT) << 28 | (uint64_t)FUTEX_OP_CMP_EQ << 24 | (uint64_t)__builtin_ctz(n) << 12;

	batch_space(b, sizeof(uint32_t), &word);
	batch_call(b, "counting completions (futex)", SYS_futex, word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, m->mapped_at + offsetof(struct uring_rings, cq_head), op);
}

/* Requests that do nothing, `n` in all, each with a completion or none. */
static int submit(struct batch *b, const Gw__Uring *ring, struct uring_made *m, uint32_t n, bool completes, struct err *e)
{
	struct uring_rings *r = rings_of(m);
	uint32_t step = completes ? MIN(ring->sq_entries, ring->cq_entries) : ring->sq_entries;
	int ret = 0;

	write_nops(ring, m, completes ? 0 : IOSQE_CQE_SKIP_SUCCESS);
	__atomic_store_n(&r->sq_tail, r->sq_head + n, __ATOMIC_SEQ_CST);
	while (n && ret == 0) {
		uint32_t calls = 0;

		do {
			uint32_t now = MIN(n, step);

			plan_enter(b, m, now);
			n -= now;
			if (completes && m->mapped_at && now == step)
				plan_take(b, m, step);
			else if (completes)
				break;
		} while (n && ++calls < LIST_CALLS);
		ret = batch_run(b, e);
		batch_reset(b);
		__atomic_store_n(&r->cq_head, r->cq_tail, __ATOMIC_SEQ_CST);
	}
	return ret;
}

/* Entries that refer to nothing; each ends the call. */
static int drop(struct batch *b, const Gw__Uring *ring, struct uring_made *m, uint32_t n, struct err *e)
{
	uint32_t *array = (void *)(m->memory + m->array);
	struct uring_rings *r = rings_of(m);
	int ret = 0;

	if (n > DROPS_MAX || (ring->flags & SETUP_NO_SQARRAY))
		return err_set(e, -EOPNOTSUPP, "fd %u (io_uring): %u submissions without a completion, which nothing counts", ring->fd, n);
	memset(array, 0xff, ring->sq_entries * sizeof(*array));
	__atomic_store_n(&r->sq_tail, r->sq_head + n, __ATOMIC_SEQ_CST);
	while (n && ret == 0) {
		for (uint32_t i = 0; i < LIST_CALLS && n; i++, n--)
			batch_try(b, "io_uring_enter", SYS_io_uring_enter, m->number, 1, 0, 0, 0, 0);
		ret = batch_run(b, e);
		batch_reset(b);
	}
	return ret;
}

/* --- completions alone --- */

/* Another ring of the same thread, with entries that each send a completion to the first. */
struct sender {
	int number;
	uint8_t *memory, *sqes; /* here */
	size_t memory_bytes, sqes_bytes;
};

static void fill_sender(const struct sender *s, const struct io_uring_params *p, const struct uring_made *m)
{
	uint32_t *array = (void *)(s->memory + p->sq_off.array);

	for (uint32_t i = 0; i < p->sq_entries; i++) {
		((struct io_uring_sqe *)(void *)s->sqes)[i] = (struct io_uring_sqe){ .opcode = IORING_OP_MSG_RING, .fd = m->number, .flags = IOSQE_CQE_SKIP_SUCCESS };
		array[i] = i;
	}
}

static int map_sender(struct sender *s, int pidfd, struct err *e)
{
	cleanup_close int fd = pidfd_get(pidfd, s->number, e);

	if (fd < 0)
		return fd;
	s->memory = mmap(NULL, s->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)IORING_OFF_SQ_RING);
	s->sqes = mmap(NULL, s->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)IORING_OFF_SQES);
	return s->memory == MAP_FAILED || s->sqes == MAP_FAILED ? err_sys(e, -errno, "mapping an io_uring") : 0;
}

static int make_sender(struct batch *b, int pidfd, const struct uring_made *m, struct sender *s, struct err *e)
{
	struct io_uring_params *shared, params;
	struct remote_call *made;
	uint64_t at;
	int ret;

	shared = batch_space(b, sizeof(*shared), &at);
	made = batch_call(b, "io_uring_setup", SYS_io_uring_setup, SENDER_ENTRIES, at);
	ret = batch_run(b, e);
	params = *shared;
	s->number = (int)made->ret;
	batch_reset(b);
	if (ret < 0)
		return ret;
	s->memory_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
	s->sqes_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
	ret = map_sender(s, pidfd, e);
	if (ret == 0)
		fill_sender(s, &params, m);
	return ret;
}

static int close_sender(struct batch *b, const struct sender *s, int ret, struct err *e)
{
	if (s->memory && s->memory != MAP_FAILED)
		munmap(s->memory, s->memory_bytes);
	if (s->sqes && s->sqes != MAP_FAILED)
		munmap(s->sqes, s->sqes_bytes);
	if (s->number >= 0 && remote_do(b, ret < 0 ? NULL : e, "close", SYS_close, s->number) < 0 && ret == 0)
		ret = -EIO;
	return ret;
}

/* A ring whose completions its thread makes itself has them made when it looks for some. */
static void plan_send(struct batch *b, const Gw__Uring *ring, const struct uring_made *m, const struct sender *s, uint32_t n)
{
	batch_call(b, "io_uring_enter", SYS_io_uring_enter, s->number, n, 0, 0, 0, 0);
	if (ring->flags & IORING_SETUP_DEFER_TASKRUN)
		batch_call(b, "io_uring_enter", SYS_io_uring_enter, m->number, 0, 0, IORING_ENTER_GETEVENTS, 0, 0);
}

static int send(struct batch *b, const Gw__Uring *ring, struct uring_made *m, const struct sender *s, uint32_t n, struct err *e)
{
	uint32_t step = MIN(ring->flags & IORING_SETUP_DEFER_TASKRUN ? DEFERRED_AT_ONCE : SENDER_ENTRIES, ring->cq_entries);
	struct uring_rings *from = (void *)s->memory, *r = rings_of(m);
	int ret = 0;

	while (n && ret == 0) {
		uint32_t calls = 0, sent = 0;

		do {
			uint32_t now = MIN(n, step);

			plan_send(b, ring, m, s, now);
			n -= now;
			sent += now;
			if (m->mapped_at && now == step)
				plan_take(b, m, step);
			else
				break;
		} while (n && ++calls < LIST_CALLS / 2);
		__atomic_store_n(&from->sq_tail, from->sq_head + sent, __ATOMIC_SEQ_CST);
		ret = batch_run(b, e);
		batch_reset(b);
		__atomic_store_n(&r->cq_head, r->cq_tail, __ATOMIC_SEQ_CST);
	}
	return ret;
}

static int complete(struct batch *b, int pidfd, const Gw__Uring *ring, struct uring_made *m, uint32_t n, struct err *e)
{
	struct sender s = { .number = -1 };
	int ret = make_sender(b, pidfd, m, &s, e);

	if (ret == 0)
		ret = send(b, ring, m, &s, n, e);
	return close_sender(b, &s, ret, e);
}

int uring_advance(struct batch *b, int pidfd, const Gw__Uring *ring, struct uring_counts to, struct uring_made *m, struct err *e)
{
	struct uring_rings *r = rings_of(m);
	uint32_t sq = to.sq_head - r->sq_head, cq = to.cq_tail - r->cq_tail, both = MIN(sq, cq);
	int ret = 0;

	if (both)
		ret = submit(b, ring, m, both, true, e);
	if (ret == 0 && cq > both)
		ret = complete(b, pidfd, ring, m, cq - both, e);
	if (ret == 0 && sq > both)
		ret = ring->no_drain ? submit(b, ring, m, sq - both, false, e) : drop(b, ring, m, sq - both, e);
	if (ret == 0 && (r->sq_head != to.sq_head || r->cq_tail != to.cq_tail))
		ret = err_set(e, -EIO, "fd %u (io_uring): stands at %u and %u instead of %u and %u", ring->fd, r->sq_head, r->cq_tail, to.sq_head,
			      to.cq_tail);
	return ret;
}
