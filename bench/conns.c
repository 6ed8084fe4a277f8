/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conns.c - many TCP connections and one that is busy, for ./dev bench
 *
 *	conns serve PORT                          answers on every address; the first byte of a connection is what it is for
 *	conns talk ADDRESS PORT IDLE MODE FILE    calls: IDLE connections that say nothing behind that byte, and one more: e(cho), a message of 64 bytes at a time,
 *	                                          b(ulk), as much as goes both ways at the same time, or a(ll): each of them sends a message a second, and it is echoed
 *
 * The byte at a place of a stream is a function of the place, and is checked. FILE holds a struct seen, mapped: when and for how
 * long the busy connection heard nothing (of all: waited for an answer), by CLOCK_REALTIME.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 32768
#define EVENTS 512
#define MESSAGE_BYTES 64
#define CHUNK_BYTES 65536
#define SILENCES 8192
#define SILENCE_NS 200000

struct seen {
	uint64_t ready;       /* connections that stand */
	uint64_t messages, bytes;
	uint64_t wrong;
	uint64_t n_silences;  /* in a ring: those that were longer than SILENCE_NS */
	struct {
		uint64_t at_ns, ns;
	} silences[SILENCES];
};

struct conn {
	char mode;            /* 0: not said yet, at the server */
	bool wants_out;
	uint64_t sent, received, last_ns;
};

static struct conn conns[FDS_MAX];
static struct seen own_seen, *seen = &own_seen;
static int ep;
static bool is_server;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "conns: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i % 251);
}

static void watch(int fd, bool out, int how)
{
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.fd = fd };

	conns[fd].wants_out = out;
	if (epoll_ctl(ep, how, fd, &event) < 0)
		die("epoll_ctl");
}

static void add(int fd, char mode)
{
	if (fd >= FDS_MAX)
		die("too many connections");
	conns[fd] = (struct conn){ .mode = mode, .last_ns = now_ns() };
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	watch(fd, mode == 'b', EPOLL_CTL_ADD);
}

static void send_until(int fd, uint64_t until)
{
	static uint8_t pattern[CHUNK_BYTES + 251];
	struct conn *c = &conns[fd];
	ssize_t n = 1;

	if (!pattern[1])
		for (size_t i = 0; i < sizeof(pattern); i++)
			pattern[i] = byte_at(i);
	while (c->sent < until && n > 0) {
		size_t len = until - c->sent < CHUNK_BYTES ? (size_t)(until - c->sent) : CHUNK_BYTES;

		n = send(fd, pattern + c->sent % 251, len, MSG_NOSIGNAL);
		c->sent += n > 0 ? (uint64_t)n : 0;
	}
	if (n < 0 && errno != EAGAIN && !is_server)
		die("send");
	if (c->mode != 'b' && c->wants_out != (c->sent < until))
		watch(fd, c->sent < until, EPOLL_CTL_MOD);
}

static void note_silence(struct conn *c, uint64_t now)
{
	if (now - c->last_ns < SILENCE_NS)
		return;
	seen->silences[seen->n_silences % SILENCES].at_ns = c->last_ns;
	seen->silences[seen->n_silences % SILENCES].ns = now - c->last_ns;
	seen->n_silences++;
}

/* False: the connection is over. */
static bool receive(int fd)
{
	static uint8_t buf[CHUNK_BYTES];
	struct conn *c = &conns[fd];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);
	uint64_t now = now_ns();
	ssize_t from = 0;

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	if (is_server && !c->mode) {
		c->mode = (char)buf[0];
		from = 1;
		watch(fd, c->mode == 'b', EPOLL_CTL_MOD);
	}
	for (ssize_t i = from; i < n; i++)
		seen->wrong += buf[i] != byte_at(c->received + (uint64_t)(i - from));
	if (!is_server)
		note_silence(c, now);
	c->last_ns = now;
	c->received += (uint64_t)(n - from);
	seen->bytes += (uint64_t)(n - from);
	return true;
}

static void speak(int fd)
{
	struct conn *c = &conns[fd];

	if (c->mode == 'b')
		send_until(fd, c->sent + CHUNK_BYTES);
	else if (is_server && c->mode != 'i')
		send_until(fd, c->received);
	else if (c->mode == 'e' && c->received == c->sent)
		send_until(fd, c->sent + MESSAGE_BYTES);
}

static void handle(int listener, const struct epoll_event *e)
{
	int fd = e->data.fd;

	if (fd == listener) {
		while ((fd = accept(listener, NULL, NULL)) >= 0) {
			add(fd, 0);
			seen->ready++;
		}
		return;
	}
	if (e->events & ~(uint32_t)EPOLLOUT && !receive(fd)) {
		if (!is_server)
			die("the server has hung up");
		close(fd);
		return;
	}
	speak(fd);
}

static void serve(const char *port)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct epoll_event events[EVENTS];

	is_server = true;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 4096) < 0)
		die("listen");
	watch(listener, false, EPOLL_CTL_ADD);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);

		for (int i = 0; i < n; i++)
			handle(listener, &events[i]);
		if (seen->wrong)
			die("wrong bytes");
	}
}

static int call(const char *address, const char *port, char mode)
{
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	bool v4 = inet_pton(AF_INET, address, &to.sin_addr) == 1;
	int fd;

	if (!v4 && inet_pton(AF_INET6, address, &to6.sin6_addr) != 1)
		die(address);
	fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
	if (connect(fd, v4 ? (struct sockaddr *)&to : (struct sockaddr *)&to6, v4 ? sizeof(to) : sizeof(to6)) < 0)
		die("connect");
	if (send(fd, &mode, 1, MSG_NOSIGNAL) != 1)
		die("send");
	add(fd, mode);
	seen->ready++;
	return fd;
}

/* One after the other, evenly over each second. */
static void ask_all(const int *fds, int n)
{
	static uint64_t begun, asked;
	uint64_t due;

	begun = begun ? begun : now_ns();
	due = (now_ns() - begun) * (uint64_t)n / 1000000000ull;
	for (; asked < due; asked++) {
		int fd = fds[asked % (uint64_t)n];

		if (conns[fd].received < conns[fd].sent)
			continue;
		conns[fd].last_ns = now_ns();
		send_until(fd, conns[fd].sent + MESSAGE_BYTES);
	}
}

static void talk(char **argv)
{
	int n_idle = atoi(argv[4]), *fds = calloc((size_t)n_idle + 1, sizeof(int)), file = open(argv[6], O_RDWR | O_CREAT, 0600);
	char mode = argv[5][0];
	struct epoll_event events[EVENTS];

	if (!fds || file < 0 || ftruncate(file, sizeof(*seen)) < 0)
		die(argv[6]);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (seen == MAP_FAILED)
		die("mmap");
	for (int i = 0; i < n_idle; i++)
		fds[i] = call(argv[2], argv[3], mode == 'a' ? 'a' : 'i');
	fds[n_idle] = call(argv[2], argv[3], mode);
	speak(fds[n_idle]);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, mode == 'a' ? 1 : -1);

		for (int i = 0; i < n; i++)
			handle(-1, &events[i]);
		if (mode == 'a')
			ask_all(fds, n_idle + 1);
		seen->messages++;
	}
}

int main(int argc, char **argv)
{
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	else if (argc == 7 && !strcmp(argv[1], "talk"))
		talk(argv);
	fprintf(stderr, "usage: conns serve PORT | conns talk ADDRESS PORT IDLE e|b|a FILE\n");
	return 2;
}
