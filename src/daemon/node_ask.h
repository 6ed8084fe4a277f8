/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * node_ask.h - asking nodes how they are: all at once, for a second at most. For what must be fresh, before something is sent there; what gossip says (cluster_view.h) is there at once
 */
#ifndef GODWIT_DAEMON_NODE_ASK_H
#define GODWIT_DAEMON_NODE_ASK_H

#include "cluster/load.h"
#include "daemon/daemon.h"
#include "wire/conn.h"

/* A question to one node, and its answer. */
struct question {
	char name[HELLO_NAME_MAX + 1];
	struct sockaddr_in address;
	int fd;          /* -1: decided */
	bool connected;
	struct frame_reader reader;
	Gw__NodeInfo *info; /* the answer, validated; NULL: none, and why */
	struct err error;
};

/* One question to each; -ENOMEM. The caller frees them with questions_free. */
int ask_nodes(const struct daemon *d, const struct cluster_node *nodes, size_t n, struct question **ret, struct err *e);
void questions_free(struct question *q, size_t n);
/* Whether it takes what is sent to it, by its answer. */
bool node_takes(const Gw__NodeInfo *info);
/* The load vector of an answer; what an older version of Godwit does not say is 0. */
void node_load(const Gw__NodeInfo *info, struct load *ret);

#endif
