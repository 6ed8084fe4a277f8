// SPDX-License-Identifier: GPL-2.0-or-later
/* tcp.c - victims about TCP connections of which both ends move: states, queues, urgent data, options */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "victim.h"

/* Ways to have both ends: the families of listener and client. */
static const struct way {
	int server, client;
	const char *address;
} ways[] = {
	{ AF_INET, AF_INET, "127.0.0.1" },
	{ AF_INET6, AF_INET6, "::1" },
	{ AF_INET6, AF_INET, "127.0.0.1" },
	{ AF_INET6, AF_INET6, "::ffff:127.0.0.1" },
};

#define N_WAYS (int)(sizeof(ways) / sizeof(ways[0]))

struct names {
	struct sockaddr_storage local, peer;
};

struct pair {
	int fd[2]; /* client, server */
	struct names names[2];
};

static socklen_t make_address(int family, const char *text, int port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (void *)ret;
	struct sockaddr_in6 *in6 = (void *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		in->sin_port = htons((uint16_t)port);
		must(!text || inet_pton(AF_INET, text, &in->sin_addr) == 1);
		return sizeof(*in);
	}
	in6->sin6_port = htons((uint16_t)port);
	must(!text || inet_pton(AF_INET6, text, &in6->sin6_addr) == 1);
	return sizeof(*in6);
}

/* Without SO_REUSEADDR: an accepted connection has its port all the same. */
static int listener(int family, int *ret_port)
{
	struct sockaddr_storage a;
	socklen_t len = make_address(family, NULL, 0, &a);
	int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(s >= 0 && !bind(s, (void *)&a, len) && !listen(s, 5));
	len = sizeof(a);
	must(!getsockname(s, (void *)&a, &len));
	*ret_port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	return s;
}

static void get_names(int s, struct names *n)
{
	socklen_t len = sizeof(n->local);

	memset(n, 0, sizeof(*n));
	must(!getsockname(s, (void *)&n->local, &len));
	/* getpeername() says nothing of a connection that has ended. */
	must(!getsockopt(s, SOL_SOCKET, SO_PEERNAME, &n->peer, &len));
}

static void connect_pair(const struct way *w, struct pair *p)
{
	struct sockaddr_storage a;
	int port, l = listener(w->server, &port);
	socklen_t len = make_address(w->client, w->address, port, &a);

	p->fd[0] = socket(w->client, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(p->fd[0] >= 0 && !connect(p->fd[0], (void *)&a, len));
	p->fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	must(p->fd[1] >= 0);
	close(l);
	for (int i = 0; i < 2; i++)
		get_names(p->fd[i], &p->names[i]);
}

static void expect_names(const struct pair *p, int i)
{
	struct names now;

	get_names(p->fd[i], &now);
	if (memcmp(&now, &p->names[i], sizeof(now)))
		fail("end %d: its addresses have changed", i);
}

static int state_of(int s)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	must(!getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len));
	return info.tcpi_state;
}

/* An acknowledgement may take 40 ms. */
static void expect_state(const char *what, int s, int state)
{
	for (int i = 0; i < 20 && state_of(s) != state; i++)
		sleep_ms(10);
	if (state_of(s) != state)
		fail("%s: state, expected %d, got %d", what, state, state_of(s));
}

static void say(int s, const void *data, size_t len)
{
	must(send(s, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len);
}

static void hear(const char *what, int s, const char *text)
{
	char buf[300] = "";
	ssize_t n = recv(s, buf, strlen(text), MSG_WAITALL);

	if (n != (ssize_t)strlen(text) || memcmp(buf, text, (size_t)n))
		fail("%s, expected '%s', got '%s' (%zd, errno %d)", what, text, buf, n, errno);
}

static void expect_end(const char *what, int s)
{
	char c;
	ssize_t n = recv(s, &c, 1, 0);

	if (n != 0)
		fail("%s: expected the end, got %zd, errno %d", what, n, errno);
}

static void silent(const char *what, int s)
{
	char c;
	ssize_t n = recv(s, &c, 1, MSG_DONTWAIT);

	if (n >= 0 || errno != EAGAIN)
		fail("%s: expected nothing, got %zd, errno %d", what, n, errno);
}

/* ---- both ways, with something under way, in all families ---- */

static struct pair pairs[N_WAYS], beside_listener;
static int still_listening;

static void pair_setup(void)
{
	struct sockaddr_storage a;
	int port;
	socklen_t len;

	still_listening = listener(AF_INET, &port);
	len = make_address(AF_INET, "127.0.0.1", port, &a);
	beside_listener.fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!connect(beside_listener.fd[0], (void *)&a, len));
	beside_listener.fd[1] = accept4(still_listening, NULL, NULL, SOCK_CLOEXEC);
	must(beside_listener.fd[1] >= 0);
	for (int i = 0; i < N_WAYS; i++) {
		connect_pair(&ways[i], &pairs[i]);
		say(pairs[i].fd[0], "to the server", 13);
		say(pairs[i].fd[1], "to the client", 13);
	}
}

static void pair_check(void)
{
	int on = -1;
	socklen_t len = sizeof(on);

	say(beside_listener.fd[0], "beside", 6);
	hear("beside its listener", beside_listener.fd[1], "beside");
	expect(!getsockopt(still_listening, SOL_SOCKET, SO_REUSEADDR, &on, &len) && on == 0);
	expect(!getsockopt(beside_listener.fd[1], SOL_SOCKET, SO_REUSEADDR, &on, &len) && on == 0);
	for (int i = 0; i < N_WAYS; i++) {
		struct pair *p = &pairs[i];

		for (int k = 0; k < 2; k++) {
			expect_names(p, k);
			expect_state("end", p->fd[k], TCP_ESTABLISHED);
			hear("what was under way", p->fd[k], k ? "to the server" : "to the client");
			silent("behind it", p->fd[k]);
		}
		for (int k = 0; k < 100; k++) {
			say(p->fd[k % 2], "abc", 3);
			hear("afterwards", p->fd[!(k % 2)], "abc");
		}
		close(p->fd[0]);
		expect_end("closed", p->fd[1]);
	}
}

VICTIM(tcp_pair, 0, pair_setup, NULL, pair_check);

/* ---- a request and its answer, again and again, with ever another option; beside it a connection that nobody uses but to set options ---- */

static struct pair busy, idle;
static uint64_t count;

static void busy_setup(void)
{
	connect_pair(&ways[0], &busy);
	connect_pair(&ways[1], &idle);
}

static void set_idle(int s, uint64_t n)
{
	int seconds = 100 + (int)(n % 1000), was = seconds - 1;
	socklen_t len = sizeof(was);

	must(!setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds)));
	must(!getsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &was, &len));
	expect_u64("option just set", (uint64_t)seconds, (uint64_t)was);
}

static void expect_idle(int s, uint64_t n)
{
	int seconds = -1;
	socklen_t len = sizeof(seconds);

	must(!getsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, &len));
	expect_u64("option set before", 100 + n % 1000, (uint64_t)seconds);
}

static void busy_work(void)
{
	uint64_t got = 0;

	if (count)
		expect_idle(busy.fd[1], count);
	if (count / 64)
		expect_idle(idle.fd[0], count / 64);
	count++;
	set_idle(busy.fd[1], count);
	if (count % 64 == 0)
		set_idle(idle.fd[0], count / 64);
	say(busy.fd[0], &count, sizeof(count));
	if (recv(busy.fd[1], &got, sizeof(got), MSG_WAITALL) != sizeof(got) || got != count)
		fail("request, expected %ju, got %ju (errno %d)", (uintmax_t)count, (uintmax_t)got, errno);
	say(busy.fd[1], &got, sizeof(got));
	got = 0;
	if (recv(busy.fd[0], &got, sizeof(got), MSG_WAITALL) != sizeof(got) || got != count)
		fail("answer, expected %ju, got %ju (errno %d)", (uintmax_t)count, (uintmax_t)got, errno);
}

static void busy_check(void)
{
	expect_names(&busy, 0);
	expect_names(&busy, 1);
	expect_names(&idle, 0);
	say(idle.fd[0], "at last", 7);
	hear("at last", idle.fd[1], "at last");
}

VICTIM(tcp_busy, 0, busy_setup, busy_work, busy_check);

/* ---- full queues: what does not fit waits at the sender, and its end of stream behind it ---- */

static struct pair full[3];
static size_t sent[3][2];

static void stuff(int s, int seed, size_t *ret)
{
	uint8_t data[1000];

	for (;;) {
		ssize_t n;

		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)((*ret + i) * 31 + (size_t)seed);
		n = send(s, data, sizeof(data), MSG_DONTWAIT);
		if (n < 0)
			break;
		*ret += (size_t)n;
	}
	must(errno == EAGAIN);
}

/* FIN_WAIT1 and ESTABLISHED; CLOSING, or what becomes of it, both; LAST_ACK and FIN_WAIT2. */
static void full_setup(void)
{
	for (int i = 0; i < 3; i++) {
		connect_pair(&ways[i], &full[i]);
		if (i == 2)
			must(!shutdown(full[i].fd[0], SHUT_WR));
		for (int k = i == 2; k < 2; k++)
			stuff(full[i].fd[k], k, &sent[i][k]);
		for (int k = i == 2; k <= (i > 0); k++)
			must(!shutdown(full[i].fd[k], SHUT_WR));
	}
}

static void expect_stream(int s, size_t len, int seed, bool ends)
{
	uint8_t data[4096];
	size_t at = 0;

	while (at < len) {
		ssize_t n = recv(s, data, len - at < sizeof(data) ? len - at : sizeof(data), 0);

		if (n <= 0) {
			fail("stream of %zu bytes: %zd after %zu (errno %d)", len, n, at, errno);
			return;
		}
		for (ssize_t i = 0; i < n; i++, at++)
			if (data[i] != (uint8_t)(at * 31 + (size_t)seed)) {
				fail("stream: byte %zu, expected %#x, got %#x", at, (uint8_t)(at * 31 + (size_t)seed), data[i]);
				return;
			}
	}
	if (ends)
		expect_end("stream", s);
	else
		silent("stream", s);
}

/* What has not got into a full queue gets in when there is room: at the destination there may be some, since segments have another size there. */
static void expect_end_on_its_way(const char *what, int fd, int before, int after)
{
	if (state_of(fd) != after)
		expect_state(what, fd, before);
}

static void full_check(void)
{
	expect_end_on_its_way("a full one that has ended", full[0].fd[0], TCP_FIN_WAIT1, TCP_FIN_WAIT2);
	expect_end_on_its_way("a full one whose end has not come", full[0].fd[1], TCP_ESTABLISHED, TCP_CLOSE_WAIT);
	expect_end_on_its_way("one that has ended, and full", full[2].fd[1], TCP_LAST_ACK, TCP_CLOSE);
	expect_stream(full[0].fd[1], sent[0][0], 0, true);
	expect_stream(full[0].fd[0], sent[0][1], 1, false);
	expect_stream(full[1].fd[1], sent[1][0], 0, true);
	expect_stream(full[1].fd[0], sent[1][1], 1, true);
	expect_stream(full[2].fd[0], sent[2][1], 1, true);
}

VICTIM(tcp_full, 0, full_setup, NULL, full_check);

/* ---- ends ---- */

static struct pair ends[8];

/*
 * 0: FIN_WAIT2 and CLOSE_WAIT, data both ways; 1: the same, closed: CLOSE_WAIT alone; 2: ended on both sides, unread data; 3: reset, unread data;
 * 4: reset, and the program has seen it; 5: deaf; 6: reset after its end
 */
static void ends_setup(void)
{
	struct linger at_once = { 1, 0 };
	char c;

	for (int i = 0; i < 7; i++) {
		connect_pair(&ways[i % N_WAYS], &ends[i]);
		say(ends[i].fd[0], "last words", 10);
	}
	say(ends[0].fd[1], "back", 4);
	must(!shutdown(ends[0].fd[0], SHUT_WR));
	close(ends[1].fd[0]);
	must(!shutdown(ends[2].fd[0], SHUT_WR) && !shutdown(ends[2].fd[1], SHUT_WR));
	for (int i = 3; i < 7; i++) {
		if (i == 5)
			continue;
		if (i == 6)
			must(!shutdown(ends[i].fd[0], SHUT_WR));
		must(!setsockopt(ends[i].fd[0], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)));
		close(ends[i].fd[0]);
	}
	must(recv(ends[4].fd[1], &c, 1, 0) == 1);
	while (recv(ends[4].fd[1], &c, 1, 0) == 1)
		;
	must(!shutdown(ends[5].fd[0], SHUT_RD));
	sleep_ms(60); /* acknowledgements */
}

static void expect_poll(const char *what, int s, int events)
{
	struct pollfd p = { .fd = s, .events = POLLIN | POLLRDHUP };

	poll(&p, 1, 0);
	if ((p.revents & (POLLHUP | POLLERR | POLLRDHUP)) != events)
		fail("%s: poll, expected %#x, got %#x", what, events, p.revents);
}

static void ends_check(void)
{
	char c;

	expect_state("half closed", ends[0].fd[0], TCP_FIN_WAIT2);
	expect_state("half closed, its other end", ends[0].fd[1], TCP_CLOSE_WAIT);
	hear("before the end", ends[0].fd[1], "last words");
	expect_end("half closed", ends[0].fd[1]);
	hear("the open direction", ends[0].fd[0], "back");
	say(ends[0].fd[1], "more", 4);
	hear("the open direction", ends[0].fd[0], "more");

	expect_state("alone", ends[1].fd[1], TCP_CLOSE_WAIT);
	expect_names(&ends[1], 1);
	hear("of one who has gone", ends[1].fd[1], "last words");
	expect_end("alone", ends[1].fd[1]);

	for (int i = 0; i < 2; i++) {
		expect_state("ended", ends[2].fd[i], TCP_CLOSE);
		expect_names(&ends[2], i);
		expect_poll("ended", ends[2].fd[i], POLLHUP | POLLRDHUP);
	}
	hear("ended", ends[2].fd[1], "last words");
	expect_end("ended", ends[2].fd[1]);
	expect(send(ends[2].fd[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);

	expect_poll("reset", ends[3].fd[1], POLLHUP | POLLRDHUP | POLLERR);
	hear("reset", ends[3].fd[1], "last words");
	expect(recv(ends[3].fd[1], &c, 1, 0) < 0 && errno == ECONNRESET);
	expect_end("reset", ends[3].fd[1]);
	expect_names(&ends[3], 1);

	expect_poll("reset, known", ends[4].fd[1], POLLHUP | POLLRDHUP);
	expect_end("reset, known", ends[4].fd[1]);

	expect_end("deaf", ends[5].fd[0]);
	hear("of one who is deaf", ends[5].fd[1], "last words");

	hear("ended, then reset", ends[6].fd[1], "last words");
	expect(send(ends[6].fd[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

VICTIM(tcp_ends, 0, ends_setup, NULL, ends_check);

/* ---- urgent data ---- */

static struct pair urgent[3];

static void urgent_setup(void)
{
	int on = 1;
	char c;

	for (int i = 0; i < 3; i++) {
		connect_pair(&ways[i], &urgent[i]);
		if (i == 1)
			must(!setsockopt(urgent[i].fd[1], SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)));
		say(urgent[i].fd[0], "before", 6);
		must(send(urgent[i].fd[0], "!", 1, MSG_OOB) == 1);
		say(urgent[i].fd[0], "behind", 6);
	}
	must(recv(urgent[2].fd[1], &c, 1, MSG_OOB) == 1);
}

static void urgent_check(void)
{
	for (int i = 0; i < 3; i++) {
		int s = urgent[i].fd[1], at = 0;
		char buf[32] = "";

		expect(recv(s, buf, sizeof(buf), 0) == 6 && !memcmp(buf, "before", 6));
		expect(!ioctl(s, SIOCATMARK, &at) && at == 1);
		if (i == 0)
			expect(recv(s, buf, 1, MSG_OOB) == 1 && buf[0] == '!');
		if (i == 2)
			expect(recv(s, buf, 1, MSG_OOB) < 0 && errno == EINVAL);
		hear("behind the mark", s, i == 1 ? "!behind" : "behind");
	}
}

VICTIM(tcp_urgent, 0, urgent_setup, NULL, urgent_check);

/* ---- options ---- */

static const struct option {
	int level, name, value;
} options[] = {
	{ SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 77 }, { IPPROTO_TCP, TCP_KEEPINTVL, 7 }, { IPPROTO_TCP, TCP_KEEPCNT, 5 },
	{ IPPROTO_TCP, TCP_NODELAY, 1 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 12345 }, { SOL_SOCKET, SO_RCVBUF, 60000 }, { SOL_SOCKET, SO_SNDBUF, 50000 },
	{ SOL_SOCKET, SO_PRIORITY, 3 }, { IPPROTO_IP, IP_TOS, 0x10 }, { IPPROTO_IP, IP_TTL, 33 }, { IPPROTO_TCP, TCP_LINGER2, 11 },
	{ IPPROTO_TCP, TCP_SYNCNT, 4 }, { SOL_SOCKET, SO_RCVLOWAT, 2 }, { SOL_SOCKET, SO_MARK, 9 }, { IPPROTO_TCP, TCP_NOTSENT_LOWAT, 5000 },
	{ IPPROTO_IP, IP_FREEBIND, 1 }, { IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1 }, { SOL_SOCKET, SO_REUSEADDR, 1 },
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static struct pair with;
static int values[2][N_OPTIONS], locks[2];
static char algorithm[2][16];

static int get(int s, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	must(!getsockopt(s, level, name, &value, &len));
	return value;
}

static void get_options(int s, int *v, int *lock, char *name)
{
	socklen_t len = 16;

	for (size_t i = 0; i < N_OPTIONS; i++)
		v[i] = get(s, options[i].level, options[i].name);
	*lock = get(s, SOL_SOCKET, 72 /* SO_BUF_LOCK */);
	memset(name, 0, 16);
	must(!getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
}

static void options_setup(void)
{
	struct sock_filter pass[] = { BPF_STMT(BPF_RET | BPF_K, 0xffffffff) };
	struct sock_fprog filter = { 1, pass };
	struct linger linger = { 1, 3 };
	int cork = 1;

	connect_pair(&ways[0], &with);
	for (size_t i = 0; i < N_OPTIONS; i++)
		must(!setsockopt(with.fd[0], options[i].level, options[i].name, &options[i].value, sizeof(int)));
	must(!setsockopt(with.fd[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	must(!setsockopt(with.fd[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
	must(!setsockopt(with.fd[0], IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	/* Corked: what has been written is not sent yet. */
	must(!setsockopt(with.fd[1], IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork)));
	for (int i = 0; i < 2; i++)
		get_options(with.fd[i], values[i], &locks[i], algorithm[i]);
}

static void options_check(void)
{
	struct linger linger = { 0 };
	socklen_t len = sizeof(linger);
	int cork = 0;

	for (int k = 0; k < 2; k++) {
		int now[N_OPTIONS], lock;
		char name[16];

		get_options(with.fd[k], now, &lock, name);
		for (size_t i = 0; i < N_OPTIONS; i++)
			if (now[i] != values[k][i])
				fail("end %d: option %d of level %d, expected %d, got %d", k, options[i].name, options[i].level, values[k][i], now[i]);
		if (lock != locks[k] || memcmp(name, algorithm[k], sizeof(name)))
			fail("end %d: locks %d, expected %d; congestion control %s, expected %s", k, lock, locks[k], name, algorithm[k]);
	}
	expect(!getsockopt(with.fd[0], SOL_SOCKET, SO_LINGER, &linger, &len) && linger.l_onoff == 1 && linger.l_linger == 3);
	len = 0;
	expect(!getsockopt(with.fd[0], SOL_SOCKET, SO_GET_FILTER, NULL, &len) && len == 1);
	expect(get(with.fd[1], IPPROTO_TCP, TCP_CORK) == 1);
	say(with.fd[1], "corked", 6);
	silent("corked", with.fd[0]);
	must(!setsockopt(with.fd[1], IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork)));
	hear("uncorked", with.fd[0], "corked");
}

VICTIM(tcp_options, 0, options_setup, NULL, options_check);

/* ---- connections that nobody has accepted yet, and one that has not been answered ---- */

static int waiting_listener[2], waiting_client[2][3], calling;
static struct names waiting_names[2][3];

/* The first has said something; the second of each has been closed, one of them having said something. Then the queue of the last one is full, and who calls is not answered. */
static void waiting_setup(void)
{
	for (int i = 0; i < 2; i++) {
		struct sockaddr_storage a;
		int port, family = i ? AF_INET6 : AF_INET;
		socklen_t len;

		waiting_listener[i] = listener(family, &port);
		must(!listen(waiting_listener[i], 2));
		len = make_address(family, i ? "::1" : "127.0.0.1", port, &a);
		for (int k = 0; k < 3; k++) {
			waiting_client[i][k] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
			must(!connect(waiting_client[i][k], (void *)&a, len));
			get_names(waiting_client[i][k], &waiting_names[i][k]);
		}
		say(waiting_client[i][0], "hello", 5);
		if (i)
			say(waiting_client[i][1], "and bye", 7);
		close(waiting_client[i][1]);
		if (i) {
			calling = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
			must(connect(calling, (void *)&a, len) < 0 && errno == EINPROGRESS);
		}
	}
	must(!shutdown(waiting_client[0][2], SHUT_WR));
}

static void waiting_check(void)
{
	expect_state("one that is not answered", calling, TCP_SYN_SENT);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 3; k++) {
			struct pair p = { .names = { { .local = waiting_names[i][k].peer, .peer = waiting_names[i][k].local } } };

			p.fd[0] = accept4(waiting_listener[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
			expect(p.fd[0] >= 0);
			if (p.fd[0] < 0)
				return;
			expect_names(&p, 0);
			if (k == 0)
				hear("said before", p.fd[0], "hello");
			if (k == 1 && i)
				hear("said before it was closed", p.fd[0], "and bye");
			if (k == 1 || (!i && k == 2))
				expect_end("one who has closed", p.fd[0]);
			if (k == 1)
				continue;
			say(p.fd[0], "welcome", 7);
			hear("accepted", waiting_client[i][k], "welcome");
			close(p.fd[0]);
		}
	for (int k = 0; k < 60 && state_of(calling) != TCP_ESTABLISHED; k++)
		sleep_ms(100);
	expect_state("one that is answered at last", calling, TCP_ESTABLISHED);
}

VICTIM(tcp_waiting, 0, waiting_setup, NULL, waiting_check);
