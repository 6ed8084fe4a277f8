/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * page.h - the files of the dashboard (src/dashboard), which are in the program (tools/embed.py)
 *
 * They are for everybody: what they show comes over the API.
 */
#ifndef GODWIT_API_PAGE_H
#define GODWIT_API_PAGE_H

#include <stddef.h>

struct page {
	const char *path, *type;
	const unsigned char *data;
	size_t len;
};

extern const struct page pages[];
extern const size_t n_pages;

/* What a page may do: only what comes from where it came from itself. */
#define PAGE_POLICY \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

/* NULL: there is none at that path. */
const struct page *page_find(const char *path);

#endif
