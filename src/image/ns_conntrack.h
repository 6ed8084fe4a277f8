/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_conntrack.h - the table of tracked connections of a network namespace that moves
 *
 * A filter that lets established connections pass, and translation of addresses, know by it what belongs together. It is read and made again over ctnetlink: tuples, states,
 * marks, labels, helpers, what is translated, and the time that is left. Counters and time stamps start over: the kernel takes them from nobody.
 */
#ifndef GODWIT_IMAGE_NS_CONNTRACK_H
#define GODWIT_IMAGE_NS_CONNTRACK_H

#include <stdbool.h>

#include "base/err.h"
#include "image/refuse.h"
#include "ns.pb-c.h"

/* Of the calling process's network namespace: the kernel's messages, empty where there is nothing. Quick when there is nothing. */
int conntrack_capture(ProtobufCBinaryData *ret, struct err *e);
/* What the table does not say. */
int conntrack_refuse(struct refusals *r, struct err *e);
/* Whether bytes from the other host are whole messages of that kind. */
bool conntrack_is_valid(const ProtobufCBinaryData *list);
/* Makes the table of the calling process's network namespace the one that was captured. */
int conntrack_restore(const ProtobufCBinaryData *list, struct err *e);

#endif
