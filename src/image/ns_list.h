/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_list.h - what a network namespace has been told over rtnetlink(7): addresses, routes, rules and so on
 *
 * Each list is what the kernel's dump of it says, message after message. To restore one is to make the kernel's list here say the same: what is there and is not in the
 * list is removed, what is missing is added. So it does not matter what the kernel has made by itself when devices came up.
 */
#ifndef GODWIT_IMAGE_NS_LIST_H
#define GODWIT_IMAGE_NS_LIST_H

#include <stdbool.h>

#include "base/err.h"
#include "kern/netlink.h"
#include "ns.pb-c.h"

enum net_list { NET_LINKS, NET_ADDRESSES, NET_NEXTHOPS, NET_RULES, NET_ROUTES, NET_NEIGHBOURS, NET_FORWARDING, NET_LABELS, NET_LISTS };

/* Whether bytes from the other host are whole messages of that kind. */
bool net_list_is_valid(enum net_list kind, const ProtobufCBinaryData *list);
int net_list_capture(struct netlink *nl, enum net_list kind, ProtobufCBinaryData *ret, struct err *e);
/* Not for NET_LINKS, which ns_link_make.c makes. */
int net_list_restore(struct netlink *nl, enum net_list kind, const ProtobufCBinaryData *list, struct err *e);

/* Those of NET_ADDRESSES of which it is known that nobody else has them (duplicate address detection); the caller frees the data. */
void net_settled_addresses(const ProtobufCBinaryData *all, ProtobufCBinaryData *ret);

#define net_list_for_each(m, list)                                                                                                 \
	for (int left_ = (int)(list)->len, once_ = 1; once_; once_ = 0)                                                            \
		for (const struct nlmsghdr *m = (const void *)(list)->data; mnl_nlmsg_ok(m, left_); m = mnl_nlmsg_next(m, &left_)) /* NOLINT(bugprone-macro-parentheses) */

#endif
