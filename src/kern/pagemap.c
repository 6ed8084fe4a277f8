/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pagemap.c - which pages exist and which were written; userfaultfd registration; see pagemap.h */
#include "kern/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

/* Newer than the distribution's headers. */
struct pm_scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pm_scan_argument)
#define SCAN_WP_MATCHING 1u
#define SCAN_CHECK_WPASYNC 2u
#define REGIONS 512

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_TYPE 0x1full

static int report(const struct pagemap_region *regions, int n, int (*found)(const struct pagemap_region *region, void *arg), void *arg)
{
	for (int i = 0; i < n; i++) {
		int ret = found(&regions[i], arg);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * A scan that re-arms and meets an unregistered mapping fails, but what it has re-armed before stays so: those regions are in the array all the same,
 * and would be taken for unwritten from now on.
 */
static int report_before_failure(const struct pagemap_region *regions, int (*found)(const struct pagemap_region *region, void *arg), void *arg)
{
	int n = 0;

	while (n < REGIONS && regions[n].end)
		n++;
	return report(regions, n, found, arg);
}

int pagemap_scan(int pagemap_fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
		 int (*found)(const struct pagemap_region *region, void *arg), void *arg, struct err *e)
{
	struct pagemap_region regions[REGIONS];

	while (start < end) {
		struct pm_scan_argument a = { .size = sizeof(a), .start = start, .end = end, .vec = (uintptr_t)regions, .vec_len = REGIONS,
					      .category_mask = query->all_of, .category_anyof_mask = query->any_of,
					      .category_inverted = query->inverted, .return_mask = query->want };
		int n, ret;

		if (query->rearm) {
			a.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC;
			for (int i = 0; i < REGIONS; i++)
				regions[i].end = 0;
		}
		n = ioctl(pagemap_fd, PAGEMAP_SCAN_IOCTL, &a);
		if (n < 0) {
			int code = errno;

			ret = query->rearm ? report_before_failure(regions, found, arg) : 0;
			if (ret == 0 && code == EINTR)
				continue;
			return ret < 0 ? ret : err_sys(e, code, "scanning pages %#" PRIx64 "-%#" PRIx64, start, end);
		}
		ret = report(regions, n, found, arg);
		if (ret < 0)
			return ret;
		if (a.walk_end <= start)
			return err_set(e, -EIO, "scanning pages %#" PRIx64 "-%#" PRIx64 " made no progress", start, end);
		start = a.walk_end;
	}
	return 0;
}

void pagemap_plan_scan(struct batch *b, int fd, uint64_t start, uint64_t end, const struct pagemap_query *query, struct pagemap_planned *ret)
{
	uint64_t regions_address, address;
	const struct pagemap_region *regions = batch_space(b, REGIONS * sizeof(*regions), &regions_address);
	struct pm_scan_argument *a = batch_space(b, sizeof(*a), &address);

	*a = (struct pm_scan_argument){ .size = sizeof(*a), .start = start, .end = end, .vec = regions_address, .vec_len = REGIONS, .category_mask = query->all_of,
					.category_anyof_mask = query->any_of, .category_inverted = query->inverted, .return_mask = query->want };
	*ret = (struct pagemap_planned){ start, end, batch_try(b, "PAGEMAP_SCAN", SYS_ioctl, (uint64_t)fd, PAGEMAP_SCAN_IOCTL, address), a, regions };
}

int pagemap_planned_report(const struct pagemap_planned *planned, int (*found)(const struct pagemap_region *region, void *arg), void *arg, uint64_t *ret_reached)
{
	const struct pm_scan_argument *a = planned->argument;
	int64_t n = planned->call->ret;

	*ret_reached = planned->start;
	if (n < 0 || n > REGIONS || a->walk_end <= planned->start || a->walk_end > planned->end)
		return 0;
	*ret_reached = a->walk_end;
	return report(planned->regions, (int)n, found, arg);
}

unsigned pagemap_marker_type(void)
{
	static unsigned known;
	uint64_t entry = 0;
	cleanup_close int fd = -1;
	void *page;

	if (known)
		return known;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	page = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return 0;
	if (fd >= 0 && madvise(page, PAGE_SIZE_BYTES, MADV_GUARD_INSTALL) == 0 &&
	    pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE_SIZE_BYTES * sizeof(entry))) == sizeof(entry) && entry & ENTRY_SWAPPED)
		known = entry & ENTRY_TYPE;
	munmap(page, PAGE_SIZE_BYTES);
	return known;
}

struct existing {
	int fd;
	unsigned marker;
	int (*found)(const struct pagemap_region *region, void *arg);
	void *arg;
};

/* Leaves the markers of a swapped region out. */
static int split_swapped(const struct pagemap_region *region, void *arg)
{
	const struct existing *x = arg;
	uint64_t entry[512], at = region->start;

	if (!(region->categories & PAGE_CATEGORY_SWAPPED) || !x->marker)
		return x->found(region, x->arg);
	while (at < region->end) {
		size_t n = MIN((region->end - at) / PAGE_SIZE_BYTES, ARRAY_SIZE(entry));

		if (pread(x->fd, entry, n * sizeof(*entry), (off_t)(at / PAGE_SIZE_BYTES * sizeof(*entry))) != (ssize_t)(n * sizeof(*entry)))
			return x->found(&(struct pagemap_region){ at, region->end, region->categories }, x->arg);
		for (size_t i = 0, k; i < n; i = k) {
			bool marker = entry[i] & ENTRY_SWAPPED && (entry[i] & ENTRY_TYPE) == x->marker;
			struct pagemap_region part = { at + i * PAGE_SIZE_BYTES, 0, region->categories };
			int ret;

			for (k = i + 1; k < n && (entry[k] & ENTRY_SWAPPED && (entry[k] & ENTRY_TYPE) == x->marker) == marker; k++)
				;
			part.end = at + k * PAGE_SIZE_BYTES;
			ret = marker ? 0 : x->found(&part, x->arg);
			if (ret < 0)
				return ret;
		}
		at += n * PAGE_SIZE_BYTES;
	}
	return 0;
}

int pagemap_scan_existing(int pagemap_fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
			  int (*found)(const struct pagemap_region *region, void *arg), void *arg, struct err *e)
{
	struct existing x = { pagemap_fd, pagemap_marker_type(), found, arg };

	return pagemap_scan(pagemap_fd, start, end, query, split_swapped, &x, e);
}

int uffd_enable(int uffd, uint64_t features, struct err *e)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(uffd, UFFDIO_API, &api) < 0)
		return err_sys(e, errno, "userfaultfd features %#" PRIx64, features);
	return 0;
}

int uffd_register(int uffd, uint64_t start, uint64_t end, int mode, struct err *e)
{
	struct uffdio_register r = { .range = { start, end - start },
				     .mode = mode == UFFD_TRACK ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING };

	if (ioctl(uffd, UFFDIO_REGISTER, &r) < 0)
		return err_sys(e, errno, "userfaultfd: registering %#" PRIx64 "-%#" PRIx64, start, end);
	return 0;
}

int uffd_unregister(int uffd, uint64_t start, uint64_t end, struct err *e)
{
	struct uffdio_range r = { start, end - start };

	if (ioctl(uffd, UFFDIO_UNREGISTER, &r) < 0)
		return err_sys(e, errno, "userfaultfd: unregistering %#" PRIx64 "-%#" PRIx64, start, end);
	return 0;
}

int uffd_unprotect(int uffd, uint64_t start, uint64_t end, struct err *e)
{
	struct uffdio_writeprotect w = { .range = { start, end - start } };

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &w) < 0)
		return err_sys(e, errno, "userfaultfd: write protection of %#" PRIx64 "-%#" PRIx64, start, end);
	return 0;
}

int uffd_copy(int uffd, uint64_t to, const void *from, size_t len, struct err *e)
{
	struct uffdio_copy c = { .dst = to, .src = (uintptr_t)from, .len = len };

	if (ioctl(uffd, UFFDIO_COPY, &c) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	return err_sys(e, errno, "userfaultfd: filling %#" PRIx64, to);
}
