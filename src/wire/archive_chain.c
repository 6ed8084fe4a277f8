/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_chain.c - a directory in which a chain is; see archive_chain.h. Its images are NUMBER.img, of eight digits, counted up */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"

#define DIGITS 8u
#define NUMBER_MAX 99999999ul

/* 0: it is another file. */
static unsigned long number_of(const char *name)
{
	if (strspn(name, "0123456789") != DIGITS || strcmp(name + DIGITS, ".img") != 0)
		return 0;
	return strtoul(name, NULL, 10);
}

static int newest_number(const char *directory, unsigned long *ret, struct err *e)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;

	if (!d)
		return err_sys(e, -errno, "%s", directory);
	*ret = 0;
	while ((item = readdir(d)))
		*ret = MAX(*ret, number_of(item->d_name));
	return 0;
}

int archive_newest(const char *path, char ret[PATH_MAX], struct err *e)
{
	unsigned long number = 0;
	struct stat st;
	int r;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		snprintf(ret, PATH_MAX, "%s", path);
		return 0;
	}
	r = newest_number(path, &number, e);
	if (r == 0 && !number)
		r = err_set(e, -ENOENT, "%s is a directory, and no image of a chain is in it", path);
	if (r == 0)
		snprintf(ret, PATH_MAX, "%s/%0*lu.img", path, (int)DIGITS, number);
	return r;
}

int archive_next_name(const char *directory, char ret[ARCHIVE_LINK_NAME_MAX], struct err *e)
{
	unsigned long number = 0;
	int r = newest_number(directory, &number, e);

	if (r == 0 && number >= NUMBER_MAX)
		r = err_set(e, -EFBIG, "%s: there are no numbers left", directory);
	if (r == 0)
		snprintf(ret, ARCHIVE_LINK_NAME_MAX, "%0*lu.img", (int)DIGITS, number + 1);
	return r;
}

void archive_remove_older(const char *directory, const struct archive_chain *c)
{
	cleanup_closedir DIR *d = opendir(directory);
	unsigned long first = c->nlinks ? number_of(c->links[0].name) : 0;
	struct dirent *item;

	while (d && (item = readdir(d)))
		if (number_of(item->d_name) && number_of(item->d_name) < first)
			unlinkat(dirfd(d), item->d_name, 0);
}

/* Whether what is there under that name is that image, as it was. */
static bool is_there(const char *directory, const struct archive_link *link)
{
	cleanup_archive struct archive_reader *r = NULL;
	struct archive_record record;
	char path[PATH_MAX];
	struct stat st;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, link->name) >= sizeof(path) || lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != link->bytes)
		return false;
	if (archive_open(path, -1, NULL, &r, NULL) < 0)
		return false;
	r->raw = true;
	while (!r->parents && archive_next(r, false, &record, NULL) > 0)
		;
	return r->parents && chain_is(r, link);
}

const char *archive_chain_worn(const struct archive_chain *c, const char *directory)
{
	uint64_t more = 0;

	if (!c->nlinks)
		return "it is the first of its chain";
	if (c->nlinks >= ARCHIVE_LINKS_MAX)
		return "the chain is long enough";
	for (uint32_t i = 1; i < c->nlinks; i++)
		more += c->links[i].bytes;
	if (more >= c->links[0].bytes)
		return "what was new since the last whole one is as much as that one";
	for (uint32_t i = 0; directory && i < c->nlinks; i++)
		if (!is_there(directory, &c->links[i]))
			return "an image of the chain is not there any more, or is another one";
	return NULL;
}
