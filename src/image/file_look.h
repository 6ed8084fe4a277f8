/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_look.h - what the capture of one kind of descriptor gets to see, and helpers for /proc/PID/fdinfo (proc_pid_fdinfo(5))
 *
 * The worker holds a duplicate of every open file description (pidfd_getfd), so that whatever belongs to the description is
 * read with ordinary calls on that duplicate; what belongs to the number, or is shown nowhere else, comes from fdinfo.
 */
#ifndef GODWIT_IMAGE_FILE_LOOK_H
#define GODWIT_IMAGE_FILE_LOOK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/err.h"
#include "file.pb-c.h"

#define FD_LINK_MAX 4200
#define FD_O_LARGEFILE 0100000u /* what the kernel sets in F_GETFL; O_LARGEFILE is 0 in 64-bit programs */

/* Returned by capture functions instead of an error when they have added a refusal. */
#define FD_REFUSED 1

struct fd_look {
	pid_t pid;
	uint32_t process;     /* its index in the unit */
	int fd;               /* a number in the process that refers to the description */
	int held;             /* the worker's duplicate */
	const char *link;     /* what /proc/PID/fd/N points to */
	const char *info;     /* text of /proc/PID/fdinfo/N */
	const struct stat *st;
	uint8_t armed;        /* enum file_armed of kern/file_record.h, of a timerfd */
};

/* Finds the line "key:" and returns what follows, blanks skipped; NULL when there is none. */
const char *fdinfo_find(const char *info, const char *key);

/* Number in the given base behind "key:". Returns false when the line is missing. */
bool fdinfo_u64(const char *info, const char *key, int base, uint64_t *ret_value);

/* Start of the next line of text, or NULL at its end. */
const char *fdinfo_next_line(const char *line);

/* Opens the description behind descriptor `fd` of this process anew. Returns a descriptor or a negative errno. */
int fd_reopen(int fd, int flags);

/* malloc'ed copies for protobuf messages; allocation failure aborts the process (nothing has been touched yet). */
void *fd_alloc(size_t len_bytes);
char *fd_strdup(const char *text);
/* Grows the array *v of *n pointers by one entry. */
void fd_append(void *array_of_pointers, size_t *n, void *item);

#endif
