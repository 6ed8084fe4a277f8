// SPDX-License-Identifier: GPL-2.0-or-later
/* uring.c - victims with io_urings: how far they are, what lies in them, what is registered, and work that goes on */
#include "uring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "victim.h"

#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
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
	ret = syscall(SYS_io_uring_enter, r->fd, n, wait, wait || (r->p.flags & IORING_SETUP_DEFER_TASKRUN) ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
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

/* --- requests that wait for something --- */

#define FLIGHT_RINGS 2
#define TIMEOUT_MS 60000

enum { FLIGHT_POLL = 10, FLIGHT_MULTI, FLIGHT_FIXED, FLIGHT_READ, FLIGHT_RECV, FLIGHT_SEND, FLIGHT_ACCEPT, FLIGHT_LONG, FLIGHT_SHORT, FLIGHT_COUNTED, FLIGHT_EVENT, FLIGHT_WORK };

static struct flight {
	struct ring ring;
	int polled, multi[2], fixed, pipe[2], pair[2], full[2], listener, event, work[2];
	char got[64], received[64], work_got[64];
	uint64_t event_got;
	size_t filled, sent;
	struct sockaddr_un name;
	uint64_t short_due_ns;
} flights[FLIGHT_RINGS];

static struct io_uring_sqe *prepare(struct flight *f, int opcode, int fd, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_next(&f->ring);

	sqe->opcode = (uint8_t)opcode;
	sqe->fd = fd;
	sqe->user_data = data;
	return sqe;
}

static void transfer(struct flight *f, int opcode, int fd, uint64_t data, void *at, size_t len)
{
	struct io_uring_sqe *sqe = prepare(f, opcode, fd, data);

	sqe->addr = (uintptr_t)at;
	sqe->len = (uint32_t)len;
}

static void add_timeout(struct flight *f, uint64_t data, unsigned ms, unsigned count)
{
	struct __kernel_timespec spec = { ms / 1000, ms % 1000 * 1000000ll };
	struct io_uring_sqe *sqe = prepare(f, IORING_OP_TIMEOUT, -1, data);

	sqe->addr = (uintptr_t)&spec;
	sqe->len = 1;
	sqe->off = count;
	ring_submit(&f->ring, 0);
}

static void open_all(struct flight *f, int i)
{
	char zeros[4096] = { 0 };
	ssize_t n;

	f->polled = eventfd(0, EFD_CLOEXEC);
	f->fixed = eventfd(0, EFD_CLOEXEC);
	f->event = eventfd(0, EFD_CLOEXEC);
	must(!pipe2(f->multi, O_CLOEXEC) && !pipe2(f->pipe, O_CLOEXEC) && !pipe2(f->work, O_CLOEXEC));
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->pair) && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->full));
	while ((n = send(f->full[0], zeros, sizeof(zeros), MSG_DONTWAIT)) > 0)
		f->filled += (size_t)n;
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	f->name.sun_family = AF_UNIX;
	snprintf(f->name.sun_path + 1, sizeof(f->name.sun_path) - 1, "godwit-uring-%d-%d", (int)getpid(), i);
	must(!bind(f->listener, (struct sockaddr *)&f->name, sizeof(f->name)) && !listen(f->listener, 5));
	must(!do_register(&f->ring, IORING_REGISTER_FILES, &f->fixed, 1));
}

static void begin(struct flight *f)
{
	prepare(f, IORING_OP_POLL_ADD, f->polled, FLIGHT_POLL)->poll32_events = POLLIN;
	ring_submit(&f->ring, 0);
	prepare(f, IORING_OP_POLL_ADD, f->multi[0], FLIGHT_MULTI)->poll32_events = POLLIN;
	((struct io_uring_sqe *)(void *)(f->ring.sqes))[(f->ring.sq_tail - 1) & (f->ring.p.sq_entries - 1)].len = IORING_POLL_ADD_MULTI;
	ring_submit(&f->ring, 0);
	prepare(f, IORING_OP_POLL_ADD, 0, FLIGHT_FIXED)->poll32_events = POLLIN;
	((struct io_uring_sqe *)(void *)(f->ring.sqes))[(f->ring.sq_tail - 1) & (f->ring.p.sq_entries - 1)].flags = IOSQE_FIXED_FILE;
	transfer(f, IORING_OP_READ, f->pipe[0], FLIGHT_READ, f->got, sizeof(f->got));
	transfer(f, IORING_OP_RECV, f->pair[0], FLIGHT_RECV, f->received, sizeof(f->received));
	transfer(f, IORING_OP_SEND, f->full[0], FLIGHT_SEND, "sent late", 9);
	prepare(f, IORING_OP_ACCEPT, f->listener, FLIGHT_ACCEPT);
	transfer(f, IORING_OP_READ, f->event, FLIGHT_EVENT, &f->event_got, sizeof(f->event_got));
	ring_submit(&f->ring, 0);
	add_timeout(f, FLIGHT_LONG, TIMEOUT_MS, 0);
	add_timeout(f, FLIGHT_SHORT, 1500, 0);
	f->short_due_ns = now_ns(CLOCK_MONOTONIC) + 1500000000ull;
	add_timeout(f, FLIGHT_COUNTED, TIMEOUT_MS, 1000000);
}

static void flight_setup(void)
{
	ring_open(&flights[0].ring, 32, 0, 0);
	ring_open(&flights[1].ring, 32, 0, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	for (int i = 0; i < FLIGHT_RINGS; i++) {
		open_all(&flights[i], i);
		pass(&flights[i].ring, 50);
		begin(&flights[i]);
	}
}

/* The next completion but for those that come when they like: of the short timeout, and of what is sent, since a socket may have more room elsewhere. */
static void next(struct flight *f, struct io_uring_cqe *ret)
{

	while (!failed()) {
		if (!ring_take(&f->ring, ret)) {
			ring_submit(&f->ring, 1);
			continue;
		}
		if (ret->user_data != FLIGHT_SHORT && ret->user_data != FLIGHT_SEND)
			break;
		if (ret->user_data == FLIGHT_SEND) {
			expect_u64("bytes sent", 9, (uint64_t)ret->res);
			f->sent++;
			continue;
		}
		expect_u64("how a timeout ends", (uint64_t)-ETIME, (uint64_t)ret->res);
		if (now_ns(CLOCK_MONOTONIC) + 1000000 < f->short_due_ns || now_ns(CLOCK_MONOTONIC) > f->short_due_ns + 1000000000ull)
			fail("a timeout came %lld us after its time", (long long)(now_ns(CLOCK_MONOTONIC) - f->short_due_ns) / 1000);
		f->short_due_ns = 0;
	}
}

static void expect_next(struct flight *f, uint64_t data, int32_t result)
{
	struct io_uring_cqe cqe = { 0 };

	next(f, &cqe);
	expect_u64("data of a completion", data, cqe.user_data);
	expect_u64("its result", (uint64_t)result, (uint64_t)cqe.res);
}

/* One that waits is answered, and the next one waits. */
static void flight_work(void)
{
	static unsigned char round;

	round++;
	for (int i = 0; i < FLIGHT_RINGS; i++) {
		struct flight *f = &flights[i];

		transfer(f, IORING_OP_READ, f->work[0], FLIGHT_WORK, f->work_got, sizeof(f->work_got));
		ring_submit(&f->ring, 0);
		must(write(f->work[1], &round, 1) == 1);
		expect_next(f, FLIGHT_WORK, 1);
		expect_u64("what was read", round, (unsigned char)f->work_got[0]);
	}
	usleep(1000);
}

static void expect_poll(struct flight *f, uint64_t data, bool more)
{
	struct io_uring_cqe cqe = { 0 };

	next(f, &cqe);
	expect_u64("data of a completion", data, cqe.user_data);
	expect_u64("its events", POLLIN, (uint64_t)(cqe.res & POLLIN));
	expect_u64("whether more come", more, (cqe.flags & IORING_CQE_F_MORE) != 0);
}

static void answer_accept(struct flight *f)
{
	int caller = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct io_uring_cqe cqe = { 0 };
	char bytes[8];

	must(caller >= 0 && !connect(caller, (struct sockaddr *)&f->name, sizeof(f->name)));
	next(f, &cqe);
	expect_u64("data of an accept", FLIGHT_ACCEPT, cqe.user_data);
	must(write(caller, "hello", 5) == 5 && read(cqe.res, bytes, 5) == 5);
}

static void answer_send(struct flight *f)
{
	char bytes[4096];

	for (size_t n = 0; n < f->filled;) {
		ssize_t got = read(f->full[1], bytes, MIN_OF(sizeof(bytes), f->filled - n));

		must(got > 0);
		n += (size_t)got;
	}
	while (!f->sent && !failed())
		flight_work();
	expect_u64("sent", 1, f->sent);
	must(read(f->full[1], bytes, 10) == 9 && !memcmp(bytes, "sent late", 9));
}

static void flight_answer(struct flight *f)
{
	must(!eventfd_write(f->polled, 1));
	expect_poll(f, FLIGHT_POLL, false);
	for (int i = 0; i < 3; i++) {
		must(write(f->multi[1], "x", 1) == 1);
		expect_poll(f, FLIGHT_MULTI, true);
	}
	must(!eventfd_write(f->fixed, 1));
	expect_poll(f, FLIGHT_FIXED, false);
	must(write(f->pipe[1], "through a pipe", 14) == 14);
	expect_next(f, FLIGHT_READ, 14);
	expect(!memcmp(f->got, "through a pipe", 14));
	must(write(f->pair[1], "a socket", 8) == 8);
	expect_next(f, FLIGHT_RECV, 8);
	expect(!memcmp(f->received, "a socket", 8));
	must(!eventfd_write(f->event, 4711));
	expect_next(f, FLIGHT_EVENT, 8);
	expect_u64("read from an eventfd", 4711, f->event_got);
	answer_accept(f);
	answer_send(f);
}

static void flight_check(void)
{
	for (int i = 0; i < FLIGHT_RINGS; i++) {
		struct flight *f = &flights[i];

		while (f->short_due_ns && !failed())
			flight_work();
		flight_answer(f);
	}
	for (int i = 0; i < FLIGHT_RINGS; i++) {
		struct flight *f = &flights[i];

		prepare(f, IORING_OP_TIMEOUT_REMOVE, -1, 99)->addr = FLIGHT_LONG;
		ring_submit(&f->ring, 2);
		for (int k = 0; k < 2; k++) {
			struct io_uring_cqe cqe = { 0 };

			next(f, &cqe);
			if (cqe.user_data == 99)
				expect_u64("taking a timeout back", 0, (uint64_t)cqe.res);
			else
				expect_u64("the timeout", FLIGHT_LONG, cqe.user_data);
		}
		pass(&f->ring, 100);
		ring_check_counts(&f->ring);
		ring_close(&f->ring);
	}
}

VICTIM(uring_flight, V_CHECK_FILE | V_TIMED, flight_setup, flight_work, flight_check);

/* --- a wait with a timeout: it neither starts over nor ends early --- */

#define WAIT_S 4

static struct ring waited;
static uint64_t wait_begun, wait_ended;
static long wait_result;

static void *wait_for_nothing(void *arg)
{
	struct __kernel_timespec spec = { WAIT_S, 0 };
	struct io_uring_getevents_arg a = { .ts = (uintptr_t)&spec };

	(void)arg;
	wait_begun = now_ns(CLOCK_MONOTONIC);
	wait_result = syscall(SYS_io_uring_enter, waited.fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &a, sizeof(a)) < 0 ? -errno : 0;
	wait_ended = now_ns(CLOCK_MONOTONIC);
	return NULL;
}

static pthread_t waiter;

static void wait_setup(void)
{
	ring_open(&waited, 4, 0, 0);
	must(!pthread_create(&waiter, NULL, wait_for_nothing, NULL));
}

static void wait_check(void)
{
	must(!pthread_join(waiter, NULL));
	expect_u64("how the wait has ended", (uint64_t)-ETIME, (uint64_t)wait_result);
	if (wait_ended - wait_begun < WAIT_S * 1000000000ull || wait_ended - wait_begun > WAIT_S * 1000000000ull + 400000000ull)
		fail("a wait of %d s took %llu us", WAIT_S, (unsigned long long)(wait_ended - wait_begun) / 1000);
}

VICTIM(uring_wait, V_CHECK_FILE | V_TIMED | V_NO_STOP, wait_setup, NULL, wait_check);
