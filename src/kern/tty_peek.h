/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tty_peek.h - what lies in the terminals that this process has open, without taking anything out
 *
 * Reads the kernel's buffers with a BPF iterator over our own descriptors (bpf/tty_peek.bpf.c). Loading takes milliseconds, once in a
 * process; a look takes some 10 us. Needs the kernel's type information (BTF), as restart_block.h does.
 */
#ifndef GODWIT_KERN_TTY_PEEK_H
#define GODWIT_KERN_TTY_PEEK_H

#include <stddef.h>

#include "base/err.h"
#include "kern/tty_record.h"

/* Before the freeze; nothing happens when it has been loaded. */
int tty_peek_load(struct err *e);

/* Lists our descriptors that are terminals, ascending. *ret is malloc'ed. */
int tty_peek_list(struct tty_record_file **ret, size_t *ret_n, struct err *e);

/*
 * Both ends of the pseudo-terminal behind a descriptor of ours. The record is static and holds until the next call. The two ends must not be
 * in use by anybody who runs; waits until the kernel has carried what was written to where it can be read. -EAGAIN when it does not settle.
 */
int tty_peek_pair(int fd, const struct tty_record_pair **ret, struct err *e);

/* The same of a pseudo-terminal whose master is in use by somebody who runs: one look, when what has been typed has reached the slave's line discipline. */
int tty_peek_now(int fd, const struct tty_record_pair **ret, struct err *e);

#endif
