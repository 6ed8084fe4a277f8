/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_home.h - what leaving means for who waits for the unit (docs/home.md)
 *
 * A unit whose root has a parent here that waits for it leaves a stub (HOME_STUB), and one with pipes whose other end stays leaves godwit-home alone
 * (HOME_RELAYS). One that came from a home leaves its surrogate parent, which is told where it
 * goes (HOME_FOLLOW).
 */
#ifndef GODWIT_MIGRATE_SOURCE_HOME_H
#define GODWIT_MIGRATE_SOURCE_HOME_H

#include "control.pb-c.h"
#include "home/door.h"
#include "home/home.h"
#include "image/relay.h"

struct source;

enum home_kind { HOME_NONE, HOME_STUB, HOME_RELAYS, HOME_FOLLOW };

struct source_home {
	enum home_kind kind;
	struct home home;   /* HOME_STUB */
	pid_t parent;       /* its number at home */
	uint32_t ids[2];    /* real user and group id of the root */
	bool leads;         /* the root leads its session */
	int mover;          /* HOME_FOLLOW: the connection to the surrogate parent, from the freeze on */
	uint64_t handled, sent; /* HOME_FOLLOW: by it, at the freeze (struct door_held) */
	char door[DOOR_NAME_MAX];
	struct fd_relays known; /* HOME_FOLLOW: relays that the surrogate parent has */
};

/* Before the offer: what kind it is. */
int source_home_look(struct source *s, struct err *e);
void source_home_offer(const struct source *s, Gw__Offer *offer);
/* Just before the stop: the surrogate parent gives the unit nothing more. */
int source_home_hold(struct source *s, struct err *e);
/* In the freeze, when the descriptors have been captured: whether what has been offered still holds. */
int source_home_check(struct source *s, struct err *e);
/* The unit goes on here. */
void source_home_stay(struct source *s);
/* The commit is known, and the agents have not been told yet. */
void source_home_left(struct source *s);
/* The step after the commit. */
int source_home(void *context, struct err *e);
/* Whether the root's process here is a stub now. */
bool source_home_has_stub(const struct source *s);
void source_home_free(struct source *s);

#endif
