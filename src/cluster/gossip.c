// SPDX-License-Identifier: LGPL-2.1-or-later
/* gossip.c - the table of entries; see gossip.h */
#include "cluster/gossip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

uint64_t gossip_id(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
	return hash ? hash : 1;
}

uint32_t gossip_facts_hash(const struct gossip_facts *facts)
{
	const char *const texts[] = { facts->name, facts->labels, facts->kernel };
	uint32_t hash = 0x811c9dc5u;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		for (const char *p = texts[i];; p++) {
			hash = (hash ^ (unsigned char)*p) * 0x01000193u;
			if (!*p)
				break;
		}
	return hash ? hash : 1;
}

static void put(struct gossip *g, size_t i, const struct gossip_entry *entry)
{
	if (g->ids[i] != entry->id)
		id_index_set(&g->index, g->ids, i, entry->id);
	g->entries[i] = *entry;
}

int gossip_init(struct gossip *g, const struct gossip_entry *self, size_t capacity, struct err *e)
{
	*g = (struct gossip){ .capacity = capacity, .n = 1 };
	g->ids = calloc(capacity, sizeof(*g->ids));
	g->entries = calloc(capacity, sizeof(*g->entries));
	if (!g->ids || !g->entries || id_index_init(&g->index, capacity) < 0) {
		gossip_free(g);
		return err_sys(e, -ENOMEM, "the table of nodes");
	}
	put(g, 0, self);
	return 0;
}

void gossip_free(struct gossip *g)
{
	freep(&g->ids);
	freep(&g->entries);
	freep(&g->index.at);
	g->n = 0;
}

uint64_t gossip_age_ms(const struct gossip_entry *entry, uint64_t now_ms)
{
	return now_ms > entry->measured_ms ? now_ms - entry->measured_ms : 0;
}

static size_t find(const struct gossip *g, uint64_t id)
{
	return id_index_find(&g->index, g->ids, id);
}

const struct gossip_entry *gossip_find(const struct gossip *g, uint64_t id)
{
	size_t i = find(g, id);

	return i == SIZE_MAX ? NULL : &g->entries[i];
}

bool gossip_measured(struct gossip *g, const struct load *load, enum node_state state, uint64_t now_ms)
{
	struct gossip_entry *self = &g->entries[0];
	bool urgent = self->state != (uint8_t)state;

	self->load = *load;
	self->version++;
	self->measured_ms = now_ms;
	for (size_t i = 0; i < g->n; i++)
		g->entries[i].hops -= g->entries[i].hops > 0; /* news is urgent for some periods: a message may be lost */
	if (urgent)
		self->hops = GOSSIP_HOPS;
	self->state = (uint8_t)state;
	return urgent;
}

static bool is_newer(const struct gossip_entry *a, const struct gossip_entry *b)
{
	if ((a->hops > 0) != (b->hops > 0))
		return a->hops > 0;
	return a->measured_ms > b->measured_ms;
}

void gossip_tell(const struct gossip *g, uint64_t now_ms, struct gossip_message *ret)
{
	const struct gossip_entry *best[GOSSIP_WINDOW] = { &g->entries[0] };
	size_t n = 1;

	for (size_t i = 1; i < g->n; i++) {
		const struct gossip_entry *entry = &g->entries[i];
		size_t at = n;

		if (gossip_age_ms(entry, now_ms) >= GOSSIP_FORGET_MS)
			continue;
		while (at > 1 && is_newer(entry, best[at - 1]))
			at--;
		if (at == GOSSIP_WINDOW)
			continue;
		n = MIN(n + 1, (size_t)GOSSIP_WINDOW);
		memmove(&best[at + 1], &best[at], (n - at - 1) * sizeof(*best));
		best[at] = entry;
	}
	ret->n = n;
	for (size_t i = 0; i < n; i++) {
		ret->entries[i] = *best[i];
		ret->entries[i].measured_ms = gossip_age_ms(best[i], now_ms);
		if (i && ret->entries[i].hops)
			ret->entries[i].hops--;
	}
}

static size_t oldest(const struct gossip *g)
{
	size_t at = 1;

	for (size_t i = 2; i < g->n; i++)
		if (g->entries[i].measured_ms < g->entries[at].measured_ms)
			at = i;
	return at;
}

/* Where a node's entry goes that is not there yet, SIZE_MAX: it is older than all that are. */
static size_t room(struct gossip *g, const struct gossip_entry *entry)
{
	size_t at;

	if (g->n < g->capacity)
		return g->n++;
	at = oldest(g);
	return g->entries[at].measured_ms < entry->measured_ms ? at : SIZE_MAX;
}

static bool merge_one(struct gossip *g, const struct gossip_entry *said, uint64_t now_ms)
{
	struct gossip_entry entry = *said;
	size_t at = find(g, entry.id);

	entry.measured_ms = now_ms - MIN(said->measured_ms, now_ms);
	if (at == 0) { /* what the node itself said before it was restarted with its clock set back */
		g->entries[0].version = MAX(g->entries[0].version, entry.version);
		return false;
	}
	if (at == SIZE_MAX && said->measured_ms >= GOSSIP_FORGET_MS)
		return false;
	if (at == SIZE_MAX)
		at = room(g, &entry);
	else if (g->entries[at].version >= entry.version)
		return false;
	if (at == SIZE_MAX)
		return false;
	put(g, at, &entry);
	return entry.hops > 0;
}

bool gossip_merge(struct gossip *g, const struct gossip_message *m, uint64_t now_ms)
{
	bool urgent = false;

	for (size_t i = 0; i < m->n; i++)
		urgent |= merge_one(g, &m->entries[i], now_ms);
	return urgent;
}

void gossip_forget(struct gossip *g, uint64_t id)
{
	size_t i = find(g, id);

	if (i != SIZE_MAX && i > 0)
		g->entries[i].measured_ms = 0;
}
