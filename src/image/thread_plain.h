/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thread_plain.h - threads of which BPF tells all
 *
 * Most threads of a process differ from its main thread in registers, masks, names and addresses only. Such a thread is *plain*: what it is comes from its record
 * (kern/thread_record.h), and the rest from the main thread, for which everything has been asked. Where a record is not complete, or anything else differs, or the
 * thread has something that is told elsewhere only (signals that are pending for it), it is asked itself (thread.h).
 */
#ifndef GODWIT_IMAGE_THREAD_PLAIN_H
#define GODWIT_IMAGE_THREAD_PLAIN_H

#include <stdbool.h>

#include "kern/thread_record.h"
#include "task.pb-c.h"

/* Whether a stopped thread can be plain beside the main thread, whose own record is `main`. */
bool thread_is_plain(const struct thread_record *r, const struct thread_record *main);
/* What thread_capture_stopped would have told, and names and addresses. -EAGAIN: it has to be asked itself. */
int thread_fill_plain(const struct thread_record *r, Gw__Thread *msg);
/* When thread_capture_collect has told all of the main thread: the rest. */
void thread_complete_plain(const Gw__Thread *main, Gw__Thread *msg);

#endif
