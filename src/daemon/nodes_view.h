/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nodes_view.h - the nodes as the policies want them (cluster/policy.h), with their names */
#ifndef GODWIT_DAEMON_NODES_VIEW_H
#define GODWIT_DAEMON_NODES_VIEW_H

#include "cluster/policy.h"
#include "daemon/daemon.h"

#define NODES_VIEW_MAX 256 /* of a cluster with more, those of which the most recent things are known: gossip makes these others on each node */

struct nodes_view {
	size_t n;                  /* at least 1; the first node is this one */
	struct policy_node *nodes; /* with what was sent to them lately */
	struct view_name {
		char name[HELLO_NAME_MAX + 1];
		struct sockaddr_in address;
	} *names;
};

/* Those that are reachable, as gossip says: at once, and as old as age_s says. */
int nodes_view_known(const struct daemon *d, struct nodes_view *ret, struct err *e);
/* The same, but each is asked how it is now, and those that do not answer are left out. May wait a second for them. */
int nodes_view_take(const struct daemon *d, struct nodes_view *ret, struct err *e);
void nodes_view_free(struct nodes_view *v);

#endif
