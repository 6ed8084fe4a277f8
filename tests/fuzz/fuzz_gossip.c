// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_gossip.c - datagrams of other nodes, in a cluster without a key, and what they do to a table */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cluster/gossip_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct gossip_entry self = { .id = 1, .version = 5, .state = NODE_OK, .measured_ms = 200000 };
	uint8_t packet[GOSSIP_PACKET_BYTES] = { 0 };
	struct gossip_message m;
	struct gossip g;
	struct err e = ERR_INIT;

	memcpy(packet, data, MIN(len, (size_t)GOSSIP_MAC_AT));
	if (gossip_packet_decode(packet, sizeof(packet), NULL, &m, &e) < 0)
		return e.message[0] ? 0 : (abort(), 0);
	if (gossip_init(&g, &self, 9, NULL) < 0)
		return 0;
	for (int i = 0; i < 3; i++)
		gossip_merge(&g, &m, 200000 + 1000 * (uint64_t)i);
	if (g.n > g.capacity || g.ids[0] != 1)
		abort();
	gossip_tell(&g, 300000, &m);
	if (m.n < 1 || m.n > GOSSIP_WINDOW || m.entries[0].id != 1 || gossip_packet_encode(&m, NULL, packet, &e) < 0 ||
	    gossip_packet_decode(packet, sizeof(packet), NULL, &m, &e) < 0)
		abort();
	gossip_free(&g);
	return 0;
}
