/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * remote.h - lists of system calls that run inside another process
 *
 * A batch belongs to one task of the target (the agent or a thread). Calls are appended with batch_call, data
 * with batch_data/batch_space (they live in the scratch that both processes map), then batch_run executes the list in one go.
 *
 *	struct batch *b = ...;
 *	uint64_t path = batch_string(b, "/srv");
 *	batch_call(b, "chdir", SYS_chdir, path);
 *	struct itimerval *tv; uint64_t at;
 *	tv = batch_space(b, sizeof(*tv), &at);
 *	struct remote_call *get = batch_call(b, "getitimer", SYS_getitimer, ITIMER_REAL, at);
 *	if (batch_run(b, e) < 0) ...       // "chdir: No such file or directory"
 *	use(*tv, get->ret);
 *
 * Pointers returned by batch_call and batch_space stay valid until batch_reset. A batch grows without limit other
 * than the scratch; when the scratch is full, batch_call and batch_space return a dummy and batch_run reports -ENOMEM,
 * so that plans need no error handling of their own.
 */
#ifndef GODWIT_KERN_REMOTE_H
#define GODWIT_KERN_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/abi.h"
#include "base/err.h"

struct batch;

/*
 * Appends a call; missing arguments are zero. `what` is a static string (or one that lives as long as the batch) that names
 * the call in an error message. Returns the call, whose ret is valid after batch_run.
 */
#define batch_call(b, what, nr, ...) batch_call_array(b, what, nr, 0, (const uint64_t[6]){ __VA_ARGS__ })
/* The same for a call whose failure is looked at by the caller (ret < 0) and does not end the list. */
#define batch_try(b, what, nr, ...) batch_call_array(b, what, nr, CALL_MAY_FAIL, (const uint64_t[6]){ __VA_ARGS__ })
struct remote_call *batch_call_array(struct batch *b, const char *what, uint64_t nr, uint32_t flags, const uint64_t arg[6]);

/* Zeroed space in the scratch, 16-byte aligned; its address in the target goes to *ret_address. */
void *batch_space(struct batch *b, size_t len_bytes, uint64_t *ret_address);
/* A copy of data in the scratch; returns its address in the target. */
uint64_t batch_data(struct batch *b, const void *data, size_t len_bytes);
uint64_t batch_string(struct batch *b, const char *text);

/* Runs all calls since the last reset, blocking. Fails with the first call that was not batch_try and returned an error. */
int batch_run(struct batch *b, struct err *e);
/* Empties the list; the space goes back to the scratch. */
void batch_reset(struct batch *b);

/*
 * For a list that is planned again later: batch_keep notes what has been appended, calls with their arguments and all data, before it runs; batch_is_kept, when as much has been
 * appended after a reset, whether it is the very same.
 */
void batch_keep(struct batch *b);
bool batch_is_kept(const struct batch *b);

/* One call, now: batch_call, batch_run, batch_reset. Returns the kernel's result (negative errno), e is set on failure. */
#define remote_do(b, e, what, nr, ...) remote_do_array(b, e, what, nr, (const uint64_t[6]){ __VA_ARGS__ })
int64_t remote_do_array(struct batch *b, struct err *e, const char *what, uint64_t nr, const uint64_t arg[6]);

#endif
