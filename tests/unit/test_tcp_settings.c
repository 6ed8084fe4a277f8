/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_tcp_settings.c - the digest of a TCP socket's settings is the same whatever is sent, and another one for each option */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "kern/tcp_peek.h"

#define ROUNDS 20

static const struct tcp_told *ask(int fd)
{
	struct tcp_told *told = tcp_peek_told();

	told[0].fd = fd;
	assert_int_equal(tcp_peek_ask(0, 1), 0);
	assert_true(told[0].is_told);
	return &told[0];
}

static void connect_pair(int family, int *ret_client, int *ret_server)
{
	struct sockaddr_in6 to = { .sin6_family = (sa_family_t)family, .sin6_addr = in6addr_loopback };
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *address = family == AF_INET ? (void *)&to4 : (void *)&to;
	socklen_t len = family == AF_INET ? sizeof(to4) : sizeof(to);
	int listener = socket(family, SOCK_STREAM, 0);

	assert_int_equal(bind(listener, address, len) | listen(listener, 1) | getsockname(listener, address, &len), 0);
	*ret_client = socket(family, SOCK_STREAM, 0);
	assert_int_equal(connect(*ret_client, address, len), 0);
	*ret_server = accept(listener, NULL, NULL);
	assert_true(*ret_server >= 0);
	close(listener);
}

static void exchange(int a, int b, size_t len)
{
	char data[4096] = "";

	for (int i = 0; i < 2; i++) {
		assert_int_equal(send(i ? b : a, data, len, 0), len);
		assert_int_equal(recv(i ? a : b, data, len, MSG_WAITALL), len);
	}
}

static void test_traffic(void **state)
{
	for (int k = 0; k < 2; k++) {
		uint64_t settings, digest;
		int client, server;

		(void)state;
		connect_pair(k ? AF_INET6 : AF_INET, &client, &server);
		for (int i = 0; i < ROUNDS; i++)
			exchange(client, server, 64);
		settings = ask(server)->settings;
		digest = ask(server)->digest;
		assert_int_equal(ask(server)->digest, digest);
		for (int i = 0; i < ROUNDS; i++) {
			exchange(client, server, i % 2 ? 64 : 500);
			if (i % 5 == 0)
				poll(NULL, 0, 50);
			assert_int_equal(ask(server)->settings, settings);
			assert_int_not_equal(ask(server)->digest, digest);
			digest = ask(server)->digest;
		}
		assert_int_equal(ask(server)->record.rcv_nxt, ask(server)->record.copied_seq);
		close(client);
		close(server);
	}
}

static void test_options(void **state)
{
	static const int options[][3] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 }, { SOL_SOCKET, SO_PRIORITY, 3 }, { SOL_SOCKET, SO_MARK, 7 }, { SOL_SOCKET, SO_SNDBUF, 50000 }, { SOL_SOCKET, SO_RCVBUF, 50000 },
		{ SOL_SOCKET, SO_RCVLOWAT, 9 }, { SOL_SOCKET, SO_OOBINLINE, 1 }, { SOL_SOCKET, SO_REUSEADDR, 1 }, { SOL_SOCKET, SO_REUSEPORT, 1 }, { SOL_SOCKET, SO_PEEK_OFF, 5 },
		{ SOL_SOCKET, SO_MAX_PACING_RATE, 1 << 20 }, { SOL_SOCKET, SO_TIMESTAMP, 1 }, { SOL_SOCKET, SO_BUSY_POLL, 40 },
		{ IPPROTO_TCP, TCP_NODELAY, 1 }, { IPPROTO_TCP, TCP_CORK, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 77 }, { IPPROTO_TCP, TCP_KEEPINTVL, 78 }, { IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, 5000 }, { IPPROTO_TCP, TCP_LINGER2, 9 }, { IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4000 }, { IPPROTO_TCP, TCP_WINDOW_CLAMP, 30000 },
		{ IPPROTO_TCP, TCP_MAXSEG, 1000 }, { IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1 }, { IPPROTO_TCP, TCP_INQ, 1 }, { IPPROTO_TCP, TCP_TX_DELAY, 10 },
		{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 5 }, { IPPROTO_TCP, TCP_SYNCNT, 3 }, { IPPROTO_IP, IP_TOS, 16 }, { IPPROTO_IP, IP_TTL, 44 }, { IPPROTO_IP, IP_MTU_DISCOVER, 3 },
		{ IPPROTO_IP, IP_RECVTOS, 1 }, { IPPROTO_IP, IP_FREEBIND, 1 }, { IPPROTO_IP, IP_TRANSPARENT, 1 },
	};
	struct linger linger = { 1, 30 };
	struct timeval time = { 3, 5 };
	int client, server;
	uint64_t settings, kin;

	(void)state;
	connect_pair(AF_INET, &client, &server);
	exchange(client, server, 64);
	settings = ask(server)->settings;
	kin = ask(server)->kin;
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		int before = -1, after = -1;
		socklen_t len = sizeof(before);

		getsockopt(server, options[i][0], options[i][1], &before, &len);
		if (setsockopt(server, options[i][0], options[i][1], &options[i][2], sizeof(int)) < 0)
			continue; /* this kernel has it not, or it is for others */
		getsockopt(server, options[i][0], options[i][1], &after, &len);
		if (before == after)
			continue;
		if (ask(server)->settings == settings)
			fail_msg("option %d of level %d has been set, and nothing shows it", options[i][1], options[i][0]);
		if (ask(server)->kin == kin && (options[i][1] != TCP_WINDOW_CLAMP || ask(server)->record.window_clamp != (unsigned)after))
			fail_msg("option %d of level %d has been set, and the socket is taken for one that has not", options[i][1], options[i][0]);
		settings = ask(server)->settings;
		kin = ask(server)->kin;
	}
	assert_int_equal(setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	assert_int_not_equal(ask(server)->settings, settings);
	settings = ask(server)->settings;
	assert_int_equal(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), 0);
	assert_int_not_equal(ask(server)->settings, settings);
	settings = ask(server)->settings;
	assert_int_equal(setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)), 0);
	assert_int_not_equal(ask(server)->settings, settings);
	settings = ask(server)->settings;
	assert_int_equal(setsockopt(server, IPPROTO_TCP, TCP_CONGESTION, "reno", 4), 0);
	assert_int_not_equal(ask(server)->settings, settings);
	close(client);
	close(server);
}

/* Whatever has been sent, what a listener has accepted is alike. */
static void test_kin(void **state)
{
	(void)state;
	for (int k = 0; k < 2; k++) {
		int clients[ROUNDS], servers[ROUNDS];
		uint64_t kin = 0;

		for (int i = 0; i < ROUNDS; i++) {
			connect_pair(k ? AF_INET6 : AF_INET, &clients[i], &servers[i]);
			/* Until it counts no further how often an answer has gone at once: TCP_QUICKACK. */
			for (int n = 0; n < 4 + i; n++)
				exchange(clients[i], servers[i], n % 3 ? 64 : 1000);
			if (!kin)
				kin = ask(servers[i])->kin;
			assert_int_equal(ask(servers[i])->kin, kin);
		}
		for (int i = 0; i < ROUNDS; i++) {
			int value = 0;
			socklen_t len = sizeof(value);

			getsockopt(servers[i], SOL_SOCKET, SO_RCVBUF, &value, &len);
			assert_int_equal(ask(servers[i])->record.receive_buffer, value);
			getsockopt(servers[i], SOL_SOCKET, SO_SNDBUF, &value, &len);
			assert_int_equal(ask(servers[i])->record.send_buffer, value);
			getsockopt(servers[i], IPPROTO_TCP, TCP_WINDOW_CLAMP, &value, &len);
			assert_int_equal(ask(servers[i])->record.window_clamp, value);
			close(clients[i]);
			close(servers[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_traffic), cmocka_unit_test(test_options), cmocka_unit_test(test_kin) };

	tcp_peek_prepare();
	if (!tcp_peek_told()) {
		print_message("no BPF here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
