/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plan.h - what a migration would move, and by which means: filled in when the destination has accepted an offer that was only a question (migrate_request.ask_only)
 *
 * All of it is what the offer and the answer say; memory is what /proc says of who has it. Nothing is stopped or measured for it.
 */
#ifndef GODWIT_MIGRATE_PLAN_H
#define GODWIT_MIGRATE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/migrate.h"

/* Open descriptions by what becomes of them. */
enum plan_kind {
	PLAN_FILE_THERE, PLAN_FILE_HOME, PLAN_FILE_SENT, PLAN_DIRECTORY, PLAN_DEVICE, PLAN_KERNEL_FILE, PLAN_PIPE, PLAN_UNIX, PLAN_TERMINAL, PLAN_EVENT, PLAN_PIDFD, PLAN_MQUEUE, PLAN_URING, PLAN_BPF_MAP,
	PLAN_TUN, PLAN_NAMESPACE, PLAN_LISTENER, PLAN_TCP_OUTSIDE, PLAN_TCP_CLOSED, PLAN_TCP_INSIDE, PLAN_SOCKET, PLAN_KINDS,
};

struct migrate_plan {
	bool known;              /* false: the program's own state would move, of which nobody else knows */
	enum strategy strategy;  /* another one than was asked for where a device may write to its memory behind the kernel's back */
	size_t processes, threads;
	uint64_t resident_bytes, own_bytes, swapped_bytes; /* own: in no file; what several processes share counts for each */
	uint32_t files_there, files_home, files_sent; /* mapped or open: used there as they are, from home, and their contents sent */
	uint64_t files_bytes;    /* of the last, at most */
	uint32_t namespaces;     /* bits 1 << enum ns_kind */
	unsigned kinds[PLAN_KINDS];
};

/* What would be sent, at most: pages of zeros and pages that the destination has kept from a former visit are not. */
static inline uint64_t plan_send_bytes(const struct migrate_plan *p)
{
	return p->own_bytes + p->swapped_bytes + p->files_bytes;
}

/* "tcp", and "made there with its numbers ...". */
const char *plan_kind_name(enum plan_kind kind);
const char *plan_kind_means(enum plan_kind kind);

struct source;
void plan_fill(const struct source *s, struct migrate_plan *ret);

#endif
