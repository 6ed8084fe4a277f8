/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_announce.c - tells the neighbours of a network where its addresses are now: ARP (RFC 826, RFC 5227) and neighbour advertisements (RFC 4861) nobody has asked for */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"

static void announce_v4(int index, const uint8_t hardware[6], const uint8_t address[4])
{
	cleanup_close int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = index, .sll_halen = 6, .sll_addr = { 255, 255, 255, 255, 255, 255 } };
	struct __attribute__((packed)) {
		struct arphdr head;
		uint8_t from_hardware[6], from[4], to_hardware[6], to[4];
	} arp = { .head = { htons(ARPHRD_ETHER), htons(ETH_P_IP), 6, 4, htons(ARPOP_REQUEST) } };

	memcpy(arp.from_hardware, hardware, 6);
	memcpy(arp.from, address, 4);
	memcpy(arp.to, address, 4);
	if (fd >= 0)
		(void)!sendto(fd, &arp, sizeof(arp), 0, (struct sockaddr *)&to, sizeof(to));
}

static void announce_v6(int index, const uint8_t hardware[6], const uint8_t address[16])
{
	cleanup_close int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
	struct sockaddr_in6 from = { .sin6_family = AF_INET6, .sin6_scope_id = (uint32_t)index };
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_scope_id = (uint32_t)index, .sin6_addr = { { { 0xff, 2, [15] = 1 } } } };
	struct __attribute__((packed)) {
		struct nd_neighbor_advert head;
		uint8_t option, units, hardware[6];
	} advert = { .option = ND_OPT_TARGET_LINKADDR, .units = 1 };
	int hops = 255;

	advert.head.nd_na_type = ND_NEIGHBOR_ADVERT;
	advert.head.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
	memcpy(&advert.head.nd_na_target, address, 16);
	memcpy(advert.hardware, hardware, 6);
	memcpy(&from.sin6_addr, address, 16);
	if (fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) == 0 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof(index)) == 0 && bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0)
		(void)!sendto(fd, &advert, sizeof(advert), 0, (struct sockaddr *)&to, sizeof(to));
}

static void announce_link(const Gw__NsNet *net, const struct net_link *l)
{
	net_list_for_each(m, &net->lists[NET_ADDRESSES]) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1], *local;

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		local = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
		if ((int)h->ifa_index != l->header->ifi_index || !local)
			continue;
		if (h->ifa_family == AF_INET && mnl_attr_get_payload_len(local) == 4)
			announce_v4(l->header->ifi_index, mnl_attr_get_payload(l->a[IFLA_ADDRESS]), mnl_attr_get_payload(local));
		if (h->ifa_family == AF_INET6 && mnl_attr_get_payload_len(local) == 16)
			announce_v6(l->header->ifi_index, mnl_attr_get_payload(l->a[IFLA_ADDRESS]), mnl_attr_get_payload(local));
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
