/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bridge.h - the way to another host by ssh: `godwit migrate PID user@host`
 *
 * ssh is a child of the command, so it has the user's keys, agent and terminal, and asks there. Its other end is given to godwitd (daemon/do_bridge.c), and it goes on when the command has
 * ended, for as long as something goes over it.
 */
#ifndef GODWIT_CLI_BRIDGE_H
#define GODWIT_CLI_BRIDGE_H

#include "cli/cli.h"

#define BRIDGE_NODE_MAX 64u

struct bridge_way {
	struct ask ask; /* the conversation: as long as it is open, so is the bridge; fd -1: there was one already */
	char node[BRIDGE_NODE_MAX + 1]; /* the node at its other end */
	char host[BRIDGE_NODE_MAX + 8]; /* as `host` of a request */
};

/* user@host, or ssh://... */
bool bridge_is_way(const char *host);
/*
 * Has a bridge to that host, which is made when there is none. command: "ssh" and options, NULL: $GODWIT_SSH, or ssh. kept: it stays until somebody closes it. What ssh says is passed on to stderr, unless
 * quiet. bootstrap: where godwit is not there, it is brought along. -ECANCELED after SIGINT; SIGINT and SIGTERM are as before afterwards. Close ret->ask.
 */
int bridge_go(const char *host, const char *command, bool kept, bool quiet, bool bootstrap, struct bridge_way *ret, struct err *e);

#endif
