/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history_json.h - moves as JSON: what this node says of its own, what others say of theirs
 *
 * A move has the fields of OpenTelemetry's traces: a trace_id, and spans with span_id, parent_span_id, name, start_ns and end_ns (the whole, each step of the source, and the freeze); marks are its events.
 * Span ids are made of the trace's, so that they are the same each time.
 */
#ifndef GODWIT_DAEMON_HISTORY_JSON_H
#define GODWIT_DAEMON_HISTORY_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "daemon/history.h"

#define HISTORY_LIST_MAX 1024u

/* The caller's reference; node: this one; running: how far it is, without spans. */
json_t *history_json(const struct history_move *move, const char *node, bool running);
/* What another node says: a list of moves of known members with sizes and ranges that can be; others are dropped. -EPROTO. The caller's reference. */
int history_check(const json_t *said, json_t **ret, struct err *e);
/* By their beginnings; no more than the last `max`. The caller's reference. */
json_t *history_sorted(const json_t *list, size_t max);

#endif
