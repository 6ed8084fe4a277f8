/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_redirect.c - connections whose ends move between hosts (network namespaces), in every order; each byte is compared */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
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
#include "net/news.h"
#include "net/redirect.h"
#include "net/redirect_internal.h"
#include "net/tidy.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

#define BYTES (256 << 10)
#define PORT 7000
#define SILENCE_MS 20000

struct end {
	enum host host;
	int fd;
	struct sockaddr_storage own, peer;
	uint64_t sent, received;
};

static struct redirect *tables[HOSTS];
static struct redirect_node selves[HOSTS];
static bool is_host_dead;

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

static void learn_self(enum host h)
{
	enum host other = h == A ? B : A;
	struct sockaddr_storage there;
	struct err e = ERR_INIT;
	char name[2] = { (char)('a' + (int)h), 0 };
	int fd, listener;

	hosts_enter(other);
	hosts_address(other, AF_INET, 4470, &there);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	assert_int_equal(bind(listener, (struct sockaddr *)&there, hosts_address_len(&there)), 0);
	assert_int_equal(listen(listener, 1), 0);
	hosts_enter(h);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&there, hosts_address_len(&there)), 0);
	must(redirect_self(fd, name, &selves[h], &e), &e);
	close(fd);
	close(listener);
}

static void flow_of(const struct end *end, struct redirect_flow *flow)
{
	assert_true(redirect_flow_set(flow, IPPROTO_TCP, (const struct sockaddr *)&end->own, (const struct sockaddr *)&end->peer));
}

static void loopback(int family, uint16_t port, struct sockaddr_storage *ret)
{
	hosts_address(A, family, port, ret);
	if (family == AF_INET)
		((struct sockaddr_in *)ret)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)ret)->sin6_addr = in6addr_loopback;
}

static int listen_on(enum host h, const struct sockaddr_storage *at)
{
	int fd;

	hosts_enter(h);
	fd = socket(at->ss_family, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	assert_int_equal(bind(fd, (const struct sockaddr *)at, hosts_address_len(at)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static int connect_from(enum host h, const struct sockaddr_storage *to)
{
	int fd;

	hosts_enter(h);
	fd = socket(to->ss_family, SOCK_STREAM, 0);
	if (connect(fd, (const struct sockaddr *)to, hosts_address_len(to)) < 0)
		fail_msg("connect from %c: %s", 'a' + (int)h, strerror(errno));
	return fd;
}

static void fill(struct end *end, enum host h, int fd)
{
	socklen_t len = sizeof(end->own);

	*end = (struct end){ .host = h, .fd = fd };
	assert_int_equal(getsockname(fd, (struct sockaddr *)&end->own, &len), 0);
	len = sizeof(end->peer);
	assert_int_equal(getpeername(fd, (struct sockaddr *)&end->peer, &len), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void open_pair(struct end *client, struct end *server, enum host from, enum host at, int family, bool over_lo)
{
	static uint16_t port = PORT;
	struct sockaddr_storage to;
	int listener, fd;

	if (over_lo)
		loopback(family, ++port, &to);
	else
		hosts_address(at, family, ++port, &to);
	listener = listen_on(at, &to);
	fd = connect_from(from, &to);
	fill(server, at, accept(listener, NULL, NULL));
	fill(client, from, fd);
	close(listener);
}

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 131 + (i >> 8) * 7 + (i >> 16));
}

static size_t send_some(struct end *end, uint64_t until)
{
	uint8_t buf[4096];
	size_t n = MIN(sizeof(buf), until - end->sent);
	ssize_t r;

	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(end->sent + i);
	r = n ? send(end->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (r < 0 && errno != EAGAIN)
		fail_msg("send: %s", strerror(errno));
	end->sent += r > 0 ? (uint64_t)r : 0;
	return r > 0 ? (size_t)r : 0;
}

static size_t receive_some(struct end *end)
{
	uint8_t buf[4096];
	ssize_t r = recv(end->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (r < 0 && errno != EAGAIN)
		fail_msg("recv: %s", strerror(errno));
	assert_int_not_equal(r, 0);
	for (ssize_t i = 0; i < r; i++)
		assert_int_equal(buf[i], byte_at(end->received + (uint64_t)i));
	end->received += r > 0 ? (uint64_t)r : 0;
	return r > 0 ? (size_t)r : 0;
}

static void tidy(enum host h)
{
	struct err e = ERR_INIT;
	bool empty;

	table(h);
	must(redirect_tidy(tables[h], &empty, &e), &e);
	assert_false(empty);
}

/* Sends so many bytes each way and compares what arrives. The longest silence is in ms. */
static unsigned exchange(struct end *a, struct end *b, size_t n_bytes)
{
	uint64_t until[2] = { a->sent + n_bytes, b->sent + n_bytes }, last = clock_ns(CLOCK_MONOTONIC), longest = 0;

	while (a->received < until[1] || b->received < until[0]) {
		struct pollfd p[2] = { { .fd = a->fd, .events = POLLIN }, { .fd = b->fd, .events = POLLIN } };
		size_t moved = send_some(a, until[0]) + send_some(b, until[1]) + receive_some(a) + receive_some(b);
		uint64_t now = clock_ns(CLOCK_MONOTONIC);

		if (moved) {
			longest = MAX(longest, now - last);
			last = now;
		} else if (now - last > SILENCE_MS * 1000000ull) {
			fail_msg("nothing moves: %llu of %llu and %llu of %llu bytes", (unsigned long long)a->received, (unsigned long long)until[1],
				 (unsigned long long)b->received, (unsigned long long)until[0]);
		} else {
			/* As godwitd does every two seconds. */
			if (now - last > 1000000000ull && is_host_dead) {
				tidy(B);
				tidy(C);
				poll(p, 2, 500);
			}
			poll(p, 2, 5);
		}
	}
	return (unsigned)(longest / 1000000);
}

static void live(void *arg)
{
	redirect_live(arg);
}

/* As a migration does it. While nobody has the end, its peer sends. */
static void move(struct end *end, enum host to, struct end *peer)
{
	struct redirect *from_table = table(end->host), *to_table = table(to);
	struct redirect_move *departing = NULL, *arriving = NULL;
	struct redirect_known known;
	struct redirect_flow flow;
	struct err e = ERR_INIT;
	struct taken t;

	flow_of(end, &flow);
	hosts_enter(end->host);
	must(redirect_depart(from_table, &selves[to], &flow, 1, &departing, &e), &e);
	redirect_tell(from_table, &flow, &selves[end->host], &known);
	hosts_enter(to);
	must(redirect_arrive(to_table, &flow, &known, 1, &arriving, &e), &e);

	redirect_park(departing);
	tcp_take(end->fd, &t);
	send_some(peer, peer->sent + 1000);
	close(end->fd);
	end->fd = tcp_make(&t, &end->own, &end->peer, live, arriving);
	if (end->fd < 0)
		fail_msg("connect: %s", strerror(errno));
	fcntl(end->fd, F_SETFL, O_NONBLOCK);
	redirect_forward(departing);
	hosts_enter(end->host);
	redirect_settle(&departing);
	hosts_enter(to);
	redirect_settle(&arriving);
	end->host = to;
}

static void check(struct end *a, struct end *b)
{
	struct sockaddr_storage own = { 0 }, peer = { 0 };
	unsigned ms;

	/* What was sent while the other end was nowhere. */
	while (b->received < a->sent || a->received < b->sent)
		exchange(a, b, 0);
	ms = exchange(a, b, BYTES);
	if (ms > 150)
		print_message("    silence of %u ms\n", ms);
	getsockname(a->fd, (struct sockaddr *)&own, &(socklen_t){ sizeof(own) });
	getpeername(a->fd, (struct sockaddr *)&peer, &(socklen_t){ sizeof(peer) });
	assert_memory_equal(&own, &a->own, hosts_address_len(&own));
	assert_memory_equal(&peer, &a->peer, hosts_address_len(&peer));
}

static void close_pair(struct end *a, struct end *b)
{
	struct linger at_once = { 1, 0 };
	char c;

	/* By a reset: it must get there, and leaves no TIME_WAIT. */
	assert_int_equal(setsockopt(a->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
	close(a->fd);
	for (int i = 0; i < 100 && recv(b->fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN; i++)
		poll(&(struct pollfd){ .fd = b->fd, .events = POLLIN }, 1, 200);
	assert_int_equal(errno, ECONNRESET);
	close(b->fd);
}

struct hop {
	int who; /* 0: the client, 1: the server, -1: the end */
	enum host to;
};

static void travel(enum host client_host, enum host server_host, bool over_lo, const struct hop *hops)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct end client, server;

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		open_pair(&client, &server, client_host, server_host, families[i], over_lo);
		exchange(&client, &server, BYTES);
		for (const struct hop *h = hops; h->who >= 0; h++) {
			print_message("    %s, %s to %c\n", families[i] == AF_INET ? "IPv4" : "IPv6", h->who ? "server" : "client", 'a' + (int)h->to);
			move(h->who ? &server : &client, h->to, h->who ? &client : &server);
			check(&client, &server);
		}
		close_pair(&client, &server);
	}
}

#define HOPS(...) ((const struct hop[]){ __VA_ARGS__, { -1, A } })

static void test_outside_client(void **state)
{
	(void)state;
	travel(OUTSIDE, A, false, HOPS({ 1, B }, { 1, C }, { 1, A }, { 1, B }, { 1, A }));
}

static void test_client_at_the_source(void **state)
{
	(void)state;
	travel(A, A, false, HOPS({ 1, B }, { 1, C }, { 1, A }));
	travel(A, A, false, HOPS({ 1, B }, { 0, B }, { 1, A }, { 0, C }, { 1, C }));
}

static void test_client_at_the_destination(void **state)
{
	(void)state;
	travel(B, A, false, HOPS({ 1, B }, { 1, C }, { 1, A }));
}

static void test_both_ends(void **state)
{
	(void)state;
	travel(B, A, false, HOPS({ 1, C }, { 0, A }, { 1, B }, { 0, B }, { 0, C }, { 1, A }, { 0, B }));
}

static void test_loopback_address(void **state)
{
	(void)state;
	travel(A, A, true, HOPS({ 1, B }, { 1, C }, { 1, A }));
	travel(A, A, true, HOPS({ 1, B }, { 0, B }, { 1, C }, { 0, A }, { 1, A }));
}

/* What the listener, which is bound to every address, has at its host. Who calls while it moves waits. */
static void move_listener_and_call(int *listener, int family, uint16_t port, enum host from, enum host to, int calls[HOSTS],
				   const struct sockaddr_storage *called)
{
	struct redirect *from_table = table(from), *to_table = table(to);
	struct redirect_move *departing = NULL, *arriving = NULL;
	struct redirect_known known[16];
	struct redirect_flow *flows = NULL;
	struct sockaddr_storage any;
	struct err e = ERR_INIT;
	size_t n = 0;

	hosts_enter(from);
	must(redirect_listening(from_table, IPPROTO_TCP, family, htons(port), &flows, &n, &e), &e);
	assert_in_range(n, 2, ARRAY_SIZE(known));
	must(redirect_depart(from_table, &selves[to], flows, n, &departing, &e), &e);
	for (size_t i = 0; i < n; i++)
		redirect_tell(from_table, &flows[i], &selves[from], &known[i]);
	hosts_enter(to);
	must(redirect_arrive(to_table, flows, known, n, &arriving, &e), &e);
	redirect_park(departing);
	for (int h = A; calls && h < HOSTS; h++) {
		hosts_enter((enum host)h);
		calls[h] = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
		assert_int_equal(connect(calls[h], (const struct sockaddr *)called, hosts_address_len(called)), -1);
		assert_int_equal(errno, EINPROGRESS);
	}
	hosts_enter(to);
	close(*listener);
	hosts_address(to, family, port, &any);
	if (family == AF_INET)
		((struct sockaddr_in *)&any)->sin_addr.s_addr = 0;
	else
		((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_any;
	*listener = socket(family, SOCK_STREAM, 0);
	setsockopt(*listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	assert_int_equal(family == AF_INET ? setsockopt(*listener, IPPROTO_IP, IP_TRANSPARENT, &(int){ 1 }, sizeof(int)) :
					     setsockopt(*listener, IPPROTO_IPV6, IPV6_TRANSPARENT, &(int){ 1 }, sizeof(int)), 0);
	assert_int_equal(bind(*listener, (struct sockaddr *)&any, hosts_address_len(&any)), 0);
	assert_int_equal(listen(*listener, 8), 0);
	redirect_live(arriving);
	redirect_forward(departing);
	hosts_enter(from);
	redirect_settle(&departing);
	hosts_enter(to);
	redirect_settle(&arriving);
	free(flows);
}

static void move_listener(int *listener, int family, uint16_t port, enum host from, enum host to)
{
	move_listener_and_call(listener, family, port, from, to, NULL, NULL);
}

static void call(int listener, enum host at, enum host from, const struct sockaddr_storage *to, bool and_move)
{
	struct end client, server;
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	int fd = connect_from(from, to);

	hosts_enter(at);
	fill(&server, at, accept(listener, NULL, NULL));
	fill(&client, from, fd);
	assert_memory_equal(&client.peer, &server.own, hosts_address_len(&client.peer));
	assert_memory_equal(&client.own, &server.peer, hosts_address_len(&client.own));
	assert_in_range(clock_ns(CLOCK_MONOTONIC) - began, 0, 900000000ull); /* no SYN was lost */
	check(&client, &server);
	/* It goes on as any other, and without its listener. */
	if (and_move) {
		move(&server, at == C ? B : C, &client);
		check(&client, &server);
		move(&client, from == B ? A : B, &server);
		check(&client, &server);
	}
	close_pair(&client, &server);
}

static void test_listener(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const enum host places[] = { A, B, C, A, C };
	struct sockaddr_storage first, lo;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		uint16_t port = (uint16_t)(9000 + f);
		int listener;

		hosts_address(A, families[f], port, &first);
		if (families[f] == AF_INET)
			((struct sockaddr_in *)&first)->sin_addr.s_addr = 0;
		else
			((struct sockaddr_in6 *)&first)->sin6_addr = in6addr_any;
		listener = listen_on(A, &first);
		hosts_address(A, families[f], port, &first);
		loopback(families[f], port, &lo);
		for (size_t i = 1; i < ARRAY_SIZE(places); i++) {
			print_message("    IPv%d, listener to %c\n", families[f] == AF_INET ? 4 : 6, 'a' + (int)places[i]);
			move_listener(&listener, families[f], port, places[i - 1], places[i]);
			for (int from = A; from <= OUTSIDE; from++)
				call(listener, places[i], (enum host)from, &first, true);
			call(listener, places[i], A, &lo, true);
		}
		close(listener);
	}
}

static void call_from_port(struct end *client, struct end *server, enum host from, uint16_t port, const struct sockaddr_storage *to, int listener, enum host at)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	struct sockaddr_storage own;
	int fd;

	hosts_address(from, AF_INET, port, &own);
	hosts_enter(from);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, hosts_address_len(&own)), 0);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ 5, 0 }, sizeof(struct timeval));
	if (connect(fd, (const struct sockaddr *)to, hosts_address_len(to)) < 0)
		fail_msg("a call from %c to the listener on %c: %s", 'a' + (int)from, 'a' + (int)at, strerror(errno));
	assert_in_range(clock_ns(CLOCK_MONOTONIC) - began, 0, 900000000ull);
	fill(client, from, fd);
	hosts_enter(at);
	if (poll(&(struct pollfd){ .fd = listener, .events = POLLIN }, 1, 5000) != 1)
		fail_msg("a call from %c went somewhere else than to the listener on %c", 'a' + (int)from, 'a' + (int)at);
	fill(server, at, accept(listener, NULL, NULL));
	check(client, server);
}

/* The call of a client that uses a port again gets to the listener, wherever the connection went that it had before. */
static void test_a_port_is_used_again(void **state)
{
	static const enum host clients[] = { OUTSIDE, B, C, A };
	struct sockaddr_storage first;
	int listener;

	(void)state;
	hosts_address(A, AF_INET, 9300, &first);
	((struct sockaddr_in *)&first)->sin_addr.s_addr = 0;
	listener = listen_on(A, &first);
	hosts_address(A, AF_INET, 9300, &first);
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		uint16_t port = (uint16_t)(9200 + i);
		struct end client, server;

		print_message("    client on %c\n", 'a' + (int)clients[i]);
		call_from_port(&client, &server, clients[i], port, &first, listener, A);
		for (enum host at = A; at < C; at++) {
			move(&server, at + 1, &client);
			/* Beside which another may listen. */
			setsockopt(server.fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
			move_listener(&listener, AF_INET, 9300, at, at + 1);
			check(&client, &server);
		}
		close_pair(&client, &server);
		move_listener(&listener, AF_INET, 9300, C, A);
		call_from_port(&client, &server, clients[i], port, &first, listener, A);
		close_pair(&client, &server);
		move_listener(&listener, AF_INET, 9300, A, B);
		call_from_port(&client, &server, clients[i], port, &first, listener, B);
		close_pair(&client, &server);
		move_listener(&listener, AF_INET, 9300, B, A);
	}
	close(listener);
}

static void finish_calls(const int calls[HOSTS], int listener, enum host at)
{
	struct end clients[HOSTS], servers[HOSTS];

	for (int h = A; h < HOSTS; h++) {
		struct pollfd p = { .fd = calls[h], .events = POLLOUT };
		int error = 0;

		/* The packet was not lost, and nobody had to send it again. */
		if (poll(&p, 1, 900) != 1)
			fail_msg("a call from %c that was held: no answer", 'a' + h);
		getsockopt(calls[h], SOL_SOCKET, SO_ERROR, &error, &(socklen_t){ sizeof(error) });
		if (error)
			fail_msg("a call from %c that was held: %s", 'a' + h, strerror(error));
		fill(&clients[h], (enum host)h, calls[h]);
	}
	hosts_enter(at);
	for (int h = A; h < HOSTS; h++)
		fill(&servers[h], at, accept(listener, NULL, NULL));
	for (int h = A; h < HOSTS; h++) {
		int s = A;

		while (s < HOSTS && memcmp(&servers[s].peer, &clients[h].own, hosts_address_len(&clients[h].own)))
			s++;
		assert_in_range(s, A, HOSTS - 1);
		check(&clients[h], &servers[s]);
		close_pair(&clients[h], &servers[s]);
	}
}

/* Calls that come while the listener is nowhere. */
static void test_calls_are_held(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct sockaddr_storage any, first;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		uint16_t port = (uint16_t)(9200 + f);
		int listener, calls[HOSTS];

		hosts_address(A, families[f], port, &first);
		any = first;
		if (families[f] == AF_INET)
			((struct sockaddr_in *)&any)->sin_addr.s_addr = 0;
		else
			((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_any;
		listener = listen_on(A, &any);
		move_listener_and_call(&listener, families[f], port, A, C, calls, &first);
		finish_calls(calls, listener, C);
		move_listener_and_call(&listener, families[f], port, C, A, calls, &first);
		finish_calls(calls, listener, A);
		close(listener);
	}
}

static void test_a_move_that_fails(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const enum host clients[] = { OUTSIDE, A, B };
	struct end client, server;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(families) * ARRAY_SIZE(clients); i++) {
		struct redirect_move *departing = NULL, *arriving = NULL;
		struct redirect_known known;
		struct redirect_flow flow;
		struct err e = ERR_INIT;
		uint64_t received;

		open_pair(&client, &server, clients[i / 2], A, families[i % 2], false);
		exchange(&client, &server, BYTES);
		flow_of(&server, &flow);
		must(redirect_depart(table(A), &selves[B], &flow, 1, &departing, &e), &e);
		redirect_tell(table(A), &flow, &selves[A], &known);
		must(redirect_arrive(table(B), &flow, &known, 1, &arriving, &e), &e);
		redirect_park(departing);
		send_some(&client, client.sent + 3000);
		received = server.received;
		assert_int_equal(poll(&(struct pollfd){ .fd = server.fd, .events = POLLIN }, 1, 50), 0);
		hosts_enter(A);
		redirect_cancel(&departing);
		hosts_enter(B);
		redirect_cancel(&arriving);
		while (server.received < received + 3000)
			assert_true(receive_some(&server) || poll(&(struct pollfd){ .fd = server.fd, .events = POLLIN }, 1, SILENCE_MS));
		check(&client, &server);
		close_pair(&client, &server);
	}
}

/* The first one's end is noticed when the second has begun. */
static void test_attempts_that_overlap(void **state)
{
	struct redirect_known known = { .other_moves_made = 0 };
	struct redirect_move *first = NULL, *second = NULL;
	struct redirect_flow flow, other;
	struct err e = ERR_INIT;
	struct redirect_end end;
	struct end client, server;

	(void)state;
	open_pair(&client, &server, OUTSIDE, A, AF_INET, false);
	flow_of(&server, &flow);
	redirect_other(&flow, &other);
	known.other = selves[A];
	must(redirect_arrive(table(B), &flow, &known, 1, &first, &e), &e);
	must(redirect_arrive(table(B), &flow, &known, 1, &second, &e), &e);
	redirect_cancel(&first);
	assert_true(redirect_get(table(B), &flow, &end));
	assert_int_equal(end.move, second->index);
	assert_true(redirect_get(table(B), &other, &end));
	assert_int_equal(end.state, REDIRECT_THERE);
	redirect_cancel(&second);
	close_pair(&client, &server);
}

/* A client uses a port again while somebody removes what is old. */
static void test_one_that_is_made_anew(void **state)
{
	struct redirect_end old = { .state = REDIRECT_THERE, .changed_ns = 1 }, end = old;
	struct redirect_flow flow;
	struct end client, server;

	(void)state;
	open_pair(&client, &server, OUTSIDE, A, AF_INET, false);
	flow_of(&server, &flow);
	assert_int_equal(redirect_put(table(B), &flow, &old), 0);
	end.changed_ns = 2;
	assert_int_equal(redirect_put(table(B), &flow, &end), 0);
	assert_false(redirect_remove_unchanged(table(B), &flow, old.changed_ns));
	assert_true(redirect_get(table(B), &flow, &end));
	assert_true(redirect_remove_unchanged(table(B), &flow, end.changed_ns));
	assert_false(redirect_get(table(B), &flow, &end));
	close_pair(&client, &server);
}

/* As the daemons do it: one host tells another what it has. */
static void tell(enum host from, enum host to)
{
	struct redirect_node sender = selves[from];
	struct err e = ERR_INIT;
	void *news = NULL;
	size_t len = 0;

	table(from);
	must(news_write(tables[from], &selves[from], &news, &len, &e), &e);
	hosts_enter(to);
	memset(sender.v6, 0, sizeof(sender.v6));
	must(news_apply(&sender, news, len, &e), &e);
	free(news);
}

static void tell_all(void)
{
	for (int from = A; from <= C; from++)
		for (int to = A; to <= C; to++)
			if (from != to)
				tell((enum host)from, (enum host)to);
}

static int count_item(const struct redirect_item *item, void *arg)
{
	char text[REDIRECT_FLOW_TEXT];

	print_message("    left: %s, state %d, moves %u, %s\n", redirect_flow_text(&item->flow, text), (int)item->state, item->moves_made, item->node);
	(*(unsigned *)arg)++;
	return 0;
}

static void tables_are_empty(void)
{
	unsigned n = 0;

	news_settled_ns = tidy_forget_ns = tidy_young_ns = 0;
	for (int h = A; h <= C; h++)
		tidy((enum host)h);
	tell_all();
	for (int h = A; h <= C; h++)
		tidy((enum host)h);
	news_settled_ns = 60 * 1000000000ull;
	tidy_forget_ns = 600 * 1000000000ull;
	tidy_young_ns = 20 * 1000000000ull;
	for (int h = A; h <= C; h++)
		redirect_list(table((enum host)h), count_item, &n, NULL);
	assert_int_equal(n, 0);
}

/* The host that was left is not needed by those that run Godwit. */
static void test_a_dead_host(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct end client, server;
	struct sockaddr_storage any, to;
	int listener;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		int family = families[f];
		uint16_t port = (uint16_t)(9100 + f);

		hosts_address(A, family, port, &to);
		any = to;
		if (family == AF_INET)
			((struct sockaddr_in *)&any)->sin_addr.s_addr = 0;
		else
			((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_any;
		open_pair(&client, &server, B, A, family, false);
		listener = listen_on(A, &any);
		exchange(&client, &server, BYTES);
		move(&server, C, &client);
		move_listener(&listener, family, port, A, C);
		tell_all();
		hosts_cut(A, true);
		is_host_dead = true;
		check(&client, &server);
		call(listener, C, B, &to, false);
		/* Both ends are elsewhere then, and the first host has forgotten nothing, but cannot be asked. */
		move(&client, C, &server);
		move(&server, B, &client);
		tell(C, B);
		tell(B, C);
		check(&client, &server);
		/* Nobody answers for its address any more. */
		hosts_enter(C);
		assert_int_equal(system("ip neigh flush dev eth0"), 0);
		client.sent += send(client.fd, (uint8_t[]){ byte_at(client.sent) }, 1, 0) == 1;
		check(&client, &server);
		close_pair(&client, &server);
		hosts_enter(C);
		close(listener);
		hosts_cut(A, false);
		is_host_dead = false;
		/* What passed for its link address. */
		hosts_enter(C);
		assert_int_equal(system("ip neigh flush dev eth0"), 0);
	}
}

static void must_be_refused(enum host from, const struct sockaddr_storage *to)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	int fd;

	hosts_enter(from);
	fd = socket(to->ss_family, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)to, hosts_address_len(to)), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_in_range(clock_ns(CLOCK_MONOTONIC) - began, 0, 900000000ull);
	close(fd);
}

/* A listener that has moved ends by itself. Nobody is kept waiting, and another one at the old address is found by whoever has heard. */
static void test_a_listener_that_ends(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct sockaddr_storage any, to, here;
	int listener, next, other;

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		int family = families[f];
		uint16_t port = (uint16_t)(9400 + f);

		hosts_address(A, family, port, &to);
		hosts_address(B, family, port, &here);
		any = to;
		if (family == AF_INET)
			((struct sockaddr_in *)&any)->sin_addr.s_addr = 0;
		else
			((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_any;
		listener = listen_on(A, &any);
		move_listener(&listener, family, port, A, B);
		tell_all();
		call(listener, B, C, &to, false);
		hosts_enter(B);
		close(listener);
		must_be_refused(C, &to);
		tidy(B);
		must_be_refused(C, &to);
		next = listen_on(A, &any);
		tidy(A);
		call(next, A, B, &to, false);
		call(next, A, OUTSIDE, &to, false);
		tell(B, C);
		tell(B, A);
		call(next, A, C, &to, false);
		/* One of the other host's own is another one, for whom it has ended has not heard, too. */
		other = listen_on(B, &any);
		call(other, B, C, &here, false);
		call(next, A, C, &to, false);
		move_listener(&next, family, port, A, C);
		tell(C, A);
		tell(B, A);
		tell(C, B);
		call(next, C, B, &to, false);
		call(next, C, A, &to, false);
		call(other, B, A, &here, false);
		hosts_enter(C);
		close(next);
		tidy(C);
		tell_all();
		must_be_refused(B, &to);
		hosts_enter(B);
		close(other);
	}
}

/* Who does not hear is told again, at first soon. */
static void test_news_are_told_again(void **state)
{
	struct redirect *r = table(A);
	uint32_t number;

	(void)state;
	r->config->news++;
	assert_true(news_due(r, &number));
	news_told(r, number, false);
	assert_false(news_due(r, &number));
	r->config->tried_ns -= 3000000000ull;
	assert_true(news_due(r, &number));
	news_told(r, number, false);
	r->config->tried_ns -= 3000000000ull;
	assert_false(news_due(r, &number));
	r->config->news++;
	assert_true(news_due(r, &number));
	news_told(r, number, true);
	r->config->tried_ns -= 3000000000ull;
	assert_false(news_due(r, &number));
}

static uint32_t id_of(int program)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(program, &info, &len), 0);
	return info.id;
}

/* Programs that are prepared are those of the first table and, prepared again while it is in use, of that one; without them others are loaded for it. */
static void test_prepared_programs(void **state)
{
	static const int none[REDIRECT_PROGRAMS] = REDIRECT_PROGRAMS_NONE;
	struct redirect *again = NULL;
	int programs[REDIRECT_PROGRAMS];
	struct err e = ERR_INIT;

	(void)state;
	hosts_enter(A);
	for (int round = 0; round < 2; round++) {
		must(redirect_prepare(programs, &e), &e);
		redirect_set_prepared(programs);
		assert_true(redirect_is_prepared(table(A)));
		must(redirect_open(&again, &e), &e);
		for (int i = 0; i < REDIRECT_PROGRAMS; i++)
			assert_int_equal(id_of(again->programs[i]), id_of(programs[i]));
		redirect_close(&again);
		redirect_set_prepared(none);
		assert_false(redirect_is_prepared(table(A)));
		must(redirect_open(&again, &e), &e);
		assert_int_equal(again->config->opened_ns, table(A)->config->opened_ns);
		redirect_close(&again);
	}
}

/* What has ended leaves nothing behind. */
static void test_the_end(void **state)
{
	(void)state;
	tables_are_empty();
}

static int setup(void **state)
{
	(void)state;
	if (!hosts_make())
		return -1;
	for (int h = A; h <= C; h++)
		learn_self((enum host)h);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prepared_programs),
		cmocka_unit_test(test_outside_client),
		cmocka_unit_test(test_client_at_the_source),
		cmocka_unit_test(test_client_at_the_destination),
		cmocka_unit_test(test_both_ends),
		cmocka_unit_test(test_loopback_address),
		cmocka_unit_test(test_listener),
		cmocka_unit_test(test_a_port_is_used_again),
		cmocka_unit_test(test_calls_are_held),
		cmocka_unit_test(test_a_move_that_fails),
		cmocka_unit_test(test_attempts_that_overlap),
		cmocka_unit_test(test_one_that_is_made_anew),
		cmocka_unit_test(test_a_dead_host),
		cmocka_unit_test(test_a_listener_that_ends),
		cmocka_unit_test(test_news_are_told_again),
		cmocka_unit_test(test_the_end),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
