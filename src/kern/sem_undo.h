/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sem_undo.h - what the end of a process would undo in System V semaphores, read by BPF
 *
 * Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel; loading takes tens of milliseconds, a read some microseconds.
 */
#ifndef GODWIT_KERN_SEM_UNDO_H
#define GODWIT_KERN_SEM_UNDO_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/sem_undo_record.h"

struct sem_undo_reader;

int sem_undo_load(struct sem_undo_reader **ret, struct err *e);
void sem_undo_free(struct sem_undo_reader *reader);
/* One record for each set, and for each thread that has such a list; at most max. Returns their number. */
int sem_undo_read(struct sem_undo_reader *reader, pid_t pid, struct sem_undo_record *ret_records, size_t max, struct err *e);

#endif
