/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * moves.h - migrations that somebody has started over the API: what each has come to
 *
 * Each has a conversation with godwitd and a thread that listens to it, also when the caller has gone. Those that have ended are remembered until others need the place. Who has started one may
 * look at it and interrupt it, and so may who may do everything.
 */
#ifndef GODWIT_API_MOVES_H
#define GODWIT_API_MOVES_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define MOVES_MAX 128u
#define MOVES_EACH_MAX 32u /* under way, of one user */

struct viewer {
	uid_t uid;
	bool all; /* sees what others have started */
};

/* Starts what `request` says, for the caller at `connection`; takes its reference. *ret: what moves_get says. -EBUSY: too many. */
int moves_start(int connection, const struct viewer *viewer, json_t *request, json_t **ret, struct err *e);
/* One, or NULL: there is none that the viewer may see. */
json_t *moves_get(const struct viewer *viewer, const char *id);
/* All of them, the oldest first. */
json_t *moves_list(const struct viewer *viewer);
/* Asks for its end; what is behind its commit goes on. -ENOENT; -EALREADY: it has ended. */
int moves_cancel(const struct viewer *viewer, const char *id, struct err *e);
/* How many are under way. */
unsigned moves_running(void);

#endif
