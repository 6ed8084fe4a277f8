/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * err.h - errors that keep their cause
 *
 * Functions that can fail return 0 (or a useful non-negative value) or a negative errno, and take a
 * `struct err *e` as their last parameter. The struct lives on the caller's stack, is never allocated, and
 * may be NULL when the caller does not want the words. A function either handles an error or passes it on; the
 * sentence is written where the failure happens (err_set) and gains context on the way up (err_wrap), so that
 * the user reads "fd 7: /srv/data.db: F_SETLK: Resource temporarily unavailable" and not "error -11".
 *
 * A message to a user names the thing, the cause and the way out.
 */
#ifndef GODWIT_BASE_ERR_H
#define GODWIT_BASE_ERR_H

#include <stddef.h>

#define ERR_MESSAGE_MAX 768

struct err {
	int code;                       /* negative errno, 0 when unset */
	char message[ERR_MESSAGE_MAX];  /* a sentence without a final newline; "" when unset */
};

#define ERR_INIT ((struct err){ 0 })

/* Records a failure and returns `code` (made negative), so that `return err_set(e, -EINVAL, ...)` reads well. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Like err_set, with ": " and the text of the errno `code` behind the message. */
int err_sys(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts context before the message that is there ("context: message"); returns the code it holds. */
int err_wrap(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The static analyser looks at one file at a time: it must be told that what these return is negative. */
#if defined(__clang_analyzer__) && !defined(ERR_IMPLEMENTATION)
#define err_set(e, code, ...) (err_set(e, code, __VA_ARGS__), -1)
#define err_sys(e, code, ...) (err_sys(e, code, __VA_ARGS__), -1)
#define err_wrap(e, ...) (err_wrap(e, __VA_ARGS__), -1)
#endif

#endif
