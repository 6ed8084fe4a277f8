/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * neighbour.h - who has an address on a link, and telling its hosts where one is now: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861)
 */
#ifndef GODWIT_KERN_NEIGHBOUR_H
#define GODWIT_KERN_NEIGHBOUR_H

#include <stdint.h>

struct neighbour {
	int ns;              /* the network namespace (a descriptor) of the device, where the caller comes back from; -1: the caller's */
	uint32_t device;     /* of Ethernet */
	int family;          /* AF_INET, AF_INET6 */
	uint8_t address[16]; /* in network order; of IPv4 the first four bytes */
};

enum neighbour_answer { NEIGHBOUR_NOBODY, NEIGHBOUR_EXPECTED, NEIGHBOUR_OTHER };

/*
 * Asks up to `rounds` times who has the address, until somebody answers, and waits `round_ms` each time, also for others. NEIGHBOUR_OTHER, at once, when one answers that has not the hardware address `expected` (NULL:
 * nobody is); its own is in `other` then. NOBODY also when it cannot be asked.
 */
enum neighbour_answer neighbour_ask(const struct neighbour *n, unsigned rounds, int round_ms, const uint8_t expected[6], uint8_t other[6]);

/* Tells all hosts of the link that `hardware` has the address, which nobody has asked for. It must be an address of the device already. */
void neighbour_announce(const struct neighbour *n, const uint8_t hardware[6]);

#endif
