/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gossip_packet.h - gossip messages as datagrams: always of the same size, authenticated by the key of the cluster
 *
 *	offset  bytes
 *	0       4      "GWg2"
 *	4       1      entries that are used, 1 to GOSSIP_WINDOW; 0 with FACTS
 *	5       1      enum gossip_kind
 *	6       2      0
 *	8       120    each entry: id u64, version u64, age u32 in ms, port u16, state u8, hops u8, address[16], facts u32, units u16, 0 u16, indices f32[18]; unused ones are 0
 *	               with FACTS: id u64, name[65], labels[256], kernel[129], each text with 0 behind it up to its end
 *	968     32     HMAC-SHA256 (RFC 2104) of all before it; 0 in a cluster without a key
 *
 * Numbers are little-endian, floats IEEE 754. A message told anew by a stranger changes nothing: versions only grow (gossip.h), and facts are checked against the hash in the
 * entry of their node. No answer is larger than its question.
 */
#ifndef GODWIT_CLUSTER_GOSSIP_PACKET_H
#define GODWIT_CLUSTER_GOSSIP_PACKET_H

#include "cluster/gossip.h"

#define GOSSIP_KEY_BYTES 32
#define GOSSIP_ENTRY_BYTES 120
#define GOSSIP_MAC_AT (8 + GOSSIP_WINDOW * GOSSIP_ENTRY_BYTES)
#define GOSSIP_PACKET_BYTES (GOSSIP_MAC_AT + 32)

enum gossip_kind {
	GOSSIP_NEWS,     /* nothing is answered */
	GOSSIP_PROBE,    /* to be answered at once: are you there? */
	GOSSIP_ANSWER,   /* to a probe */
	GOSSIP_QUESTION, /* what are you? */
	GOSSIP_FACTS,    /* the answer to that */
	GOSSIP_KINDS
};

struct gossip_packet {
	enum gossip_kind kind;
	struct gossip_message message; /* all but FACTS */
	struct gossip_facts facts;     /* FACTS */
};

/* key NULL: none. -EIO: the HMAC cannot be computed. */
int gossip_packet_encode(const struct gossip_packet *p, const uint8_t *key, uint8_t ret[GOSSIP_PACKET_BYTES], struct err *e);
/* -EPROTO: it is no message, or has values that cannot be. -EACCES: it does not come from this cluster. Texts are printable ASCII. */
int gossip_packet_decode(const uint8_t *data, size_t len, const uint8_t *key, struct gossip_packet *ret, struct err *e);

#endif
