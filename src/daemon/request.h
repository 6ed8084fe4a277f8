/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request.h - what a client asks of godwitd: one JSON object on one line (see docs/wire.md)
 */
#ifndef GODWIT_DAEMON_REQUEST_H
#define GODWIT_DAEMON_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "cluster/require.h"
#include "migrate/migrate.h"

#define REQUEST_BYTES_MAX 4096u
#define REQUEST_HOPS_MAX 3u
#define REQUEST_TIMEOUT_MAX_MS (24u * 3600u * 1000u)

enum verb { VERB_MIGRATE, VERB_PS, VERB_NODES, VERB_CHECK, VERB_CANCEL, VERB_CONNECTIONS, VERB_SELECT };

struct request {
	enum verb verb;
	pid_t pid;              /* migrate, check; 0: none */
	char unit[300];         /* migrate: HOME:PID instead of a pid; "": none */
	unsigned hops;          /* migrate: how many nodes have handed it on */
	char host[256];         /* migrate; check: who is asked, or "" */
	enum strategy strategy; /* migrate */
	enum fsfile_policy files; /* migrate */
	enum tcp_outside_policy tcp;
	unsigned timeout_ms;    /* migrate; 0: none */
	char require[REQUIRE_TEXT_MAX + 1]; /* select: what the nodes have to be, checked */
	bool take;              /* select: something is about to be sent to the first one */
};

/* Reads and validates one line (untrusted, without its newline). -EINVAL with words for the client. */
int request_parse(const char *line, size_t len, struct request *ret, struct err *e);

#endif
