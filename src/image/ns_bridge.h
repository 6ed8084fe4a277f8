/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_bridge.h - the host's bridges that the network of a unit leads to (NsPeer)
 *
 * At the destination an end becomes a port of the bridge of the same name. Where that is lacking (podman removes its own with the last container) it is made, with the
 * addresses that it has at the source, since the unit's routes lead over them. One that was made is marked, and removed when the last unit has left it. What rules of the
 * host do for the unit is ns_publish.h's.
 *
 * An address of the unit that another one has there already is refused: as soon as the unit ran there, it would take the other's packets.
 */
#ifndef GODWIT_IMAGE_NS_BRIDGE_H
#define GODWIT_IMAGE_NS_BRIDGE_H

#include "image/ns_list.h"
#include "image/refuse.h"

/* Source: the addresses of an end's bridge (p->master). `host`: a socket in the host's namespace. */
void net_bridge_capture(struct netlink *host, Gw__NsPeer *p);
int net_bridge_validate(const Gw__NsPeer *p, struct err *e);
/* Destination: makes it if it is lacking. Also looks whether the unit's addresses of that device are free there. */
int net_bridge_provide(struct netlink *host, int host_ns, const Gw__NsNet *net, Gw__NsPeer *p, struct refusals *r, struct err *e);
/* Makes it again: another unit that had it has just left. */
int net_bridge_again(struct netlink *host, const Gw__NsPeer *p, struct err *e);
/* Removes it if it was made for a unit and has no ports. False: it has. */
bool net_bridge_release(struct netlink *host, const char *name);
/* Destination: removes those that this worker has made. */
void net_bridges_undo(struct netlink *host);

/* 0: there is none of that name. */
uint32_t net_number_of(struct netlink *nl, const char *name);

#endif
