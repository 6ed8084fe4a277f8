// SPDX-License-Identifier: GPL-2.0-or-later
/* ipc.c - victims about descriptors without a path: pipes, eventfd, epoll, timerfd, signalfd, listening sockets */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "victim.h"

#define MS 1000000ull

/* ---- pipes ---- */

static int pipes[8][2];
static const size_t pipe_fill[] = { 0, 8, 4096, 65536, 200000, 1048576 };

static void pipe_setup(void)
{
	static char buf[1048576];

	for (int i = 0; i < 6; i++) {
		must(!pipe2(pipes[i], i % 2 ? O_CLOEXEC : O_NONBLOCK));
		if (pipe_fill[i] > 65536)
			must(fcntl(pipes[i][1], F_SETPIPE_SZ, 1048576) >= 0);
		fill(buf, pipe_fill[i], 50 + (uint64_t)i);
		must(pipe_fill[i] == 0 || write(pipes[i][1], buf, pipe_fill[i]) == (ssize_t)pipe_fill[i]);
	}
	must(!pipe2(pipes[6], O_CLOEXEC)); /* two writers, one of them a duplicate */
	pipes[7][0] = dup(pipes[6][1]);
	must(write(pipes[6][1], "abc", 3) == 3);
}

static void pipe_check(void)
{
	static char buf[1048576];

	for (int i = 0; i < 6; i++) {
		size_t got = 0;
		int left = -1;

		expect_u64("O_NONBLOCK of a pipe", i % 2 ? 0 : O_NONBLOCK, (uint64_t)fcntl(pipes[i][0], F_GETFL) & O_NONBLOCK);
		expect_u64("size of a pipe", pipe_fill[i] > 65536 ? 1048576 : 65536, (uint64_t)fcntl(pipes[i][0], F_GETPIPE_SZ));
		expect(!ioctl(pipes[i][0], FIONREAD, &left));
		expect_u64("bytes in a pipe", pipe_fill[i], (uint64_t)left);
		while (got < pipe_fill[i]) {
			ssize_t n = read(pipes[i][0], buf + got, pipe_fill[i] - got);

			if (n <= 0) {
				fail("read of a pipe at %zu of %zu: errno %d", got, pipe_fill[i], errno);
				return;
			}
			got += (size_t)n;
		}
		verify("contents of a pipe", buf, pipe_fill[i], 50 + (uint64_t)i);
		expect(write(pipes[i][1], "x", 1) == 1 && read(pipes[i][0], buf, 2) == 1 && buf[0] == 'x');
	}
	expect(read(pipes[6][0], buf, 10) == 3 && !memcmp(buf, "abc", 3));
	close(pipes[6][1]);
	expect(write(pipes[7][0], "d", 1) == 1 && read(pipes[6][0], buf, 10) == 1);
	close(pipes[7][0]);
	expect(read(pipes[6][0], buf, 10) == 0); /* no writer is left */
}

VICTIM(ipc_pipe, 0, pipe_setup, NULL, pipe_check);

static void packet_setup(void)
{
	uint64_t w[64];

	must(!pipe2(pipes[0], O_DIRECT | O_CLOEXEC | O_NONBLOCK));
	for (uint64_t i = 0; i < 12; i++) {
		fill(w, sizeof(w), i * 100);
		must(write(pipes[0][1], w, 8 * (i + 1)) == (ssize_t)(8 * (i + 1)));
	}
	/* A single one, and the same with no room for another. */
	for (int i = 1; i < 3; i++)
		must(!pipe2(pipes[i], O_DIRECT | O_CLOEXEC | O_NONBLOCK) && write(pipes[i][1], w, 24) == 24);
	must(fcntl(pipes[2][1], F_SETPIPE_SZ, 4096) == 4096);
}

static void packet_check(void)
{
	uint64_t w[64];

	expect(fcntl(pipes[0][1], F_GETFL) & O_DIRECT);
	for (uint64_t i = 0; i < 12; i++) {
		expect_u64("length of a packet", 8 * (i + 1), (uint64_t)read(pipes[0][0], w, sizeof(w)));
		verify("packet", w, 8 * (i + 1), i * 100);
	}
	expect(read(pipes[0][0], w, 8) < 0 && errno == EAGAIN);
	expect(write(pipes[1][1], w, 16) == 16);
	expect_u64("length of a single packet", 24, (uint64_t)read(pipes[1][0], w, sizeof(w)));
	expect_u64("length of the one behind it", 16, (uint64_t)read(pipes[1][0], w, sizeof(w)));
	expect_u64("length of a packet that fills its pipe", 24, (uint64_t)read(pipes[2][0], w, sizeof(w)));
}

VICTIM(ipc_pipe_packet, 0, packet_setup, NULL, packet_check);

static void half_setup(void)
{
	must(!pipe2(pipes[0], O_CLOEXEC) && !pipe2(pipes[1], O_CLOEXEC));
	must(write(pipes[0][1], "left", 4) == 4);
	close(pipes[0][1]); /* contents and no writer */
	close(pipes[1][0]); /* no reader */
	signal(SIGPIPE, SIG_IGN);
}

static void half_check(void)
{
	char buf[8];

	expect(read(pipes[0][0], buf, 8) == 4 && !memcmp(buf, "left", 4));
	expect(read(pipes[0][0], buf, 8) == 0);
	expect(write(pipes[1][1], "x", 1) < 0 && errno == EPIPE);
}

VICTIM(ipc_pipe_half, 0, half_setup, NULL, half_check);

/* Two threads stream through a pipe all the time. */
static void *stream_reader(void *arg)
{
	uint64_t n = 0, w[512];

	for (;;) {
		ssize_t got = read(pipes[0][0], w, sizeof(w));

		if (got == 0)
			return NULL;
		if (got < 0 || got % 8) {
			fail("read of a stream through a pipe, word %llu: %zd, errno %d", (unsigned long long)n, got, errno);
			return NULL;
		}
		for (ssize_t i = 0; i < got / 8; i++) {
			if (w[i] != mix(n)) {
				fail("word %llu through a pipe, expected %#llx, got %#llx", (unsigned long long)n, (unsigned long long)mix(n),
				     (unsigned long long)w[i]);
				return NULL;
			}
			n++;
		}
	}
}

static void *stream_writer(void *arg)
{
	uint64_t n = 0, w[128];

	while (!victim_stopping && !failed()) {
		size_t count = 1 + mix(n) % 128;

		for (size_t i = 0; i < count; i++)
			w[i] = mix(n++);
		if (write(pipes[0][1], w, count * 8) != (ssize_t)(count * 8))
			fail("write of a stream into a pipe: errno %d", errno);
	}
	close(pipes[0][1]);
	return NULL;
}

static void stream_setup(void)
{
	must(!pipe2(pipes[0], O_CLOEXEC));
	spawn(stream_reader, NULL, NULL);
	spawn(stream_writer, NULL, NULL);
}

VICTIM(ipc_pipe_stream, 0, stream_setup, NULL, join_all);

/* ---- eventfd ---- */

static int fd[16];

static void eventfd_setup(void)
{
	fd[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd[1] = eventfd(123456, 0);
	fd[2] = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
	fd[3] = eventfd(0, EFD_NONBLOCK);
	uint64_t most = 0xfffffffffffffffe;

	must(write(fd[3], &most, 8) == 8);
	fd[4] = dup(fd[1]);
}

static void eventfd_check(void)
{
	uint64_t v = 0;

	expect(read(fd[0], &v, 8) < 0 && errno == EAGAIN);
	expect(fcntl(fd[0], F_GETFD) == FD_CLOEXEC && fcntl(fd[1], F_GETFD) == 0);
	v = 4;
	expect(write(fd[4], &v, 8) == 8 && read(fd[1], &v, 8) == 8);
	expect_u64("eventfd", 123460, v);
	for (int i = 0; i < 3; i++) {
		expect(read(fd[2], &v, 8) == 8);
		expect_u64("semaphore eventfd", 1, v);
	}
	expect(read(fd[2], &v, 8) < 0 && errno == EAGAIN);
	v = 1;
	expect(write(fd[3], &v, 8) < 0 && errno == EAGAIN);
	expect(read(fd[3], &v, 8) == 8);
	expect_u64("full eventfd", 0xfffffffffffffffe, v);
}

VICTIM(ipc_eventfd, 0, eventfd_setup, NULL, eventfd_check);

/* ---- epoll ---- */

static void ep_add(int ep, int target, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	must(!epoll_ctl(ep, EPOLL_CTL_ADD, target, &ev));
}

/* What epoll_wait gives, as a set of bits by the low byte of each data word. */
static uint64_t ep_ready(int ep, uint64_t data_high)
{
	struct epoll_event ev[16];
	int n = epoll_wait(ep, ev, 16, 0);
	uint64_t bits = 0;

	for (int i = 0; i < n; i++) {
		expect_u64("data word of epoll", data_high, ev[i].data.u64 & ~0xffull);
		bits |= 1ull << (ev[i].data.u64 & 0xff);
	}
	return bits;
}

#define HIGH 0x8877665544332200ull

static void epoll_setup(void)
{
	uint64_t one = 1;

	fd[0] = epoll_create1(EPOLL_CLOEXEC);
	fd[1] = epoll_create1(0); /* holds fd[0]: nested */
	for (int i = 2; i < 8; i++)
		fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ep_add(fd[0], fd[2], EPOLLIN, HIGH | 2);
	ep_add(fd[0], fd[3], EPOLLIN | EPOLLET, HIGH | 3);
	ep_add(fd[0], fd[4], EPOLLIN | EPOLLONESHOT, HIGH | 4);
	ep_add(fd[0], fd[5], EPOLLOUT | EPOLLIN | EPOLLET, HIGH | 5);
	ep_add(fd[0], fd[6], EPOLLIN | EPOLLRDHUP | EPOLLPRI, HIGH | 6);
	ep_add(fd[1], fd[0], EPOLLIN, HIGH | 20);
	must(write(fd[4], &one, 8) == 8);
	must(ep_ready(fd[0], HIGH) == (1u << 4 | 1u << 5)); /* the one shot is used, the edge is consumed */
	must(write(fd[2], &one, 8) == 8);
	fd[8] = fcntl(fd[0], F_DUPFD, 300);
	must(fd[8] >= 0);
}

static void epoll_check(void)
{
	uint64_t one = 1, bits;

	expect_u64("outer epoll", 1u << 20, ep_ready(fd[1], HIGH));
	bits = ep_ready(fd[0], HIGH);
	if (bits & 1u << 4)
		fail("epoll: a used EPOLLONESHOT fired again");
	expect_u64("epoll: level-triggered and ready", 1u << 2, bits & (1u << 2 | 1u << 3 | 1u << 6));
	expect_u64("epoll: level-triggered, again", 1u << 2, ep_ready(fd[0], HIGH));
	must(write(fd[3], &one, 8) == 8);
	expect_u64("epoll: edge", 1u << 2 | 1u << 3, ep_ready(fd[8], HIGH));
	expect_u64("epoll: edge consumed", 1u << 2, ep_ready(fd[0], HIGH));
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = HIGH | 9 };

	expect(!epoll_ctl(fd[0], EPOLL_CTL_MOD, fd[4], &ev));
	expect_u64("epoll: one shot armed again", 1u << 2 | 1u << 9, ep_ready(fd[0], HIGH));
	expect(!epoll_ctl(fd[0], EPOLL_CTL_DEL, fd[6], NULL));
	expect(epoll_ctl(fd[0], EPOLL_CTL_DEL, fd[7], NULL) < 0 && errno == ENOENT);
}

VICTIM(ipc_epoll, 0, epoll_setup, NULL, epoll_check);

/* ---- timerfd ---- */

static uint64_t t0;

static void arm(int timer, int flags, uint64_t first, uint64_t interval)
{
	struct itimerspec its = { { (time_t)(interval / (1000 * MS)), (long)(interval % (1000 * MS)) },
				  { (time_t)(first / (1000 * MS)), (long)(first % (1000 * MS)) } };

	must(!timerfd_settime(timer, flags, &its, NULL));
}

static void timerfd_setup(void)
{
	uint64_t v;

	t0 = now_ns(CLOCK_MONOTONIC);
	fd[0] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	arm(fd[0], 0, 500000 * MS, 1111 * MS);
	fd[1] = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	arm(fd[1], TFD_TIMER_ABSTIME, now_ns(CLOCK_REALTIME) + 600000 * MS, 0);
	fd[2] = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
	arm(fd[2], TFD_TIMER_ABSTIME, now_ns(CLOCK_BOOTTIME) + 700000 * MS, 2222 * MS);
	fd[3] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	arm(fd[3], 0, 1 * MS, 1 * MS); /* ticks unread */
	fd[4] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); /* never armed */
	fd[5] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); /* expired once, unread */
	arm(fd[5], 0, 1 * MS, 0);
	fd[6] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); /* expired once, read */
	arm(fd[6], 0, 1 * MS, 0);
	usleep(5000);
	must(read(fd[6], &v, 8) == 8);
}

static void expect_left(int timer, uint64_t left, uint64_t interval)
{
	struct itimerspec its;
	uint64_t got;

	expect(!timerfd_gettime(timer, &its));
	got = (uint64_t)its.it_value.tv_sec * 1000 * MS + (uint64_t)its.it_value.tv_nsec;
	if (got + 100 * MS < left || got > left + 100 * MS)
		fail("remaining time of timerfd %d, expected %llu ns, got %llu", timer, (unsigned long long)left, (unsigned long long)got);
	expect_u64("interval of a timerfd", interval, (uint64_t)its.it_interval.tv_sec * 1000 * MS + (uint64_t)its.it_interval.tv_nsec);
}

/* As it was set, relatively or not. */
static void expect_settime_flags(int timer, const char *flags)
{
	static const char *lines[] = { "settime flags:", NULL };
	struct text info = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", timer);
	text_file(&info, path, lines);
	expect(info.s && strstr(info.s, flags));
	free(info.s);
}

static void timerfd_check(void)
{
	uint64_t passed = now_ns(CLOCK_MONOTONIC) - t0, v = 0;

	expect_left(fd[0], 500000 * MS - passed, 1111 * MS);
	expect_left(fd[1], 600000 * MS - passed, 0);
	expect_left(fd[2], 700000 * MS - passed, 2222 * MS);
	expect_left(fd[4], 0, 0);
	expect_settime_flags(fd[0], "settime flags: 00\n");
	expect_settime_flags(fd[1], "settime flags: 01\n");
	expect(read(fd[3], &v, 8) == 8);
	if (v * MS + 100 * MS < passed || v * MS > passed + 100 * MS)
		fail("unread ticks of a 1 ms timerfd, expected %llu, got %llu", (unsigned long long)(passed / MS), (unsigned long long)v);
	expect(read(fd[5], &v, 8) == 8);
	expect_u64("one-shot timerfd, expired, unread", 1, v);
	expect(read(fd[6], &v, 8) < 0 && errno == EAGAIN);
	expect(read(fd[4], &v, 8) < 0 && errno == EAGAIN);
}

VICTIM(ipc_timerfd, 0, timerfd_setup, NULL, timerfd_check);

/* ---- signalfd ---- */

static void signalfd_setup(void)
{
	union sigval v = { .sival_int = 4711 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd[0] = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	must(fd[0] >= 0);
	must(!sigqueue(getpid(), SIGRTMIN + 2, v));
}

static void signalfd_check(void)
{
	struct signalfd_siginfo si;

	expect(read(fd[0], &si, sizeof(si)) == sizeof(si));
	expect_u64("signal read from a signalfd", (uint64_t)SIGRTMIN + 2, si.ssi_signo);
	expect_u64("its value", 4711, (uint64_t)si.ssi_int);
	expect(read(fd[0], &si, sizeof(si)) < 0 && errno == EAGAIN);
	kill(getpid(), SIGUSR1);
	expect(read(fd[0], &si, sizeof(si)) == sizeof(si));
	expect_u64("signal sent after the move", SIGUSR1, si.ssi_signo);
}

VICTIM(ipc_signalfd, V_CHECK_FILE, signalfd_setup, NULL, signalfd_check);

/* ---- listening sockets ---- */

static int listen_on(int family, uint16_t port, int backlog)
{
	struct sockaddr_storage ss = { .ss_family = (sa_family_t)family };
	int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	must(s >= 0 && !setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	((struct sockaddr_in *)&ss)->sin_port = htons(port);
	must(!bind(s, (struct sockaddr *)&ss, len) && !listen(s, backlog));
	must(!getsockname(s, (struct sockaddr *)&ss, &len));
	report("info listen=%d family=%d", ntohs(((struct sockaddr_in *)&ss)->sin_port), family);
	return s;
}

static uint16_t ports[2];

static uint16_t port_of(int s)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	expect(!getsockname(s, (struct sockaddr *)&ss, &len));
	return ntohs(((struct sockaddr_in *)&ss)->sin_port);
}

static void listen_setup(void)
{
	fd[0] = listen_on(AF_INET, (uint16_t)victim_arg(0, 0), 17);
	fd[1] = listen_on(AF_INET6, 0, 5);
	ports[0] = port_of(fd[0]);
	ports[1] = port_of(fd[1]);
	fd[2] = epoll_create1(EPOLL_CLOEXEC);
	ep_add(fd[2], fd[0], EPOLLIN, HIGH | 1);
}

/* Echoes to whoever connects: the driver does, at the destination. */
static void listen_work(void)
{
	struct epoll_event ev;
	char buf[100];

	if (epoll_wait(fd[2], &ev, 1, 20) == 1) {
		int c = accept(fd[0], NULL, NULL);
		ssize_t n;

		if (c < 0) {
			fail("accept after epoll said so: errno %d", errno);
			return;
		}
		n = read(c, buf, sizeof(buf));
		if (n > 0 && write(c, buf, (size_t)n) != n)
			fail("echo: errno %d", errno);
		close(c);
	}
}

static void listen_check(void)
{
	int value = 0;
	socklen_t len = sizeof(value);

	expect_u64("port of a listener", ports[0], port_of(fd[0]));
	expect_u64("port of an IPv6 listener", ports[1], port_of(fd[1]));
	expect(!getsockopt(fd[0], SOL_SOCKET, SO_REUSEADDR, &value, &len));
	expect_u64("SO_REUSEADDR", 1, (uint64_t)value);
	expect(!getsockopt(fd[0], SOL_SOCKET, SO_ACCEPTCONN, &value, &len));
	expect_u64("SO_ACCEPTCONN", 1, (uint64_t)value);
	expect(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_storage ss;
		int c = socket(i ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		len = sizeof(ss);
		expect(!getsockname(fd[i], (struct sockaddr *)&ss, &len));
		if (connect(c, (struct sockaddr *)&ss, len))
			fail("connect to listener %d: errno %d", i, errno);
		close(c);
	}
}

VICTIM(ipc_listen, V_OPENS, listen_setup, listen_work, listen_check);

/* ---- sockets without a peer ---- */

static void udp_setup(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1;

	fd[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(!setsockopt(fd[0], SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)));
	must(!bind(fd[0], (struct sockaddr *)&sin, sizeof(sin)));
	ports[0] = port_of(fd[0]);
	fd[1] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* neither bound nor connected */
	fd[2] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void udp_check(void)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin), int_len = sizeof(int);
	int value = 0;
	char buf[8] = "";

	expect_u64("port of a datagram socket", ports[0], port_of(fd[0]));
	expect(!getsockopt(fd[0], SOL_SOCKET, SO_BROADCAST, &value, &int_len) && value == 1);
	expect(!getsockname(fd[0], (struct sockaddr *)&sin, &len));
	expect(sendto(fd[1], "hello", 5, 0, (struct sockaddr *)&sin, len) == 5);
	expect(recv(fd[0], buf, 8, 0) == 5 && !memcmp(buf, "hello", 5));
	expect(fcntl(fd[2], F_GETFL) & O_NONBLOCK);
	expect(connect(fd[2], (struct sockaddr *)&sin, len) < 0);
}

VICTIM(ipc_udp, 0, udp_setup, NULL, udp_check);

/* Two that are connected to each other, with datagrams under way, one of a sender that is no more. */
static struct sockaddr_in udp_names[4];

static void udp_pair_setup(void)
{
	for (int i = 0; i < 4; i++) {
		socklen_t len = sizeof(udp_names[i]);

		udp_names[i] = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		fd[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		must(!bind(fd[i], (struct sockaddr *)&udp_names[i], len) && !getsockname(fd[i], (struct sockaddr *)&udp_names[i], &len));
	}
	must(sendto(fd[3], "from the dead", 13, 0, (struct sockaddr *)&udp_names[0], sizeof(udp_names[0])) == 13);
	must(sendto(fd[2], "", 0, 0, (struct sockaddr *)&udp_names[0], sizeof(udp_names[0])) == 0);
	close(fd[3]);
	must(!connect(fd[0], (struct sockaddr *)&udp_names[1], sizeof(udp_names[1])));
	must(!connect(fd[1], (struct sockaddr *)&udp_names[0], sizeof(udp_names[0])));
	must(send(fd[1], "one", 3, 0) == 3 && send(fd[1], "three", 5, 0) == 5);
}

static void expect_datagram(int s, const char *text, const struct sockaddr_in *name)
{
	struct sockaddr_in from = { 0 };
	socklen_t len = sizeof(from);
	char buf[100] = "";
	ssize_t n = recvfrom(s, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len);

	if (n != (ssize_t)strlen(text) || memcmp(buf, text, strlen(text)) || from.sin_port != name->sin_port)
		fail("datagram, expected '%s' of port %d, got '%s' (%zd, errno %d) of %d", text, ntohs(name->sin_port), buf, n, errno,
			ntohs(from.sin_port));
}

static void udp_pair_check(void)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	char c;

	expect_datagram(fd[0], "from the dead", &udp_names[3]);
	expect_datagram(fd[0], "", &udp_names[2]);
	expect_datagram(fd[0], "one", &udp_names[1]);
	expect_datagram(fd[0], "three", &udp_names[1]);
	expect(recv(fd[0], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	expect(!getpeername(fd[0], (struct sockaddr *)&peer, &len) && peer.sin_port == udp_names[1].sin_port);
	expect(send(fd[0], "back", 4, 0) == 4);
	expect_datagram(fd[1], "back", &udp_names[0]);
	expect(sendto(fd[2], "no", 2, 0, (struct sockaddr *)&udp_names[0], sizeof(udp_names[0])) == 2);
	expect(recv(fd[0], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

VICTIM(ipc_udp_pair, 0, udp_pair_setup, NULL, udp_pair_check);

static struct sockaddr_un un_address = { .sun_family = AF_UNIX };

static void unix_listen_setup(void)
{
	must(strlen(beside("s")) < sizeof(un_address.sun_path));
	strcpy(un_address.sun_path, beside("s"));
	fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!bind(fd[0], (struct sockaddr *)&un_address, sizeof(un_address)) && !listen(fd[0], 9));
}

static void unix_listen_check(void)
{
	int c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), a;
	char buf[4] = "";

	if (connect(c, (struct sockaddr *)&un_address, sizeof(un_address))) {
		fail("connect to a unix listener: errno %d", errno);
		return;
	}
	a = accept(fd[0], NULL, NULL);
	expect(a >= 0 && write(c, "abc", 3) == 3 && read(a, buf, 4) == 3 && !memcmp(buf, "abc", 3));
	unlink(un_address.sun_path);
}

VICTIM(ipc_unix_listen, 0, unix_listen_setup, NULL, unix_listen_check);

/* Both ends in the unit, with messages under way in both directions. */
static void pair_setup(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };

	for (int i = 0; i < 3; i++) {
		must(!socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pipes[i]));
		must(write(pipes[i][0], "one", 3) == 3 && write(pipes[i][0], "three", 5) == 5 && write(pipes[i][1], "back", 4) == 4);
	}
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes[3]));
	must(write(pipes[3][0], "last words", 10) == 10 && !shutdown(pipes[3][0], SHUT_WR));
}

static void pair_check(void)
{
	char buf[20];

	for (int i = 0; i < 3; i++) {
		memset(buf, 0, sizeof(buf));
		expect_u64("first message", i ? 3 : 8, (uint64_t)read(pipes[i][1], buf, 20));
		expect(!memcmp(buf, "onethree", i ? 3 : 8));
		if (i)
			expect(read(pipes[i][1], buf, 20) == 5 && !memcmp(buf, "three", 5));
		expect(read(pipes[i][0], buf, 20) == 4 && !memcmp(buf, "back", 4));
		expect(read(pipes[i][0], buf, 20) < 0 && errno == EAGAIN);
		expect(write(pipes[i][1], "again", 5) == 5 && read(pipes[i][0], buf, 20) == 5);
	}
	expect(read(pipes[3][1], buf, 20) == 10 && read(pipes[3][1], buf, 20) == 0);
	expect(write(pipes[3][1], "reply", 5) == 5 && read(pipes[3][0], buf, 20) == 5);
}

VICTIM(ipc_socketpair, 0, pair_setup, NULL, pair_check);

/* A named pipe whose both ends are in the unit. */
static void fifo_setup(void)
{
	must(!mkfifo(beside("fifo"), 0600));
	fd[0] = open(beside("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	fd[1] = open(beside("fifo"), O_WRONLY | O_CLOEXEC);
	must(fd[0] >= 0 && fd[1] >= 0 && write(fd[1], "in the pipe", 11) == 11);
}

static void fifo_check(void)
{
	char buf[20] = "";

	expect(read(fd[0], buf, 20) == 11 && !memcmp(buf, "in the pipe", 11));
	expect(write(fd[1], "more", 4) == 4 && read(fd[0], buf, 20) == 4);
	close(fd[1]);
	expect(read(fd[0], buf, 20) == 0);
	unlink(beside("fifo"));
}

VICTIM(ipc_fifo, 0, fifo_setup, NULL, fifo_check);
