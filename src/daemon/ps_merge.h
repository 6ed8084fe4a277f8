/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ps_merge.h - the units of the cluster, of what each node says of its own
 *
 * A unit may be in several lists: in that of the node where it runs, and in that of its home, which stands for it (state "away" or "stopped", and `stub`, the number of the process that does).
 * The one where it runs knows it best, and of two such (a unit that is just arriving) the one with more moves; what home says is used when nobody else knows the unit.
 */
#ifndef GODWIT_DAEMON_PS_MERGE_H
#define GODWIT_DAEMON_PS_MERGE_H

#include <jansson.h>

#include "base/err.h"
#include "migrate/caller.h"

#define PS_UNITS_MAX 65536

/* What another node says: a list of units of known members with sizes and ranges that can be; others are dropped. -EPROTO. The caller's reference. */
int ps_units_check(const json_t *said, json_t **ret, struct err *e);
/* Enters a list that has been checked into an object: unit by name. */
void ps_merge(json_t *by_name, const json_t *list);
/* Its units, in the order in which they came, for a limited caller only his own; the caller's reference. */
json_t *ps_list(json_t *by_name, const struct caller *caller);

#endif
