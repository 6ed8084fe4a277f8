/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uring_fill.c - io_urings at the destination, in the freeze: counts, memory, what is registered; see uring.h */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/uring_internal.h"

#define REGISTER_FILE_ALLOC_RANGE 25u
#define REGISTER_CLOCK 29u
#define RSRC_REGISTER_SPARSE 1u
#define SLOTS_AT_ONCE 512u

/* Bits of sq_flags that the kernel of here keeps; see io_uring_enter(2). */
#define LIVE_FLAGS (IORING_SQ_NEED_WAKEUP | IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)

static int fill_one(const struct uring_skeleton *s, const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	struct uring_rings *r = (void *)m->memory;
	struct batch *b = uring_batch(s, ring, e);
	uint32_t flags, head = ring->sq_head - (uint32_t)ring->n_requests;
	int ret;

	if (!b)
		return -EBADMSG;
	ret = uring_advance(b, s->pidfd, ring, (struct uring_counts){ head, ring->cq_tail }, m, e);
	if (ret < 0)
		return ret;
	flags = r->sq_flags;
	if (!uring_patch(ring->ring, ring->n_ring, m->base_memory, m->memory_bytes) || !uring_patch(ring->sqes, ring->n_sqes, m->base_sqes, m->sqes_bytes))
		return err_set(e, -EBADMSG, "io_uring %u: memory outside of it", ring->fd);
	memcpy(m->memory, m->base_memory, m->memory_bytes);
	memcpy(m->sqes, m->base_sqes, m->sqes_bytes);
	r->sq_flags = (r->sq_flags & ~LIVE_FLAGS) | (flags & LIVE_FLAGS);
	r->sq_head = head;
	if (ring->n_requests)
		r->sq_tail = head; /* see uring_resume */
	r->cq_tail = ring->cq_tail;
	return 0;
}

int uring_fill(const struct uring_skeleton *s, const Gw__Process *msg, struct uring_set *set, struct err *e)
{
	int ret = msg->n_urings == (set ? set->n : 0) ? 0 : err_set(e, -EBADMSG, "other io_urings than in the offer");

	for (size_t i = 0; i < msg->n_urings && ret == 0; i++)
		ret = fill_one(s, msg->urings[i], &set->v[i], e);
	return ret;
}

/* --- what is registered --- */

static int do_register(struct batch *b, const Gw__Uring *ring, const char *what, unsigned opcode, uint64_t argument, unsigned n, struct err *e)
{
	int ret;

	batch_call(b, what, SYS_io_uring_register, ring->fd, opcode, argument, n);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret < 0 ? err_wrap(e, "fd %u (io_uring)", ring->fd) : 0;
}

static int register_table(struct batch *b, const Gw__Uring *ring, bool files, struct err *e)
{
	struct io_uring_rsrc_register table = { .nr = files ? ring->file_places : ring->buffer_places, .flags = RSRC_REGISTER_SPARSE };

	if (!table.nr)
		return 0;
	return do_register(b, ring, files ? "IORING_REGISTER_FILES2" : "IORING_REGISTER_BUFFERS2", files ? IORING_REGISTER_FILES2 : IORING_REGISTER_BUFFERS2,
			   batch_data(b, &table, sizeof(table)), sizeof(table), e);
}

/* As many as follow each other. */
static size_t count_run(Gw__UringSlot *const *v, size_t n)
{
	size_t run = 1;

	while (run < n && run < SLOTS_AT_ONCE && v[run]->index == v[0]->index + run)
		run++;
	return run;
}

static int register_run(struct batch *b, const Gw__Uring *ring, Gw__UringSlot *const *v, size_t n, bool files, struct err *e)
{
	struct io_uring_rsrc_update2 update = { .offset = v[0]->index, .nr = (uint32_t)n };
	uint64_t data_at, tags_at;
	uint64_t *tags = batch_space(b, n * sizeof(*tags), &tags_at);
	void *data = batch_space(b, n * (files ? sizeof(int) : sizeof(struct iovec)), &data_at);

	for (size_t i = 0; i < n; i++) {
		tags[i] = v[i]->tag;
		if (files)
			((int *)data)[i] = (int)v[i]->fd;
		else
			((struct iovec *)data)[i] = (struct iovec){ (void *)(uintptr_t)v[i]->address, v[i]->len };
	}
	update.data = data_at;
	update.tags = tags_at;
	return do_register(b, ring, files ? "IORING_REGISTER_FILES_UPDATE2" : "IORING_REGISTER_BUFFERS_UPDATE",
			   files ? IORING_REGISTER_FILES_UPDATE2 : IORING_REGISTER_BUFFERS_UPDATE, batch_data(b, &update, sizeof(update)), sizeof(update), e);
}

static int register_slots(struct batch *b, const Gw__Uring *ring, Gw__UringSlot *const *v, size_t n, bool files, struct err *e)
{
	int ret = register_table(b, ring, files, e);

	for (size_t done = 0, run; done < n && ret == 0; done += run) {
		run = count_run(v + done, n - done);
		ret = register_run(b, ring, v + done, run, files, e);
	}
	return ret;
}

/* Where the kernel puts files for which the program names no place; all of the table unless it was said. */
static int register_range(struct batch *b, const Gw__Uring *ring, struct err *e)
{
	struct io_uring_file_index_range range = { .off = ring->file_alloc_start, .len = ring->file_alloc_end - ring->file_alloc_start };

	if (!ring->file_places || (!range.off && range.len == ring->file_places))
		return 0;
	return do_register(b, ring, "IORING_REGISTER_FILE_ALLOC_RANGE", REGISTER_FILE_ALLOC_RANGE, batch_data(b, &range, sizeof(range)), 0, e);
}

static int register_eventfd(struct batch *b, const Gw__Uring *ring, struct err *e)
{
	int32_t fd = (int32_t)ring->eventfd_plus_1 - 1;

	if (fd < 0)
		return 0;
	return do_register(b, ring, "IORING_REGISTER_EVENTFD", ring->eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC : IORING_REGISTER_EVENTFD,
			   batch_data(b, &fd, sizeof(fd)), 1, e);
}

static int register_limits(struct batch *b, const Gw__Uring *ring, struct err *e)
{
	uint32_t limits[2] = { ring->worker_limits[0], ring->worker_limits[1] };

	if (!limits[0] && !limits[1])
		return 0;
	return do_register(b, ring, "IORING_REGISTER_IOWQ_MAX_WORKERS", IORING_REGISTER_IOWQ_MAX_WORKERS, batch_data(b, limits, sizeof(limits)), 2, e);
}

static int register_clock(struct batch *b, const Gw__Uring *ring, struct err *e)
{
	uint32_t clock[4] = { ring->clock };

	return ring->clock == CLOCK_MONOTONIC ? 0 : do_register(b, ring, "IORING_REGISTER_CLOCK", REGISTER_CLOCK, batch_data(b, clock, sizeof(clock)), 0, e);
}

/* Of each thread that knows the ring by a number of its own. */
static int register_rings(const struct uring_skeleton *s, const Gw__Uring *ring, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < ring->n_registered && ret == 0; i++) {
		struct io_uring_rsrc_update update = { .offset = ring->registered[i]->index, .data = ring->fd };
		struct batch *b = s->thread(s->arg, (pid_t)ring->registered[i]->tid);

		if (!b)
			return err_set(e, -EBADMSG, "fd %u (io_uring): registered by thread %u, which does not exist", ring->fd, ring->registered[i]->tid);
		ret = do_register(b, ring, "IORING_REGISTER_RING_FDS", IORING_REGISTER_RING_FDS, batch_data(b, &update, sizeof(update)), 1, e);
	}
	return ret;
}

static int register_one(const struct uring_skeleton *s, const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	struct batch *b = uring_batch(s, ring, e);
	int ret = b ? register_slots(b, ring, ring->files, ring->n_files, true, e) : -EBADMSG;

	if (ret == 0)
		ret = register_range(b, ring, e);
	if (ret == 0)
		ret = register_slots(b, ring, ring->buffers, ring->n_buffers, false, e);
	if (ret == 0)
		ret = register_limits(b, ring, e);
	if (ret == 0)
		ret = register_clock(b, ring, e);
	if (ret == 0 && ring->open_flags)
		ret = MIN((int)remote_do(b, e, "F_SETFL", SYS_fcntl, ring->fd, F_SETFL, ring->open_flags), 0);
	if (ret == 0)
		ret = register_rings(s, ring, e);
	if (ret == 0)
		ret = register_eventfd(b, ring, e);
	return ret < 0 || !ring->n_requests ? ret : uring_resume(s, ring, m, e);
}

int uring_register(const struct uring_skeleton *s, const Gw__Process *msg, struct uring_set *set, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < msg->n_urings && set && ret == 0; i++)
		ret = register_one(s, msg->urings[i], &set->v[i], e);
	return ret;
}
