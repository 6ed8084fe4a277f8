/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_home.h - a unit that comes home: it gets its stub's place and its pipes back (home/back.h)
 *
 * Where that cannot be (namespaces of its own, a number that is taken, a stub without rights) it comes as to any other host, and its stub stays.
 */
#ifndef GODWIT_MIGRATE_DEST_HOME_H
#define GODWIT_MIGRATE_DEST_HOME_H

#include "home/door.h"
#include "image/pty.h"
#include "image/relay.h"
#include "migrate/skeleton.h"

struct dest;

struct dest_home {
	struct skeleton_seat seat; /* pid 0: there is no stub, only relays; door -1: the unit does not come home */
	pid_t session, group;      /* of the stub */
	struct fd_relays originals; /* what the unit had instead of its relays; the descriptors are the worker's */
	struct pty_home terminal;  /* ... the terminal among them; fd -1: none */
};

#define DEST_HOME_INIT ((struct dest_home){ .seat = { .door = -1 }, .terminal = { .fd = -1 } })

/* Before anything is made: whether the unit comes home, and what is there for it. */
void dest_home_ask(struct dest *d);
/* When the go message has come: what is on its way in relays is gathered. The answer comes with dest_home_settled. */
int dest_home_settle(struct dest *d, struct err *e);
int dest_home_settled(struct dest *d, struct err *e);
/* For skeleton_set: the unit is committed and does not run yet. */
void dest_home_back(void *arg);
void dest_home_free(struct dest *d);
static inline bool dest_home_comes(const struct dest_home *h)
{
	return h->seat.door >= 0;
}

#endif
