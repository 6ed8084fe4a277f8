/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dnotify_peek.h - what directories that this process has open are watched for (fcntl F_NOTIFY)
 *
 * Read from the kernel by a BPF iterator (bpf/dnotify_peek.bpf.c), as nothing in /proc shows it.
 */
#ifndef GODWIT_KERN_DNOTIFY_PEEK_H
#define GODWIT_KERN_DNOTIFY_PEEK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct dnotify_seen {
	int fd;
	uint32_t arg; /* DN_*, as given to F_NOTIFY */
};

/* All descriptors of ours with a notification; *ret is malloc'ed. Loads the program when it is called for the first time. */
int dnotify_peek(struct dnotify_seen **ret, size_t *ret_n, struct err *e);

#endif
