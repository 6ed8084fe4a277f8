/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * direct_io.c - what a device writes (a read with O_DIRECT) into a page that was write-protected after the read had begun is not seen as written
 *
 * So no page of a unit with direct I/O is sent before it stands still.
 */
#include "fact.h"

#include <pthread.h>

#define LEN MIB
#define BLOCKS 7
#define READS 200

struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan_argument)

struct region {
	uint64_t start, end, categories;
};

static char *buffer, *copy;
static int file, pagemap;
static int begin, over;

static void *reader(void *arg)
{
	for (int i = 0; i < READS; i++) {
		while (!__atomic_exchange_n(&begin, 0, __ATOMIC_ACQ_REL))
			sched_yield();
		MUST(pread(file, buffer, LEN, (off_t)(i % BLOCKS) * (off_t)LEN) == (ssize_t)LEN);
		__atomic_store_n(&over, 1, __ATOMIC_RELEASE);
	}
	return arg;
}

/* Takes what was written into the copy, protected again before. */
static void take_written(void)
{
	static struct region regions[512];
	struct scan_argument a = { .size = sizeof(a), .flags = 3 /* protect, only where it is asynchronous */, .start = (uintptr_t)buffer,
				   .end = (uintptr_t)buffer + LEN, .vec = (uintptr_t)regions, .vec_len = 512, .category_mask = 2 /* written */, .return_mask = 2 };
	int n = ioctl(pagemap, SCAN, &a);

	MUST(n >= 0);
	for (int i = 0; i < n; i++)
		memcpy(copy + (regions[i].start - (uintptr_t)buffer), (void *)(uintptr_t)regions[i].start, regions[i].end - regions[i].start);
}

static void make_file(void)
{
	char name[] = "/var/tmp/godwit-fact-XXXXXX";
	int plain = mkstemp(name);

	MUST(plain >= 0);
	file = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (file < 0)
		SKIP("no direct I/O in /var/tmp");
	for (int i = 0; i < BLOCKS; i++) {
		for (size_t k = 0; k < LEN / sizeof(uint64_t); k++)
			((uint64_t *)buffer)[k] = k * 31 + (uint64_t)i;
		if (pwrite(file, buffer, LEN, (off_t)i * (off_t)LEN) != (ssize_t)LEN)
			SKIP("no direct I/O in /var/tmp");
	}
	close(plain);
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = 1 << 15 /* WP_ASYNC */ | 1 << 13 /* WP_UNPOPULATED */ };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_WP };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1), unseen = 0, all = 0;
	pthread_t thread;

	buffer = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	copy = malloc(LEN);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	MUST(buffer != MAP_FAILED && copy && pagemap >= 0 && uffd >= 0);
	MUST(!madvise(buffer, LEN, MADV_NOHUGEPAGE));
	make_file();
	r.range = (struct uffdio_range){ (uintptr_t)buffer, LEN };
	MUST(!ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &r));
	take_written();
	MUST(!pthread_create(&thread, NULL, reader, NULL));
	for (int i = 0; i < READS; i++) {
		__atomic_store_n(&over, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&begin, 1, __ATOMIC_RELEASE);
		usleep((useconds_t)(i % 40) * 10);
		take_written();
		while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE))
			sched_yield();
		take_written();
		for (size_t at = 0; at < LEN; at += PAGE, all++)
			unseen += memcmp(buffer + at, copy + at, PAGE) != 0;
		memcpy(copy, buffer, LEN);
	}
	pthread_join(thread, NULL);
	FACT(unseen > 0, "%d of %d pages were written by the device after they had been protected, and no scan found them", unseen, all);
	return fact_result();
}
