/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * events.h - what happens in the cluster, told to those who listen (server-sent events)
 *
 * godwitd is asked for the nodes and the units again and again, by one thread for each user who listens, in the name of one of his connections: so each hears of what he may see, and what changed between
 * two answers are the events. All who may see everything share one such *feed*. A feed remembers its last events, so that who was cut off gets what he has missed; who has missed more, or is new, gets a
 * snapshot of everything first. Without listeners nobody is asked.
 *
 *	event            data
 *	snapshot         {"nodes", "units", "silent", "under_way", "history", "migrations"}: all that there is, and the last moves that have ended
 *	node             a node, as /v1/nodes has it: it is new, or not as it was
 *	node-gone        {"name"}: it is no longer one of the cluster
 *	unit-appeared    a unit, as /v1/units has it
 *	unit-moved       {"unit", "from", "to", "now"}: its name, two nodes, and the unit as it is now
 *	unit-changed     a unit, of which something else has changed (that it runs or sleeps is no change)
 *	unit-ended       {"unit", "on"}; a unit of a node that does not answer has not ended
 *	migration        a migration as /v1/migrations/ID has it: begun, another phase, progress, ended
 *	under-way        {"moves"}: all that are under way in the cluster and may be seen, whoever has begun them, as "running" of /v1/history
 *	move             one that has ended, as /v1/history has it; again when more of it is known
 */
#ifndef GODWIT_API_EVENTS_H
#define GODWIT_API_EVENTS_H

#include <jansson.h>
#include <stddef.h>

#include "api/moves.h"

#define EVENTS_KEPT 256u     /* of a feed */
#define EVENTS_KEEP_ALIVE_MS 15000u

struct listener;

/*
 * A listener at `connection`, who has heard up to the event `last_id` already (NULL: he is new). NULL: there is no memory, or no thread. events_leave comes before the connection is closed.
 */
struct listener *events_join(int connection, const struct viewer *viewer, const char *last_id);
/* The next bytes for him; blocks until there are some. -1: it is over. */
ssize_t events_read(struct listener *l, char *buffer, size_t max);
/* NULL is allowed. */
void events_leave(struct listener *l);
/* Somebody's migration is not as it was. Takes no reference. */
void events_tell_move(uid_t uid, const json_t *move);
/* All listeners are sent away. */
void events_end(void);

#endif
