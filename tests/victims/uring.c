// SPDX-License-Identifier: GPL-2.0-or-later
/* uring.c - victims with io_urings: how far they are, what lies in them, what is registered, and work that goes on */
#include "uring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "victim.h"

#define SETUP_NO_SQARRAY (1u << 16)

static void *map_ring(const struct ring *r, size_t len, uint64_t offset)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, (off_t)offset);

	must(at != MAP_FAILED);
	return at;
}

void ring_open(struct ring *r, unsigned entries, unsigned cq_entries, unsigned flags)
{
	memset(r, 0, sizeof(*r));
	r->p.flags = flags | (cq_entries ? IORING_SETUP_CQSIZE : 0);
	r->p.cq_entries = cq_entries;
	r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->p);
	must(r->fd >= 0);
	r->memory_bytes = r->p.cq_off.cqes + r->p.cq_entries * (flags & IORING_SETUP_CQE32 ? 32ul : 16ul);
	if (!(flags & SETUP_NO_SQARRAY))
		r->memory_bytes = r->p.sq_off.array + r->p.sq_entries * 4ul;
	r->sqes_bytes = r->p.sq_entries * (flags & IORING_SETUP_SQE128 ? 128ul : 64ul);
	r->memory = map_ring(r, r->memory_bytes, IORING_OFF_SQ_RING);
	r->sqes = map_ring(r, r->sqes_bytes, IORING_OFF_SQES);
}

void ring_close(struct ring *r)
{
	expect(!munmap(r->memory, r->memory_bytes) && !munmap(r->sqes, r->sqes_bytes) && !close(r->fd));
}

static uint32_t *word(const struct ring *r, uint32_t offset)
{
	return (uint32_t *)(void *)(r->memory + offset);
}

uint32_t ring_word(const struct ring *r, uint32_t offset)
{
	return __atomic_load_n(word(r, offset), __ATOMIC_ACQUIRE);
}

struct io_uring_sqe *ring_next(struct ring *r)
{
	uint32_t at = r->sq_tail & (r->p.sq_entries - 1);
	struct io_uring_sqe *sqe = (void *)(r->sqes + at * (r->p.flags & IORING_SETUP_SQE128 ? 128ul : 64ul));

	if (r->sq_tail - ring_word(r, r->p.sq_off.head) >= r->p.sq_entries) {
		fail("a ring of %u submissions is full: head %u, tail %u", r->p.sq_entries, ring_word(r, r->p.sq_off.head), r->sq_tail);
		exit(1);
	}
	memset(sqe, 0, sizeof(*sqe));
	if (!(r->p.flags & SETUP_NO_SQARRAY))
		word(r, r->p.sq_off.array)[at] = at;
	r->sq_tail++;
	return sqe;
}

int ring_submit(struct ring *r, unsigned wait)
{
	uint32_t n = r->sq_tail - ring_word(r, r->p.sq_off.tail);
	long ret;

	__atomic_store_n(word(r, r->p.sq_off.tail), r->sq_tail, __ATOMIC_RELEASE);
	do
		ret = syscall(SYS_io_uring_enter, r->fd, n, wait, wait || (r->p.flags & IORING_SETUP_DEFER_TASKRUN) ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
	while (0);
	if (ret < 0)
		fail("io_uring_enter: errno %d", errno);
	return (int)ret;
}

int ring_take(struct ring *r, struct io_uring_cqe *ret)
{
	size_t step = r->p.flags & IORING_SETUP_CQE32 ? 32 : 16;

	if (r->cq_head == ring_word(r, r->p.cq_off.tail))
		return 0;
	memcpy(ret, r->memory + r->p.cq_off.cqes + (r->cq_head & (r->p.cq_entries - 1)) * step, sizeof(*ret));
	__atomic_store_n(word(r, r->p.cq_off.head), ++r->cq_head, __ATOMIC_RELEASE);
	return 1;
}

void ring_expect(struct ring *r, uint64_t data, int32_t result)
{
	struct io_uring_cqe cqe = { 0 };

	while (!failed() && !ring_take(r, &cqe))
		ring_submit(r, 1);
	expect_u64("data of a completion", data, cqe.user_data);
	if (cqe.res != result)
		fail("its result, expected %d, got %d", result, cqe.res);
}

void ring_check_counts(const struct ring *r)
{
	expect_u64("submissions taken", r->sq_tail, ring_word(r, r->p.sq_off.head));
	expect_u64("submissions made", r->sq_tail, ring_word(r, r->p.sq_off.tail));
	expect_u64("completions taken", r->cq_head, ring_word(r, r->p.cq_off.head));
}

static void submit_nop(struct ring *r, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_next(r);

	sqe->opcode = IORING_OP_NOP;
	sqe->user_data = data;
}

/* --- rings of all kinds that rest --- */

#define WAITING 11

static struct ring plain, odd, large, own, wide, listless;
static uint8_t content[6][4096];

static void pass(struct ring *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		submit_nop(r, i);
		ring_submit(r, 1);
		ring_expect(r, i, 0);
	}
}

/* Completions that wait, and a submission that the kernel has not been told of. */
static void leave_some(struct ring *r)
{
	for (unsigned i = 0; i < WAITING; i++) {
		submit_nop(r, 1000 + i);
		ring_submit(r, 0);
	}
	submit_nop(r, 2000);
}

static struct ring *all[] = { &plain, &odd, &large, &own, &wide, &listless };

static void rest_setup(void)
{
	ring_open(&plain, 16, 0, 0);
	ring_open(&odd, 8, 128, IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL);
	ring_open(&large, 4096, 0, IORING_SETUP_COOP_TASKRUN);
	ring_open(&own, 32, 0, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	ring_open(&wide, 16, 0, IORING_SETUP_SQE128 | IORING_SETUP_CQE32);
	ring_open(&listless, 16, 0, SETUP_NO_SQARRAY);
	expect(!madvise(large.memory, large.memory_bytes, MADV_DONTFORK));
	pass(&plain, 300);
	pass(&odd, 5);
	pass(&large, 20000);
	pass(&own, 1);
	pass(&wide, 77);
	pass(&listless, 33);
	for (size_t i = 0; i < 6; i++)
		leave_some(all[i]);
	for (size_t i = 0; i < 6; i++)
		memcpy(content[i], all[i]->memory, 512);
}

static void rest_check(void)
{
	char line[512];
	FILE *maps;
	int seen = 0;

	for (size_t i = 0; i < 6; i++) {
		if (memcmp(content[i], all[i]->memory, 512) != 0)
			fail("the memory of ring %zu is not what it was", i);
		for (unsigned k = 0; k < WAITING; k++)
			ring_expect(all[i], 1000 + k, 0);
		ring_submit(all[i], 1);
		ring_expect(all[i], 2000, 0);
		pass(all[i], 500);
		ring_check_counts(all[i]);
	}
	maps = fopen("/proc/self/maps", "re");
	must(maps);
	while (fgets(line, sizeof(line), maps))
		seen += strstr(line, "anon_inode:[io_uring]") != NULL;
	fclose(maps);
	expect_u64("mappings of rings", 12, (uint64_t)seen);
	for (size_t i = 0; i < 6; i++)
		ring_close(all[i]);
}

VICTIM(uring_rest, 0, rest_setup, NULL, rest_check);

/* --- what is registered --- */

#define BUFFER 65536

static struct ring reg;
static int files[3], event, watch;
static char *buffer[2];

static int do_register(struct ring *r, unsigned opcode, const void *arg, unsigned n)
{
	return (int)syscall(SYS_io_uring_register, r->fd, opcode, arg, n);
}

static void registered_setup(void)
{
	struct io_uring_rsrc_update self = { .offset = -1u };
	int32_t list[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	struct iovec buffers[2];
	unsigned limits[2] = { 3, 5 };

	ring_open(&reg, 16, 0, 0);
	for (int i = 0; i < 3; i++) {
		char name[32];

		snprintf(name, sizeof(name), "uring-%d", i);
		list[2 * i + 1] = files[i] = open(beside(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		must(files[i] >= 0);
	}
	event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	watch = epoll_create1(EPOLL_CLOEXEC);
	must(!do_register(&reg, IORING_REGISTER_FILES, list, 8) && !do_register(&reg, IORING_REGISTER_EVENTFD, &event, 1));
	must(do_register(&reg, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2) == 0);
	for (int i = 0; i < 2; i++) {
		buffer[i] = map_anon(BUFFER, PROT_READ | PROT_WRITE, 0);
		fill(buffer[i], BUFFER, 40 + (uint64_t)i);
		buffers[i] = (struct iovec){ buffer[i] + 100 * i, BUFFER - 100 * (size_t)i };
	}
	must(!do_register(&reg, IORING_REGISTER_BUFFERS, buffers, 2));
	self.data = (uint64_t)reg.fd;
	must(do_register(&reg, IORING_REGISTER_RING_FDS, &self, 1) == 1 && self.offset == 0);
	must(!epoll_ctl(watch, EPOLL_CTL_ADD, reg.fd, &(struct epoll_event){ EPOLLIN, { .u64 = 4711 } }));
	pass(&reg, 9);
	eventfd_write(event, 1);
}

static void fixed(int opcode, int place, int index, char *at, size_t len, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_next(&reg);

	sqe->opcode = (uint8_t)opcode;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = place;
	sqe->buf_index = (uint16_t)index;
	sqe->addr = (uintptr_t)at;
	sqe->len = (uint32_t)len;
	sqe->user_data = data;
}

static void registered_work(void)
{
	static uint64_t round;

	round++;
	fill(buffer[0], 4096, round);
	fixed(IORING_OP_WRITE_FIXED, 1, 0, buffer[0], 4096, round);
	ring_submit(&reg, 1);
	ring_expect(&reg, round, 4096);
	fixed(IORING_OP_READ_FIXED, 1, 1, buffer[1] + 8192, 4096, ~round);
	ring_submit(&reg, 1);
	ring_expect(&reg, ~round, 4096);
	verify("what a registered buffer has read", buffer[1] + 8192, 4096, round);
}

static void registered_check(void)
{
	struct epoll_event ready;
	eventfd_t count = 0;
	unsigned limits[2] = { 0, 0 };

	verify("the rest of a registered buffer", buffer[1], 8192, 41);
	expect(epoll_wait(watch, &ready, 1, 0) == 0);
	expect(!eventfd_read(event, &count) && count > 9);
	expect(eventfd_read(event, &count) < 0);
	for (int i = 0; i < 3; i++) {
		fixed(IORING_OP_WRITE_FIXED, 2 * i + 1, 0, buffer[0], 512, 5);
		ring_submit(&reg, 1);
	}
	expect(epoll_wait(watch, &ready, 1, 0) == 1 && ready.data.u64 == 4711);
	for (int i = 0; i < 3; i++)
		ring_expect(&reg, 5, 512);
	expect(!eventfd_read(event, &count) && count == 3);
	for (int i = 0; i < 3; i++)
		expect(lseek(files[i], 0, SEEK_END) >= 512);
	fixed(IORING_OP_WRITE_FIXED, 0, 0, buffer[0], 512, 6);
	ring_submit(&reg, 1);
	ring_expect(&reg, 6, -EBADF);
	expect(do_register(&reg, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2) == 0);
	expect_u64("bounded workers", 3, limits[0]);
	submit_nop(&reg, 7);
	__atomic_store_n(word(&reg, reg.p.sq_off.tail), reg.sq_tail, __ATOMIC_RELEASE);
	expect(syscall(SYS_io_uring_enter, 0, 1, 0, 1u << 4, NULL, 0) == 1); /* IORING_ENTER_REGISTERED_RING */
	ring_expect(&reg, 7, 0);
	ring_check_counts(&reg);
	ring_close(&reg);
}

VICTIM(uring_registered, V_CHECK_FILE, registered_setup, registered_work, registered_check);
