// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storm.c - victims that use memory hard right after the move, when most of it is still at the source
 *
 * mem_work.c has those that change the address space; these read it from many threads, let the kernel read and write it (system calls, signal frames,
 * futexes), populate and lock it, or end. Not /proc/self/mem: the kernel answers EIO there for pages that a userfaultfd still has to bring.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define MIB (1024ul * 1024)
#define PAGE 4096ul
#define LEN (64 * MIB)

static char *sea;
static bool done;

static void sea_setup(void)
{
	sea = map_anon(LEN, PROT_READ | PROT_WRITE, 0);
	must(!madvise(sea, LEN, MADV_NOHUGEPAGE));
	fill(sea, LEN, 0);
}

static bool time_for_it(void)
{
	if (done)
		sleep_ms(20);
	if (done || !moved())
		return false;
	done = true;
	return true;
}

static void storm_check(void)
{
	if (done)
		verify("memory after the storm", sea, LEN, 0);
	else
		expect(!getenv("VICTIM_EXPECT_MOVE"));
}

/* ---- many threads fault at once, at random and on the same pages ---- */

static void *reader(void *arg)
{
	uint64_t r = (uintptr_t)arg / 2; /* pairs of threads read the same pages at the same time */

	while (!moved()) {
		if (victim_stopping)
			return NULL;
		usleep(500);
	}
	for (size_t i = 0; i < LEN / PAGE / 4 && !failed(); i++) {
		size_t page = (r = mix(r)) % (LEN / PAGE);

		verify("page read in the storm", sea + page * PAGE, PAGE, page * PAGE / 8);
	}
	done = true;
	return NULL;
}

static void read_setup(void)
{
	sea_setup();
	for (uintptr_t i = 0; i < 8; i++)
		spawn(reader, (void *)i, NULL);
}

static void read_check(void)
{
	join_all();
	storm_check();
}

VICTIM(storm_read, V_MOVE, read_setup, NULL, read_check);

/* ---- the kernel touches memory that is not here yet ---- */

static char *alt;
static volatile int on_alt;
static int files[2], pipe_fds[2];

static void on_usr(int sig)
{
	char here;

	on_alt = &here > alt && &here < alt + MIB;
}

static void kernel_setup(void)
{
	struct sigaction sa = { .sa_handler = on_usr, .sa_flags = SA_ONSTACK };
	stack_t ss = { .ss_size = MIB };

	sea_setup();
	alt = map_anon(MIB, PROT_READ | PROT_WRITE, 0);
	fill(alt, MIB, 99);
	ss.ss_sp = alt;
	must(!sigaltstack(&ss, NULL) && !sigaction(SIGUSR1, &sa, NULL));
	files[0] = open(beside("storm"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(files[0] >= 0 && !pipe2(pipe_fds, O_CLOEXEC));
}

static void kernel_work(void)
{
	static char page[PAGE];
	struct iovec local = { page, PAGE }, remote[2];

	if (!time_for_it())
		return;
	raise(SIGUSR1); /* the frame goes to a page that is missing */
	expect_u64("handler ran on the alternate stack", 1, (uint64_t)on_alt);
	expect(pwrite(files[0], sea, MIB, 0) == (ssize_t)MIB); /* the kernel reads */
	expect(pread(files[0], sea + 2 * MIB, MIB, 0) == (ssize_t)MIB); /* the kernel writes */
	verify("read(2) into missing pages", sea + 2 * MIB, MIB, 0);
	fill(sea + 2 * MIB, MIB, 2 * MIB / 8);
	remote[0] = (struct iovec){ sea + 4 * MIB + 100, 2000 };
	remote[1] = (struct iovec){ sea + 5 * MIB, 2096 };
	expect(process_vm_readv(getpid(), &local, 1, remote, 2, 0) == (ssize_t)PAGE);
	expect(!memcmp(page, sea + 4 * MIB + 100, 2000) && !memcmp(page + 2000, sea + 5 * MIB, 2096));
	remote[0] = (struct iovec){ sea + 7 * MIB, 4 * PAGE };
	expect(vmsplice(pipe_fds[1], remote, 1, 0) == 4 * (ssize_t)PAGE);
	for (size_t i = 0; i < 4; i++) {
		expect(read(pipe_fds[0], page, PAGE) == (ssize_t)PAGE);
		verify("vmsplice of missing pages", page, PAGE, (7 * MIB + i * PAGE) / 8);
	}
	/* A futex word in a missing page: its value is compared by the kernel, so that EAGAIN tells that it was right. */
	uint32_t word = (uint32_t)mix(8 * MIB / 8);
	struct timespec soon = { 0, 1000000 };

	expect(syscall(SYS_futex, sea + 8 * MIB, FUTEX_WAIT_PRIVATE, word + 1, &soon, NULL, 0) < 0 && errno == EAGAIN);
	expect(syscall(SYS_futex, sea + 8 * MIB, FUTEX_WAIT_PRIVATE, word, &soon, NULL, 0) < 0 && errno == ETIMEDOUT);
	expect(getcwd(sea + 9 * MIB, 4096) != NULL);
	fill(sea + 9 * MIB, PAGE, 9 * MIB / 8);
	verify("memory", sea, LEN, 0);
	unlink(beside("storm"));
}

VICTIM(storm_kernel, V_MOVE, kernel_setup, kernel_work, storm_check);

/* ---- populate, lock, advise ---- */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static void populate_work(void)
{
	unsigned char vec[MIB / PAGE];

	if (!time_for_it())
		return;
	expect(!mlock(sea, 4 * MIB));
	verify("mlock of missing pages", sea, 4 * MIB, 0);
	expect(!madvise(sea + 8 * MIB, 4 * MIB, MADV_POPULATE_READ));
	verify("MADV_POPULATE_READ of missing pages", sea + 8 * MIB, 4 * MIB, MIB);
	expect(!madvise(sea + 16 * MIB, 4 * MIB, MADV_POPULATE_WRITE));
	verify("MADV_POPULATE_WRITE of missing pages", sea + 16 * MIB, 4 * MIB, 2 * MIB);
	expect(!madvise(sea + 24 * MIB, 4 * MIB, MADV_WILLNEED));
	expect(!madvise(sea + 28 * MIB, 2 * MIB, MADV_COLD));
	expect(!madvise(sea + 32 * MIB, 4 * MIB, MADV_HUGEPAGE));
	expect(!mincore(sea + 40 * MIB, MIB, vec));
	expect(!munlock(sea, 4 * MIB));
	verify("memory", sea, LEN, 0);
}

VICTIM(storm_populate, V_MOVE, sea_setup, populate_work, storm_check);

/* ---- new threads, the heap, the stack ---- */

static void *young(void *arg)
{
	size_t part = (size_t)arg;
	char *block = malloc(3 * MIB);

	must(block);
	fill(block, 3 * MIB, part);
	verify("part read by a new thread", sea + part * (LEN / 16), LEN / 16, part * (LEN / 16) / 8);
	verify("block of a new thread", block, 3 * MIB, part);
	free(block);
	return NULL;
}

static uint64_t __attribute__((noinline)) descend(int depth, uint64_t x)
{
	volatile uint64_t frame[512];

	frame[0] = x;
	frame[511] = mix(x);
	return (depth ? descend(depth - 1, mix(x)) : x) ^ frame[0] ^ frame[511];
}

static void young_work(void)
{
	uint64_t first, again;
	char *top;

	if (!time_for_it())
		return;
	for (uintptr_t i = 0; i < 16; i++)
		spawn(young, (void *)i, NULL);
	top = sbrk(0);
	expect(sbrk(2 * MIB) == top);
	verify_zero("heap grown after the move", top, 2 * MIB);
	first = descend(1000, 1);
	again = descend(1000, 1);
	expect_u64("recursion on new stack pages", first, again);
	join_all();
}

VICTIM(storm_threads, V_MOVE, sea_setup, young_work, storm_check);

/* ---- ends at once: nothing of it may stay, on either host ---- */

static void exit_work(void)
{
	if (!moved()) {
		sleep_ms(1);
		return;
	}
	verify("first pages", sea, 4 * PAGE, 0);
	report(failed() ? "FAIL: memory right after the move" : "ok");
	_exit(0);
}

static void no_check(void)
{
	expect(!getenv("VICTIM_EXPECT_MOVE"));
}

VICTIM(storm_exit, V_MOVE, sea_setup, exit_work, no_check);

/* ---- a child that is forked right after the move outlives its parent's calls, and its own child as well ---- */

static void generations_work(void)
{
	int status = 0;
	pid_t child;

	if (!time_for_it())
		return;
	child = fork();
	if (!child) {
		pid_t second = fork();

		if (!second) {
			verify("memory of a grandchild", sea + LEN / 2, LEN / 2, LEN / 2 / 8);
			fill(sea, MIB, 12345);
			verify("memory written by a grandchild", sea, MIB, 12345);
			_exit(failed() ? 8 : 0);
		}
		verify("memory of a child", sea, LEN / 2, 0);
		while (waitpid(second, &status, 0) < 0 && errno == EINTR)
			;
		_exit(failed() ? 9 : status ? 10 : 0);
	}
	must(child > 0 && !munmap(sea + LEN - MIB, MIB)); /* the child still reads it */
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		fail("two generations of children, expected status 0, got %#x", (unsigned)status);
	must(mmap(sea + LEN - MIB, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == sea + LEN - MIB);
	verify_zero("mapped anew", sea + LEN - MIB, MIB);
	fill(sea + LEN - MIB, MIB, (LEN - MIB) / 8);
}

VICTIM(storm_generations, V_MOVE, sea_setup, generations_work, storm_check);

/* ---- always new memory: whenever the program is stopped, it has mapped some since anybody looked ---- */

#define NEWEST 6u
static char *newest[NEWEST];
static uint64_t newest_steps;

static void always_new_setup(void)
{
}

static void always_new_work(void)
{
	uint64_t n = newest_steps++;
	char **at = &newest[n % NEWEST];
	int fd = memfd_create("new", MFD_CLOEXEC);

	if (*at) {
		verify("memory that was new once", *at, PAGE, n - NEWEST);
		must(!munmap(*at, 2 * PAGE));
	}
	must(fd >= 0 && !ftruncate(fd, 2 * (long)PAGE));
	*at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, n % 3 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
	must(*at != MAP_FAILED && !close(fd));
	fill(*at, PAGE, n);
}

static void always_new_check(void)
{
	for (uint64_t n = newest_steps < NEWEST ? 0 : newest_steps - NEWEST; n < newest_steps && !failed(); n++)
		verify("new memory", newest[n % NEWEST], PAGE, n);
}

VICTIM(storm_new, V_OPENS, always_new_setup, always_new_work, always_new_check);
