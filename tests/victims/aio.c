// SPDX-License-Identifier: GPL-2.0-or-later
/* aio.c - victims with contexts of asynchronous I/O: events that nobody has taken yet, and work that goes on */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define WAITING 37
#define BLOCK 4096

static aio_context_t small, large, empty;
static int file;
static uint64_t rounds;
static unsigned positions[4];

static void submit(aio_context_t context, int opcode, void *buffer, size_t len, off_t at, uint64_t data)
{
	struct iocb request = { .aio_data = data, .aio_lio_opcode = (uint16_t)opcode, .aio_fildes = (uint32_t)file, .aio_buf = (uintptr_t)buffer, .aio_nbytes = len,
				.aio_offset = at };
	struct iocb *list = &request;

	if (syscall(SYS_io_submit, context, 1, &list) != 1)
		fail("io_submit, expected 1, got errno %d", errno);
}

static void expect_event(aio_context_t context, uint64_t data, int64_t result)
{
	struct io_event event = { 0 };
	struct timespec limit = { 5, 0 };

	if (syscall(SYS_io_getevents, context, 1, 1, &event, &limit) != 1) {
		fail("io_getevents, expected 1, got errno %d", errno);
		return;
	}
	expect_u64("data of an event", data, event.data);
	expect_u64("its result", (uint64_t)result, (uint64_t)event.res);
}

/* Where the ring stands, which its address tells: id, slots, head, tail. */
static void read_positions(unsigned *to)
{
	memcpy(to, (const void *)large, 4 * sizeof(*to));
}

static void aio_setup(void)
{
	static char block[BLOCK];

	must(!syscall(SYS_io_setup, 5, &small) && !syscall(SYS_io_setup, 300, &large) && !syscall(SYS_io_setup, 64, &empty));
	file = open(beside("aio-data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(file >= 0);
	for (int i = 0; i < WAITING + 20; i++) { /* some are taken, so that the ring does not begin at its beginning */
		fill(block, sizeof(block), (uint64_t)i);
		submit(large, IOCB_CMD_PWRITE, block, sizeof(block) - (size_t)i, (off_t)i * BLOCK, 1000 + (uint64_t)i);
	}
	for (int i = 0; i < 20; i++)
		expect_event(large, 1000 + (uint64_t)i, BLOCK - i);
	submit(small, IOCB_CMD_PREAD, block, 10, 0, 77);
	read_positions(positions);
}

static void aio_work(void)
{
	static char block[512];

	rounds++;
	fill(block, sizeof(block), rounds);
	submit(empty, IOCB_CMD_PWRITE, block, sizeof(block), 0, rounds);
	expect_event(empty, rounds, sizeof(block));
	memset(block, 0, sizeof(block));
	submit(empty, IOCB_CMD_PREAD, block, sizeof(block), 0, ~rounds);
	expect_event(empty, ~rounds, sizeof(block));
	verify("what was written", block, sizeof(block), rounds);
	usleep(200);
}

static void aio_check(void)
{
	struct io_event event;
	struct timespec none = { 0, 0 };
	unsigned now[4];

	read_positions(now);
	for (int i = 1; i < 4; i++)
		expect_u64("the ring's slots, head, tail", positions[i], now[i]);
	expect_event(small, 77, 10);
	for (int i = 20; i < WAITING + 20; i++)
		expect_event(large, 1000 + (uint64_t)i, BLOCK - i);
	expect(syscall(SYS_io_getevents, large, 0, 1, &event, &none) == 0);
	for (int i = 0; i < 3; i++)
		aio_work();
	expect(!syscall(SYS_io_destroy, small) && !syscall(SYS_io_destroy, large) && !syscall(SYS_io_destroy, empty));
}

VICTIM(aio_events, V_CHECK_FILE, aio_setup, aio_work, aio_check);

/* --- reads past the page cache, of which some are always in flight --- */

#define BUFFERS 64
#define DIRECT_BLOCK 65536
#define IN_FLIGHT 8

static aio_context_t direct;
static int direct_file;
static char *buffers;
static uint64_t block_in[BUFFERS]; /* whose content it has; plus one */
static unsigned next_buffer;

static char *buffer(unsigned i)
{
	return buffers + (size_t)i * DIRECT_BLOCK;
}

static void direct_setup(void)
{
	must(!posix_memalign((void **)&buffers, DIRECT_BLOCK, (size_t)BUFFERS * DIRECT_BLOCK));
	direct_file = open(beside("aio-direct"), O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
	must(direct_file >= 0 && !syscall(SYS_io_setup, IN_FLIGHT, &direct));
	for (unsigned i = 0; i < 2 * BUFFERS; i++) {
		fill(buffer(i % BUFFERS), DIRECT_BLOCK, i);
		must(pwrite(direct_file, buffer(i % BUFFERS), DIRECT_BLOCK, (off_t)i * DIRECT_BLOCK) == DIRECT_BLOCK);
		block_in[i % BUFFERS] = i;
	}
}

static void direct_work(void)
{
	struct io_event events[IN_FLIGHT];
	struct iocb requests[IN_FLIGHT] = { 0 }, *list[IN_FLIGHT];

	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		unsigned to = (next_buffer + i) % BUFFERS;

		block_in[to] = (block_in[to] * 7 + 5) % (2 * BUFFERS);
		requests[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)direct_file, .aio_buf = (uintptr_t)buffer(to),
					     .aio_nbytes = DIRECT_BLOCK, .aio_offset = (int64_t)(block_in[to] * DIRECT_BLOCK) };
		list[i] = &requests[i];
	}
	next_buffer = (next_buffer + IN_FLIGHT) % BUFFERS;
	if (syscall(SYS_io_submit, direct, IN_FLIGHT, list) != IN_FLIGHT || syscall(SYS_io_getevents, direct, IN_FLIGHT, IN_FLIGHT, events, NULL) != IN_FLIGHT)
		fail("direct reads: errno %d", errno);
}

static void direct_check(void)
{
	for (int i = 0; i < 8; i++) {
		for (unsigned k = 0; k < BUFFERS; k++)
			verify("what was read past the page cache", buffer(k), DIRECT_BLOCK, block_in[k]);
		direct_work();
	}
}

VICTIM(aio_direct, V_CHECK_FILE | V_NO_STOP, direct_setup, direct_work, direct_check);
