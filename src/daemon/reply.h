/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reply.h - lines of JSON to a client; used in workers, which may block (up to a few seconds for a client that does not read) */
#ifndef GODWIT_DAEMON_REPLY_H
#define GODWIT_DAEMON_REPLY_H

#include <jansson.h>

#include "base/err.h"
#include "image/refuse.h"
#include "migrate/migrate.h"

/* Sends all of it. Returns 0 or a negative errno: -ETIMEDOUT when the peer takes nothing for that long (-1: for ever). */
int reply_bytes(int fd, const char *data, size_t len, int stuck_ms);
/* One line; takes the reference. A client that is gone or stuck is ignored. */
void reply_line(int fd, json_t *line);
/* {"event":"result","result":R}; takes the reference. */
void reply_result(int fd, json_t *result);
/*
 * {"event":"error","error":{"code":C,"errno":N,"message":M,"refusals":[...]}[,"result":R]}. code is a stable word; refusals
 * and result may be NULL; takes the reference of result.
 */
void reply_error(int fd, const char *code, const struct err *e, const struct refusals *refusals, json_t *result);
/* [{code,thing,cause,way_out}...] */
json_t *reply_refusals(const struct refusals *refusals);
/* All fields of a report. */
json_t *reply_report(const struct migrate_report *report);
/* A JSON string of any bytes: what is not UTF-8 becomes '?'. */
json_t *reply_text(const char *text);

#endif
