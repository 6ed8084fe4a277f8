/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shared_watch.h - tells of mappings of shared memory that are made from others between two looks
 *
 * A mapping of an object that no descriptor leads to can be made from another mapping only: by mremap(2), which doubles one when it is told that its old
 * length is 0. If that happens after one look at the process and the new mapping is gone before the next, what was written through it is in no page table that
 * anybody sees. So the userfaultfd of shared memory asks for UFFD_EVENT_REMAP: the thread that calls mremap() for a mapping that is registered waits, before
 * it goes on, until the event has been read (userfaultfd(2)); and what comes of it is registered too.
 */
#ifndef GODWIT_IMAGE_SHARED_WATCH_H
#define GODWIT_IMAGE_SHARED_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct shared_watch;

/*
 * A thread that reads the events of uffds[0..n), each that of one process, until shared_watch_stop; it borrows them. Elements that are -1 have none. The
 * userfaultfds must be open in this process only: so its death lets everybody go on who waits. NULL: see *e.
 */
struct shared_watch *shared_watch_start(const int *uffds, size_t n, struct err *e);

/* Whether process i has called mremap() for registered memory since the start. What a thread of it did before it was stopped counts. */
bool shared_watch_remapped(const struct shared_watch *w, size_t i);
void shared_watch_stop(struct shared_watch *w);

#endif
