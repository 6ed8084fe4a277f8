// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bulk_link.c - how fast pages cross a link: bare send and recv against recv into staging and UFFDIO_MOVE, between two network
 * namespaces joined by veth (arguments: MiB, default 64; "all" for every combination, or a part of
 * the names, with "floor" for what a push beside a busy program cannot do without)
 *
 * Beside the rate it prints the CPU time of both ends for a GiB, which other work on the machine changes less.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>

#include "fact.h"

#define MAX_RUN (4 * MIB)
#define RUNS 5

enum staging { NOTHING, EACH_RUN, ALL_BEFORE, HUGE_PAGES, HUGE_BEFORE };

struct setup {
	const char *name;
	size_t run;         /* bytes a MOVE; 0: bare, received into one buffer; 1: bare, received into the whole destination by recv */
	bool copy;          /* UFFDIO_COPY instead of MOVE */
	enum staging populate; /* when the staging gets its pages: by recv, a run at a time, everything before the clock starts, 2 MiB pages, all of these before */
	int sndbuf, rcvbuf; /* 0: as the kernel does it */
	int send_cpu, recv_cpu;
	int nice_value;
	size_t send_size;
	const char *congestion;
	bool splice;        /* vmsplice and splice instead of send: the pages themselves go into the socket */
	bool program;       /* a thread of the receiver's address space is busy on CPU 1 */
};

/* Shared by all processes: what one run has shown. */
struct result {
	double gib_per_s, send_s, receive_s; /* the two are CPU time */
};

static size_t total;
static int net_a = -1, net_b = -1;

static int in_namespace(int net, int type)
{
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	MUST(setns(net, CLONE_NEWNET) == 0);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	MUST(fd >= 0 && setns(own, CLONE_NEWNET) == 0);
	close(own);
	return fd;
}

/* Returns a process in a network namespace of its own, when it is there. */
static pid_t namespace_holder(void)
{
	int p[2];
	char there;

	MUST(pipe2(p, O_CLOEXEC) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		MUST(unshare(CLONE_NEWNET) == 0 && write(p[1], "", 1) == 1);
		pause();
	}
	close(p[1]);
	MUST(read(p[0], &there, 1) == 1);
	close(p[0]);
	return pid;
}

static void make_link(void)
{
	char c[512];
	pid_t a = namespace_holder(), b = namespace_holder();

	snprintf(c, sizeof(c),
		 "ip link add fa%d netns %d type veth peer name fb%d netns %d && "
		 "nsenter -t %d -n sh -c 'ip addr add 10.199.7.1/24 dev fa%d; ip link set fa%d up; ip link set lo up' && "
		 "nsenter -t %d -n sh -c 'ip addr add 10.199.7.2/24 dev fb%d; ip link set fb%d up; ip link set lo up'",
		 a % 9999, a, a % 9999, b, a, a % 9999, a % 9999, b, a % 9999, a % 9999);
	if (system(c) != 0)
		SKIP("no veth pair between network namespaces");
	snprintf(c, sizeof(c), "/proc/%d/ns/net", a);
	net_a = open(c, O_RDONLY | O_CLOEXEC);
	snprintf(c, sizeof(c), "/proc/%d/ns/net", b);
	net_b = open(c, O_RDONLY | O_CLOEXEC);
	kill(a, SIGKILL);
	kill(b, SIGKILL);
	waitpid(a, NULL, 0);
	waitpid(b, NULL, 0);
}

static void options(int fd, const struct setup *s)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, s->congestion, strlen(s->congestion));
	if (s->sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &s->sndbuf, sizeof(s->sndbuf));
	if (s->rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &s->rcvbuf, sizeof(s->rcvbuf));
}

static void send_all(int fd, const struct setup *s, const char *memory)
{
	int p[2] = { -1, -1 };

	if (s->splice)
		MUST(pipe2(p, O_CLOEXEC) == 0 && fcntl(p[1], F_SETPIPE_SZ, 1 << 20) > 0);
	for (size_t at = 0; at < total;) {
		size_t len = s->send_size < total - at ? s->send_size : total - at;
		ssize_t n;

		if (s->splice) {
			struct iovec v = { (char *)memory + at, len };

			n = vmsplice(p[1], &v, 1, 0);
			MUST(n > 0);
			for (ssize_t left = n; left > 0;) {
				ssize_t m = splice(p[0], NULL, fd, NULL, (size_t)left, SPLICE_F_MORE);
				MUST(m > 0);
				left -= m;
			}
		} else {
			n = send(fd, memory + at, len, 0);
			MUST(n > 0);
		}
		at += (size_t)n;
	}
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double thread_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *be_busy(void *arg)
{
	pin(1);
	for (;;)
		++*(volatile uint64_t *)arg;
	return NULL;
}

static void start_program(void)
{
	static uint64_t counter;
	pthread_t thread;

	MUST(pthread_create(&thread, NULL, be_busy, &counter) == 0);
}

static char *make_staging(const struct setup *s)
{
	bool before = s->populate == ALL_BEFORE || s->populate == HUGE_BEFORE;
	size_t len = (before ? total : MAX_RUN);
	char *p = mmap(NULL, len + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	MUST(p != MAP_FAILED);
	p = (char *)(((uintptr_t)p + 2 * MIB - 1) & ~(2 * MIB - 1));
	madvise(p, len, s->populate >= HUGE_PAGES ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (s->copy || before || s->run <= 1)
		madvise(p, len, MADV_POPULATE_WRITE);
	return p;
}

static void receive(int fd, const struct setup *s, char *to, int uffd, char *staging_start)
{
	size_t run = s->run > 1 ? s->run : MIB, at = 0;

	while (at < total) {
		char *staging = staging_start + (s->populate == ALL_BEFORE || s->populate == HUGE_BEFORE ? at : 0);
		char *into = s->run == 1 ? to + at : staging;
		size_t have = 0;

		if (s->populate == EACH_RUN || s->populate == HUGE_PAGES)
			madvise(staging, run, MADV_POPULATE_WRITE);
		while (have < run) {
			ssize_t n = recv(fd, into + have, run - have, 0);
			MUST(n > 0);
			have += (size_t)n;
		}
		int64_t done;
		if (s->run > 1)
			MUST((s->copy ? uffd_copy(uffd, to + at, staging, run, &done) : uffd_move(uffd, to + at, staging, run, 0, &done)) == 0);
		at += run;
	}
}

static void sender(const struct setup *s, const struct sockaddr_in *to, const char *memory, struct result *result)
{
	int fd = in_namespace(net_a, SOCK_STREAM);
	char c;

	if (s->send_cpu >= 0)
		pin(s->send_cpu);
	setpriority(PRIO_PROCESS, 0, s->nice_value);
	options(fd, s);
	MUST(connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0);
	MUST(read(fd, &c, 1) == 1);
	double before = cpu_s();
	send_all(fd, s, memory);
	result->send_s = cpu_s() - before;
	_exit(read(fd, &c, 1) < 0);
}

static void receiver(const struct setup *s, int listener, const char *memory, struct result *result)
{
	char *to = map_anon(total + 2 * MIB), *staging;
	int uffd = uffd_open(UFFD_FEATURE_MOVE), fd;

	to = (char *)(((uintptr_t)to + 2 * MIB - 1) & ~(2 * MIB - 1));
	if (s->populate == HUGE_PAGES)
		madvise(to, total, MADV_HUGEPAGE);
	if (s->run > 1)
		MUST(uffd_register(uffd, to, total, UFFDIO_REGISTER_MODE_MISSING) == 0);
	if (s->program)
		start_program();
	if (s->recv_cpu >= 0)
		pin(s->recv_cpu);
	setpriority(PRIO_PROCESS, 0, s->nice_value);
	fd = accept(listener, NULL, NULL);
	MUST(fd >= 0);
	staging = make_staging(s);
	uint64_t t = now_ns();
	double before = thread_s();
	MUST(write(fd, "g", 1) == 1);
	receive(fd, s, to, uffd, staging);
	result->receive_s = thread_s() - before;
	result->gib_per_s = (double)total / (1 << 30) / ((double)(now_ns() - t) / 1e9);
	if (memcmp(to, memory, s->run ? total : 0))
		result->gib_per_s = -1;
	_exit(write(fd, "g", 1) != 1);
}

static struct result one(const struct setup *s, char *memory)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7001) };
	struct result *result = (struct result *)(memory - PAGE);
	int l = in_namespace(net_b, SOCK_STREAM), yes = 1;
	pid_t from, to;

	inet_pton(AF_INET, "10.199.7.2", &a.sin_addr);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	options(l, s);
	MUST(bind(l, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(l, 1) == 0);
	from = fork();
	if (from == 0)
		sender(s, &a, memory, result);
	to = fork();
	if (to == 0)
		receiver(s, l, memory, result);
	close(l);
	waitpid(to, NULL, 0);
	waitpid(from, NULL, 0);
	return *result;
}

static int by_rate(const void *a, const void *b)
{
	const struct result *x = a, *y = b;

	return (x->gib_per_s > y->gib_per_s) - (x->gib_per_s < y->gib_per_s);
}

static struct result best(const struct setup *s, char *memory)
{
	struct result v[RUNS];
	double gib = (double)total / (1 << 30);

	for (int i = 0; i < RUNS; i++)
		v[i] = one(s, memory);
	qsort(v, RUNS, sizeof(v[0]), by_rate);
	SAW("%-66s %5.2f GiB/s (%.2f to %.2f), CPU %3.0f + %3.0f ms a GiB", s->name, v[RUNS / 2].gib_per_s, v[0].gib_per_s, v[RUNS - 1].gib_per_s,
	    v[RUNS / 2].send_s / gib * 1e3, v[RUNS / 2].receive_s / gib * 1e3);
	return v[RUNS / 2];
}

#define PINNED .send_cpu = 0, .recv_cpu = 1
#define SAME_CORE .send_cpu = 0, .recv_cpu = 0
#define UNPINNED .send_cpu = -1, .recv_cpu = -1
#define BASE .congestion = "cubic"
#define K256 .send_size = 256 << 10

int main(int argc, char **argv)
{
	static const struct setup setups[] = {
		{ "bare, into one buffer", 0, PINNED, BASE, K256 },
		{ "staging populated before, MOVE 256 KiB", 256 << 10, .populate = ALL_BEFORE, PINNED, BASE, K256 },
		{ "COPY 256 KiB", 256 << 10, .copy = true, PINNED, BASE, K256 },
		{ "bare, into untouched memory", 1, PINNED, BASE, K256 },
		{ "staging populated by the run, MOVE 64 KiB", 64 << 10, .populate = EACH_RUN, PINNED, BASE, K256 },
		{ "staging populated by the run, MOVE 256 KiB", 256 << 10, .populate = EACH_RUN, PINNED, BASE, K256 },
		{ "staging populated by the run, MOVE 1 MiB", 1 << 20, .populate = EACH_RUN, PINNED, BASE, K256 },
		{ "staging not populated, MOVE 256 KiB", 256 << 10, PINNED, BASE, K256 },
		{ "staging populated before, MOVE 64 KiB", 64 << 10, .populate = ALL_BEFORE, PINNED, BASE, K256 },
		{ "staging populated before, MOVE 1 MiB", 1 << 20, .populate = ALL_BEFORE, PINNED, BASE, K256 },
		{ "huge staging by the run, MOVE 2 MiB (huge pages at the destination)", 2 << 20, .populate = HUGE_PAGES, PINNED, BASE, K256 },
		{ "COPY 64 KiB", 64 << 10, .copy = true, PINNED, BASE, K256 },
		{ "COPY 128 KiB", 128 << 10, .copy = true, PINNED, BASE, K256 },
		{ "COPY 512 KiB", 512 << 10, .copy = true, PINNED, BASE, K256 },
		{ "COPY 1 MiB", 1 << 20, .copy = true, PINNED, BASE, K256 },
		{ "COPY 256 KiB, send 64 KiB", 256 << 10, .copy = true, PINNED, BASE, .send_size = 64 << 10 },
		{ "COPY 256 KiB, send 1 MiB", 256 << 10, .copy = true, PINNED, BASE, .send_size = 1 << 20 },
		{ "bare, bbr", 0, PINNED, .congestion = "bbr", K256 },
		{ "COPY 256 KiB, bbr", 256 << 10, .copy = true, PINNED, .congestion = "bbr", K256 },
		{ "COPY 256 KiB, SO_SNDBUF 128 KiB", 256 << 10, .copy = true, PINNED, BASE, K256, .sndbuf = 128 << 10 },
		{ "COPY 256 KiB, SO_SNDBUF 512 KiB", 256 << 10, .copy = true, PINNED, BASE, K256, .sndbuf = 512 << 10 },
		{ "COPY 256 KiB, SO_SNDBUF 1 MiB, RCVBUF 1 MiB", 256 << 10, .copy = true, PINNED, BASE, K256, .sndbuf = 1 << 20, .rcvbuf = 1 << 20 },
		{ "COPY 256 KiB, SO_SNDBUF 4 MiB, RCVBUF 4 MiB", 256 << 10, .copy = true, PINNED, BASE, K256, .sndbuf = 4 << 20, .rcvbuf = 4 << 20 },
		{ "bare, both on one core", 0, SAME_CORE, BASE, K256 },
		{ "COPY 256 KiB, both on one core", 256 << 10, .copy = true, SAME_CORE, BASE, K256 },
		{ "staging populated before, MOVE 256 KiB, one core", 256 << 10, .populate = ALL_BEFORE, SAME_CORE, BASE, K256 },
		{ "splice 256 KiB, into one buffer", 0, PINNED, BASE, K256, .splice = true },
		{ "splice 1 MiB, into one buffer", 0, PINNED, BASE, .send_size = 1 << 20, .splice = true },
		{ "splice 256 KiB, into one buffer, one core", 0, SAME_CORE, BASE, K256, .splice = true },
		{ "splice 256 KiB, COPY 256 KiB", 256 << 10, .copy = true, PINNED, BASE, K256, .splice = true },
		{ "splice 1 MiB, COPY 256 KiB", 256 << 10, .copy = true, PINNED, BASE, .send_size = 1 << 20, .splice = true },
		{ "splice 256 KiB, COPY 256 KiB, one core", 256 << 10, .copy = true, SAME_CORE, BASE, K256, .splice = true },
		{ "splice 256 KiB, populated before, MOVE 256 KiB, one core", 256 << 10, .populate = ALL_BEFORE, SAME_CORE, BASE, K256, .splice = true },
		{ "floor: bare, one core, program beside", 0, .program = true, SAME_CORE, BASE, K256 },
		{ "floor: bare, nothing pinned, program beside", 0, .program = true, UNPINNED, BASE, K256 },
		{ "floor: splice, into one buffer, one core, program beside", 0, .program = true, SAME_CORE, BASE, K256, .splice = true },
		{ "floor: send, MOVE 2 MiB, one core, program beside", 2 << 20, .populate = ALL_BEFORE, .program = true, SAME_CORE, BASE, K256 },
		{ "floor: splice, MOVE 2 MiB, one core, program beside", 2 << 20, .populate = ALL_BEFORE, .program = true, SAME_CORE, BASE, K256, .splice = true },
		{ "floor: splice, MOVE 2 MiB, huge, one core, program beside", 2 << 20, .populate = HUGE_BEFORE, .program = true, SAME_CORE, BASE, K256, .splice = true },
		{ "bare, nothing pinned", 0, UNPINNED, BASE, K256 },
		{ "COPY 256 KiB, nothing pinned", 256 << 10, .copy = true, UNPINNED, BASE, K256 },
		{ "COPY 256 KiB, nothing pinned, nice 10", 256 << 10, .copy = true, UNPINNED, BASE, K256, .nice_value = 10 },
	};
	unsigned n = argc > 2 ? sizeof(setups) / sizeof(setups[0]) : 3;

	total = (argc > 1 ? (size_t)atoi(argv[1]) : 64) * MIB;
	if (geteuid())
		SKIP("needs root for network namespaces");
	make_link();
	char *memory = (char *)map_shared(total + PAGE) + PAGE;
	uint64_t x = 88172645463325252ull;
	for (size_t i = 0; i < total / 8; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		((uint64_t *)memory)[i] = x;
	}
	struct result v[64];
	for (unsigned i = 0; i < n; i++)
		if (argc < 3 || !strcmp(argv[2], "all") || strstr(setups[i].name, argv[2]))
			v[i] = best(&setups[i], memory);
		else
			v[i].gib_per_s = 1;
	if (argc < 3 || !strcmp(argv[2], "all"))
		SAW("of the bare link: MOVE out of populated staging %.0f %%, COPY %.0f %%", v[1].gib_per_s / v[0].gib_per_s * 100, v[2].gib_per_s / v[0].gib_per_s * 100);
	bool arrived = true;
	for (unsigned i = 0; i < n; i++)
		arrived = arrived && v[i].gib_per_s > 0;
	FACT(arrived, "every byte arrived by all ways");
	return fact_result();
}
