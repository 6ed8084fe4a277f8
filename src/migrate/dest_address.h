/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_address.h - addresses that belong to a unit come with it (net/owned.h)
 *
 *	judge    when the unit is judged: whether each can be here, and is that of the source on the same link
 *	expect   when its processes are there: the record, and its keeper
 *	live     after the commit, before the processes run
 *	undo     nothing came of it
 */
#ifndef GODWIT_MIGRATE_DEST_ADDRESS_H
#define GODWIT_MIGRATE_DEST_ADDRESS_H

#include "image/refuse.h"
#include "net/owned.h"

struct dest;

struct dest_addresses {
	size_t n;
	struct owned_address v[OWNED_MAX];
	uint32_t process[OWNED_MAX]; /* of the unit, ascending */
	struct owned_keeper keepers[OWNED_MAX]; /* of the process of v[i], where that is another one than of v[i - 1] */
	struct netlink nl; /* in the host's network namespace */
	int host;          /* that */
};

int dest_address_judge(struct dest *d, struct refusals *refusals, struct err *e);
int dest_address_expect(struct dest *d, struct err *e);
void dest_address_live(struct dest *d);
void dest_address_undo(struct dest *d);

#endif
