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

/*
 * Bits of struct tcp6_sock that count. kin: without addresses and what else tells one socket from another that has the same options, as those that one listener has accepted; what is
 * not known counts here as well, so that two with the same are alike. Takes tens of milliseconds.
 */
int tcp_mask_fill(uint64_t mask[TCP_MASK_WORDS], uint64_t kin[TCP_MASK_WORDS], struct err *e);

#endif
