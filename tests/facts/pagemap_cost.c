// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pagemap_cost.c - what tracking and scanning cost, and huge pages under it (argument: MiB, default 64; the figures of the design are for 1024)
 *
 * Judged are ratios and granularity only: absolute times are printed.
 */
#include "fact.h"

static int pm, fd;
static size_t len;
static struct page_region *vec;

static double us(uint64_t t)
{
	return (double)(now_ns() - t) / 1000;
}

static double timed_scan(const char *name, char *p, uint64_t flags, uint64_t mask, uint64_t ret, uint64_t *ret_pages)
{
	struct pm_scan_arg a = { .size = sizeof(a), .flags = flags, .start = (uintptr_t)p, .end = (uintptr_t)p + len, .vec = (uintptr_t)vec,
				 .vec_len = 1 << 18, .category_mask = mask, .return_mask = ret };
	uint64_t t = now_ns(), pages = 0;
	int n = ioctl(pm, PAGEMAP_SCAN, &a);
	double d = us(t);

	MUST(n >= 0);
	for (int i = 0; i < n; i++)
		pages += (vec[i].end - vec[i].start) / PAGE;
	SAW("%-64s %9.0f us, %lu pages in %d regions", name, d, pages, n);
	if (ret_pages)
		*ret_pages = pages;
	return d;
}

static void small_pages(void)
{
	char *p = map_anon(len);
	uint64_t n;

	for (size_t i = 0; i < len; i += PAGE)
		p[i] = 1;
	timed_scan("PRESENT, all present, unregistered", p, 0, PAGE_IS_PRESENT, PAGE_IS_PRESENT, &n);
	timed_scan("PRESENT, return PRESENT|FILE|PFNZERO", p, 0, PAGE_IS_PRESENT, PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_PFNZERO, &n);
	FACT(n == len / PAGE, "all pages in few regions");
	uint64_t t = now_ns();
	MUST(uffd_register(fd, p, len, UFFDIO_REGISTER_MODE_WP) == 0);
	SAW("%-64s %9.0f us", "register", us(t));
	t = now_ns();
	MUST(uffd_protect(fd, p, len, true) == 0);
	SAW("%-64s %9.0f us", "write-protect at once", us(t));
	double nothing = 1e9, slow = 1e9; /* the shortest of several, on a machine that does other things */
	for (int i = 0; i < 7; i++) {
		double fast = timed_scan("WRITTEN only, nothing written (fast path)", p, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
		double both = timed_scan("WRITTEN|PRESENT asked, nothing written", p, 0, PAGE_IS_WRITTEN | PAGE_IS_PRESENT, PAGE_IS_WRITTEN | PAGE_IS_PRESENT, NULL);

		nothing = fast < nothing ? fast : nothing;
		slow = both < slow ? both : slow;
	}
	FACT(slow > nothing, "the fast path is %.1f times faster", slow / nothing);
	for (int i = 0; i < 64; i++)
		p[len / 64 * (size_t)i] = 2;
	timed_scan("WRITTEN only, 64 pages written", p, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	FACT(n == 64, "64 pages reported");
	timed_scan("  and re-arm", p, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	t = now_ns();
	for (size_t i = 0; i < len; i += PAGE)
		p[i] = 3;
	SAW("%-64s %9.0f us, %.2f us a page", "first write to every protected page", us(t), us(t) / (double)(len / PAGE));
	timed_scan("WRITTEN only, all written", p, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	timed_scan("  and re-arm all", p, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	t = now_ns();
	for (size_t at = 0; at < len; at += 2 * MIB)
		MUST(uffd_protect(fd, p + at, 2 * MIB, true) == 0);
	SAW("%-64s %9.0f us, %.0f us a chunk", "write-protect in chunks of 2 MiB (already protected)", us(t), us(t) / (double)(len / 2 / MIB));
	t = now_ns();
	for (size_t at = 0; at < len; at += 2 * MIB) {
		struct pm_scan_arg a = { .size = sizeof(a), .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, .start = (uintptr_t)p + at,
					 .end = (uintptr_t)p + at + 2 * MIB, .category_mask = PAGE_IS_WRITTEN, .return_mask = PAGE_IS_WRITTEN };
		MUST(ioctl(pm, PAGEMAP_SCAN, &a) >= 0);
	}
	SAW("%-64s %9.0f us", "arm by PM_SCAN_WP_MATCHING without a vector, 2 MiB chunks", us(t));
	struct uffdio_range r = { (uintptr_t)p, len };
	t = now_ns();
	MUST(ioctl(fd, UFFDIO_UNREGISTER, &r) == 0);
	SAW("%-64s %9.0f us", "unregister", us(t));
	munmap(p, len);
	p = map_anon(len);
	MUST(uffd_register(fd, p, len, UFFDIO_REGISTER_MODE_WP) == 0);
	t = now_ns();
	MUST(uffd_protect(fd, p, len, true) == 0);
	SAW("%-64s %9.0f us", "write-protect of a mapping that was never touched (markers)", us(t));
	munmap(p, len);
}

static uint64_t huge_pages(char *p)
{
	uint64_t n;

	timed_scan("  HUGE", p, 0, PAGE_IS_HUGE, PAGE_IS_HUGE, &n);
	return n;
}

static void huge(void)
{
	char *all = mmap(NULL, len + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *p = (char *)(((uintptr_t)all + 2 * MIB - 1) & ~(2 * MIB - 1));
	uint64_t n, before;

	if (madvise(p, len, MADV_HUGEPAGE) < 0) {
		SAW("no transparent huge pages here: %s", strerror(errno));
		return;
	}
	memset(p, 1, len);
	before = huge_pages(p);
	SAW("huge after MADV_HUGEPAGE and touching: %lu of %lu", before, len / PAGE);
	if (!before)
		return;
	uint64_t t = now_ns();
	MUST(uffd_register(fd, p, len, UFFDIO_REGISTER_MODE_WP) == 0);
	MUST(uffd_protect(fd, p, len, true) == 0);
	SAW("%-64s %9.0f us", "register and protect, huge", us(t));
	FACT(huge_pages(p) == before, "huge pages stay huge under write protection");
	timed_scan("  WRITTEN, nothing written", p, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	p[5 * PAGE] = 2;
	timed_scan("  WRITTEN, one byte written", p, 0, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	FACT(n == 512 || n == 1, "one write to a huge page reports %lu pages", n);
	SAW("huge pages after the write: %lu (of %lu)", huge_pages(p), before);
	timed_scan("  re-arm", p, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, PAGE_IS_WRITTEN, PAGE_IS_WRITTEN, &n);
	FACT(huge_pages(p) >= before - 512, "still huge after re-arming a whole range");
	before = huge_pages(p);
	struct pm_scan_arg a = { .size = sizeof(a), .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, .start = (uintptr_t)p + 2 * MIB,
				 .end = (uintptr_t)p + 2 * MIB + 64 * PAGE, .vec = (uintptr_t)vec, .vec_len = 1024, .category_mask = PAGE_IS_WRITTEN,
				 .return_mask = PAGE_IS_WRITTEN };
	MUST(ioctl(pm, PAGEMAP_SCAN, &a) >= 0);
	SAW("huge after a re-arm of 64 pages that were not written: %lu (of %lu)", huge_pages(p), before);
	MUST(uffd_protect(fd, p + 4 * MIB, 64 * PAGE, true) == 0);
	SAW("huge after UFFDIO_WRITEPROTECT of a part of a huge page: %lu", huge_pages(p));
	memset(p, 3, len);
	FACT(huge_pages(p) < before, "the first write to a protected huge page splits it into small ones; all written: %lu huge left", huge_pages(p));
	munmap(all, len + 2 * MIB);
}

int main(int argc, char **argv)
{
	len = (argc > 1 ? (size_t)atoi(argv[1]) : 64) * MIB;
	vec = calloc(1 << 18, sizeof(*vec));
	memset(vec, 1, sizeof(*vec) << 18);
	pm = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	MUST(pm >= 0 && vec);
	fd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
	small_pages();
	huge();
	return fact_result();
}
