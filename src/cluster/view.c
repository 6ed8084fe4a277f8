// SPDX-License-Identifier: LGPL-2.1-or-later
/* view.c - gossip's table as policies want it; see view.h */
#include "cluster/view.h"

#include "base/util.h"

void view_add_sent(const struct view *v, const struct policy *p, struct policy_node *node, uint64_t now_ms)
{
	for (size_t i = 0; i < v->n_sent; i++) {
		const struct view_sent *s = &v->sent[i];

		if (s->id != node->id)
			continue;
		policy_sent(node, s->run, s->mem_mib);
		policy_sent_fade(p, node, (double)(now_ms - MIN(s->at_ms, now_ms)) / 1000);
	}
}

static struct policy_node node_of(const struct view *v, const struct policy *p, const struct gossip_entry *entry, uint64_t now_ms)
{
	struct policy_node node = { .id = entry->id, .load = entry->load, .age_s = (double)gossip_age_ms(entry, now_ms) / 1000, .state = (enum node_state)entry->state };

	view_add_sent(v, p, &node, now_ms);
	return node;
}

size_t view_nodes(const struct view *v, const struct policy *p, uint64_t now_ms, struct policy_node *ret, size_t max)
{
	size_t n = MIN(v->gossip.n, max);

	for (size_t i = 0; i < n; i++)
		ret[i] = node_of(v, p, &v->gossip.entries[i], now_ms);
	return n;
}

struct policy_node view_self(const struct view *v, const struct policy *p, uint64_t now_ms)
{
	return node_of(v, p, &v->gossip.entries[0], now_ms);
}

void view_note_sent(struct view *v, const struct policy *p, uint64_t id, double run, double mem_mib, uint64_t now_ms)
{
	size_t at = v->n_sent, longest = 0;
	struct policy_node fresh = { .id = id };

	for (size_t i = 0; i < v->n_sent; i++) {
		if (v->sent[i].id == id)
			at = i;
		if (v->sent[i].at_ms < v->sent[longest].at_ms)
			longest = i;
	}
	if (at < v->n_sent)
		view_add_sent(v, p, &fresh, now_ms); /* what is left of earlier ones */
	else if (v->n_sent < VIEW_SENT_MAX)
		v->n_sent++;
	else
		at = longest;
	policy_sent(&fresh, run, mem_mib);
	v->sent[at] = (struct view_sent){ id, fresh.sent_run, fresh.sent_mib, now_ms };
}
