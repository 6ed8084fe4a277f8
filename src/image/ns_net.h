/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_net.h - what a unit has set up in a network namespace of its own: devices, lists of rtnetlink(7), settings, rules of filters; see ns.h */
#ifndef GODWIT_IMAGE_NS_NET_H
#define GODWIT_IMAGE_NS_NET_H

#include <stdbool.h>

#include "base/err.h"
#include "image/refuse.h"
#include "ns.pb-c.h"

int ns_net_validate(const Gw__NsNet *net, struct err *e);

/* Source, in the unit's network namespace; `host_ns`: the host's. From then on changes are watched. */
int ns_net_capture(int host_ns, Gw__NsNet **ret, struct refusals *r, struct err *e);
/*
 * In the freeze: -EAGAIN when it has changed since; tracked connections, which change all the time, are read anew. Nothing passes between the host's bridges and the unit
 * any more, until ns_net_thaw.
 */
int ns_net_freeze(Gw__NsNet *net, struct err *e);
void ns_net_thaw(const Gw__NsNet *net);
/* The unit runs elsewhere: removes the ends at the host of its pairs. */
void ns_net_gone(const Gw__NsNet *net);
/* Ends the watch. */
void ns_net_leave(void);

/* Destination, before the worker enters the new namespace: remembers the host's. */
int ns_net_remember_host(struct err *e);
/* In the new namespace: fills it. */
int ns_net_restore(const Gw__NsNet *net, struct refusals *r, struct err *e);
/* In the freeze: makes the tracked connections that there were at the source's, and connects it to the host's bridges. */
int ns_net_attach(const Gw__NsNet *net, const ProtobufCBinaryData *connections, struct err *e);
/* When the unit runs here: tells the neighbours where its addresses are now. */
void ns_net_announce(const Gw__NsNet *net);

#endif
