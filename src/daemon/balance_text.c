// SPDX-License-Identifier: GPL-2.0-or-later
/* balance_text.c - decisions in words, with the figures that decided; see balance.h */
#include <math.h>

#include "base/util.h"
#include "daemon/balance.h"
#include "daemon/node_state.h"

static const char *name_of(const struct balance_question *q, size_t node)
{
	return node < q->view->n ? q->view->names[node].name : "?";
}

static double free_mib(const struct policy_node *node)
{
	return MAX(node->load.v[LOAD_MEM] - node->sent_mib, 0);
}

/* A slowness is HUGE_VAL on a node without CPUs. */
static double shown(double x)
{
	return MIN(x, 9999);
}

/* Whom it talks to most. */
static void text_of_talks(const struct balance_question *q, const struct policy_unit *unit, char ret[80])
{
	*ret = 0;
	for (size_t i = 0; i < q->view->n && unit->n_talks; i++)
		if (q->view->nodes[i].id == unit->talks[0].id)
			snprintf(ret, 80, ", exchanges %.1f MiB/s with %.40s", MIN(unit->talks[0].mib_s, 1e6), name_of(q, i));
}

void balance_reason(const struct balance_question *q, const struct policy_unit *unit, const struct policy_verdict *v, char ret[BALANCE_TEXT_MAX])
{
	const struct policy_node *here = &q->view->nodes[0], *there = &q->view->nodes[MIN(v->node, q->view->n - 1)];
	const char *from = name_of(q, 0), *to = name_of(q, v->node);
	char talks[80];

	switch (v->reason) {
	case POLICY_BALANCE:
		text_of_talks(q, unit, talks);
		snprintf(ret, BALANCE_TEXT_MAX, "balance: %.2f times slower than alone on %.40s, %.2f on %.40s; %.1f s computed%s, gains %.2f s, costs %.2f s", shown(v->here), from,
			 shown(v->there), to, unit->cpu_s, talks, v->gain_s, v->cost_s);
		return;
	case POLICY_MEMORY:
		snprintf(ret, BALANCE_TEXT_MAX, "memory: %.40s has %.0f MiB free of %.0f (%.0f in a moment; waiting for memory: %.0f%%), %.40s %.0f of %.0f; the unit has %.0f", from,
			 free_mib(here) + q->ahead_mib, here->load.v[LOAD_MAXMEM], free_mib(here), 100 * here->load.v[LOAD_PSI_MEM], to, free_mib(there), there->load.v[LOAD_MAXMEM], unit->mem_mib);
		return;
	case POLICY_EVICTED:
		snprintf(ret, BALANCE_TEXT_MAX, q->owner ? "owner: a person works on %.40s (last key %.1f min ago)" : "drain: %.40s is emptied", from, here->load.v[LOAD_IT]);
		return;
	default:
		snprintf(ret, BALANCE_TEXT_MAX, "stays");
	}
}

/* Who takes nothing, and why. */
static void text_of_nodes(const struct balance_question *q, const struct policy_unit *unit, char *ret, size_t size)
{
	size_t len = 0;

	for (size_t i = 1; i < q->view->n && len < size - 1; i++) {
		const struct policy_node *node = &q->view->nodes[i];

		if (node->state != NODE_OK)
			len += (size_t)snprintf(ret + len, size - len, "%s%.40s is %s", i > 1 ? ", " : "", name_of(q, i), node_state_name(node->state));
		else
			len += (size_t)snprintf(ret + len, size - len, "%s%.40s has %.0f MiB free of %.0f", i > 1 ? ", " : "", name_of(q, i), free_mib(node),
						node->load.v[LOAD_MAXMEM]);
	}
	if (q->view->n < 2)
		snprintf(ret, size, "none answers");
	(void)unit;
}

/* The least slow of those that take it. */
static size_t best_of(const struct balance_question *q, const struct policy_unit *unit, double *ret)
{
	size_t best = 0;

	*ret = HUGE_VAL;
	for (size_t i = 1; i < q->view->n; i++) {
		const struct policy_node *node = &q->view->nodes[i];
		double slowness = policy_slowness(&node->load, node->load.v[LOAD_RUN] + node->sent_run + unit->run);

		if (!policy_takes(q->policy, node, unit->mem_mib) || slowness >= *ret)
			continue;
		*ret = slowness;
		best = i;
	}
	return best;
}

void balance_obstacle(const struct balance_question *q, const struct policy_unit *unit, const struct policy_verdict *v, const struct balance_note *note, char ret[BALANCE_TEXT_MAX])
{
	char nodes[BALANCE_TEXT_MAX - 40];
	double there;
	size_t best;

	switch (v->obstacle) {
	case POLICY_PINNED:
		snprintf(ret, BALANCE_TEXT_MAX, "it could not be moved: %.190s", note ? note->why : "");
		return;
	case POLICY_JUST_MOVED:
		snprintf(ret, BALANCE_TEXT_MAX, "it moved %.0f s ago, and a unit stays for %.0f s", unit->since_move_s, q->policy->stay_s);
		return;
	case POLICY_NOT_LOADED:
		best = best_of(q, unit, &there);
		snprintf(ret, BALANCE_TEXT_MAX, "no node is better: %.2f times slower than alone here, and %.2f on %.60s, the best one", shown(v->here), shown(there), name_of(q, best));
		return;
	case POLICY_NO_NODE:
		text_of_nodes(q, unit, nodes, sizeof(nodes));
		snprintf(ret, BALANCE_TEXT_MAX, "no node takes its %.0f MiB: %.160s", unit->mem_mib, nodes);
		return;
	case POLICY_TOO_YOUNG:
		snprintf(ret, BALANCE_TEXT_MAX, "it has used too little CPU time, or wants too little now (%.2f): on %.60s (%.2f times slower than alone, %.2f here) it gains %.2f s, and a move costs %.2f s", unit->run,
			 name_of(q, v->node), shown(v->there), shown(v->here), v->gain_s, v->cost_s);
		return;
	case POLICY_NONE:
		snprintf(ret, BALANCE_TEXT_MAX, "nothing keeps it");
		return;
	}
}

const char *balance_obstacle_name(enum policy_obstacle obstacle)
{
	static const char *const names[] = {
		[POLICY_NONE] = "none", [POLICY_PINNED] = "cannot-move", [POLICY_JUST_MOVED] = "just-moved", [POLICY_NOT_LOADED] = "no-better-node", [POLICY_NO_NODE] = "no-node",
		[POLICY_TOO_YOUNG] = "too-young",
	};

	return names[obstacle];
}
