/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gossip_packet.h - gossip messages as datagrams: always of the same size, authenticated by the key of the cluster
 *
 *	offset  bytes
 *	0       4      "GWg1"
 *	4       1      entries that are used, 1 to GOSSIP_WINDOW
 *	5       3      0
 *	8       112    each entry: id u64, version u64, age u32 in ms, port u16, state u8, hops u8, address[16], indices f32[18]; unused ones are 0
 *	904     32     HMAC-SHA256 (RFC 2104) of all before it; 0 in a cluster without a key
 *
 * Numbers are little-endian, floats IEEE 754. A message told anew by a stranger changes nothing: versions only grow (gossip.h).
 */
#ifndef GODWIT_CLUSTER_GOSSIP_PACKET_H
#define GODWIT_CLUSTER_GOSSIP_PACKET_H

#include "cluster/gossip.h"

#define GOSSIP_KEY_BYTES 32
#define GOSSIP_ENTRY_BYTES 112
#define GOSSIP_MAC_AT (8 + GOSSIP_WINDOW * GOSSIP_ENTRY_BYTES)
#define GOSSIP_PACKET_BYTES (GOSSIP_MAC_AT + 32)

/* key NULL: none. -EIO: the HMAC cannot be computed. */
int gossip_packet_encode(const struct gossip_message *m, const uint8_t *key, uint8_t ret[GOSSIP_PACKET_BYTES], struct err *e);
/* -EPROTO: it is no message, or has values that cannot be. -EACCES: it does not come from this cluster. */
int gossip_packet_decode(const uint8_t *data, size_t len, const uint8_t *key, struct gossip_message *ret, struct err *e);

#endif
