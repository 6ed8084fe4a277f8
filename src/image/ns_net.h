/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_net.h - what a unit has set up in a network namespace of its own: devices, lists of rtnetlink(7), settings, rules of filters; see ns.h */
#ifndef GODWIT_IMAGE_NS_NET_H
#define GODWIT_IMAGE_NS_NET_H

#include <stdbool.h>

#include "base/err.h"
#include "image/refuse.h"
#include "ns.pb-c.h"

int ns_net_validate(const Gw__NsNet *net, struct err *e);

/* All functions are about every network namespace of the unit: that of the first process, which the worker is in, and others (ns_other.h). */

/* Source: when it is known which there are. From then on changes are watched. */
int ns_nets_capture(Gw__Namespaces *msg, struct refusals *r, struct err *e);
/*
 * In the freeze: -EAGAIN when one has changed since; tracked connections of the first process's, which change all the time, are read anew. Nothing passes between the host's bridges and the unit any more,
 * until ns_nets_thaw.
 */
int ns_nets_freeze(Gw__Namespaces *msg, struct err *e);
void ns_nets_thaw(const Gw__Namespaces *msg);
/* The unit runs elsewhere: parts the ends of its pairs from the host's bridges. */
void ns_nets_gone(const Gw__Namespaces *msg);
/* Ends the watch. */
void ns_nets_leave(void);

/* Destination, when they are there: fills them. */
int ns_nets_restore(const Gw__Namespaces *msg, struct refusals *r, struct err *e);
/* In the freeze: makes the tracked connections that there were in the first process's, and connects all to the host's bridges. */
int ns_nets_attach(const Gw__Namespaces *msg, const ProtobufCBinaryData *connections, struct err *e);
/* When nothing came of it: removes bridges of the host that were made for it. */
void ns_nets_undo(const Gw__Namespaces *msg);
/* When the unit runs here: tells the neighbours where its addresses are now. */
void ns_nets_announce(const Gw__Namespaces *msg);
/* Of one, in that (ns_announce.c). */
void ns_net_announce(const Gw__NsNet *net);

/* The network namespaces of a message: the i-th, NULL behind the last, and its number. */
Gw__NsNet *ns_net_of(const Gw__Namespaces *msg, size_t i, uint32_t *ret_number);

#endif
