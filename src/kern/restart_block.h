/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * restart_block.h - reading the end of interrupted and running sleeps from the kernel, by BPF
 *
 * Load once (tens of milliseconds: the kernel's symbols are read), before any thread is stopped; a reader survives fork. Attach per process; a
 * read then costs a few microseconds and a little per thread. Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel.
 */
#ifndef GODWIT_KERN_RESTART_BLOCK_H
#define GODWIT_KERN_RESTART_BLOCK_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/restart_record.h"

struct restart_reader;
struct restart_watch;

int restart_reader_load(struct restart_reader **ret_reader, struct err *e);
/* The one descriptor that a forked child must not close. */
int restart_reader_fd(const struct restart_reader *reader);
void restart_reader_free(struct restart_reader *reader);

/* The reader may be freed before the watch. */
int restart_watch_open(const struct restart_reader *reader, pid_t pid, struct restart_watch **ret_watch, struct err *e);
void restart_watch_close(struct restart_watch *watch);
/* Makes the next read cheaper. */
void restart_watch_ready(struct restart_watch *watch);
/* One record a thread, at most max; returns their number. Does not block. */
int restart_watch_read(struct restart_watch *watch, struct restart_record *ret_records, size_t max, struct err *e);

static inline const struct restart_record *restart_record_find(const struct restart_record *records, size_t n, pid_t tid)
{
	for (size_t i = 0; i < n; i++)
		if ((pid_t)records[i].tid == tid)
			return &records[i];
	return NULL;
}

#endif
