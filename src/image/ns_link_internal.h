/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_link_internal.h - a network device as the kernel describes it; shared by ns_link.c and ns_link_make.c */
#ifndef GODWIT_IMAGE_NS_LINK_INTERNAL_H
#define GODWIT_IMAGE_NS_LINK_INTERNAL_H

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "image/ns_list.h"

struct net_link {
	const struct ifinfomsg *header;
	const struct nlattr *a[IFLA_MAX + 1];
	const char *name, *kind;                            /* kind "": none */
	const struct nlattr *data, *slave_kind, *slave_data; /* of its kind, and of the device that it is a port of */
};

/* Points into m. False: no device. */
bool net_link_read(const struct nlmsghdr *m, struct net_link *l);
/* 0 without the attribute. */
uint32_t net_attr_u32(const struct nlattr *a);
/* The attributes of its kind, nested in IFLA_LINKINFO. */
void net_link_put_data(struct nlmsghdr *m, const struct net_link *l);
/* The hardware address of device `index`, six bytes, or NULL. */
const uint8_t *net_link_address(const Gw__NsNet *net, uint32_t index);

#endif
