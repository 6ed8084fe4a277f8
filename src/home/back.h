/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * back.h - the unit comes home: godwit-home gives it the place of its stub, and its pipes
 *
 * The destination's worker, here, talks to godwit-home through the door that is named by the unit (door.h): ASK, STUB, SETTLE, BACK, in this order; without
 * stub, where there are only relays, not STUB.
 *
 *	NONE -> ASKED     relays are not read from any more, so that the unit reads what has been taken out
 *	     -> TAKING    the stub execs itself anew, as root
 *	     -> TAKEN     the worker makes the unit's root out of it; signals stay pending in it
 *	     -> SETTLING  the unit is frozen: waits until everything that godwit-away has sent is here
 *	     -> SETTLED   what is on its way in relays is known, and there is room for it where it belongs
 *	     -> DONE      its terminal and pipes have what was on its way, and the unit runs here; waits for godwit-away's word (MOVED), then ends
 *
 * The worker's end before DONE, unless the unit's state says that it was committed, means that the unit stays where it is: what was the stub execs the stub's
 * program again (home_plant), and everything goes on.
 */
#ifndef GODWIT_HOME_BACK_H
#define GODWIT_HOME_BACK_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "home/owner.h"
#include "home/refill.h"
#include "home/session.h"
#include "home/stub_abi.h"
#include "kern/task.h"

struct keeper;

enum back_state { BACK_NONE, BACK_ASKED, BACK_TAKING, BACK_TAKEN, BACK_SETTLING, BACK_SETTLED, BACK_DONE };

struct back {
	enum back_state state;
	int door, worker;       /* -1: none */
	int guest;              /* who has come through the door and said nothing yet; -1 */
	struct scratch scratch; /* of the process in the stub's place */
	struct owner owner;
	uint64_t handled, sent; /* SETTLING: struct door_settle */
	int rest;
	pid_t foreground;       /* ASKED: the foreground group of its terminal */
	struct refill *refills; /* SETTLED: one for each channel */
	bool moved;             /* DONE: godwit-away has said so */
	uint64_t deadline_ns;   /* DONE */
};

#define BACK_INIT ((struct back){ .door = -1, .worker = -1, .guest = -1, .rest = -1, .scratch = { .memfd = -1 } })
#define BACK_POLL 4

void back_open(struct keeper *k);
void back_close(struct keeper *k);
/* What to wait for, BACK_POLL entries, and what to do then. */
void back_poll(const struct keeper *k, struct pollfd *p);
void back_step(struct keeper *k, const struct pollfd *p);
/* Whether a message of the stub's, or of godwit-away's, was about the return. */
bool back_hear_stub(struct keeper *k, const struct stub_message *m);
bool back_handle(struct keeper *k, const Gw__HomeMessage *m);
/* The unit is coming back, or has just come. */
bool back_is_under_way(const struct keeper *k);
/* The stub is not a stub now. */
bool back_has_stub(const struct keeper *k);
/* Nothing is to be moved in relays now. */
bool back_holds_relays(const struct keeper *k);

#endif
