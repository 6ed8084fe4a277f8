/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pagemap.c - which pages exist and which were written; userfaultfd registration; see pagemap.h */
#include "kern/pagemap.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "base/util.h"

/* Newer than the distribution's headers. */
struct pm_scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pm_scan_argument)
#define SCAN_WP_MATCHING 1u
#define SCAN_CHECK_WPASYNC 2u
#define REGIONS 512

int pagemap_scan(int pagemap_fd, uint64_t start, uint64_t end, const struct pagemap_query *query,
		 int (*found)(const struct pagemap_region *region, void *arg), void *arg, struct err *e)
{
	struct pagemap_region regions[REGIONS];

	while (start < end) {
		struct pm_scan_argument a = { .size = sizeof(a), .start = start, .end = end, .vec = (uintptr_t)regions, .vec_len = REGIONS,
					      .category_mask = query->all_of, .category_anyof_mask = query->any_of,
					      .category_inverted = query->inverted, .return_mask = query->want };
		int n;

		if (query->rearm)
			a.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC;
		n = ioctl(pagemap_fd, PAGEMAP_SCAN_IOCTL, &a);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "scanning pages %#" PRIx64 "-%#" PRIx64, start, end);
		for (int i = 0; i < n; i++) {
			int ret = found(&regions[i], arg);

			if (ret < 0)
				return ret;
		}
		if (a.walk_end <= start)
			return err_set(e, -EIO, "scanning pages %#" PRIx64 "-%#" PRIx64 " made no progress", start, end);
		start = a.walk_end;
	}
	return 0;
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

int uffd_copy(int uffd, uint64_t to, const void *from, size_t len, struct err *e)
{
	struct uffdio_copy c = { .dst = to, .src = (uintptr_t)from, .len = len };

	if (ioctl(uffd, UFFDIO_COPY, &c) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	return err_sys(e, errno, "userfaultfd: filling %#" PRIx64, to);
}
