/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * aio_peek.h - contexts of asynchronous I/O of a process, and how many of their requests are in flight, read by BPF
 *
 * Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel; loading takes tens of milliseconds, once in a process; a read some 10 us.
 */
#ifndef GODWIT_KERN_AIO_PEEK_H
#define GODWIT_KERN_AIO_PEEK_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/aio_record.h"

/* CPUs that this host may ever have. */
unsigned aio_possible_cpus(void);
/* At most max records; returns their number. */
int aio_peek(pid_t pid, struct aio_record *ret_records, size_t max, struct err *e);

#endif
