/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_publish.h - ports of the host that its rules lead to a unit (podman run --publish), and what its bridge needs to reach others
 *
 * The rules themselves are the host's, and stay. What they do for the unit is read from what nft(8) prints: a port of the host whose packets get the unit's address
 * (NsNet.published), and whether packets from the bridge's network get the host's (NsPeer.masqueraded). At the destination a table of its own does the same as long as the unit is
 * there; the latter only with a bridge that was made for it. A port that is only for one address or device of the host is not opened elsewhere, nor
 * one that somebody has there. Of all of it the user is told (notes.h).
 */
#ifndef GODWIT_IMAGE_NS_PUBLISH_H
#define GODWIT_IMAGE_NS_PUBLISH_H

#include "base/err.h"
#include "ns.pb-c.h"

/* Source, when the addresses are known. host_ns: the host's network namespace. */
void published_capture(int host_ns, Gw__Namespaces *msg);
/* The part of it that reads what nft has printed, which it takes apart; NULL: nothing. */
void published_read(char *text, Gw__Namespaces *msg);
int published_validate(const Gw__NsNet *net, struct err *e);
/* Destination: `present` where a rule of the host is there already (at home). */
void published_look(int host_ns, const Gw__Namespaces *msg);
/* Destination, when the network is there: makes the rules, and has a bridge that was made removed with the unit. */
int published_make(const Gw__Namespaces *msg, struct err *e);

#endif
