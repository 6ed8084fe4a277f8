// SPDX-License-Identifier: GPL-2.0-or-later
/* partial.c - calls that wait with a part done: the program must see all of it, and not the part of the moment in which it was moved */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "victim.h"

#define BYTES 1000003u
#define WAYS 4
#define RECEIVED 100000u
#define RECEIVED_FIRST 30000u

static struct way {
	const char *name;
	int from, to; /* to write, to read */
	bool sends;
	ssize_t done;
	pthread_t thread;
	uint64_t seed;
	bool intact; /* registers after the call are those before it */
} ways[WAYS], receiver;

/* The registers that a call leaves alone, the flags among them. */
static ssize_t call(struct way *w, long nr, void *p, size_t len, long flags)
{
	register long r10 asm("r10") = flags, r8 asm("r8") = 0, r9 asm("r9") = 0;
	uint64_t frame[2] = { 0, 0 }, before = 0x8d5 /* carry, parity, adjust, zero, sign, overflow */, after;
	const char *rsi = p;
	size_t rdx = len;
	long rax = nr;

	asm volatile("sub $256,%%rsp; push %[before]; popfq; syscall; pushfq; pop %[after]; lea 256(%%rsp),%%rsp"
		     : "+a"(rax), "+S"(rsi), "+d"(rdx), [after] "=&b"(after)
		     : "D"((long)(nr == 45 ? w->to : w->from)), [before] "r"(before), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory", "cc");
	w->intact = rsi == p && rdx == len && (after & before) == before && !frame[0];
	return rax;
}

static void *write_all(void *arg)
{
	struct way *w = arg;
	char *p = malloc(BYTES);

	fill(p, BYTES, w->seed);
	w->done = call(w, w->sends ? 44 /* sendto */ : 1 /* write */, p, BYTES, MSG_NOSIGNAL);
	free(p);
	return NULL;
}

static char *received;

static void *receive_all(void *arg)
{
	struct way *w = arg;

	w->done = call(w, 45 /* recvfrom */, received, RECEIVED, MSG_WAITALL);
	return NULL;
}

static void connect_tcp(struct way *w)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	w->from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(listener >= 0 && !bind(listener, (void *)&a, sizeof(a)) && !listen(listener, 1) && !getsockname(listener, (void *)&a, &len));
	must(w->from >= 0 && !connect(w->from, (void *)&a, sizeof(a)) && (w->to = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 && !close(listener));
}

static void open_ways(void)
{
	struct termios raw;
	int pair[2], size = 65536;

	must(!pipe2(pair, O_CLOEXEC));
	ways[0] = (struct way){ "a pipe", pair[1], pair[0], false };
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	ways[1] = (struct way){ "a unix socket", pair[0], pair[1], true };
	must(!openpty(&pair[0], &pair[1], NULL, NULL, NULL) && !tcgetattr(pair[1], &raw));
	cfmakeraw(&raw);
	must(!tcsetattr(pair[1], TCSANOW, &raw));
	ways[2] = (struct way){ "a terminal", pair[1], pair[0], false };
	ways[3] = (struct way){ "a TCP connection", -1, -1, true };
	connect_tcp(&ways[3]);
	must(!setsockopt(ways[3].from, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) && !setsockopt(ways[3].to, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
}

static void setup(void)
{
	int pair[2];
	char *p = malloc(RECEIVED);

	open_ways();
	for (int i = 0; i < WAYS; i++) {
		ways[i].seed = 900 + (uint64_t)i;
		must(!pthread_create(&ways[i].thread, NULL, write_all, &ways[i]));
	}
	must(p && (received = malloc(RECEIVED)) && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	receiver = (struct way){ .from = pair[0], .to = pair[1], .seed = 990 };
	fill(p, RECEIVED, receiver.seed);
	must(!pthread_create(&receiver.thread, NULL, receive_all, &receiver));
	must(write(receiver.from, p, RECEIVED_FIRST) == RECEIVED_FIRST);
	free(p);
	usleep(200000); /* until all wait */
}

static void check_way(struct way *w)
{
	char *p = malloc(BYTES);
	size_t got = 0;

	expect_u64(w->name, 0, (uint64_t)w->done); /* it waits still */
	while (got < BYTES) {
		ssize_t n = read(w->to, p + got, BYTES - got);

		if (n <= 0) {
			fail("%s: the end after %zu bytes (errno %d)", w->name, got, errno);
			return;
		}
		got += (size_t)n;
	}
	pthread_join(w->thread, NULL);
	expect_u64(w->name, BYTES, (uint64_t)w->done);
	expect(w->intact);
	verify(w->name, p, BYTES, w->seed);
	free(p);
}

static void check(void)
{
	char *p = malloc(RECEIVED);

	for (int i = 0; i < WAYS && !failed(); i++)
		check_way(&ways[i]);
	fill(p, RECEIVED, receiver.seed);
	expect_u64("a receive of all", 0, (uint64_t)receiver.done);
	expect(write(receiver.from, p + RECEIVED_FIRST, RECEIVED - RECEIVED_FIRST) == RECEIVED - RECEIVED_FIRST);
	if (failed())
		return;
	pthread_join(receiver.thread, NULL);
	expect_u64("a receive of all", RECEIVED, (uint64_t)receiver.done);
	expect(receiver.intact);
	verify("what was received", received, RECEIVED, receiver.seed);
	free(p);
}

VICTIM(partial, V_NO_STOP, setup, NULL, check);
