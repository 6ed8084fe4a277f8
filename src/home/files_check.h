/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_check.h - whether a request of a file relay may be given to libfuse
 *
 * libfuse is written for requests of its own kernel: it believes their sizes, their numbers and that names end. These come from another host. What has passed is long
 * enough for its kind, its names end and name something in their directory, data is as long as it says, and nodes and open files are such that this side has given out.
 */
#ifndef GODWIT_HOME_FILES_CHECK_H
#define GODWIT_HOME_FILES_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum files_handle {
	FILES_HANDLE_NONE,
	FILES_HANDLE_FILE,
	FILES_HANDLE_DIRECTORY,
};

struct files_known {
	bool begun; /* INIT has come */
	bool (*node)(uint64_t number); /* other than the root's */
	enum files_handle (*handle)(uint64_t number);
};

/*
 * 0; -EPROTO when nobody could be answered; or the positive error number of the answer: ENOSYS for what is not served, EINVAL, ESTALE for a node and EBADF for an open file
 * that is not known. What needs no answer gets none of libfuse's either (FUSE_FORGET of an unknown node).
 */
int files_request_check(const uint8_t *data, size_t len, const struct files_known *known);

#endif
