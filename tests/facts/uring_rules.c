// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * uring_rules.c - a ring of io_uring is mapped where the kernel likes: at the only place that is left, when all others are taken; its descriptor does not go over a
 * socket, but another process can get it; what moves the counts of submissions and completions, together and each alone; and whose absolute times those of timeouts are
 */
#include <linux/io_uring.h>
#include <sys/socket.h>

#include "fact.h"

#define ENTRIES 64
#define BYTES (2 * PAGE)
#define LOWEST 65536ul
#define HIGHEST 0x7ffffffff000ul
#define MSG_RING 40

struct ring {
	int fd;
	struct io_uring_params p;
	uint8_t *memory;
	struct io_uring_sqe *sqes;
};

static void make(struct ring *r, uint32_t flags)
{
	*r = (struct ring){ .p.flags = flags };
	r->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &r->p);
	if (r->fd < 0) {
		printf("no io_uring here: %s\n", strerror(errno));
		exit(77);
	}
	r->memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, ENTRIES * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)IORING_OFF_SQES);
	MUST(r->memory != MAP_FAILED && r->sqes != MAP_FAILED);
}

static uint32_t *word(const struct ring *r, uint32_t offset)
{
	return (void *)(r->memory + offset);
}

/* --- places --- */

/* Takes what is free but for [start, start + BYTES); NULL ends the list of what was taken. */
static size_t take_others(unsigned long start, unsigned long (*taken)[2], size_t max)
{
	unsigned long last = LOWEST, from, to;
	char line[512];
	size_t n = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	MUST(f);
	while (n < max - 3) {
		bool more = fgets(line, sizeof(line), f) && sscanf(line, "%lx-%lx", &from, &to) == 2 && from < HIGHEST;

		from = more ? from : HIGHEST;
		if (start >= last && start + BYTES <= from) {
			taken[n][0] = last;
			taken[n++][1] = start;
			last = start + BYTES;
		}
		if (from > last) {
			taken[n][0] = last;
			taken[n++][1] = from;
		}
		if (!more)
			break;
		last = to;
	}
	fclose(f);
	for (size_t i = 0; i < n; i++)
		if (taken[i][0] < taken[i][1])
			mmap((void *)taken[i][0], taken[i][1] - taken[i][0], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	return n;
}

static void places(const struct ring *r)
{
	static unsigned long taken[512][2];
	const unsigned long wanted[] = { 0x200000000000ul, 0x7ffff0000000ul, 0x600000000ul };
	void *at = (void *)wanted[0];

	FACT(mmap(at, BYTES, PROT_READ, MAP_SHARED, r->fd, 0) == MAP_FAILED && errno == EINVAL, "an address is refused");
	FACT(mmap(at, BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, r->fd, 0) == MAP_FAILED && errno == EINVAL, "so is a fixed one");
	FACT(mremap(r->memory, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED && errno == EINVAL, "and moving it");
	for (int i = 0; i < 3; i++) {
		size_t n = take_others(wanted[i], taken, 512);
		void *got = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);

		for (size_t k = 0; k < n; k++)
			munmap((void *)taken[k][0], taken[k][1] - taken[k][0]);
		FACT((unsigned long)got == wanted[i], "where all else is taken, %#lx is where it is mapped: %p", wanted[i], got);
	}
}

/* --- descriptors --- */

static void descriptors(const struct ring *r)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { "x", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int pair[2], got, pidfd;
	pid_t child;

	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	memcpy(CMSG_DATA(&control.head), &r->fd, sizeof(int));
	FACT(sendmsg(pair[0], &m, 0) < 0 && errno == EINVAL, "a unix socket does not carry its descriptor");
	child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	got = (int)syscall(SYS_pidfd_getfd, pidfd, r->fd, 0);
	FACT(got >= 0 && mmap(NULL, BYTES, PROT_READ, MAP_SHARED, got, 0) != MAP_FAILED, "pidfd_getfd does, and it can be mapped");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* --- counts --- */

static void put(struct ring *r, struct io_uring_sqe sqe, uint32_t entry)
{
	uint32_t tail = *word(r, r->p.sq_off.tail);

	r->sqes[tail % ENTRIES] = sqe;
	word(r, r->p.sq_off.array)[tail % ENTRIES] = entry == UINT32_MAX ? entry : tail % ENTRIES;
	__atomic_store_n(word(r, r->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
}

static void counts(struct ring *r, struct ring *sender, const char *kind)
{
	uint32_t *head = word(r, r->p.sq_off.head), *tail = word(r, r->p.cq_off.tail), were[2] = { *head, *tail };

	put(r, (struct io_uring_sqe){ .opcode = IORING_OP_NOP }, 0);
	syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
	FACT(*head == were[0] + 1 && *tail == were[1] + 1, "%s: a request that does nothing moves both", kind);
	put(r, (struct io_uring_sqe){ 0 }, UINT32_MAX);
	syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
	FACT(*head == were[0] + 2 && *tail == were[1] + 1, "%s: an entry of the array that refers to none moves submissions", kind);
	put(sender, (struct io_uring_sqe){ .opcode = MSG_RING, .fd = r->fd, .flags = IOSQE_CQE_SKIP_SUCCESS }, 0);
	syscall(SYS_io_uring_enter, sender->fd, 1, 0, 0, NULL, 0);
	syscall(SYS_io_uring_enter, r->fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	FACT(*head == were[0] + 2 && *tail == were[1] + 2, "%s: a message from another ring moves completions", kind);
	*head = *tail = 4711;
	put(r, (struct io_uring_sqe){ .opcode = IORING_OP_NOP }, 0);
	syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
	FACT(*head == were[0] + 3 && *tail == were[1] + 3, "%s: what is written into the memory is not what the kernel counts on from", kind);
}

/* --- time --- */

/* In a time namespace in which it is 1000 s later: a timeout at the time that it is now there. */
static void absolute(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		int offsets = unshare(CLONE_NEWTIME) < 0 ? -1 : open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
		pid_t inside;

		if (offsets < 0 || dprintf(offsets, "monotonic 1000 0\n") < 0)
			_exit(77);
		inside = fork();
		if (inside == 0) {
			struct __kernel_timespec at, later = { 0, 300000000 };
			struct io_uring_getevents_arg wait = { .ts = (uintptr_t)&later };
			struct timespec now;
			struct ring r;

			make(&r, 0);
			clock_gettime(CLOCK_MONOTONIC, &now);
			at = (struct __kernel_timespec){ now.tv_sec, now.tv_nsec };
			put(&r, (struct io_uring_sqe){ .opcode = IORING_OP_TIMEOUT, .fd = -1, .addr = (uintptr_t)&at, .len = 1, .timeout_flags = IORING_TIMEOUT_ABS }, 0);
			syscall(SYS_io_uring_enter, r.fd, 1, 0, 0, NULL, 0);
			syscall(SYS_io_uring_enter, r.fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &wait, sizeof(wait));
			_exit(*word(&r, r.p.cq_off.tail) == 0);
		}
		waitpid(inside, &status, 0);
		_exit(WEXITSTATUS(status));
	}
	waitpid(child, &status, 0);
	FACT(WIFEXITED(status) && (WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 77), "absolute times are of the host's clock, also in a time namespace");
}

int main(void)
{
	struct ring plain, own, sender;

	make(&plain, 0);
	make(&own, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	make(&sender, 0);
	places(&plain);
	descriptors(&plain);
	absolute();
	counts(&plain, &sender, "plain");
	counts(&own, &sender, "completions by its thread only");
	return fact_result();
}
