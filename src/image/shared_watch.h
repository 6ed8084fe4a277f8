/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shared_watch.h - tells what becomes of mappings of shared memory between two looks
 *
 * A mapping of an object that no descriptor leads to can be made from another mapping only: by mremap(2), which doubles one when it is told that its old
 * length is 0, or makes it longer. If that happens after one look at the process and the mapping is gone, or as short as it was, before the next, what was written through it
 * is in no page table that anybody sees. So the userfaultfd of shared memory asks for UFFD_EVENT_REMAP and UFFD_EVENT_UNMAP: the thread that moves, doubles, cuts or unmaps what is
 * registered waits, before it goes on, until the event has been read (userfaultfd(2)); and what comes of it is registered too. Nobody tells of an address space
 * that ends as a whole, or of shmdt(2).
 */
#ifndef GODWIT_IMAGE_SHARED_WATCH_H
#define GODWIT_IMAGE_SHARED_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "image/vma.h"

struct shared_watch;

/*
 * A thread that reads the events of uffds[0..n), each that of one process, until shared_watch_stop; it borrows them. Elements that are -1 have none. The
 * userfaultfds must be open in this process only: so its death lets everybody go on who waits. NULL: see *e.
 */
struct shared_watch *shared_watch_start(const int *uffds, size_t n, struct err *e);

/*
 * What process i has done to registered memory since the start, or the last call: addresses that it has unmapped are added to *ret_unmapped (not in order), and the result says whether it has
 * moved or doubled a mapping, or more has happened than is kept. What a thread of it did before it was stopped counts.
 */
bool shared_watch_take(struct shared_watch *w, size_t i, struct range_list *ret_unmapped);
void shared_watch_stop(struct shared_watch *w);

#endif
