/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tun_holder.h - who has made the tun and tap interfaces of a unit's network namespaces
 *
 * The packets of such an interface go to whoever holds its descriptor. When that is a process outside (slirp4netns, pasta, a VPN), it stays behind, and the interface
 * would lead nowhere.
 */
#ifndef GODWIT_IMAGE_TUN_HOLDER_H
#define GODWIT_IMAGE_TUN_HOLDER_H

#include "file.pb-c.h"
#include "image/refuse.h"
#include "ns.pb-c.h"

/* Source: refuses interfaces that others than the unit hold, but for those that can be started anew (tun_helper.h); fds: the descriptors of its processes (NULL: none). */
void tun_check_holders(Gw__Namespaces *ns, const Gw__FdTable *fds, struct refusals *r);
/* The descriptor by which a process holds the interface `name` of that network namespace (ns_id_of); the caller's. -1: it does not. */
int tun_get_held(pid_t pid, const char *name, uint64_t ns);

#endif
