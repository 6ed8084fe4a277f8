/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pagescan.c - where a process has huge pages; see pagescan.h */
#include "image/pagescan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/util.h"

/* Debian 12's headers are older than the kernel. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_IS_HUGE (1 << 6)

int pagescan_huge(pid_t pid, uint64_t start, uint64_t end, struct range_list *ranges)
{
	struct scan_region regions[64];
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	while (start < end) {
		struct scan_arg arg = {
			.size = sizeof(arg), .start = start, .end = end, .vec = (uintptr_t)regions, .vec_len = ARRAY_SIZE(regions),
			.category_mask = SCAN_IS_HUGE, .return_mask = SCAN_IS_HUGE,
		};
		int n = ioctl(fd, SCAN_IOCTL, &arg);

		if (n < 0 && errno == ENOTTY)
			return 0; /* before 6.7: huge pages are not asked for again */
		if (n < 0)
			return -1;
		for (int i = 0; i < n; i++)
			if (range_list_add(ranges, regions[i].start, regions[i].end) < 0)
				return -1;
		if (arg.walk_end <= start)
			break;
		start = arg.walk_end;
	}
	return 0;
}
