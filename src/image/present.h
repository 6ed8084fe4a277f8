/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * present.h - what the main thread of the skeleton has already
 *
 * It is asked by itself, before the freeze, when nothing of this changes any more; what is to be as it is needs no call in the freeze. Whatever the skeleton has inherited, and from whom,
 * is in there.
 */
#ifndef GODWIT_IMAGE_PRESENT_H
#define GODWIT_IMAGE_PRESENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define PROCESS_RLIMITS 16 /* resources of getrlimit(2) */

/* { 0 }: nothing is known. */
struct present {
	bool known;
	uint64_t rlimits[2 * PROCESS_RLIMITS];
	uint64_t personality;
	Gw__Credentials *credentials; /* as the task sees them */
};

/* Runs a list of calls. */
int present_ask(struct batch *b, struct present *ret, struct err *e);
void present_free(struct present *p);

bool present_has_limit(const struct present *p, unsigned i, const uint64_t limit[2]);
bool present_has_personality(const struct present *p, uint64_t personality);
/* Only where it is root with all that root may have here: calls that change ids for a moment (file_owner.c) lead back to that. */
bool present_has_credentials(const struct present *p, const Gw__Credentials *msg);

#endif
