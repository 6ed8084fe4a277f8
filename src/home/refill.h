/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refill.h - giving a pipe back: what a relay had taken out of it, and the unit has not read, goes in again before what lies in it
 *
 * Others may write into it at any moment. So everything is taken out and put in again by one write, which the kernel does not interrupt as long as there is room, with a
 * mark at its front: if the mark is the first thing that is read then, nobody has written in between; otherwise once more. Who waits for room in a full pipe is woken by the
 * taking out: the pipe is as small as can be then, so that each time there is little more to put in. The unit does not run meanwhile.
 */
#ifndef GODWIT_HOME_REFILL_H
#define GODWIT_HOME_REFILL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct refill {
	int fd;            /* the pipe, any end; borrowed */
	uint8_t *data;     /* malloc'ed */
	size_t len;
};

#define REFILL_INIT ((struct refill){ .fd = -1 })

/* Appends to data; aborts when there is no memory. */
void refill_add(struct refill *r, const void *data, size_t len);
/* Whether the pipe can be made so large that what is to go in finds room. */
int refill_check_room(const struct refill *r, struct err *e);
/* Puts the data in before what lies there. */
int refill_before(struct refill *r, struct err *e);
/* Behind it; waits for room as long as somebody reads. */
int refill_behind(struct refill *r, struct err *e);
void refill_free(struct refill *r);

#endif
