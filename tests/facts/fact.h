/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fact.h - what the fact programs share: checks that print what was seen, constants that old headers lack, a clock
 *
 * A fact program shows one kernel behaviour that the design relies on. It prints what it saw, exits 0 when the behaviour
 * holds, 1 when it does not, and 77 (skipped, with the reason) when the kernel cannot show it at all.
 */
#ifndef GODWIT_TESTS_FACT_H
#define GODWIT_TESTS_FACT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

static int fact_failures __attribute__((unused));

/* Checks that the behaviour holds and says so, with what was seen. */
#define FACT(condition, ...)                                      \
	do {                                                      \
		bool holds_ = (condition);                        \
		printf("%s ", holds_ ? "  holds:" : "  FAILS:");  \
		printf(__VA_ARGS__);                              \
		printf("\n");                                     \
		fflush(stdout);                                   \
		fact_failures += !holds_;                         \
	} while (0)

/* A figure or a remark that is not judged. */
#define SAW(...)                    \
	do {                        \
		printf("  saw:   ");    \
		printf(__VA_ARGS__); \
		printf("\n");       \
		fflush(stdout);     \
	} while (0)

/* What must work for the fact to be shown at all. */
#define MUST(condition)                                                                               \
	do {                                                                                          \
		if (!(condition)) {                                                                   \
			printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));   \
			exit(1);                                                                      \
		}                                                                                     \
	} while (0)

#define SKIP(...)                          \
	do {                               \
		printf("skipped: ");       \
		printf(__VA_ARGS__);       \
		printf("\n");              \
		exit(77);                  \
	} while (0)

/* Waits up to two seconds for a condition; what follows judges it. */
#define WAIT_FOR(condition)                             \
	do {                                            \
		for (int i_ = 0; i_ < 20000 && !(condition); i_++) \
			usleep(100);                    \
	} while (0)

static inline int fact_result(void)
{
	return fact_failures ? 1 : 0;
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static inline int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts v and returns its element at that part (0 to 100) of it. */
static inline uint64_t percentile(uint64_t *v, size_t n, unsigned percent)
{
	qsort(v, n, sizeof(*v), compare_u64);
	return v[(n - 1) * percent / 100];
}

/* A private anonymous mapping without huge pages. */
static inline char *map_anon(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	MUST(p != MAP_FAILED);
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

static inline void *map_shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED);
	return p;
}

/* 'R', 'S', 'D', 't', 'Z', ... as /proc/PID/stat has it; '-' when there is no such task. */
static inline char task_state(pid_t pid)
{
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return '-';
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	char *p = strrchr(line, ')');
	return p ? p[2] : '-';
}

/* userfaultfd, UFFDIO_MOVE and write-protect tracking, newer than the distribution's headers. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

#ifndef PAGEMAP_SCAN
#define PAGE_IS_WPALLOWED (1 << 0)
#define PAGE_IS_WRITTEN (1 << 1)
#define PAGE_IS_FILE (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)
#define PAGE_IS_HUGE (1 << 6)
struct page_region {
	__u64 start, end, categories;
};
#define PM_SCAN_WP_MATCHING (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)
struct pm_scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif
#ifndef PAGE_IS_SOFT_DIRTY
#define PAGE_IS_SOFT_DIRTY (1 << 7)
#endif
#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#define PTRACE_SETSIGMASK 0x420b
#endif
#define PAGE_IS_ALL                                                                                                  \
	(PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | \
	 PAGE_IS_HUGE)

static inline int uffd_open(uint64_t features)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		SKIP("userfaultfd with features %#llx: %s", (unsigned long long)features, strerror(errno));
	return fd;
}

static inline int uffd_register(int fd, void *start, size_t len, uint64_t mode)
{
	struct uffdio_register r = { .range = { (uintptr_t)start, len }, .mode = mode };

	return ioctl(fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

static inline int uffd_protect(int fd, void *start, size_t len, bool on)
{
	struct uffdio_writeprotect w = { .range = { (uintptr_t)start, len }, .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	return ioctl(fd, UFFDIO_WRITEPROTECT, &w) < 0 ? -errno : 0;
}

/* 0 or -errno; what the kernel reported as done goes to *ret_done. */
static inline int uffd_move(int fd, void *to, void *from, size_t len, uint64_t mode, int64_t *ret_done)
{
	struct uffdio_move m = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = len, .mode = mode };
	int r = ioctl(fd, UFFDIO_MOVE, &m) < 0 ? -errno : 0;

	if (ret_done)
		*ret_done = m.move;
	return r;
}

static inline int uffd_copy(int fd, void *to, void *from, size_t len, int64_t *ret_done)
{
	struct uffdio_copy c = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = len };
	int r = ioctl(fd, UFFDIO_COPY, &c) < 0 ? -errno : 0;

	if (ret_done)
		*ret_done = c.copy;
	return r;
}

/* The categories of one page of this process (pagemap_fd), or a negative errno. */
static inline int64_t page_categories(int pagemap_fd, void *page)
{
	struct page_region region = { 0 };
	struct pm_scan_arg arg = { .size = sizeof(arg), .start = (uintptr_t)page, .end = (uintptr_t)page + PAGE,
				   .vec = (uintptr_t)&region, .vec_len = 1, .return_mask = PAGE_IS_ALL };
	int n = ioctl(pagemap_fd, PAGEMAP_SCAN, &arg);

	return n < 0 ? -errno : n == 0 ? 0 : (int64_t)region.categories;
}

static inline const char *categories_text(int64_t c)
{
	static char buffers[8][96];
	static unsigned next;
	static const char *const names[] = { "wpallowed", "written", "file", "present", "swapped", "pfnzero", "huge" };
	char *b = buffers[next++ % 8];

	if (c < 0) {
		snprintf(b, sizeof(buffers[0]), "error %s", strerror((int)-c));
		return b;
	}
	strcpy(b, c ? "" : "nothing");
	for (unsigned i = 0; i < 7; i++) {
		if (!(c >> i & 1))
			continue;
		if (*b)
			strcat(b, "+");
		strcat(b, names[i]);
	}
	return b;
}

/* The `syscall` instruction of this process's vdso (also at the same place in its children by fork), and the vdso's range. */
static inline uintptr_t vdso_range(pid_t pid, uintptr_t *ret_end)
{
	char path[64], line[512];
	unsigned long start = 0, end = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	MUST(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			break;
	fclose(f);
	*ret_end = end;
	return start;
}

static inline uintptr_t vdso_syscall(pid_t pid)
{
	uintptr_t end, start = vdso_range(pid, &end);
	unsigned char *b = malloc(end - start);
	struct iovec local = { b, end - start }, remote = { (void *)start, end - start };
	uintptr_t found = 0;

	MUST(process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)(end - start));
	for (size_t i = 0; i + 1 < end - start && !found; i++)
		if (b[i] == 0x0f && b[i + 1] == 0x05)
			found = start + i;
	free(b);
	return found;
}

/* Seizes and stops a task. */
static inline void seize_stop(pid_t pid, unsigned long options)
{
	int status;

	MUST(ptrace(PTRACE_SEIZE, pid, 0, options) == 0);
	MUST(ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
	MUST(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status));
}

/* Runs one system call in a stopped task at its vdso's syscall instruction and restores its registers. */
static inline long inject(pid_t pid, uintptr_t at, long nr, long a, long b, long c, long d, long e, long f)
{
	struct user_regs_struct saved, r;
	int status;

	MUST(ptrace(PTRACE_GETREGS, pid, 0, &saved) == 0);
	r = saved;
	r.rip = at;
	r.rax = nr, r.orig_rax = -1ul;
	r.rdi = a, r.rsi = b, r.rdx = c, r.r10 = d, r.r8 = e, r.r9 = f;
	MUST(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
	MUST(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
	for (;;) {
		MUST(waitpid(pid, &status, __WALL) == pid);
		if (!WIFSTOPPED(status)) {
			printf("task %d ended: status %#x\n", pid, status);
			exit(1);
		}
		if (status >> 8 == SIGTRAP)
			break;
		printf("         (stop on the way: status %#x)\n", status);
		MUST(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
	}
	MUST(ptrace(PTRACE_GETREGS, pid, 0, &r) == 0);
	MUST(ptrace(PTRACE_SETREGS, pid, 0, &saved) == 0);
	return (long)r.rax;
}

#endif
