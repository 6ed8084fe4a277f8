// SPDX-License-Identifier: GPL-2.0-or-later
/* page.c - see page.h */
#include "api/page.h"

#include <string.h>

const struct page *page_find(const char *path)
{
	for (size_t i = 0; i < n_pages; i++)
		if (!strcmp(pages[i].path, path))
			return &pages[i];
	return NULL;
}
