/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* neighbour.c - see neighbour.h */
#include "kern/neighbour.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "kern/nsfs.h"

#define HOPS 255 /* neighbour discovery: what has passed a router does not count */

struct __attribute__((packed)) arp {
	struct arphdr head;
	uint8_t from_hardware[6], from[4], to_hardware[6], to[4];
};

/* A solicitation or an advertisement, with the option that holds a hardware address. */
struct __attribute__((packed)) discovery {
	uint8_t type, code;
	uint16_t sum;
	uint32_t flags;
	uint8_t target[16];
	uint8_t option, units, hardware[6];
};

static int open_socket(const struct neighbour *n)
{
	cleanup_close int here = n->ns < 0 ? -1 : ns_open(0, NS_NET);
	int fd;

	if (n->ns >= 0 && (here < 0 || ns_enter(n->ns, NS_NET) < 0))
		return -1;
	fd = n->family == AF_INET ? socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6);
	if (n->ns >= 0 && ns_enter(here, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
	return fd;
}

/* --- version 4 --- */

static struct sockaddr_ll link_address(const struct neighbour *n)
{
	return (struct sockaddr_ll){ .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = (int)n->device };
}

static bool send_arp(int fd, const struct neighbour *n, const uint8_t hardware[6], bool tells)
{
	struct sockaddr_ll to = link_address(n);
	struct arp arp = { .head = { htons(ARPHRD_ETHER), htons(ETH_P_IP), 6, 4, htons(ARPOP_REQUEST) } };

	to.sll_halen = 6;
	memset(to.sll_addr, 255, 6);
	memcpy(arp.from_hardware, hardware, 6);
	memcpy(arp.to, n->address, 4);
	if (tells)
		memcpy(arp.from, n->address, 4);
	return sendto(fd, &arp, sizeof(arp), 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)sizeof(arp);
}

static bool ask_v4(int fd, const struct neighbour *n)
{
	struct sockaddr_ll own = { 0 };
	socklen_t len = sizeof(own);

	return getsockname(fd, (struct sockaddr *)&own, &len) == 0 && own.sll_halen == 6 && send_arp(fd, n, own.sll_addr, false);
}

static bool receive_v4(int fd, const struct neighbour *n, uint8_t hardware[6], bool *ret_answer)
{
	struct arp arp;
	ssize_t len = recv(fd, &arp, sizeof(arp), 0);

	*ret_answer = len >= (ssize_t)sizeof(arp) && arp.head.ar_op == htons(ARPOP_REPLY) && !memcmp(arp.from, n->address, 4);
	memcpy(hardware, arp.from_hardware, 6);
	return len >= 0;
}

/* --- version 6 --- */

static bool prepare_v6(int fd, const struct neighbour *n)
{
	struct icmp6_filter filter;
	int hops = HOPS, index = (int)n->device;

	ICMP6_FILTER_SETBLOCKALL(&filter);
	ICMP6_FILTER_SETPASS(ND_NEIGHBOR_ADVERT, &filter);
	return setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof(index)) == 0 && setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)) == 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) == 0 &&
	       setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof(index)) == 0;
}

static bool ask_v6(int fd, const struct neighbour *n)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_scope_id = n->device, .sin6_addr = { { { 0xff, 2, [11] = 1, 0xff } } } };
	struct discovery d = { .type = ND_NEIGHBOR_SOLICIT, .option = ND_OPT_SOURCE_LINKADDR, .units = 1 };
	struct ifreq request = { .ifr_ifindex = (int)n->device };

	/* Who does not know who asks does not answer a multicast. */
	if (ioctl(fd, SIOCGIFNAME, &request) < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return false;
	memcpy(d.hardware, request.ifr_hwaddr.sa_data, sizeof(d.hardware));
	memcpy(&to.sin6_addr.s6_addr[13], n->address + 13, 3);
	memcpy(d.target, n->address, 16);
	return sendto(fd, &d, sizeof(d), 0, (struct sockaddr *)&to, sizeof(to)) > 0;
}

static bool receive_v6(int fd, const struct neighbour *n, uint8_t hardware[6], bool *ret_answer)
{
	struct discovery d = { 0 };
	ssize_t len = recv(fd, &d, sizeof(d), 0);

	*ret_answer = len >= (ssize_t)sizeof(d) && d.type == ND_NEIGHBOR_ADVERT && !memcmp(d.target, n->address, 16) && d.option == ND_OPT_TARGET_LINKADDR;
	memcpy(hardware, d.hardware, 6);
	return len >= 0;
}

static void announce_v6(int fd, const struct neighbour *n, const uint8_t hardware[6])
{
	struct sockaddr_in6 from = { .sin6_family = AF_INET6, .sin6_scope_id = n->device };
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_scope_id = n->device, .sin6_addr = { { { 0xff, 2, [15] = 1 } } } };
	struct discovery d = { .type = ND_NEIGHBOR_ADVERT, .option = ND_OPT_TARGET_LINKADDR, .units = 1 };

	d.flags = ND_NA_FLAG_OVERRIDE;
	memcpy(d.target, n->address, 16);
	memcpy(d.hardware, hardware, 6);
	memcpy(&from.sin6_addr, n->address, 16);
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0)
		(void)!sendto(fd, &d, sizeof(d), 0, (struct sockaddr *)&to, sizeof(to));
}

/* --- both --- */

static bool begin(int fd, const struct neighbour *n)
{
	struct sockaddr_ll own = link_address(n);

	if (fd < 0)
		return false;
	return n->family == AF_INET ? bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0 : prepare_v6(fd, n);
}

/* What has arrived. */
static enum neighbour_answer read_answers(int fd, const struct neighbour *n, const uint8_t *expected, uint8_t other[6])
{
	enum neighbour_answer ret = NEIGHBOUR_NOBODY;
	uint8_t hardware[6] = { 0 };
	bool answer;

	while (n->family == AF_INET ? receive_v4(fd, n, hardware, &answer) : receive_v6(fd, n, hardware, &answer)) {
		if (!answer)
			continue;
		if (!expected || memcmp(hardware, expected, 6)) {
			memcpy(other, hardware, 6);
			return NEIGHBOUR_OTHER;
		}
		ret = NEIGHBOUR_EXPECTED;
	}
	return ret;
}

enum neighbour_answer neighbour_ask(const struct neighbour *n, unsigned rounds, int round_ms, const uint8_t expected[6], uint8_t other[6])
{
	cleanup_close int fd = open_socket(n);
	enum neighbour_answer ret = NEIGHBOUR_NOBODY;
	struct pollfd p = { fd, POLLIN, 0 };

	for (unsigned i = 0; i < rounds && ret == NEIGHBOUR_NOBODY && (i || begin(fd, n)) && (n->family == AF_INET ? ask_v4(fd, n) : ask_v6(fd, n)); i++) {
		uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)round_ms * 1000000u, now;

		while ((now = clock_ns(CLOCK_MONOTONIC)) < end) {
			enum neighbour_answer one = poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0 ? read_answers(fd, n, expected, other) : NEIGHBOUR_NOBODY;

			if (one == NEIGHBOUR_OTHER)
				return one;
			ret = MAX(ret, one);
		}
	}
	return ret;
}

void neighbour_announce(const struct neighbour *n, const uint8_t hardware[6])
{
	cleanup_close int fd = open_socket(n);

	if (!begin(fd, n))
		return;
	if (n->family == AF_INET)
		send_arp(fd, n, hardware, true);
	else
		announce_v6(fd, n, hardware);
}
