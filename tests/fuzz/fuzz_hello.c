// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_hello.c - what a peer sends first: frame header, HELLO; and an ERROR frame */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/util.h"
#include "wire/frame.h"
#include "wire/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	cleanup_frame struct frame frame = { 0 };
	cleanup_hello Gw__Hello *hello = NULL;
	__attribute__((cleanup(frame_reader_free))) struct frame_reader reader = { 0 };
	cleanup_close int a = -1, b = -1;
	struct err e = ERR_INIT;
	int pair[2], r;

	if (len > 16384)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	a = pair[0];
	b = pair[1];
	if (send(a, data, len, MSG_NOSIGNAL) != (ssize_t)len && len)
		abort();
	r = frame_reader_step(&reader, b, FRAME_HELLO_MAX, &frame, &e);
	if (r < 0 && !e.message[0])
		abort();
	if (r <= 0)
		return 0;
	if (frame.len > FRAME_HELLO_MAX)
		abort();
	if (frame.type == FRAME_ERROR)
		frame_error_decode(&frame, &e);
	if (hello_decode(frame.payload, frame.len, &hello, &e) >= 0) {
		size_t again_len = 0;
		cleanup_free void *again = hello_encode(hello, &again_len);

		if (!again || hello->mig_id.len != HELLO_MIG_ID_BYTES || !hello_name_valid(hello->node_name))
			abort();
	}
	return 0;
}
