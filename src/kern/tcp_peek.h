/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_peek.h - what the kernel knows about the TCP sockets that this process has open, in one look
 *
 * Sequence numbers, pending errors and connections not accepted yet are shown by no call, or only at the price of changing them. Read by a BPF
 * iterator over our own descriptors (bpf/tcp_peek.bpf.c): some 20 us, and 0.2 us a descriptor.
 */
#ifndef GODWIT_KERN_TCP_PEEK_H
#define GODWIT_KERN_TCP_PEEK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/tcp_record.h"

/*
 * Ascending by descriptor; behind a listener what waits in its queue, first come first. *ret is malloc'ed. Loads the program when it is called for the
 * first time: milliseconds.
 */
int tcp_peek(struct tcp_record **ret, size_t *ret_n, struct err *e);
/* The same with who is calling (TCP_RECORD_CALLING) behind what waits in a listener's queue: when there are any, a walk over all connections of the host. */
int tcp_peek_calls(struct tcp_record **ret, size_t *ret_n, struct err *e);

/* What has been sent on connections that wait in the queues of our listeners. */
int tcp_peek_data(void **ret, size_t *ret_len, struct err *e);
/* The piece at *at, which moves on, and its bytes; NULL at the end. */
const struct tcp_data_record *tcp_data_next(const void *records, size_t len, size_t *at, const uint8_t **ret_data);

/* Before workers are forked, for what follows: tens of milliseconds. */
void tcp_peek_prepare(void);
/* Where sockets are asked for, up to TCP_ASKED_MAX: the caller writes the descriptors' numbers. NULL: this kernel has no way to tell of single ones. */
struct tcp_told *tcp_peek_told(void);
/* Of the first n, of a process as struct file_record names it, or of this one (0): a microsecond each. 0 or -errno. What is no TCP socket is not told. */
int tcp_peek_ask(uint32_t process, size_t n);

#endif
