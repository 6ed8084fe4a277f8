/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_table.h - reading a whole descriptor table from the kernel at once, by BPF
 *
 * 0.05 us a descriptor when it has been prepared (1.3 a connection, 0.65 with a second CPU), 0.3 when not, where pidfd_getfd, kcmp and fdinfo take some 5. Load once (the kernel's symbols are read: tens of milliseconds); a
 * reader survives fork. Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel.
 */
#ifndef GODWIT_KERN_FILE_TABLE_H
#define GODWIT_KERN_FILE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/file_record.h"

struct file_reader;
struct file_watch;

int file_reader_load(struct file_reader **ret_reader, struct err *e);
/* The descriptors that a forked child must not close, or -1. */
#define FILE_READER_FDS 4
void file_reader_fds(const struct file_reader *reader, int ret[FILE_READER_FDS]);
void file_reader_free(struct file_reader *reader);

/* A single number of a process as the records name it, or of this one (0), without a reference: the process may run. false: there is none, or this kernel does not take the program. A microsecond. */
bool file_reader_ask(const struct file_reader *reader, unsigned int process, int fd, struct file_record *ret);
/* Whether that can be asked at all. */
bool file_reader_can_ask(const struct file_reader *reader);

/* Of a process. The reader is used until the watch is closed. */
int file_watch_open(const struct file_reader *reader, pid_t pid, struct file_watch **ret_watch, struct err *e);
void file_watch_close(struct file_watch *watch);
/* Prepares the next read, so that it is nothing but a read: for about as many numbers as the last one has seen. */
void file_watch_prepare(struct file_watch *watch);
/*
 * One record a descriptor, ascending; *records, of *room entries, grows as necessary. Returns their number. Does not block. Right only for
 * a process that does not run.
 */
ssize_t file_watch_read(struct file_watch *watch, struct file_record **records, size_t *room, struct err *e);
/* Whether the last read was one by groups, as a prepared one is where numbers are not few and far between. */
bool file_watch_was_by_groups(const struct file_watch *watch);

#endif
