/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring_resume.c - requests that were in flight are submitted again, at the destination; see uring.h
 *
 * By the thread that had submitted them, since they end with it. The ring's counts have been left so far behind that they are right afterwards; its memory is as it
 * was at the source, but for the places that the requests go through, which get their contents back.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/uring_internal.h"

#define NS_PER_S 1000000000ull

static uint64_t process_now(const struct uring_clocks *c, uint32_t clock)
{
	return uring_host_to_process(c, clock, clock_ns((clockid_t)clock));
}

/* Of the real clock the time itself is meant, of others how long it is until then. */
static void fill_timeout(struct batch *b, const struct uring_clocks *c, const Gw__UringRequest *r, struct io_uring_sqe *sqe)
{
	uint64_t now = process_now(c, r->clock), ns = r->expires_ns;
	int64_t spec[2];

	sqe->timeout_flags = r->operation_flags;
	if (r->clock != CLOCK_REALTIME || !(r->operation_flags & IORING_TIMEOUT_ABS)) {
		sqe->timeout_flags &= ~(uint32_t)IORING_TIMEOUT_ABS;
		ns = ns > now ? ns - now : 0;
	}
	spec[0] = (int64_t)(ns / NS_PER_S);
	spec[1] = (int64_t)(ns % NS_PER_S);
	sqe->addr = batch_data(b, spec, sizeof(spec));
	sqe->len = 1;
	sqe->off = r->offset;
	sqe->fd = -1;
}

static void fill_poll(const Gw__UringRequest *r, struct io_uring_sqe *sqe)
{
	sqe->poll32_events = r->events & ~(uint32_t)(EPOLLONESHOT | EPOLLET);
	sqe->len = (r->events & EPOLLONESHOT ? 0 : IORING_POLL_ADD_MULTI) | (r->events & EPOLLET ? 0 : POLL_ADD_LEVEL);
}

static void fill_accept(const Gw__UringRequest *r, struct io_uring_sqe *sqe)
{
	sqe->addr = r->address;
	sqe->addr2 = r->address2;
	sqe->accept_flags = r->operation_flags;
	sqe->ioprio = (uint16_t)r->ioprio;
	sqe->file_index = r->place;
}

static void fill_sqe(struct batch *b, const struct uring_clocks *c, const Gw__UringRequest *r, struct io_uring_sqe *sqe)
{
	sqe->opcode = (uint8_t)r->opcode;
	sqe->flags = (uint8_t)r->flags;
	sqe->fd = r->fd;
	sqe->user_data = r->data;
	switch (r->opcode) {
	case IORING_OP_TIMEOUT:
		fill_timeout(b, c, r, sqe);
		break;
	case IORING_OP_POLL_ADD:
		fill_poll(r, sqe);
		break;
	case IORING_OP_ACCEPT:
		fill_accept(r, sqe);
		break;
	default:
		sqe->addr = r->address;
		sqe->len = r->len;
		sqe->off = r->offset;
		sqe->rw_flags = (int32_t)r->operation_flags;
		sqe->ioprio = (uint16_t)r->ioprio;
	}
}

/* Puts a request at the next place. */
static void put(struct batch *b, const struct uring_clocks *c, const Gw__Uring *ring, const Gw__UringRequest *r, struct uring_made *m, uint32_t tail)
{
	size_t step = uring_sqe_bytes(ring->flags);
	uint32_t at = tail & (ring->sq_entries - 1), *array = (void *)(m->memory + m->array);
	struct io_uring_sqe *sqe = (void *)(m->sqes + at * step);

	memset(sqe, 0, step);
	fill_sqe(b, c, r, sqe);
	if (!(ring->flags & SETUP_NO_SQARRAY))
		array[at] = at;
}

/* As many as one thread has submitted one after the other, and the ring has places for. */
static size_t count_run(const Gw__Uring *ring, size_t from)
{
	size_t n = 1;

	while (from + n < ring->n_requests && n < ring->sq_entries && ring->requests[from + n]->tid == ring->requests[from]->tid)
		n++;
	return n;
}

static int submit_run(const struct uring_skeleton *s, const Gw__Uring *ring, size_t from, size_t n, struct uring_made *m, struct err *e)
{
	struct uring_rings *r = (void *)m->memory;
	struct batch *b = s->thread(s->arg, (pid_t)ring->requests[from]->tid);
	struct remote_call *call;
	uint32_t tail = r->sq_head;
	int ret;

	if (!b)
		return err_set(e, -EBADMSG, "fd %u (io_uring): thread %u, which waits for something with it, does not exist", ring->fd, ring->requests[from]->tid);
	for (size_t i = 0; i < n; i++)
		put(b, &s->clocks, ring, ring->requests[from + i], m, tail++);
	__atomic_store_n(&r->sq_tail, tail, __ATOMIC_SEQ_CST);
	call = batch_call(b, "io_uring_enter", SYS_io_uring_enter, ring->fd, n, 0, 0, 0, 0);
	ret = batch_run(b, e);
	if (ret == 0 && (size_t)call->ret != n)
		ret = err_set(e, -EIO, "fd %u (io_uring): %lld of %zu requests (the first is %s) could be submitted again", ring->fd, (long long)call->ret, n,
			      uring_operation_name(ring->requests[from]->opcode));
	batch_reset(b);
	return ret;
}

int uring_resume(const struct uring_skeleton *s, const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	struct uring_rings *r = (void *)m->memory, *base = (void *)m->base_memory;
	int ret = 0;

	for (size_t done = 0, n; done < ring->n_requests && ret == 0; done += n) {
		n = count_run(ring, done);
		ret = submit_run(s, ring, done, n, m, e);
	}
	if (ret == 0 && r->sq_head != ring->sq_head)
		ret = err_set(e, -EIO, "fd %u (io_uring): stands at %u instead of %u", ring->fd, r->sq_head, ring->sq_head);
	if (!(ring->flags & SETUP_NO_SQARRAY))
		memcpy(m->memory + m->array, m->base_memory + m->array, ring->sq_entries * sizeof(uint32_t));
	memcpy(m->sqes, m->base_sqes, m->sqes_bytes);
	r->sq_tail = base->sq_tail;
	return ret;
}
