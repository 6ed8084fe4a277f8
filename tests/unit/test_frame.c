// SPDX-License-Identifier: GPL-2.0-or-later
/* test_frame.c - frames, HELLO and addresses */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/util.h"
#include "wire/conn.h"
#include "wire/frame.h"
#include "wire/hello.h"

struct pair {
	int a, b;
};

static struct pair open_pair(void)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	return (struct pair){ fds[0], fds[1] };
}

static void close_pair(struct pair *p)
{
	close_fdp(&p->a);
	close_fdp(&p->b);
}
#define cleanup_pair __attribute__((cleanup(close_pair)))

static void test_header_layout(void **state)
{
	static const uint8_t expected[FRAME_HEADER_BYTES] = { 'G', 'D', 'W', '1', 2, 0, 3, 0, 4, 1, 0, 0, 0, 0, 0, 0 };
	uint8_t header[FRAME_HEADER_BYTES];
	struct frame frame;

	frame_header_encode(header, FRAME_OFFER, 3, 260);
	assert_memory_equal(header, expected, sizeof(header));
	assert_int_equal(frame_header_decode(header, 260, &frame, NULL), 0);
	assert_int_equal(frame.type, FRAME_OFFER);
	assert_int_equal(frame.flags, 3);
	assert_int_equal(frame.len, 260);
}

static void test_round_trip(void **state)
{
	cleanup_pair struct pair p = open_pair();
	struct iovec pieces[3] = { { "one", 3 }, { NULL, 0 }, { "two", 3 } };
	cleanup_frame struct frame frame = { 0 };

	assert_int_equal(frame_sendv(p.a, FRAME_ROUND, 7, pieces, 3, NULL), 0);
	assert_int_equal(frame_send(p.a, FRAME_RELEASE, NULL, 0, NULL), 0);
	assert_int_equal(frame_recv(p.b, &frame, 100, 1000, NULL), 0);
	assert_int_equal(frame.len, 6);
	assert_int_equal(frame.flags, 7);
	assert_string_equal((char *)frame.payload, "onetwo");
	frame_free(&frame);
	assert_int_equal(frame_recv_expect(p.b, FRAME_RELEASE, &frame, 0, 1000, NULL), 0);
	assert_null(frame.payload);
}

static void test_garbage(void **state)
{
	cleanup_pair struct pair p = open_pair();
	struct err e = ERR_INIT;
	struct frame frame;

	assert_int_equal(send(p.a, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	assert_int_equal(frame_recv(p.b, &frame, 100, 1000, &e), -EPROTO);
	assert_non_null(strstr(e.message, "GDW1"));
	assert_non_null(strstr(e.message, "47 45 54 20"));
}

static void test_too_long(void **state)
{
	cleanup_pair struct pair p = open_pair();
	uint8_t header[FRAME_HEADER_BYTES];
	struct err e = ERR_INIT;
	struct frame frame;

	frame_header_encode(header, FRAME_GO, 0, UINT32_MAX);
	assert_int_equal(send(p.a, header, sizeof(header), 0), sizeof(header));
	assert_int_equal(frame_recv(p.b, &frame, SIZE_MAX, 1000, &e), -EPROTO);
	assert_non_null(strstr(e.message, "4294967295"));
}

static void test_deadline_and_end(void **state)
{
	cleanup_pair struct pair p = open_pair();
	struct err e = ERR_INIT;
	struct frame frame;

	assert_int_equal(send(p.a, "GDW1", 4, 0), 4);
	assert_int_equal(frame_recv(p.b, &frame, 100, 20, &e), -ETIMEDOUT);
	close_fdp(&p.a);
	assert_int_equal(frame_recv(p.b, &frame, 100, -1, &e), -ECONNRESET);
}

static void test_reader_byte_by_byte(void **state)
{
	cleanup_pair struct pair p = open_pair();
	struct frame_reader reader = { 0 };
	cleanup_frame struct frame frame = { 0 };
	uint8_t bytes[FRAME_HEADER_BYTES + 5];
	size_t i;

	frame_header_encode(bytes, FRAME_ASK, 0, 5);
	memcpy(bytes + FRAME_HEADER_BYTES, "hello", 5);
	for (i = 0; i < sizeof(bytes); i++) {
		assert_int_equal(frame_reader_step(&reader, p.b, 5, &frame, NULL), 0);
		assert_int_equal(send(p.a, bytes + i, 1, 0), 1);
	}
	assert_int_equal(frame_reader_step(&reader, p.b, 5, &frame, NULL), 1);
	assert_string_equal((char *)frame.payload, "hello");
}

static void test_error_frame(void **state)
{
	cleanup_pair struct pair p = open_pair();
	struct err e = ERR_INIT;
	struct frame frame;

	assert_int_equal(frame_send_error(p.a, -EBUSY, "too many", NULL), 0);
	assert_int_equal(frame_recv_expect(p.b, FRAME_ACCEPT, &frame, 10, 1000, &e), -EBUSY);
	assert_string_equal(e.message, "the peer says: too many");
	assert_int_equal(frame_send(p.a, FRAME_GO, NULL, 0, NULL), 0);
	assert_int_equal(frame_recv_expect(p.b, FRAME_ACCEPT, &frame, 10, 1000, NULL), -EPROTO);
}

static void test_dead_peer_is_no_signal(void **state)
{
	cleanup_pair struct pair p = open_pair();

	close_fdp(&p.b);
	assert_int_equal(frame_send(p.a, FRAME_GO, "x", 1, NULL), -EPIPE);
}

static void fill(Gw__Hello *hello)
{
	static uint8_t id[HELLO_MIG_ID_BYTES];

	hello_fill(hello);
	hello->node_name = "n1";
	hello->mig_id.data = id;
	hello->mig_id.len = sizeof(id);
}

static int round_trip(const Gw__Hello *hello, Gw__Hello **ret, struct err *e)
{
	size_t len = 0;
	cleanup_free void *payload = hello_encode(hello, &len);

	return hello_decode(payload, len, ret, e);
}

static void test_hello(void **state)
{
	cleanup_hello Gw__Hello *got = NULL;
	struct err e = ERR_INIT;
	Gw__Hello hello;

	fill(&hello);
	hello.features = UINT64_MAX; /* bits that this build does not know refuse nobody */
	assert_int_equal(round_trip(&hello, &got, &e), 0);
	assert_string_equal(got->node_name, "n1");
	assert_true(strlen(got->boot_id) >= 32);
	assert_true(got->realtime_ns > 0 && got->monotonic_ns > 0 && got->boottime_ns > 0);
	assert_int_equal(hello_common_features(got), HELLO_FEATURES);
}

static void test_hello_refused(void **state)
{
	Gw__Hello hello, *got = NULL;
	struct err e = ERR_INIT;

	fill(&hello);
	hello.version = HELLO_VERSION + 1;
	assert_int_equal(round_trip(&hello, &got, &e), -EPROTONOSUPPORT);
	fill(&hello);
	hello.role = HELLO_ROLE_MAX + 1;
	assert_int_equal(round_trip(&hello, &got, &e), -EPROTO);
	fill(&hello);
	hello.mig_id.len = 15;
	assert_int_equal(round_trip(&hello, &got, &e), -EPROTO);
	fill(&hello);
	hello.node_name = "../etc";
	assert_int_equal(round_trip(&hello, &got, &e), -EPROTO);
	fill(&hello);
	hello.kernel = "6.18\n";
	assert_int_equal(round_trip(&hello, &got, &e), -EPROTO);
	assert_null(got);
}

static void test_address(void **state)
{
	struct sockaddr_in a;
	char text[CONN_ADDRESS_TEXT];
	size_t i;
	static const char *const wrong[] = { "", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:x", "1.2.3.4:-1", "host", "1.2.3.4.5.6.7.8.9" };

	assert_int_equal(conn_address_parse("10.66.0.1", &a, NULL), 0);
	conn_address_text(&a, text);
	assert_string_equal(text, "10.66.0.1:4470");
	assert_int_equal(conn_address_parse("255.255.255.255:65535", &a, NULL), 0);
	conn_address_text(&a, text);
	assert_string_equal(text, "255.255.255.255:65535");
	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(conn_address_parse(wrong[i], &a, NULL), -EINVAL);
}

static void test_connect(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	cleanup_close int listener = conn_listen(&at, 1, NULL), fd = -1, accepted = -1;
	struct err e = ERR_INIT;
	cleanup_frame struct frame frame = { 0 };

	assert_true(listener >= 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	fd = conn_connect(&at, 1000, &e);
	assert_true(fd >= 0);
	accepted = accept(listener, NULL, NULL);
	assert_int_equal(frame_send(fd, FRAME_PREPARED, "ok", 2, NULL), 0);
	assert_int_equal(frame_recv_expect(accepted, FRAME_PREPARED, &frame, 2, 1000, NULL), 0);
	close_fdp(&listener);
	assert_int_equal(conn_connect(&at, 1000, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.message, "does godwitd run there?"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_layout),  cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_garbage),        cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_deadline_and_end), cmocka_unit_test(test_reader_byte_by_byte),
		cmocka_unit_test(test_error_frame),    cmocka_unit_test(test_dead_peer_is_no_signal),
		cmocka_unit_test(test_hello),          cmocka_unit_test(test_hello_refused),
		cmocka_unit_test(test_address),        cmocka_unit_test(test_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
