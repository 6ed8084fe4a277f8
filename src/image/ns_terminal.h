/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_terminal.h - pseudo-terminals of a unit's own devpts that are mounted one by one (/dev/console of a container)
 *
 * Such a mount needs its terminal: so whoever puts the mounts together at the destination (the holder, ns_make.c) makes it, and the worker takes its master over.
 */
#ifndef GODWIT_IMAGE_NS_TERMINAL_H
#define GODWIT_IMAGE_NS_TERMINAL_H

#include "image/ns.h"
#include "file.pb-c.h"

#define NS_TERMINALS_MAX 16u

/* Their numbers, N of /dev/pts/N. */
struct ns_terminals {
	uint32_t n, number[NS_TERMINALS_MAX];
};

/* Whether a part of a devpts is a terminal. */
bool ns_terminal_is(const char *type, const char *root, uint32_t *ret_number);
/* Source: refuses mounts of terminals that are not among those of the unit's processes. */
void ns_terminals_check(const Gw__Namespaces *msg, const Gw__FdTable *t, struct refusals *r);

/* Holder: makes those that are mounted of file system `fs`, whose root is `top`. */
int ns_terminals_make(const Gw__Namespaces *msg, size_t fs, int top, struct err *e);
/* Holder: their masters become the descriptors from 0 on, and *ret_moved one behind them for `fd`; all others are closed. */
void ns_terminals_settle(struct ns_terminals *ret, int fd, int *ret_moved);
/* Worker: from a holder that has settled. */
int ns_terminals_take(pid_t holder, const struct ns_terminals *t, struct err *e);
/* A new descriptor of the master of number N, locked still; -1: it was not mounted. */
int ns_terminal_open(uint32_t number);
bool ns_terminal_is_made(uint32_t number);
void ns_terminals_free(void);

#endif
