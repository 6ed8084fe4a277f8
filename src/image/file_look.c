/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_look.c - reading fdinfo, reopening descriptions; see file_look.h */
#include "image/file_look.h"

#include <errno.h>
#include <fcntl.h>

#include "base/util.h"

const char *fdinfo_next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end && end[1] ? end + 1 : NULL;
}

const char *fdinfo_find(const char *info, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = info; line && *line; line = fdinfo_next_line(line)) {
		if (strncmp(line, key, len) || line[len] != ':')
			continue;
		line += len + 1;
		return line + strspn(line, " \t");
	}
	return NULL;
}

bool fdinfo_u64(const char *info, const char *key, int base, uint64_t *ret_value)
{
	const char *text = fdinfo_find(info, key);
	char *end;
	uint64_t value;

	if (!text)
		return false;
	value = strtoull(text, &end, base);
	if (end == text)
		return false;
	*ret_value = value;
	return true;
}

int fd_reopen(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC | O_NOCTTY);
	return again < 0 ? -errno : again;
}

void *fd_alloc(size_t len_bytes)
{
	void *p = calloc(1, len_bytes ? len_bytes : 1);

	if (!p)
		abort();
	return p;
}

char *fd_strdup(const char *text)
{
	char *p = strdup(text);

	if (!p)
		abort();
	return p;
}

void fd_append(void *array_of_pointers, size_t *n, void *item)
{
	void ***array = array_of_pointers;

	/* The capacity is the next power of two, so that appending stays linear. */
	if ((*n & (*n - 1)) == 0) {
		void **grown = realloc(*array, (*n ? *n * 2 : 1) * sizeof(*grown));

		if (!grown)
			abort();
		*array = grown;
	}
	(*array)[(*n)++] = item;
}
