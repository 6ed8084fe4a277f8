/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * queue_peek.h - what waits in queues that cannot be peeked at: inotify events, and unix connections not accepted yet
 *
 * Read from the kernel by a BPF iterator (bpf/queue_peek.bpf.c) over the descriptors of this process. What does not fit into 32 KiB
 * cannot be read.
 */
#ifndef GODWIT_KERN_QUEUE_PEEK_H
#define GODWIT_KERN_QUEUE_PEEK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "kern/queue_record.h"

/* Records of the queue of our descriptor `fd`, malloc'ed. Loads the program when it is called for the first time: tens of ms. */
int queue_peek(int fd, bool is_inotify, void **ret, size_t *ret_len, struct err *e);
/* The record at *at, which moves on, and its data; NULL at the end. */
const struct queue_record *queue_next(const void *records, size_t len, size_t *at, const char **ret_data);

#endif
