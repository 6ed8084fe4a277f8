/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_probe.c - see ns_probe.h */
#include "image/ns_probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/util.h"
#include "kern/nsfs.h"

#define PROBES 2u
#define PROBE_MS 25

struct __attribute__((packed)) arp {
	struct arphdr head;
	uint8_t from_hardware[6], from[4], to_hardware[6], to[4];
};

static int open_there(int ns, uint32_t index)
{
	cleanup_close int here = ns_open(0, NS_NET);
	struct sockaddr_ll own = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = (int)index };
	int fd;

	if (here < 0 || ns_enter(ns, NS_NET) < 0)
		return -1;
	fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ns_enter(here, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
	if (fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		close_fdp(&fd);
	return fd;
}

static bool ask(int fd, uint32_t index, const uint8_t address[4])
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = (int)index, .sll_halen = 6, .sll_addr = { 255, 255, 255, 255, 255, 255 } };
	struct sockaddr_ll own;
	socklen_t len = sizeof(own);
	struct arp arp = { .head = { htons(ARPHRD_ETHER), htons(ETH_P_IP), 6, 4, htons(ARPOP_REQUEST) } };

	if (getsockname(fd, (struct sockaddr *)&own, &len) < 0 || own.sll_halen != 6)
		return false;
	memcpy(arp.from_hardware, own.sll_addr, 6);
	memcpy(arp.to, address, 4);
	return sendto(fd, &arp, sizeof(arp), 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)sizeof(arp);
}

/* Whether an answer has come that tells of somebody else. */
static bool is_answered(int fd, const uint8_t address[4], const uint8_t own[6])
{
	struct arp arp;

	while (recv(fd, &arp, sizeof(arp), 0) >= (ssize_t)sizeof(arp))
		if (arp.head.ar_op == htons(ARPOP_REPLY) && !memcmp(arp.from, address, 4) && !(own && !memcmp(arp.from_hardware, own, 6)))
			return true;
	return false;
}

bool probe_is_taken(int ns, uint32_t index, const uint8_t address[4], const uint8_t own[6])
{
	cleanup_close int fd = open_there(ns, index);
	struct pollfd p = { fd, POLLIN, 0 };

	for (unsigned i = 0; fd >= 0 && i < PROBES && ask(fd, index, address); i++) {
		uint64_t end = clock_ns(CLOCK_MONOTONIC) + PROBE_MS * 1000000ull, now;

		while ((now = clock_ns(CLOCK_MONOTONIC)) < end)
			if (poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0 && is_answered(fd, address, own))
				return true;
	}
	return false;
}
