/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chat.c - a server and clients of UDP that compare every byte, number every datagram, and measure the longest silence
 *
 *	chat serve ADDRESS PORT NAME      answers what it gets, and tells all who have asked something new each 20 ms; until SIGTERM. SIGUSR2: it reads nothing until the next one
 *	chat ask ADDRESS PORT NAME        one datagram after another, each when the one before has been answered
 *	chat listen ADDRESS PORT NAME     asks once, and listens
 *	chat post ADDRESS PORT N          asks N times at once, without waiting for an answer, and ends
 *
 * Clients are connected sockets. SIGUSR1: a line of what has been until now, and the silence is measured anew. A datagram that does not come is counted as lost; one that
 * differs, comes twice or too early ends the program with a line that says so, and status 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define BYTES_MAX 3000 /* two fragments and a bit */
#define TICK_NS 20000000ull
#define PATIENCE_NS 3000000000ull

enum kind { ASK = 1, ANSWER, NEWS };

struct message {
	uint32_t kind, client, number, len;
	uint8_t bytes[BYTES_MAX];
};

struct client {
	struct sockaddr_storage at;
	uint32_t id, asked, told;
};

static struct client clients[CLIENTS_MAX];
static size_t n_clients;
static uint64_t longest_ns, last_ns, messages, bytes, lost;
static uint32_t last_lost;
static volatile sig_atomic_t stop, report, deaf;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void on_signal(int number)
{
	if (number == SIGUSR1)
		report = 1;
	else if (number == SIGUSR2)
		deaf = !deaf;
	else
		stop = 1;
}

static void say(const char *how)
{
	printf("%s: %llu lost (%u), %llu messages, %llu bytes, silence %llu us\n", how, (unsigned long long)lost, last_lost, (unsigned long long)messages, (unsigned long long)bytes,
	       (unsigned long long)(longest_ns / 1000));
	fflush(stdout);
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...)
{
	va_list args;

	printf("WRONG: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	say("until then");
	exit(1);
}

static void answer_signals(void)
{
	if (!report)
		return;
	report = 0;
	say("so far");
	longest_ns = 0;
}

static socklen_t parse(const char *address, const char *port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1)
		fail("%s: no address", address);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)atoi(port));
	return sizeof(*v6);
}

static uint8_t byte_at(const struct message *m, uint32_t i)
{
	return (uint8_t)(m->client * 31 + m->number * 167 + m->kind * 7 + i * 13);
}

/* Every ninth one is large. */
static void fill(struct message *m, uint32_t kind, uint32_t client, uint32_t number)
{
	*m = (struct message){ .kind = kind, .client = client, .number = number, .len = number % 9 ? 48 : BYTES_MAX };
	for (uint32_t i = 0; i < m->len; i++)
		m->bytes[i] = byte_at(m, i);
}

static size_t size_of(const struct message *m)
{
	return sizeof(*m) - BYTES_MAX + m->len;
}

static void check(const struct message *m, ssize_t n)
{
	if (n < (ssize_t)(sizeof(*m) - BYTES_MAX) || m->len > BYTES_MAX || (size_t)n != size_of(m))
		fail("a datagram of %zd bytes", n);
	for (uint32_t i = 0; i < m->len; i++)
		if (m->bytes[i] != byte_at(m, i))
			fail("datagram %u of %u: byte %u is %u, not %u", m->number, m->client, i, m->bytes[i], byte_at(m, i));
	messages++;
	bytes += (uint64_t)n;
	if (last_ns && now_ns() - last_ns > longest_ns)
		longest_ns = now_ns() - last_ns;
	last_ns = now_ns();
}

static bool wait_for(int fd, uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	return ppoll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, &ts, NULL) == 1;
}

/* --- the server --- */

static struct client *client_of(uint32_t id, const struct sockaddr_storage *at)
{
	size_t i = 0;

	while (i < n_clients && clients[i].id != id)
		i++;
	if (i == CLIENTS_MAX)
		fail("too many clients");
	if (i == n_clients)
		clients[n_clients++] = (struct client){ .at = *at, .id = id };
	/* Bytes behind the address are the kernel's. */
	if (memcmp(&clients[i].at, at, at->ss_family == AF_INET ? 8 : 24))
		fail("client %u has another address than before", id);
	return &clients[i];
}

static void serve_one(int fd)
{
	struct sockaddr_storage from = { 0 };
	socklen_t len = sizeof(from);
	struct message m;
	ssize_t n = recvfrom(fd, &m, sizeof(m), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
	struct client *c;

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			fail("recvfrom: %s", strerror(errno));
		return;
	}
	check(&m, n);
	c = client_of(m.client, &from);
	/* It asks again when it has heard nothing. */
	if (m.kind != ASK || (m.number != c->asked + 1 && m.number != c->asked))
		fail("client %u asks %u after %u", m.client, m.number, c->asked);
	c->asked = m.number;
	fill(&m, ANSWER, m.client, m.number);
	if (sendto(fd, &m, size_of(&m), 0, (struct sockaddr *)&from, len) < 0)
		fail("answering: %s", strerror(errno));
}

static void tell_all(int fd)
{
	struct message m;

	for (size_t i = 0; i < n_clients; i++) {
		fill(&m, NEWS, clients[i].id, ++clients[i].told);
		/* Who has ended is not there: an earlier datagram may say so. */
		if (sendto(fd, &m, size_of(&m), 0, (struct sockaddr *)&clients[i].at, clients[i].at.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) < 0 &&
		    errno != ECONNREFUSED)
			fail("telling: %s", strerror(errno));
	}
}

static void serve(const char *address, const char *port)
{
	struct sockaddr_storage at;
	socklen_t len = parse(address, port, &at);
	int fd = socket(at.ss_family, SOCK_DGRAM, 0);
	uint64_t due = now_ns();

	if (bind(fd, (struct sockaddr *)&at, len) < 0)
		fail("bind: %s", strerror(errno));
	say("listens");
	while (!stop) {
		answer_signals();
		if (deaf) {
			poll(NULL, 0, 10);
			continue;
		}
		if (now_ns() >= due) {
			tell_all(fd);
			due = now_ns() + TICK_NS;
		}
		if (wait_for(fd, due > now_ns() ? due - now_ns() : 1))
			serve_one(fd);
	}
}

/* --- clients --- */

static void ask(int fd, uint32_t number)
{
	struct message m;

	fill(&m, ASK, (uint32_t)getpid(), number);
	if (send(fd, &m, size_of(&m), 0) < 0)
		fail("asking: %s", strerror(errno));
}

/* One datagram, of this kind: others are let through. */
static bool hear(int fd, uint32_t kind, struct message *m)
{
	ssize_t n = recv(fd, m, sizeof(*m), MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		fail("recv: %s", strerror(errno));
	if (n < 0)
		return false;
	check(m, n);
	if (m->client != (uint32_t)getpid())
		fail("a datagram of client %u", m->client);
	return m->kind == kind;
}

static void converse(int fd)
{
	struct message m;
	uint32_t number = 0;
	uint64_t asked_ns = 0;

	while (!stop) {
		answer_signals();
		if (!asked_ns || now_ns() - asked_ns > PATIENCE_NS) {
			lost += asked_ns != 0;
			last_lost = asked_ns ? number : last_lost;
			number += !asked_ns;
			ask(fd, number);
			asked_ns = now_ns();
		}
		if (!wait_for(fd, 100000000) || !hear(fd, ANSWER, &m))
			continue;
		if (m.number > number || (m.number < number && !lost))
			fail("an answer to %u instead of %u", m.number, number);
		if (m.number == number)
			asked_ns = 0;
	}
}

static void listen_only(int fd)
{
	struct message m;
	uint32_t number = 0;

	ask(fd, 1);
	while (!stop) {
		answer_signals();
		if (!wait_for(fd, 100000000) || !hear(fd, NEWS, &m))
			continue;
		if (m.number <= number)
			fail("news %u after %u", m.number, number);
		if (m.number > number + 1) {
			lost += m.number - number - 1;
			last_lost = m.number - 1;
		}
		number = m.number;
	}
}

static void call(const char *mode, const char *address, const char *port, const char *more)
{
	struct sockaddr_storage to, own[2] = { 0 };
	socklen_t len = parse(address, port, &to);
	int fd = socket(to.ss_family, SOCK_DGRAM, 0);

	if (connect(fd, (struct sockaddr *)&to, len) < 0)
		fail("connect: %s", strerror(errno));
	getsockname(fd, (struct sockaddr *)&own[0], &(socklen_t){ sizeof(own[0]) });
	say("talks");
	if (!strcmp(mode, "post"))
		for (int i = 1; i <= atoi(more); i++)
			ask(fd, (uint32_t)i);
	else if (!strcmp(mode, "listen"))
		listen_only(fd);
	else
		converse(fd);
	getsockname(fd, (struct sockaddr *)&own[1], &(socklen_t){ sizeof(own[1]) });
	if (memcmp(&own[0], &own[1], sizeof(own[0])))
		fail("its address has changed");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	if (argc != 5)
		fail("usage: chat serve|ask|listen|post ADDRESS PORT NAME|N");
	if (!strcmp(argv[1], "serve"))
		serve(argv[2], argv[3]);
	else
		call(argv[1], argv[2], argv[3], argv[4]);
	say("done");
	return 0;
}
