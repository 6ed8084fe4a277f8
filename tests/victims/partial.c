// SPDX-License-Identifier: GPL-2.0-or-later
/* partial.c - calls that wait with a part done: the program must see all of it, and not the part of the moment in which it was moved */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "victim.h"

#define BYTES 1000003u
#define WAYS 8
#define RECEIVED 100000u
#define RANDOM (1u << 20)
#define RECEIVED_FIRST 30000u

static struct way {
	const char *name;
	int from, to; /* to write, to read */
	long nr;
	ssize_t done;
	pthread_t thread;
	uint64_t seed;
	bool intact; /* registers after the call are those before it */
} ways[WAYS], receivers[2];

/* The registers that a call leaves alone, the flags among them. */
static ssize_t call(struct way *w, long nr, const long arg[5])
{
	register long r10 asm("r10") = arg[3], r8 asm("r8") = arg[4], r9 asm("r9") = 0;
	uint64_t before = 0x8d5 /* carry, parity, adjust, zero, sign, overflow */, after;
	long rdi = arg[0], rsi = arg[1], rdx = arg[2], rax = nr;

	asm volatile("sub $256,%%rsp; push %[before]; popfq; syscall; pushfq; pop %[after]; lea 256(%%rsp),%%rsp"
		     : "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8), [after] "=&b"(after)
		     : [before] "r"(before), "r"(r9)
		     : "rcx", "r11", "memory", "cc");
	w->intact = rdi == arg[0] && rsi == arg[1] && rdx == arg[2] && r10 == arg[3] && r8 == arg[4] && (after & before) == before;
	return rax;
}

/* Cuts p into buffers of all kinds of lengths, none among them. */
static size_t cut(struct iovec *v, size_t n, char *p, size_t len)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		size_t piece = i + 1 == n ? len - at : i % 7 == 3 ? 0 : mix(i) % (2 * (len - at) / (n - i));

		v[i] = (struct iovec){ p + at, piece };
		at += piece;
	}
	return n;
}

static void *write_all(void *arg)
{
	struct way *w = arg;
	char *p = malloc(BYTES);
	off_t offset = 0;
	struct iovec v[40];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = cut(v, 40, p, BYTES) };

	fill(p, BYTES, w->seed);
	if (w->nr == SYS_sendfile) {
		int file = memfd_create("file", MFD_CLOEXEC);

		must(file >= 0 && write(file, p, BYTES) == BYTES);
		w->done = call(w, w->nr, (long[5]){ w->from, file, (long)&offset, BYTES, 77 });
		close(file);
	} else if (w->nr == SYS_sendmsg) {
		w->done = call(w, w->nr, (long[5]){ w->from, (long)&m, MSG_NOSIGNAL, 78, 79 });
	} else if (w->nr == SYS_writev) {
		w->done = call(w, w->nr, (long[5]){ w->from, (long)v, (long)m.msg_iovlen, 80, 81 });
	} else {
		w->done = call(w, w->nr, (long[5]){ w->from, (long)p, BYTES, MSG_NOSIGNAL });
	}
	free(p);
	return NULL;
}

static char *received;

static void *receive_all(void *arg)
{
	struct way *w = arg;

	w->done = call(w, w->nr, (long[5]){ w->to, (long)received, RECEIVED, MSG_WAITALL });
	return NULL;
}

static char *received_buffers;

static void *receive_buffers(void *arg)
{
	struct way *w = arg;
	struct iovec v[9];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = cut(v, 9, received_buffers, RECEIVED) };

	w->done = call(w, w->nr, (long[5]){ w->to, (long)&m, MSG_WAITALL, 82, 83 });
	return NULL;
}

/* What waits for nothing, and works for long. */
static void *take_all(void *arg)
{
	int fd = open((char *)arg, O_RDONLY | O_CLOEXEC);
	char *p = map_anon(RANDOM, PROT_READ | PROT_WRITE, 0);

	while (!victim_stopping && !failed()) {
		expect_u64("a read of a device", RANDOM, (uint64_t)read(fd, p, RANDOM));
		expect_u64("getrandom", RANDOM, (uint64_t)getrandom(p, RANDOM, 0));
	}
	close(fd);
	return NULL;
}

static void connect_tcp(struct way *w, int size)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	w->from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(listener >= 0 && !bind(listener, (void *)&a, sizeof(a)) && !listen(listener, 1) && !getsockname(listener, (void *)&a, &len));
	must(w->from >= 0 && !connect(w->from, (void *)&a, sizeof(a)) && (w->to = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 && !close(listener));
	must(!setsockopt(w->from, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) && !setsockopt(w->to, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
}

static void open_ways(void)
{
	struct termios raw;
	const long many[] = { SYS_sendmsg, SYS_sendfile };
	int pair[2], size = 65536;

	must(!pipe2(pair, O_CLOEXEC));
	ways[0] = (struct way){ "a pipe", pair[1], pair[0], SYS_write };
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	ways[1] = (struct way){ "a unix socket", pair[0], pair[1], SYS_sendto };
	must(!openpty(&pair[0], &pair[1], NULL, NULL, NULL) && !tcgetattr(pair[1], &raw));
	cfmakeraw(&raw);
	must(!tcsetattr(pair[1], TCSANOW, &raw));
	ways[2] = (struct way){ "a terminal", pair[1], pair[0], SYS_write };
	ways[3] = (struct way){ "a TCP connection", -1, -1, SYS_sendto };
	connect_tcp(&ways[3], size);
	for (int i = 0; i < 2; i++) {
		must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		ways[4 + i] = (struct way){ i ? "sendfile" : "buffers to a unix socket", pair[0], pair[1], many[i] };
	}
	must(!pipe2(pair, O_CLOEXEC));
	ways[6] = (struct way){ "buffers to a pipe", pair[1], pair[0], SYS_writev };
	ways[7] = (struct way){ "buffers to a TCP connection", -1, -1, SYS_sendmsg };
	connect_tcp(&ways[7], size);
}

static pid_t caller;

/* Signals that nothing follows come all the time, so also while the threads are stopped and they wait. They end no call. */
static void call_in_vain(void)
{
	pid_t program = getpid();

	caller = fork();
	must(caller >= 0);
	if (caller)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!kill(program, SIGWINCH))
		usleep(20);
	_exit(0);
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
	must(p && (received = malloc(RECEIVED)) && (received_buffers = malloc(RECEIVED)));
	for (int i = 0; i < 2; i++) {
		must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		receivers[i] = (struct way){ .from = pair[0], .to = pair[1], .nr = i ? SYS_recvmsg : SYS_recvfrom, .seed = 990 + (uint64_t)i };
		fill(p, RECEIVED, receivers[i].seed);
		must(!pthread_create(&receivers[i].thread, NULL, i ? receive_buffers : receive_all, &receivers[i]));
		must(write(receivers[i].from, p, RECEIVED_FIRST) == RECEIVED_FIRST);
	}
	spawn(take_all, "/dev/urandom", NULL);
	spawn(take_all, "/dev/zero", NULL);
	free(p);
	if (!victim_argc)
		call_in_vain(); /* spawn() blocks signals for the moment: they would end calls then */
	usleep(200000); /* until all wait */
}

static void check_way(struct way *w)
{
	char *p = malloc(BYTES);
	size_t got = 0;

	expect_u64(w->name, 0, (uint64_t)w->done); /* it waits still */
	while (got < BYTES) {
		struct pollfd more = { .fd = w->to, .events = POLLIN };
		ssize_t n = poll(&more, 1, w->done ? 0 : 5000) == 1 ? read(w->to, p + got, BYTES - got) : -1;

		if (n <= 0 && w->done && (size_t)w->done < BYTES) {
			fail("%s ended after %zd bytes", w->name, w->done);
			return;
		}
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
	for (int i = 0; i < 2 && !failed(); i++) {
		struct way *w = &receivers[i];

		fill(p, RECEIVED, w->seed);
		expect_u64("a receive of all", 0, (uint64_t)w->done);
		expect(write(w->from, p + RECEIVED_FIRST, RECEIVED - RECEIVED_FIRST) == RECEIVED - RECEIVED_FIRST);
		if (failed())
			return;
		pthread_join(w->thread, NULL);
		expect_u64("a receive of all", RECEIVED, (uint64_t)w->done);
		expect(w->intact);
		verify("what was received", i ? received_buffers : received, RECEIVED, w->seed);
	}
	join_all();
	if (caller) {
		kill(caller, SIGKILL);
		waitpid(caller, NULL, 0);
	}
	free(p);
}

VICTIM(partial, V_NO_STOP, setup, NULL, check);
