/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * work.h - a node that has room asks one that is loaded for work (cluster/policy.h: policy_ask), and that one gives what makes both even
 *
 * The question (ROLE_WORK) is what the asking node says of itself at this moment (NodeInfo), so that it is judged by fresh figures; nothing is answered. godwit-balance of the node that was asked plans with
 * that one destination, and reserves and moves as it always does (reserve.h): whoever has begun it, there is one way in which a unit is handed over.
 */
#ifndef GODWIT_DAEMON_WORK_H
#define GODWIT_DAEMON_WORK_H

#include "daemon/daemon.h"

struct work_ask {
	uint64_t node, at_ms; /* cluster_now_ms */
	struct load load;
};

/* Once, before any worker is started: what leads from workers to godwit-balance. */
int work_init(int ret[2], struct err *e);
/* Asks the node at that address. */
int work_ask(const struct daemon *d, const struct sockaddr_in *address, struct err *e);
/* In the main process: another node asks; takes over a copy of fd. */
int work_serve(struct daemon *d, int fd, struct err *e);
/* The next question that is not answered yet, from the end that godwit-balance has. */
bool work_next(int fd, struct work_ask *ret);

#endif
