// SPDX-License-Identifier: GPL-2.0-or-later
/* test_uring.c - which requests of an io_uring can be submitted again, what a message may say of a ring, and patches of its memory */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/uring_internal.h"

static void test_obstacles(void **state)
{
	const struct {
		struct uring_request r;
		bool can;
	} cases[] = {
		{ { .opcode = IORING_OP_POLL_ADD }, true },
		{ { .opcode = IORING_OP_POLL_ADD, .flags = IOSQE_FIXED_FILE | IOSQE_ASYNC }, true },
		{ { .opcode = IORING_OP_POLL_ADD, .linked = 1 }, false },
		{ { .opcode = IORING_OP_POLL_ADD, .flags = IOSQE_IO_LINK }, false },
		{ { .opcode = IORING_OP_POLL_ADD, .flags = IOSQE_IO_DRAIN }, false },
		{ { .opcode = IORING_OP_RECV }, true },
		{ { .opcode = IORING_OP_RECV, .flags = IOSQE_BUFFER_SELECT }, false },
		{ { .opcode = IORING_OP_RECV, .done = 1 }, false },
		{ { .opcode = IORING_OP_SEND, .ioprio = RECVSEND_FIXED_BUFFER }, false },
		{ { .opcode = IORING_OP_READ, .done = 4096 }, false },
		{ { .opcode = IORING_OP_TIMEOUT }, true },
		{ { .opcode = IORING_OP_TIMEOUT, .operation_flags = TIMEOUT_MULTISHOT }, false },
		{ { .opcode = IORING_OP_TIMEOUT, .operation_flags = IORING_TIMEOUT_ABS, .clock = CLOCK_MONOTONIC }, false },
		{ { .opcode = IORING_OP_TIMEOUT, .operation_flags = IORING_TIMEOUT_ABS, .clock = CLOCK_REALTIME }, true },
		{ { .opcode = IORING_OP_FSYNC }, false },
		{ { .opcode = 51 }, false },
		{ { .opcode = 255 }, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (!uring_flight_obstacle(&cases[i].r) != cases[i].can)
			fail_msg("case %zu: %s", i, uring_flight_obstacle(&cases[i].r));
	assert_string_equal(uring_operation_name(IORING_OP_POLL_ADD), "POLL_ADD");
	assert_string_equal(uring_operation_name(51), "FUTEX_WAIT");
	assert_string_equal(uring_operation_name(255), "(unknown)");
}

/* A message that is right, and what makes it wrong. */
static Gw__Uring right(void)
{
	static uint32_t limits[2];
	Gw__Uring r = GW__URING__INIT;

	r.fd = 3;
	r.sq_entries = 64;
	r.cq_entries = 128;
	r.ring_bytes = 8192;
	r.sqe_bytes = 4096;
	r.n_worker_limits = 2;
	r.worker_limits = limits;
	return r;
}

static int validate(Gw__Uring *r)
{
	Gw__Process msg = GW__PROCESS__INIT;

	msg.n_urings = 1;
	msg.urings = &r;
	return uring_validate(&msg, NULL);
}

static void test_validate(void **state)
{
	Gw__UringPatch patch = GW__URING_PATCH__INIT, *patches = &patch;
	Gw__UringRequest request = GW__URING_REQUEST__INIT, *requests = &request;
	Gw__UringSlot slot = GW__URING_SLOT__INIT, *slots[2] = { &slot, &slot };
	Gw__UringMap map = GW__URING_MAP__INIT, *maps = &map;
	uint8_t data[32] = { 0 };
	Gw__Uring r = right();

	(void)state;
	assert_int_equal(validate(&r), 0);
#define WRONG(change)                    \
	do {                             \
		r = right();             \
		change;                  \
		assert_true(validate(&r) < 0); \
	} while (0)
	WRONG(r.sq_entries = 48);
	WRONG(r.cq_entries = 0);
	WRONG(r.sqe_bytes = 4095);
	WRONG(r.ring_bytes = 1 << 30);
	WRONG(r.flags = IORING_SETUP_SQPOLL);
	WRONG(r.flags = 1u << 31);
	WRONG(r.n_worker_limits = 1);
	patch = (Gw__UringPatch){ patch.base, 8192 - 16, { sizeof(data), data } };
	WRONG((r.n_ring = 1, r.ring = &patches));
	slot.index = 1;
	WRONG((r.file_places = 2, r.n_files = 2, r.files = slots)); /* the same place twice */
	WRONG((r.file_places = 1, r.n_files = 1, r.files = slots));
	request.opcode = IORING_OP_FSYNC;
	request.tid = 5;
	WRONG((r.n_requests = 1, r.requests = &requests));
	request.opcode = IORING_OP_POLL_ADD;
	r = right();
	r.n_requests = 1;
	r.requests = &requests;
	assert_int_equal(validate(&r), 0);
	r.submitter = 6;
	assert_true(validate(&r) < 0);
	map.start = 0x10000;
	map.len = 1 << 20;
	WRONG((r.n_maps = 1, r.maps = &maps));
#undef WRONG
}

static void test_patch(void **state)
{
	uint8_t data[] = "abc", memory[8] = { 0 };
	Gw__UringPatch patch = GW__URING_PATCH__INIT, *patches = &patch;

	(void)state;
	patch.at = 5;
	patch.data = (ProtobufCBinaryData){ 3, data };
	assert_true(uring_patch(&patches, 1, memory, sizeof(memory)));
	assert_memory_equal(memory + 5, "abc", 3);
	patch.at = 6;
	assert_false(uring_patch(&patches, 1, memory, sizeof(memory)));
	patch.at = 9;
	assert_false(uring_patch(&patches, 1, memory, sizeof(memory)));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_obstacles), cmocka_unit_test(test_validate), cmocka_unit_test(test_patch) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
