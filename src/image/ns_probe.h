/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_probe.h - whether somebody has an address (RFC 5227, "ARP probe") */
#ifndef GODWIT_IMAGE_NS_PROBE_H
#define GODWIT_IMAGE_NS_PROBE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Asks over device `index` of network namespace `ns` who has the address (version 4), and waits some hundredths of a second for an answer. Those from `own`, the
 * hardware address of the one that is to have it (NULL: none), do not count: where the bridges of two hosts are connected, it is the unit itself that answers.
 */
bool probe_is_taken(int ns, uint32_t index, const uint8_t address[4], const uint8_t own[6]);

#endif
