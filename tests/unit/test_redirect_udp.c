/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_redirect_udp.c - sockets of UDP that move between hosts (network namespaces): who sends to them, and from which address they answer */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "hosts.h"
#include "net/redirect.h"
#include "net/tidy.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

#define LARGE 20000 /* several fragments */
#define WAIT_MS 10000
#define CLIENTS 6

static struct redirect *tables[HOSTS];
static struct redirect_node selves[HOSTS];
static const int families[] = { AF_INET, AF_INET6 };

struct client {
	const char *what;
	enum host host;
	int fd;
	struct sockaddr_storage own;
};

static void must(int r, const struct err *e)
{
	if (r < 0)
		fail_msg("%s", e->message);
}

static struct redirect *table(enum host h)
{
	struct err e = ERR_INIT;

	hosts_enter(h);
	if (!tables[h])
		must(redirect_open(&tables[h], &e), &e);
	return tables[h];
}

static void set_every(struct sockaddr_storage *a)
{
	if (a->ss_family == AF_INET)
		((struct sockaddr_in *)a)->sin_addr.s_addr = 0;
	else
		((struct sockaddr_in6 *)a)->sin6_addr = in6addr_any;
}

static void set_loopback(struct sockaddr_storage *a)
{
	if (a->ss_family == AF_INET)
		((struct sockaddr_in *)a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)a)->sin6_addr = in6addr_loopback;
}

static int bound(enum host h, const struct sockaddr_storage *at)
{
	int fd, on = 1;

	hosts_enter(h);
	fd = socket(at->ss_family, SOCK_DGRAM, 0);
	assert_int_equal(setsockopt(fd, at->ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, at->ss_family == AF_INET ? IP_TRANSPARENT : IPV6_TRANSPARENT, &on,
				    sizeof(on)), 0);
	if (bind(fd, (const struct sockaddr *)at, hosts_address_len(at)) < 0)
		fail_msg("bind at %c: %s", 'a' + (int)h, strerror(errno));
	return fd;
}

static int connected(enum host h, const struct sockaddr_storage *to)
{
	int fd;

	hosts_enter(h);
	fd = socket(to->ss_family, SOCK_DGRAM, 0);
	if (connect(fd, (const struct sockaddr *)to, hosts_address_len(to)) < 0)
		fail_msg("connect at %c: %s", 'a' + (int)h, strerror(errno));
	return fd;
}

static void name_of(int fd, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &(socklen_t){ sizeof(*ret) }), 0);
}

/* A datagram of so many bytes that says who it is from. */
static void say(int fd, uint8_t who, size_t n, const struct sockaddr_storage *to)
{
	static uint8_t data[LARGE];

	memset(data, who, n);
	if (sendto(fd, data, n, 0, (const struct sockaddr *)to, to ? hosts_address_len(to) : 0) != (ssize_t)n)
		fail_msg("send: %s", strerror(errno));
}

static void hear(int fd, const char *where, const char *what, uint8_t who, size_t n, struct sockaddr_storage *ret_from)
{
	static uint8_t data[LARGE + 1];
	struct sockaddr_storage from = { 0 };

	if (poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, WAIT_MS) != 1)
		fail_msg("%s hears nothing of %s (%zu bytes)", where, what, n);
	assert_int_equal(recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &(socklen_t){ sizeof(from) }), n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(data[i], who);
	if (ret_from)
		*ret_from = from;
}

/* Asks, and is answered from the address that it has asked: it is connected to that. */
static void ask(const struct client *c, int server, size_t n)
{
	struct sockaddr_storage from;

	say(c->fd, (uint8_t)c->host, n, NULL);
	hear(server, "the server", c->what, (uint8_t)c->host, n, &from);
	assert_memory_equal(&from, &c->own, hosts_address_len(&from));
	say(server, 77, n, &from);
	hear(c->fd, c->what, "the server", 77, n, NULL);
}

static void open_clients(struct client v[CLIENTS], const struct sockaddr_storage *to)
{
	static const struct client where[CLIENTS] = { { "outside", OUTSIDE, -1, { 0 } }, { "a", A, -1, { 0 } }, { "b", B, -1, { 0 } }, { "c", C, -1, { 0 } },
						      { "a, over lo", A, -1, { 0 } }, { "outside, by b's address", OUTSIDE, -1, { 0 } } };

	for (int i = 0; i < CLIENTS; i++) {
		struct sockaddr_storage at = *to;

		if (i == 4)
			set_loopback(&at);
		if (i == 5)
			hosts_address(B, to->ss_family, to->ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)to)->sin_port) : ntohs(((const struct sockaddr_in6 *)to)->sin6_port), &at);
		v[i] = where[i];
		v[i].fd = connected(v[i].host, &at);
		name_of(v[i].fd, &v[i].own);
	}
}

/* flows NULL: a socket that is bound to every address. Who is heard last sends while the socket is nowhere. */
static int move(int fd, const struct redirect_flow *flow, const struct sockaddr_storage *own, const struct sockaddr_storage *peer, enum host from, enum host to,
		const struct client *sends)
{
	struct redirect *from_table = table(from), *to_table = table(to);
	struct redirect_move *departing = NULL, *arriving = NULL;
	struct redirect_known known[16];
	struct redirect_flow *flows = NULL;
	uint16_t port = own->ss_family == AF_INET ? ((const struct sockaddr_in *)own)->sin_port : ((const struct sockaddr_in6 *)own)->sin6_port;
	struct err e = ERR_INIT;
	size_t n = 1;

	hosts_enter(from);
	if (!flow)
		must(redirect_listening(from_table, IPPROTO_UDP, own->ss_family, port, &flows, &n, &e), &e);
	flow = flow ? flow : flows;
	assert_in_range(n, 1, ARRAY_SIZE(known));
	must(redirect_depart(from_table, &selves[to], flow, n, &departing, &e), &e);
	for (size_t i = 0; i < n; i++)
		redirect_tell(from_table, &flow[i], &selves[from], &known[i]);
	hosts_enter(to);
	must(redirect_arrive(to_table, flow, known, n, &arriving, &e), &e);
	redirect_park(departing);
	close(fd);
	say(sends->fd, 99, 500, NULL);
	fd = bound(to, own);
	if (peer)
		assert_int_equal(connect(fd, (const struct sockaddr *)peer, hosts_address_len(peer)), 0);
	redirect_live(arriving);
	redirect_forward(departing);
	hosts_enter(from);
	redirect_settle(&departing);
	hosts_enter(to);
	redirect_settle(&arriving);
	hear(fd, "the socket that has moved", sends->what, 99, 500, NULL);
	free(flows);
	return fd;
}

static void test_every_address(void **state)
{
	static const enum host places[] = { A, B, C, A, C };
	struct client clients[CLIENTS];
	struct sockaddr_storage every, first;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		int server;

		hosts_address(A, families[f], (uint16_t)(8000 + f), &first);
		every = first;
		set_every(&every);
		server = bound(A, &every);
		open_clients(clients, &first);
		for (int i = 0; i < 5; i++)
			ask(&clients[i], server, 100);
		for (size_t i = 1; i < ARRAY_SIZE(places); i++) {
			print_message("    IPv%d, to %c\n", families[f] == AF_INET ? 4 : 6, 'a' + (int)places[i]);
			server = move(server, NULL, &every, NULL, places[i - 1], places[i], &clients[i % 4]);
			/* Those that it has spoken to need not speak first. */
			for (int k = 0; k < 4; k++) {
				say(server, 55, 100, &clients[k].own);
				hear(clients[k].fd, clients[k].what, "the server, unasked", 55, 100, NULL);
			}
			/* b's address was the server's, too, once it had been there. */
			for (int k = 0; k < CLIENTS; k++) {
				ask(&clients[k], server, 100);
				ask(&clients[k], server, LARGE);
			}
		}
		close(server);
		for (int i = 0; i < CLIENTS; i++)
			close(clients[i].fd);
	}
}

static void test_connected(void **state)
{
	static const enum host from[] = { OUTSIDE, A, B, C }, places[] = { A, B, C, A };
	struct sockaddr_storage at;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
			struct client client = { "its peer", from[i], -1, { 0 } };
			struct redirect_flow flow;
			int server;

			hosts_address(A, families[f], (uint16_t)(8100 + i), &at);
			server = bound(A, &at);
			client.fd = connected(from[i], &at);
			name_of(client.fd, &client.own);
			assert_int_equal(connect(server, (struct sockaddr *)&client.own, hosts_address_len(&client.own)), 0);
			assert_true(redirect_flow_set(&flow, IPPROTO_UDP, (struct sockaddr *)&at, (struct sockaddr *)&client.own));
			for (size_t k = 1; k < ARRAY_SIZE(places); k++) {
				print_message("    IPv%d, peer on %c, to %c\n", families[f] == AF_INET ? 4 : 6, 'a' + (int)from[i], 'a' + (int)places[k]);
				server = move(server, &flow, &at, &client.own, places[k - 1], places[k], &client);
				say(server, 55, 100, NULL);
				hear(client.fd, client.what, "the server, unasked", 55, 100, NULL);
				ask(&client, server, LARGE);
			}
			close(server);
			close(client.fd);
		}
}

static int setup(void **state)
{
	(void)state;
	if (!hosts_make())
		return -1;
	for (int h = A; h <= C; h++) {
		struct sockaddr_storage a;

		selves[h].name[0] = (char)('a' + h);
		hosts_address((enum host)h, AF_INET, 1, &a);
		memcpy(selves[h].v4, &((struct sockaddr_in *)&a)->sin_addr, 4);
		hosts_address((enum host)h, AF_INET6, 1, &a);
		memcpy(selves[h].v6, &((struct sockaddr_in6 *)&a)->sin6_addr, 16);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connected),
		cmocka_unit_test(test_every_address),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
