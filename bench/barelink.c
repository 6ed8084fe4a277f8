// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * barelink.c - the link by itself: what the benchmark's push and fault figures are compared with
 *
 *   barelink serve PORT              answers connections one after another, until it is killed
 *   barelink push ADDRESS PORT MIB [CPU]
 *                                    sends that much from memory of its own, 256 KiB a call; the other side receives it into one buffer.
 *                                    Prints {"gib_per_s": ...}: from the first byte sent until the receiver has said that all is there.
 *                                    With CPU both ends keep off that one (of the same machine)
 *   barelink pull ADDRESS PORT MIB   the same the other way round: the server sends, from one buffer
 *   barelink ask ADDRESS PORT N      N times: 16 bytes there, 4 KiB back, both sides blocking. Prints {"median_us": ..., "p99_us": ...}
 *
 *   A last argument @CPU puts both ends on that one (of the same machine).
 *
 * Every connection starts with `struct request`. cubic on both sides, which is the fastest here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define ANSWER 4096u

enum kind { KIND_PUSH = 1, KIND_ASK = 2, KIND_PULL = 3 };

struct request {
	uint64_t kind, amount; /* bytes, or number of questions */
	uint64_t away;         /* 1 + the CPU to keep off; 0: none */
	uint64_t on;           /* 1 + the only CPU to be on; 0: any */
};

static void die(const char *what)
{
	fprintf(stderr, "barelink: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static bool read_all(int fd, void *buffer, size_t len)
{
	ssize_t n;

	for (; len; buffer = (char *)buffer + n, len -= (size_t)n) {
		n = recv(fd, buffer, len, 0);
		if (n <= 0)
			return false;
	}
	return true;
}

static bool write_all(int fd, const void *buffer, size_t len)
{
	ssize_t n;

	for (; len; buffer = (const char *)buffer + n, len -= (size_t)n) {
		n = send(fd, buffer, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

static uint64_t on_cpu; /* of this end and the other: struct request */

/* Keeps this process off a CPU, or on one; with both 0, lets it run everywhere again. */
static void choose_cpus(uint64_t away, uint64_t on)
{
	cpu_set_t set;

	memset(&set, on ? 0 : 0xff, sizeof(set));
	if (away)
		CPU_CLR(away - 1, &set);
	if (on)
		CPU_SET(on - 1, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void set_options(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
}

static void *pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	memset(p, 0x5a, len);
	return p;
}

static void answer(int fd, char *buffer)
{
	struct request r;
	uint64_t left;
	char question[16];

	if (!read_all(fd, &r, sizeof(r)))
		return;
	choose_cpus(r.away, r.on);
	if (r.kind == KIND_PUSH) {
		for (left = r.amount; left;) {
			ssize_t n = recv(fd, buffer, left < CHUNK ? left : CHUNK, 0);
			if (n <= 0)
				return;
			left -= (uint64_t)n;
		}
		write_all(fd, "k", 1);
	} else if (r.kind == KIND_PULL) {
		for (left = r.amount; left >= CHUNK && write_all(fd, buffer, CHUNK); left -= CHUNK)
			;
	} else if (r.kind == KIND_ASK) {
		while (read_all(fd, question, sizeof(question)))
			if (!write_all(fd, buffer, ANSWER))
				return;
	}
}

static _Noreturn void serve(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	char *buffer = pages(CHUNK);
	int one = 1, fd, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	set_options(l);
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 8) < 0)
		die("listen");
	for (;;) {
		fd = accept(l, NULL, NULL);
		if (fd < 0)
			die("accept");
		set_options(fd);
		answer(fd, buffer);
		close(fd);
	}
}

static int dial(const char *address, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, address, &a.sin_addr) != 1) {
		fprintf(stderr, "barelink: %s is no IPv4 address\n", address);
		exit(2);
	}
	set_options(fd);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		die(address);
	return fd;
}

static int push(int fd, uint64_t mib, uint64_t away)
{
	struct request r = { KIND_PUSH, mib << 20, away, on_cpu };
	size_t memory_len = (size_t)r.amount, at;
	char *memory = pages(memory_len), done;
	uint64_t t;

	choose_cpus(away, on_cpu);
	t = now_ns();
	if (!write_all(fd, &r, sizeof(r)))
		die("send");
	for (at = 0; at < memory_len; at += CHUNK)
		if (!write_all(fd, memory + at, memory_len - at < CHUNK ? memory_len - at : CHUNK))
			die("send");
	if (!read_all(fd, &done, 1))
		die("the receiver's answer");
	printf("{\"gib_per_s\": %.3f}\n", (double)mib / 1024 / ((double)(now_ns() - t) / 1e9));
	return 0;
}

static int pull(int fd, uint64_t mib)
{
	struct request r = { KIND_PULL, mib << 20, 0, on_cpu };
	char *buffer = pages(CHUNK);
	uint64_t t, left = r.amount;

	choose_cpus(0, on_cpu);
	t = now_ns();
	if (!write_all(fd, &r, sizeof(r)))
		die("send");
	while (left) {
		ssize_t n = recv(fd, buffer, CHUNK, 0);

		if (n <= 0)
			die("recv");
		left -= (uint64_t)n;
	}
	printf("{\"gib_per_s\": %.3f}\n", (double)mib / 1024 / ((double)(now_ns() - t) / 1e9));
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int ask(int fd, unsigned n)
{
	struct request r = { KIND_ASK, n, 0, on_cpu };
	char question[16] = "", page[ANSWER];
	double *us = calloc(n + 1, sizeof(*us));
	unsigned i;

	choose_cpus(0, on_cpu);
	if (!us || !n || !write_all(fd, &r, sizeof(r)))
		die("send");
	for (i = 0; i < n; i++) {
		uint64_t t = now_ns();

		if (!write_all(fd, question, sizeof(question)) || !read_all(fd, page, sizeof(page)))
			die("request and reply");
		us[i] = (double)(now_ns() - t) / 1000;
	}
	qsort(us, n, sizeof(*us), compare);
	printf("{\"median_us\": %.1f, \"p99_us\": %.1f}\n", us[n / 2], us[n - 1 - n / 100]);
	free(us);
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc > 2 && argv[argc - 1][0] == '@')
		on_cpu = strtoul(argv[--argc] + 1, NULL, 10) + 1;
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve((uint16_t)atoi(argv[2]));
	if ((argc == 5 || argc == 6) && !strcmp(argv[1], "push"))
		return push(dial(argv[2], (uint16_t)atoi(argv[3])), strtoul(argv[4], NULL, 10), argc == 6 ? strtoul(argv[5], NULL, 10) + 1 : 0);
	if (argc == 5 && !strcmp(argv[1], "pull"))
		return pull(dial(argv[2], (uint16_t)atoi(argv[3])), strtoul(argv[4], NULL, 10));
	if (argc == 5 && !strcmp(argv[1], "ask"))
		return ask(dial(argv[2], (uint16_t)atoi(argv[3])), (unsigned)atoi(argv[4]));
	fprintf(stderr, "usage: barelink serve PORT | push ADDRESS PORT MIB [CPU] | pull ADDRESS PORT MIB | ask ADDRESS PORT N [@CPU]\n");
	return 2;
}
