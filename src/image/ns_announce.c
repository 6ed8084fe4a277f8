/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_announce.c - tells the neighbours of a network where its addresses are now (kern/neighbour.h) */
#include <linux/if_addr.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/socket.h>

#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "kern/neighbour.h"

/* What the address is of; false for one that cannot be. */
static bool neighbour_of(const struct ifaddrmsg *h, const struct nlattr *local, struct neighbour *ret)
{
	uint16_t len = h->ifa_family == AF_INET ? 4 : 16;

	*ret = (struct neighbour){ .ns = -1, .device = h->ifa_index, .family = h->ifa_family };
	if ((h->ifa_family != AF_INET && h->ifa_family != AF_INET6) || mnl_attr_get_payload_len(local) != len)
		return false;
	memcpy(ret->address, mnl_attr_get_payload(local), len);
	return true;
}

static void announce_link(const Gw__NsNet *net, const struct net_link *l)
{
	net_list_for_each(m, &net->lists[NET_ADDRESSES]) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1], *local;
		struct neighbour n;

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		local = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
		if ((int)h->ifa_index != l->header->ifi_index || !local)
			continue;
		if (neighbour_of(h, local, &n))
			neighbour_announce(&n, mnl_attr_get_payload(l->a[IFLA_ADDRESS]));
	}
}

void ns_net_announce(const Gw__NsNet *net)
{
	if (!net->n_peers)
		return; /* nobody outside knows it */
	net_list_for_each(m, &net->lists[NET_LINKS]) {
		struct net_link l;

		if (net_link_read(m, &l) && l.header->ifi_type == ARPHRD_ETHER && l.header->ifi_flags & IFF_UP && l.a[IFLA_ADDRESS] &&
		    mnl_attr_get_payload_len(l.a[IFLA_ADDRESS]) == 6)
			announce_link(net, &l);
	}
}
