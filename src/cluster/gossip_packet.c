// SPDX-License-Identifier: LGPL-2.1-or-later
/* gossip_packet.c - see gossip_packet.h */
#include "cluster/gossip_packet.h"

#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "base/util.h"

static const uint8_t magic[4] = "GWg2";

_Static_assert(LOAD_INDICES == 18, "the packet has 18 indices: a new one needs another version of it");

static uint8_t *put(uint8_t *at, const void *value, size_t len)
{
	memcpy(at, value, len);
	return at + len;
}

static const uint8_t *get(const uint8_t *at, void *ret, size_t len)
{
	memcpy(ret, at, len);
	return at + len;
}

static uint8_t *put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	return put(at, &v, sizeof(v));
}

static uint8_t *put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	return put(at, &v, sizeof(v));
}

static uint64_t get64(const uint8_t **at)
{
	uint64_t v;

	*at = get(*at, &v, sizeof(v));
	return le64toh(v);
}

static uint32_t get32(const uint8_t **at)
{
	uint32_t v;

	*at = get(*at, &v, sizeof(v));
	return le32toh(v);
}

static void encode_entry(const struct gossip_entry *entry, uint8_t *at)
{
	uint16_t port = htole16(entry->port);

	at = put64(at, entry->id);
	at = put64(at, entry->version);
	at = put32(at, (uint32_t)MIN(entry->measured_ms, UINT32_MAX));
	at = put(at, &port, sizeof(port));
	at = put(at, &entry->state, 1);
	at = put(at, &entry->hops, 1);
	at = put(at, entry->address, sizeof(entry->address));
	at = put32(at, entry->facts);
	at = put32(at, entry->units);
	for (int i = 0; i < LOAD_INDICES; i++) {
		float f = (float)entry->load.v[i];
		uint32_t bits;

		memcpy(&bits, &f, sizeof(bits));
		at = put32(at, bits);
	}
}

static int decode_entry(const uint8_t *at, struct gossip_entry *ret, struct err *e)
{
	uint16_t port;
	uint32_t units;

	ret->id = get64(&at);
	ret->version = get64(&at);
	ret->measured_ms = get32(&at);
	at = get(at, &port, sizeof(port));
	ret->port = le16toh(port);
	at = get(at, &ret->state, 1);
	at = get(at, &ret->hops, 1);
	at = get(at, ret->address, sizeof(ret->address));
	ret->facts = get32(&at);
	units = get32(&at);
	ret->units = (uint16_t)MIN(units, UINT16_MAX);
	for (int i = 0; i < LOAD_INDICES; i++) {
		uint32_t bits = get32(&at);
		float f;

		memcpy(&f, &bits, sizeof(f));
		ret->load.v[i] = (double)f;
	}
	if (!ret->id || ret->state < NODE_OK || ret->state >= NODE_STATES || ret->hops > GOSSIP_HOPS || units > UINT16_MAX)
		return err_set(e, -EPROTO, "gossip: an entry that cannot be");
	return load_check(&ret->load, e);
}

static int make_mac(const uint8_t *data, const uint8_t *key, uint8_t ret[GOSSIP_PACKET_BYTES - GOSSIP_MAC_AT], struct err *e)
{
	int code;

	memset(ret, 0, GOSSIP_PACKET_BYTES - GOSSIP_MAC_AT);
	code = key ? gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, GOSSIP_KEY_BYTES, data, GOSSIP_MAC_AT, ret) : 0;
	return code < 0 ? err_set(e, -EIO, "gossip: HMAC: %s", gnutls_strerror(code)) : 0;
}

static void encode_facts(const struct gossip_facts *facts, uint8_t *at)
{
	at = put64(at, facts->id);
	at = put(at, facts->name, sizeof(facts->name));
	at = put(at, facts->labels, sizeof(facts->labels));
	put(at, facts->kernel, sizeof(facts->kernel));
}

/* Printable, and nothing but 0 behind its end. */
static const uint8_t *get_text(const uint8_t *at, char *ret, size_t size, bool *good)
{
	size_t len = strnlen((const char *)at, size);

	*good = *good && len < size;
	for (size_t i = 0; i < size; i++)
		*good = *good && (i < len ? at[i] >= ' ' && at[i] <= '~' : at[i] == 0);
	return get(at, ret, size);
}

static int decode_facts(const uint8_t *at, struct gossip_facts *ret, struct err *e)
{
	bool good = true;

	ret->id = get64(&at);
	at = get_text(at, ret->name, sizeof(ret->name), &good);
	at = get_text(at, ret->labels, sizeof(ret->labels), &good);
	get_text(at, ret->kernel, sizeof(ret->kernel), &good);
	if (!good || !ret->name[0] || ret->id != gossip_id(ret->name))
		return err_set(e, -EPROTO, "gossip: facts that cannot be");
	return 0;
}

int gossip_packet_encode(const struct gossip_packet *p, const uint8_t *key, uint8_t ret[GOSSIP_PACKET_BYTES], struct err *e)
{
	size_t n = p->kind == GOSSIP_FACTS ? 0 : p->message.n;

	memset(ret, 0, GOSSIP_PACKET_BYTES);
	memcpy(ret, magic, sizeof(magic));
	ret[4] = (uint8_t)n;
	ret[5] = (uint8_t)p->kind;
	for (size_t i = 0; i < n; i++)
		encode_entry(&p->message.entries[i], ret + 8 + i * GOSSIP_ENTRY_BYTES);
	if (p->kind == GOSSIP_FACTS)
		encode_facts(&p->facts, ret + 8);
	return make_mac(ret, key, ret + GOSSIP_MAC_AT, e);
}

static int decode_body(const uint8_t *data, struct gossip_packet *ret, struct err *e)
{
	struct gossip_message *m = &ret->message;
	int code = 0;

	if (data[5] >= GOSSIP_KINDS)
		return err_set(e, -EPROTO, "gossip: kind %u", data[5]);
	ret->kind = (enum gossip_kind)data[5];
	m->n = data[4];
	if (ret->kind == GOSSIP_FACTS)
		return m->n ? err_set(e, -EPROTO, "gossip: facts with entries") : decode_facts(data + 8, &ret->facts, e);
	if (m->n < 1 || m->n > GOSSIP_WINDOW)
		return err_set(e, -EPROTO, "gossip: %zu entries", m->n);
	for (size_t i = 0; code == 0 && i < m->n; i++)
		code = decode_entry(data + 8 + i * GOSSIP_ENTRY_BYTES, &m->entries[i], e);
	return code;
}

int gossip_packet_decode(const uint8_t *data, size_t len, const uint8_t *key, struct gossip_packet *ret, struct err *e)
{
	uint8_t mac[GOSSIP_PACKET_BYTES - GOSSIP_MAC_AT];
	int code;

	if (len != GOSSIP_PACKET_BYTES || memcmp(data, magic, sizeof(magic)) != 0)
		return err_set(e, -EPROTO, "gossip: no message of this version");
	code = make_mac(data, key, mac, e);
	if (code < 0)
		return code;
	if (gnutls_memcmp(mac, data + GOSSIP_MAC_AT, sizeof(mac)) != 0)
		return err_set(e, -EACCES, "gossip: a message that was not made with the key of this cluster");
	return decode_body(data, ret, e);
}
