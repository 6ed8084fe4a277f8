/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * move.h - a move that godwitd itself asks for: by its own unix socket, as `godwit migrate` does, so that there is one path and nothing moves twice
 *
 * Never blocks beyond the connection to the socket; many may be under way at once, each with a descriptor to poll.
 */
#ifndef GODWIT_DAEMON_MOVE_H
#define GODWIT_DAEMON_MOVE_H

#include <jansson.h>

#include "daemon/units.h"

#define MOVE_LINE_MAX 65536u

struct move {
	int fd; /* -1: none */
	pid_t pid;
	uint64_t start_ticks;
	char unit[300];
	char to[HELLO_NAME_MAX + 1];
	uint64_t node; /* its id */
	char phase[32];
	uint64_t bytes_sent;
	uint64_t begun_ns;
	char *text;
	size_t have;
};

/* A unit of this host to the node of that name. `reason`: a sentence for people, kept in the unit's record. A process that is not here any more is not looked for elsewhere. */
int move_begin(struct move *m, const struct daemon *d, const struct unit_info *unit, const char *to, const char *reason, struct err *e);
/* Reads what has come: 0 when it is still under way, 1 with the final line (the caller's) when it is over, and closed then. A lost worker is a line, too. */
int move_read(struct move *m, json_t **ret);
/* Has godwitd do what `order` says (takes the reference), as a client would, and waits for the final line, which becomes the caller's. */
int move_order(const struct daemon *d, json_t *order, int timeout_ms, json_t **ret, struct err *e);
/* Ends what is under way; it is cancelled if it is not too late. */
void move_free(struct move *m);

#endif
