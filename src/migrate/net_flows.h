/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* net_flows.h - lists of the ends (net/redirect.h) that a unit has, and how they are told */
#ifndef GODWIT_MIGRATE_NET_FLOWS_H
#define GODWIT_MIGRATE_NET_FLOWS_H

#include "control.pb-c.h"
#include "image/file.h"
#include "net/redirect.h"

#define NET_FLOWS_MAX 1048576u

struct net_flows {
	struct redirect_flow *v; /* ascending, none twice */
	size_t n, room;
};

/* All ends that the unit's sockets are. r: to find out what a socket that is bound to every address listens to; NULL: such are left out. */
int net_flows_of(const Gw__FdTable *t, struct redirect *r, struct net_flows *ret, struct err *e);
/* The same, of the last capture, but left out are those of descriptions that have not changed since this was called before (fdtable_list_fresh_ends). */
int net_flows_of_fresh(struct fdtable *t, struct redirect *r, struct net_flows *ret, struct err *e);
bool net_flows_has(const struct net_flows *l, const struct redirect_flow *f);
/* Those of `l` that `known` does not have. */
void net_flows_new(const struct net_flows *l, const struct net_flows *known, struct net_flows *ret);
void net_flows_merge(struct net_flows *l, const struct net_flows *more);
bool net_flows_have_ipv6(const struct net_flows *l);
bool net_flow_is_connection(const struct redirect_flow *f);
void net_flows_free(struct net_flows *l);

/* self: this host, as the destination reaches it. Freed by net_flows_release. */
void net_flows_encode(const struct net_flows *l, struct redirect *r, const struct redirect_node *self, Gw__NetFlow ***ret, size_t *ret_n);
void net_flows_release(Gw__NetFlow **v, size_t n);
/* *ret_known: as many, malloc'ed, and not checked. */
int net_flows_decode(Gw__NetFlow *const *v, size_t n, struct net_flows *ret, struct redirect_known **ret_known, struct err *e);

void net_node_encode(const struct redirect_node *node, Gw__NetNode *ret); /* borrows */
int net_node_decode(const Gw__NetNode *node, struct redirect_node *ret, struct err *e);

#endif
