/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sock_peek.h - what the kernel knows about an Internet socket and no call shows: memberships in multicast groups, programs, queues of errors
 *
 * Read by a BPF iterator over our own descriptors (bpf/sock_peek.bpf.c).
 */
#ifndef GODWIT_KERN_SOCK_PEEK_H
#define GODWIT_KERN_SOCK_PEEK_H

#include <stddef.h>

#include "base/err.h"
#include "kern/sock_record.h"

/* Records of our descriptor `fd`, malloc'ed; none when it is no Internet socket. Loads the program when it is called for the first time: milliseconds. */
int sock_peek(int fd, struct sock_record **ret, size_t *ret_n, struct err *e);

#endif
