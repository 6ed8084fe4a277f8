// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_gossip.c - datagrams of other nodes, in a cluster without a key, and what they do to a table */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cluster/gossip_packet.h"
#include "cluster/members.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct gossip_entry self = { .id = 1, .version = 5, .state = NODE_OK, .measured_ms = 200000 };
	uint8_t packet[GOSSIP_PACKET_BYTES] = { 0 };
	static const uint8_t from[16] = { [10] = 0xff, [11] = 0xff, [12] = 10 };
	struct gossip_packet p;
	struct members members;
	struct rng rng = { 1 };
	struct member *to[1 + MEMBERS_DOUBTED];
	struct gossip g;
	struct err e = ERR_INIT;

	memcpy(packet, data, MIN(len, (size_t)GOSSIP_MAC_AT));
	if (gossip_packet_decode(packet, sizeof(packet), NULL, &p, &e) < 0)
		return e.message[0] ? 0 : (abort(), 0);
	if (gossip_init(&g, &self, 9, NULL) < 0)
		return 0;
	if (members_init(&members, 1, 8, NULL) < 0)
		abort();
	for (int i = 0; i < 3; i++) {
		uint64_t now = 200000 + 1000 * (uint64_t)i;

		if (p.kind == GOSSIP_FACTS) {
			members_facts(&members, &g, &p.facts);
			continue;
		}
		members_heard(&members, &g, &p.message, from, 4470, now);
		gossip_merge(&g, &p.message, now);
		members_expire(&members, now);
		members_probe(&members, &g, &rng, now, to);
		members_unknown(&members, &g, now, to, ARRAY_SIZE(to));
	}
	if (g.n > g.capacity || g.ids[0] != 1 || members.n > members.capacity || members_find(&members, 1))
		abort();
	gossip_tell(&g, 300000, &p.message);
	p.kind = GOSSIP_ANSWER;
	if (p.message.n < 1 || p.message.n > GOSSIP_WINDOW || p.message.entries[0].id != 1 || gossip_packet_encode(&p, NULL, packet, &e) < 0 ||
	    gossip_packet_decode(packet, sizeof(packet), NULL, &p, &e) < 0)
		abort();
	members_free(&members);
	gossip_free(&g);
	return 0;
}
