/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_publish.h - ports of the host that its rules lead to a unit (podman run --publish) */
#ifndef GODWIT_IMAGE_NS_PUBLISH_H
#define GODWIT_IMAGE_NS_PUBLISH_H

#include "ns.pb-c.h"

/* Source, when the addresses are known: they are rules of the host, and stay. The user is told (notes.h). host_ns: the host's network namespace. */
void published_note(int host_ns, const Gw__Namespaces *msg);

#endif
