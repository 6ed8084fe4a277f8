// SPDX-License-Identifier: LGPL-2.1-or-later
/* members.c - the table of members, and whom to talk to; see members.h */
#include "cluster/members.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

int members_init(struct members *m, uint64_t self, size_t capacity, struct err *e)
{
	*m = (struct members){ .capacity = capacity, .self = self };
	m->v = calloc(capacity, sizeof(*m->v));
	m->ids = calloc(capacity, sizeof(*m->ids));
	if (m->v && m->ids && id_index_init(&m->index, capacity) == 0)
		return 0;
	members_free(m);
	return err_sys(e, -ENOMEM, "the table of members");
}

void members_free(struct members *m)
{
	freep(&m->v);
	freep(&m->ids);
	freep(&m->index.at);
	m->n = 0;
}

struct member *members_find(const struct members *m, uint64_t id)
{
	size_t i = id_index_find(&m->index, m->ids, id);

	return i == SIZE_MAX ? NULL : &m->v[i];
}

bool member_reachable(const struct member *member)
{
	return member->missed < MEMBERS_MISSES;
}

/* Where a new one goes: the room of the learned one that was heard of longest ago, when there is no other. NULL: all are fixed. */
static struct member *room(struct members *m)
{
	struct member *oldest = NULL;

	if (m->n < m->capacity)
		return &m->v[m->n++];
	for (size_t i = 0; i < m->n; i++)
		if (!m->v[i].fixed && // NOLINT(clang-analyzer-core.NullDereference): where there are any, there is room for them
		    (!oldest || m->v[i].heard_ms < oldest->heard_ms))
			oldest = &m->v[i];
	return oldest;
}

static struct member *add(struct members *m, uint64_t id, uint64_t now_ms)
{
	struct member *member = room(m);

	if (!member)
		return NULL;
	*member = (struct member){ .id = id, .heard_ms = now_ms };
	id_index_set(&m->index, m->ids, (size_t)(member - m->v), id);
	return member;
}

static void move(struct member *member, const uint8_t address[16], uint16_t port)
{
	memcpy(member->address, address, sizeof(member->address));
	member->port = port;
}

bool members_fix(struct members *m, const char *name, const uint8_t address[16], uint16_t port, uint64_t now_ms)
{
	uint64_t id = gossip_id(name);
	struct member *member = members_find(m, id);

	if (id == m->self)
		return true;
	if (!member)
		member = add(m, id, now_ms);
	if (!member)
		return false;
	if (!member->facts_hash) {
		member->facts = (struct gossip_facts){ .id = id };
		strncpy(member->facts.name, name, GOSSIP_NAME_MAX);
	}
	member->fixed = true;
	move(member, address, port);
	return true;
}

void members_unfix(struct members *m, uint64_t id)
{
	struct member *member = members_find(m, id);

	if (member)
		member->fixed = false;
}

static bool is_zero(const uint8_t address[16])
{
	static const uint8_t none[16];

	return memcmp(address, none, sizeof(none)) == 0;
}

/* A node sends the same version more than once, and others may have told of it before. */
static bool is_same_period(const struct gossip_entry *known, const struct gossip_entry *entry, uint64_t now_ms)
{
	return known->version == entry->version && gossip_age_ms(known, now_ms) < 2 * GOSSIP_PERIOD_MS;
}

static void hear(struct members *m, const struct gossip *before, const struct gossip_entry *entry, bool itself, uint64_t now_ms)
{
	const struct gossip_entry *known = gossip_find(before, entry->id);
	struct member *member = members_find(m, entry->id);

	if (entry->id == m->self || (known && known->version >= entry->version && !(itself && is_same_period(known, entry, now_ms))))
		return; /* nothing new: it may be told anew by a stranger */
	if (!member && !is_zero(entry->address) && entry->measured_ms < GOSSIP_FORGET_MS)
		member = add(m, entry->id, now_ms);
	if (!member)
		return;
	if (!known || known->version < entry->version)
		member->heard_ms = now_ms - MIN(entry->measured_ms, now_ms);
	if (!member->fixed && !is_zero(entry->address))
		move(member, entry->address, entry->port);
	if (!itself)
		return;
	member->answered_ms = now_ms;
	member->probed_ms = 0;
	member->missed = 0;
}

void members_heard(struct members *m, const struct gossip *before, struct gossip_message *message, const uint8_t from[16], uint16_t from_port, uint64_t now_ms)
{
	struct gossip_entry *sender = &message->entries[0];

	if (is_zero(sender->address)) {
		memcpy(sender->address, from, sizeof(sender->address));
		sender->port = from_port;
	}
	for (size_t i = 0; i < message->n; i++)
		hear(m, before, &message->entries[i], i == 0, now_ms);
}

bool members_facts(struct members *m, const struct gossip *g, const struct gossip_facts *facts)
{
	struct member *member = members_find(m, facts->id);
	const struct gossip_entry *entry = gossip_find(g, facts->id);
	uint32_t hash = gossip_facts_hash(facts);

	if (!member || !entry || entry->facts != hash)
		return false;
	member->facts = *facts;
	member->facts_hash = hash;
	return true;
}

size_t members_unknown(struct members *m, const struct gossip *g, uint64_t now_ms, struct member *ret[], size_t max)
{
	size_t n = 0;

	for (size_t i = 1; i < g->n && n < max; i++) {
		const struct gossip_entry *entry = &g->entries[i];
		struct member *member = entry->facts ? members_find(m, entry->id) : NULL;

		if (!member || member->facts_hash == entry->facts || (member->asked_ms && now_ms - member->asked_ms < MEMBERS_ASK_MS) ||
		    gossip_age_ms(entry, now_ms) >= GOSSIP_FORGET_MS)
			continue;
		member->asked_ms = now_ms;
		ret[n++] = member;
	}
	return n;
}

/* The last one takes its place. */
static void remove_at(struct members *m, size_t i)
{
	size_t last = --m->n;

	id_index_set(&m->index, m->ids, i, 0);
	if (i == last)
		return;
	id_index_set(&m->index, m->ids, last, 0);
	m->v[i] = m->v[last];
	id_index_set(&m->index, m->ids, i, m->v[i].id);
}

bool members_expire(struct members *m, uint64_t now_ms)
{
	bool lost = false;

	for (size_t i = 0; i < m->n;) {
		struct member *member = &m->v[i];

		if (!member->fixed && now_ms - member->heard_ms >= MEMBERS_DROP_MS) {
			remove_at(m, i);
			continue;
		}
		if (member->probed_ms && now_ms - member->probed_ms >= MEMBERS_ANSWER_MS) {
			member->probed_ms = 0;
			member->missed++;
			lost |= member->missed == MEMBERS_MISSES;
		}
		i++;
	}
	return lost;
}

/* `g`: what is known of it. */
static bool is_doubted(const struct member *member, const struct gossip *g, uint64_t now_ms)
{
	const struct gossip_entry *entry;

	if (member->missed)
		return true;
	entry = gossip_find(g, member->id);
	return !entry || gossip_age_ms(entry, now_ms) >= MEMBERS_OLD_MS;
}

size_t members_probe(struct members *m, const struct gossip *g, struct rng *rng, uint64_t now_ms, struct member *ret[1 + MEMBERS_DOUBTED])
{
	size_t n = 0, first = m->next_doubted;

	if (!m->n)
		return 0;
	ret[n++] = &m->v[rng_below(rng, m->n)];
	for (size_t i = 0; i < m->n && n < 1 + MEMBERS_DOUBTED; i++) {
		size_t at = (first + i) % m->n;

		if (&m->v[at] == ret[0] || !is_doubted(&m->v[at], g, now_ms))
			continue;
		ret[n++] = &m->v[at];
		m->next_doubted = at + 1;
	}
	for (size_t i = 0; i < n; i++)
		if (!ret[i]->probed_ms)
			ret[i]->probed_ms = now_ms;
	return n;
}

size_t members_choose(struct members *m, struct rng *rng, struct member *ret[], size_t max)
{
	size_t n = 0, seen = 0;

	for (size_t i = 0; i < m->n; i++) { /* each with the same chance: reservoir sampling */
		if (!member_reachable(&m->v[i]))
			continue;
		seen++;
		if (n < max) {
			ret[n++] = &m->v[i];
		} else {
			size_t at = (size_t)rng_below(rng, seen);

			if (at < max)
				ret[at] = &m->v[i];
		}
	}
	return n;
}
