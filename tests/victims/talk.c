/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * talk.c - a server and a client that compare every byte of many TCP connections, and measure the longest silence
 *
 *	talk serve ADDRESS PORT [0 NAME]     answers until SIGTERM
 *	talk MODE ADDRESS PORT [N [NAME]]    with N connections (default 1), until SIGTERM. By NAME it can be told from others
 *
 * MODE, from the client's side: echo (a message at a time, at full rate), tick (a message each millisecond, whatever comes back), bulk (as much as goes, both ways at
 * the same time), call (a new connection for each message). SIGUSR1: a line of what has been until now, and the silence is measured anew. The byte at a place of a
 * stream is a function of the place. A wrong byte, an error or an end ends the program with a line that says so, and status 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
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

#define CONNECTIONS_MAX 10240
#define MESSAGE_BYTES 64
#define CHUNK_BYTES 65536

enum mode { ECHO = 'e', TICK = 't', BULK = 'b', CALL = 'c' };

struct talk {
	int fd;
	enum mode mode;         /* 0: not said yet, at the server */
	uint64_t sent, received;
	struct sockaddr_storage own, peer;
	uint64_t last_ns;
};

static struct talk talks[CONNECTIONS_MAX];
static struct pollfd polls[CONNECTIONS_MAX + 1];
static size_t n_talks;
static uint64_t longest_ns, messages, bytes;
static bool is_server;
static volatile sig_atomic_t stop, report;

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
	else
		stop = 1;
}

static void say(const char *how)
{
	printf("%s: %zu connections, %llu messages, %llu bytes, silence %llu us\n", how, n_talks, (unsigned long long)messages, (unsigned long long)bytes,
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

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 167 + (i >> 8) * 13 + (i >> 16) * 5 + (i >> 24));
}

static void parse(const char *address, const char *port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(port));
	} else {
		fail("%s: no address", address);
	}
}

static void names(int fd, struct sockaddr_storage *own, struct sockaddr_storage *peer)
{
	memset(own, 0, sizeof(*own));
	memset(peer, 0, sizeof(*peer));
	if (getsockname(fd, (struct sockaddr *)own, &(socklen_t){ sizeof(*own) }) < 0)
		fail("getsockname: %s", strerror(errno));
	if (getpeername(fd, (struct sockaddr *)peer, &(socklen_t){ sizeof(*peer) }) < 0)
		fail("getpeername: %s", strerror(errno));
}

static void check_names(const struct talk *t)
{
	struct sockaddr_storage own, peer;

	errno = 0;
	if (is_server && getpeername(t->fd, (struct sockaddr *)&peer, &(socklen_t){ sizeof(peer) }) < 0 && errno == ENOTCONN)
		return; /* is_over */
	names(t->fd, &own, &peer);
	if (memcmp(&own, &t->own, sizeof(own)) || memcmp(&peer, &t->peer, sizeof(peer)))
		fail("the addresses of connection %d have changed", t->fd);
}

static struct talk *add(int fd, enum mode mode)
{
	struct talk *t = &talks[n_talks++];

	*t = (struct talk){ .fd = fd, .mode = mode, .last_ns = now_ns() };
	names(fd, &t->own, &t->peer);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return t;
}

/* A client that ends while something is on its way resets its connection; it would say itself if that were not what it wanted. */
static bool is_over(void)
{
	return is_server && (errno == ECONNRESET || errno == EPIPE);
}

static bool may_wait(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* Sends what is between the places, as far as it goes. */
static void send_until(struct talk *t, uint64_t until)
{
	static uint8_t buf[CHUNK_BYTES];

	while (t->sent < until) {
		size_t n = until - t->sent < sizeof(buf) ? (size_t)(until - t->sent) : sizeof(buf);
		ssize_t r;

		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(t->sent + i);
		r = send(t->fd, buf, n, MSG_NOSIGNAL);
		if (r < 0 && is_over())
			return;
		if (r < 0 && !may_wait())
			fail("connection %d: send at %llu: %s", t->fd, (unsigned long long)t->sent, strerror(errno));
		if (r < 0 && errno == EAGAIN)
			return;
		t->sent += r > 0 ? (uint64_t)r : 0;
	}
}

/* False at the end of the stream. */
static bool receive(struct talk *t)
{
	static uint8_t buf[CHUNK_BYTES];
	ssize_t r = recv(t->fd, buf, sizeof(buf), 0);

	if (r < 0 && is_over())
		return false;
	if (r < 0 && !may_wait())
		fail("connection %d: recv at %llu: %s", t->fd, (unsigned long long)t->received, strerror(errno));
	for (ssize_t i = 0; i < r; i++)
		if (buf[i] != byte_at(t->received + (uint64_t)i))
			fail("connection %d: byte %llu is %u, not %u", t->fd, (unsigned long long)t->received + (uint64_t)i, buf[i],
			     byte_at(t->received + (uint64_t)i));
	if (r > 0) {
		uint64_t now = now_ns();

		if (now - t->last_ns > longest_ns)
			longest_ns = now - t->last_ns;
		t->last_ns = now;
		t->received += (uint64_t)r;
		bytes += (uint64_t)r;
	}
	return r != 0;
}

/* --- the server --- */

static void drop(size_t i)
{
	close(talks[i].fd);
	talks[i] = talks[--n_talks];
}

/* The first byte is the mode. False: the connection is over. */
static bool serve_one(struct talk *t, short events)
{
	if (!t->mode) {
		uint8_t mode;
		ssize_t r = recv(t->fd, &mode, 1, 0);

		if (r < 0 && is_over())
			return false;
		if (r < 0 && !may_wait())
			fail("connection %d: recv: %s", t->fd, strerror(errno));
		if (r == 1)
			t->mode = (enum mode)mode;
		return r != 0;
	}
	if (events & (POLLIN | POLLHUP | POLLERR) && !receive(t))
		return false;
	send_until(t, t->mode == BULK ? t->sent + CHUNK_BYTES : t->received);
	return true;
}

static void serve(const char *address, const char *port)
{
	struct sockaddr_storage at;
	int listener, fd;

	is_server = true;
	parse(address, port, &at);
	listener = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1024) < 0)
		fail("listen: %s", strerror(errno));
	say("listens");
	while (!stop) {
		polls[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
		for (size_t i = 0; i < n_talks; i++)
			polls[i + 1] = (struct pollfd){ .fd = talks[i].fd,
				.events = (short)(POLLIN | (talks[i].mode && (talks[i].mode == BULK || talks[i].sent < talks[i].received) ? POLLOUT : 0)) };
		if (poll(polls, n_talks + 1, 100) < 0 && errno != EINTR)
			fail("poll: %s", strerror(errno));
		if (report) {
			report = 0;
			say("so far");
			longest_ns = 0;
		}
		for (size_t i = n_talks; i-- > 0;)
			if (polls[i + 1].revents && !serve_one(&talks[i], polls[i + 1].revents))
				drop(i);
		while (n_talks < CONNECTIONS_MAX && (fd = accept(listener, NULL, NULL)) >= 0)
			add(fd, 0);
	}
	for (size_t i = 0; i < n_talks; i++)
		check_names(&talks[i]);
}

/* --- the client --- */

static struct talk *call(const struct sockaddr_storage *to, enum mode mode)
{
	int fd = socket(to->ss_family, SOCK_STREAM, 0);
	uint8_t word = (uint8_t)mode;

	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 && (errno != EINTR || poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1) < 0))
		fail("connect: %s", strerror(errno));
	if (send(fd, &word, 1, MSG_NOSIGNAL) != 1)
		fail("the first byte: %s", strerror(errno));
	return add(fd, mode);
}

static void call_again_and_again(const struct sockaddr_storage *to)
{
	while (!stop) {
		uint64_t began = now_ns();
		struct talk *t = call(to, CALL);

		fcntl(t->fd, F_SETFL, 0);
		t->last_ns = began;
		send_until(t, MESSAGE_BYTES);
		while (t->received < MESSAGE_BYTES)
			if (!receive(t))
				fail("the server has hung up after %llu messages", (unsigned long long)messages);
		close(t->fd);
		n_talks--;
		messages++;
		if (report) {
			report = 0;
			say("so far");
			longest_ns = 0;
		}
	}
}

static void speak(struct talk *t, uint64_t now)
{
	if (t->mode == BULK) {
		send_until(t, t->sent + CHUNK_BYTES);
	} else if (t->mode == TICK) {
		static uint64_t begun_ns;
		uint64_t due;

		begun_ns = begun_ns ? begun_ns : now;
		due = (now - begun_ns) / 1000000 * MESSAGE_BYTES;
		if (due > t->sent)
			send_until(t, due);
	} else if (t->received == t->sent) {
		messages++;
		send_until(t, t->sent + MESSAGE_BYTES);
	} else if (t->sent % MESSAGE_BYTES) {
		send_until(t, (t->sent / MESSAGE_BYTES + 1) * MESSAGE_BYTES);
	}
}

static void converse(void)
{
	/* Whoever asks does so between two waits, too. */
	struct timespec tick = { 0, 1000000 }, while_ns = { 0, 100000000 };

	while (!stop) {
		bool ticks = talks[0].mode == TICK;

		for (size_t i = 0; i < n_talks; i++) {
			speak(&talks[i], now_ns());
			polls[i] = (struct pollfd){ .fd = talks[i].fd, .events = (short)(POLLIN | (talks[i].mode == BULK ? POLLOUT : 0)) };
		}
		if (ppoll(polls, n_talks, ticks ? &tick : &while_ns, NULL) < 0 && errno != EINTR)
			fail("poll: %s", strerror(errno));
		for (size_t i = 0; i < n_talks; i++)
			if (polls[i].revents & (POLLIN | POLLHUP | POLLERR) && !receive(&talks[i]))
				fail("connection %d: the server has hung up", talks[i].fd);
		if (report) {
			report = 0;
			say("so far");
			longest_ns = 0;
		}
	}
	for (size_t i = 0; i < n_talks; i++)
		check_names(&talks[i]);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sockaddr_storage to;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	if (argc < 4 || argc > 6)
		fail("usage: talk serve|echo|tick|bulk|call ADDRESS PORT [N [NAME]]");
	if (!strcmp(argv[1], "serve")) {
		serve(argv[2], argv[3]);
	} else {
		parse(argv[2], argv[3], &to);
		say("calls");
		if (argv[1][0] == CALL) {
			call_again_and_again(&to);
		} else {
			for (int i = argc > 4 ? atoi(argv[4]) : 1; i > 0; i--)
				call(&to, (enum mode)argv[1][0]);
			say("talks");
			converse();
		}
	}
	say("done");
	return 0;
}
