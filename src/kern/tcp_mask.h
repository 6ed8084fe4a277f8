/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_mask.h - what of the kernel's structure of a TCP socket traffic does not change
 *
 * Where that is the same as before, the socket's options are. What is left out is listed, so what is not known, since other kernels have it, counts: then a connection that
 * has been used looks like one with other options, and never the other way round.
 */
#ifndef GODWIT_KERN_TCP_MASK_H
#define GODWIT_KERN_TCP_MASK_H

#include <stdint.h>

#include "base/err.h"
#include "kern/tcp_record.h"

/* Bits of struct tcp6_sock that count. Takes tens of milliseconds. */
int tcp_mask_fill(uint64_t mask[TCP_MASK_WORDS], struct err *e);

#endif
