/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cred_peek.h - what belongs to the credentials of a process's threads and nothing else shows, read by BPF: keyrings, and whether Landlock restricts them
 *
 * Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel; loading takes some ten milliseconds, once in a process and for its children.
 */
#ifndef GODWIT_KERN_CRED_PEEK_H
#define GODWIT_KERN_CRED_PEEK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/cred_record.h"

/* Loads, and learns, now: for this process and its children. Returns the descriptor that a child must keep for that; it stays ours. */
int cred_peek_prepare(struct err *e);
/* All threads. *ret is malloc'ed; returns their number. */
int cred_peek(pid_t pid, struct cred_record **ret, struct err *e);
/* Whether the thread is in a Landlock domain. Where such a word lies is learned once, from a child with a domain. */
bool cred_has_landlock(const struct cred_record *r);

#endif
