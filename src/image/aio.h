/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * aio.h - contexts of asynchronous I/O (io_setup(2))
 *
 * A context is a ring of events that the kernel maps into the process (VMA_AIO in the layout); the ring's address is the context's id. The destination has its
 * kernel make another context and moves the ring to the address. How many requests a context was made for follows from the ring's size. Events that the program
 * has not taken yet are made again by as many requests that end at once, and written over. Requests in flight are waited for in the freeze; if that takes
 * longer than AIO_WAIT_MS it is another attempt's turn.
 */
#ifndef GODWIT_IMAGE_AIO_H
#define GODWIT_IMAGE_AIO_H

#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "image/vma.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define AIO_WAIT_MS 50

/* For the offer: refuses what is no context of the process's own. */
int aio_check(pid_t pid, const struct vma_list *layout, struct refusals *refusals, struct err *e);
/* In the freeze: the events of the contexts in `layout`. -EAGAIN: other contexts, or requests in flight. */
int aio_capture(pid_t pid, const struct vma_list *layout, Gw__Process *msg, struct err *e);
int aio_validate(const Gw__Process *msg, bool offer, struct err *e);

/* Destination: refuses rings that this kernel makes larger. */
void aio_validate_here(const struct vma_list *layout, struct refusals *refusals);
/* When the layout stands: makes the contexts. Runs the batch, of the process's main thread. mem_fd: /proc/PID/mem. */
int aio_make(struct batch *b, int mem_fd, const struct vma_list *layout, struct err *e);
/* In the freeze: their events. The same batch. */
int aio_fill(struct batch *b, int mem_fd, const struct vma_list *layout, const Gw__Process *msg, struct err *e);

#endif
