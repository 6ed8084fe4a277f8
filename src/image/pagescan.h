/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pagescan.h - where a process has huge pages (PAGEMAP_SCAN, PAGE_IS_HUGE) */
#ifndef GODWIT_IMAGE_PAGESCAN_H
#define GODWIT_IMAGE_PAGESCAN_H

#include "image/vma.h"

/* Appends the ranges of [start, end) of pid that are backed by huge pages. Returns 0 or -1 with errno. */
int pagescan_huge(pid_t pid, uint64_t start, uint64_t end, struct range_list *ranges);

#endif
