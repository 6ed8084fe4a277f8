/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_link.h - the network devices of a unit's network namespace (ip-link(8))
 *
 * They keep their numbers. Of a pair of virtual Ethernet devices that leads to the host, the host's end is made at the destination under the same name (another, where that
 * is taken), and becomes a port of the bridge of the name that it was a port of, in the freeze: before that the unit's addresses are the source's.
 */
#ifndef GODWIT_IMAGE_NS_LINK_H
#define GODWIT_IMAGE_NS_LINK_H

#include "image/ns_list.h"
#include "image/refuse.h"

bool net_is_name(const char *name);
/* Source: judges list NET_LINKS, and fills peers and pairs. `host`: the host's network namespace; msg: the unit's. */
int net_links_capture(struct netlink *nl, int host, const Gw__Namespaces *msg, Gw__NsNet *net, struct refusals *r, struct err *e);

/* Destination: by which numbers the namespace knows those of the other ends, in all of them before the kernel chooses some, which it does with the devices. */
void net_pairs_number(struct netlink *nl, const Gw__NsNet *net);
/* Destination: makes the devices, switched off. `host`: a socket there, `host_ns` that namespace. Where the host lacks something, it is refused. */
int net_links_make(struct netlink *nl, struct netlink *host, int host_ns, const Gw__Namespaces *msg, const Gw__NsNet *net, struct refusals *r, struct err *e);
/* Switches on those that were on. */
int net_links_up(struct netlink *nl, const Gw__NsNet *net, struct err *e);
/* Waits for the carriers that there were, but for tun devices, which have theirs when a descriptor is attached. */
void net_links_settle(struct netlink *nl, const Gw__NsNet *net);

/* Puts the ends at the host into their bridges (destination); `name` is changed to what they are called here by net_links_make. */
int net_peers_attach(struct netlink *host, const Gw__NsNet *net, struct err *e);
/* Undoes it. */
void net_peers_detach(struct netlink *host, const Gw__NsNet *net);
/* Source: whether frames pass between the bridges and the unit. */
void net_peers_pass(struct netlink *host, const Gw__NsNet *net, bool pass);
/*
 * Source, when the unit runs elsewhere: takes the ends out of their bridges, and removes bridges that were made for it (ns_bridge.h). The pairs end with the namespace: where somebody
 * keeps that (podman, until the container is removed), he looks for them in there.
 */
void net_peers_part(struct netlink *host, const Gw__NsNet *net);

#endif
