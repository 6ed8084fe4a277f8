/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tun_helper.h - slirp4netns(1), which carries the packets of a container's interface in user space
 *
 * It is a process of the host that holds the descriptor of a tap interface in the unit's network namespace, and has no state but that of connections to others, which do not
 * move anyway. So it stays behind, and at the destination another one is started with the same options. It ends with the unit there (host_keeper.h).
 */
#ifndef GODWIT_IMAGE_TUN_HELPER_H
#define GODWIT_IMAGE_TUN_HELPER_H

#include "image/ns.h"

/* Source: whether the process that holds `device` is one, with options that can be given to another; it is added to the message. */
bool tun_helper_capture(pid_t holder, const char *device, Gw__NsNet *net);
int tun_helpers_validate(const Gw__NsNet *net, struct err *e);
/* Destination, when the network is there. */
int tun_helpers_start(const Gw__Namespaces *msg, const struct ns_made *made, struct refusals *r, struct err *e);

#endif
