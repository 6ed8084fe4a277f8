// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork_share.c - what copy-on-write sharing between relatives looks like from outside, and how it can be made again: pages that are there before a fork are
 * shared after it, whatever is registered, unmapped or protected later, until one side writes
 */
#include "fact.h"

#define PAGES 1024ul
#define PRESENT (1ull << 63)
#define PFN ((1ull << 55) - 1)

static uint64_t pfn_of(pid_t pid, const void *at)
{
	uint64_t entry = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0 && pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) == 8);
	close(fd);
	return entry & PRESENT ? entry & PFN : 0;
}

static size_t shared_with(pid_t pid, const char *area)
{
	size_t n = 0;

	for (size_t i = 0; i < PAGES; i++) {
		uint64_t mine = pfn_of(getpid(), area + i * PAGE);

		n += mine && mine == pfn_of(pid, area + i * PAGE);
	}
	return n;
}

static void say(int fd)
{
	MUST(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
	char c;

	MUST(read(fd, &c, 1) == 1);
}

static void child(char *area, int in, int out)
{
	int uffd;

	say(out);
	hear(in);
	for (size_t i = 0; i < PAGES; i += 4)
		area[i * PAGE] = 2; /* a quarter becomes the child's own */
	say(out);
	hear(in);
	MUST(madvise(area + PAGE, PAGE, MADV_DONTNEED) == 0); /* a stale page is forgotten */
	uffd = uffd_open(0);
	MUST(uffd >= 0 && uffd_register(uffd, area, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
	say(out);
	hear(in);
	_exit(0);
}

int main(void)
{
	char *area = map_anon(PAGES * PAGE);
	int to[2], from[2], uffd;
	uint64_t start;
	size_t n;
	pid_t pid;

	MUST(pipe(to) == 0 && pipe(from) == 0 && madvise(area, PAGES * PAGE, MADV_NOHUGEPAGE) == 0);
	memset(area, 1, PAGES * PAGE);
	pid = fork();
	if (pid == 0)
		child(area, to[0], from[1]);
	hear(from[0]);
	if (!pfn_of(getpid(), area))
		SKIP("page frame numbers cannot be read (CAP_SYS_ADMIN)");
	start = now_ns();
	n = shared_with(pid, area);
	SAW("comparing %lu page frame numbers one by one: %.1f us", PAGES, (double)(now_ns() - start) / 1000);
	FACT(n == PAGES, "all pages that were there before the fork are shared: %zu of %lu", n, PAGES);
	say(to[1]);
	hear(from[0]);
	n = shared_with(pid, area);
	FACT(n == PAGES - PAGES / 4, "those that the child has written are not: %zu of %lu", n, PAGES);
	uffd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
	MUST(uffd >= 0 && uffd_register(uffd, area, PAGES * PAGE, UFFDIO_REGISTER_MODE_WP) == 0 && uffd_protect(uffd, area, PAGES * PAGE, true) == 0);
	n = shared_with(pid, area);
	FACT(n == PAGES - PAGES / 4, "write protection for tracking does not unshare: %zu", n);
	area[2 * PAGE] = 3;
	n = shared_with(pid, area);
	FACT(n == PAGES - PAGES / 4 - 1, "a write to a tracked page unshares just that: %zu", n);
	say(to[1]);
	hear(from[0]);
	n = shared_with(pid, area);
	FACT(n == PAGES - PAGES / 4 - 2, "a userfaultfd for missing pages in the child does not unshare what is there: %zu", n);
	say(to[1]);
	waitpid(pid, NULL, 0);
	return fact_result();
}
