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

#include "base/err.h"
#include "kern/tcp_record.h"

/*
 * Ascending by descriptor; behind a listener what waits in its queue, first come first. *ret is malloc'ed. Loads the program when it is called for the
 * first time: milliseconds.
 */
int tcp_peek(struct tcp_record **ret, size_t *ret_n, struct err *e);

#endif
