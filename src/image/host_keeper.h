/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host_keeper.h - godwit-net: a process of the destination's host that keeps something for a unit as long as that is there
 *
 * What a unit needs outside of itself (a slirp4netns, rules of the host) is made before its skeleton, by a fork of the worker that is in none of the unit's
 * namespaces and keeps nothing else of the worker. It ends, and takes that back, when the worker ends before host_keepers_keep, or the unit's first process after it.
 */
#ifndef GODWIT_IMAGE_HOST_KEEPER_H
#define GODWIT_IMAGE_HOST_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define HOST_KEEPER_FDS 2

struct host_keeper {
	/* In the process: false, it cannot be done. fds: those that host_keeper_start was given, or -1. */
	bool (*begin)(void *arg, const int fds[HOST_KEEPER_FDS]);
	void (*end)(void *arg);
};

/* fds: open in the process as well, until begin has returned; -1: none. 1: it has begun, 0: it could not. Blocks until then. */
int host_keeper_start(const struct host_keeper *k, void *arg, const int fds[HOST_KEEPER_FDS], struct err *e);
/* They live as long as that process, from now on; before that as long as the worker. */
int host_keepers_keep(pid_t root, struct err *e);

#endif
