/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* util.h - cleanup attributes, owned descriptors, sizes, clocks */
#ifndef GODWIT_BASE_UTIL_H
#define GODWIT_BASE_UTIL_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE_SIZE_BYTES 4096ul
#define PAGE_ALIGN_DOWN(x) ((x) & ~(PAGE_SIZE_BYTES - 1))
#define PAGE_ALIGN_UP(x) PAGE_ALIGN_DOWN((x) + PAGE_SIZE_BYTES - 1)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline void close_fdp(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline void freep(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

static inline void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
	*f = NULL;
}

static inline void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
	*d = NULL;
}

#define cleanup_close __attribute__((cleanup(close_fdp)))
#define cleanup_free __attribute__((cleanup(freep)))
#define cleanup_fclose __attribute__((cleanup(fclosep)))
#define cleanup_closedir __attribute__((cleanup(closedirp)))

/* Hands the value of an owning variable to the caller and empties the variable, so that its cleanup does nothing. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p)                  \
	({                           \
		typeof(p) taken_ = (p); \
		(p) = NULL;          \
		taken_;              \
	})

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

#endif
