/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring_peek.h - io_urings of a process, read by BPF
 *
 * Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel; loading takes tens of milliseconds, once in a process; a read some 20 us. Exact only for a process that does
 * not run.
 */
#ifndef GODWIT_KERN_URING_PEEK_H
#define GODWIT_KERN_URING_PEEK_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/uring_record.h"

/* Each returns how many there are; *ret is malloc'ed. */
ssize_t uring_peek_rings(pid_t pid, struct uring_record **ret, struct err *e);
ssize_t uring_peek_files(pid_t pid, struct uring_file **ret, struct err *e);
ssize_t uring_peek_registered(pid_t pid, struct uring_registered **ret, struct err *e);
/* Of one of its rings (struct uring_record's ctx). *ret is valid until the next call. -E2BIG: more than URING_ENTRIES_MAX. */
ssize_t uring_peek_entries(pid_t pid, unsigned long long ctx, const struct uring_entry **ret, struct err *e);
/* The same for what waits in it. Requests that do not wait, but are being done (by a device, or a worker), are not among them: struct uring_record's in_flight counts them, too. */
ssize_t uring_peek_requests(pid_t pid, unsigned long long ctx, const struct uring_request **ret, struct err *e);

#endif
