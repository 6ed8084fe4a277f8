// SPDX-License-Identifier: LGPL-2.1-or-later
/* policy.c - transfer, selection, location; see policy.h */
#include "cluster/policy.h"

#include <math.h>
#include <string.h>

#include "base/util.h"

#define UTILISATION_MAX 16.0 /* beyond that all nodes are full alike */
#define BASE_MIN 2.0
#define BASE_MAX 64.0
#define EVEN_MARGIN 0.05     /* who is as slow as we are is no better */

const struct policy policy_default = {
	.transfer = POLICY_SYMMETRIC,
	.location = POLICY_OPPORTUNITY,
	.cost = { .move_s = 0.05, .connection_s = 25e-6, .mib_s = 0.0012 },
	.gain_min_s = 0.1,
	.stay_s = 2,
	.age_max_s = 30,
	.link_mib_s = 110,
	.mem_low = 0.05,
	.mem_enough = 0.1,
	.psi_mem_high = 0.1,
	.sent_fade_s = 3,
	.choices = 2,
};

static const char *const transfers[] = { [POLICY_SENDER] = "sender", [POLICY_RECEIVER] = "receiver", [POLICY_SYMMETRIC] = "symmetric" };
static const char *const locations[] = {
	[POLICY_OPPORTUNITY] = "opportunity", [POLICY_TWO_CHOICES] = "two-choices", [POLICY_BEST_FIT] = "best-fit", [POLICY_RANDOM] = "random",
};

static int index_of(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -1;
}

bool policy_transfer_parse(const char *name, enum policy_transfer *ret)
{
	int i = index_of(transfers, ARRAY_SIZE(transfers), name);

	if (i >= 0)
		*ret = (enum policy_transfer)i;
	return i >= 0;
}

bool policy_location_parse(const char *name, enum policy_location *ret)
{
	int i = index_of(locations, ARRAY_SIZE(locations), name);

	if (i >= 0)
		*ret = (enum policy_location)i;
	return i >= 0;
}

const char *policy_transfer_name(enum policy_transfer transfer)
{
	return transfers[transfer];
}

const char *policy_location_name(enum policy_location location)
{
	return locations[location];
}

static double run_of(const struct policy_node *node)
{
	return node->load.v[LOAD_RUN] + node->sent_run;
}

static double free_of(const struct policy_node *node)
{
	return node->load.v[LOAD_MEM] - node->sent_mib;
}

double policy_slowness(const struct load *load, double run)
{
	double cores = load->v[LOAD_CORES], speed = load->v[LOAD_SPEED];

	return cores > 0 && speed > 0 ? MAX(1, run / cores) / speed : HUGE_VAL;
}

double policy_cost_s(const struct policy *p, const struct policy_unit *unit)
{
	return p->cost.move_s + unit->connections * p->cost.connection_s + unit->mem_mib * p->cost.mib_s;
}

static double utilisation_cost(double base, double used, double all)
{
	return all > 0 ? pow(base, MIN(MAX(used, 0) / all, UTILISATION_MAX)) : pow(base, UTILISATION_MAX);
}

double policy_opportunity(const struct policy_node *node, double run, double mem_mib, double base)
{
	double power = load_power(&node->load), all = node->load.v[LOAD_MAXMEM], used = all - free_of(node), here = run_of(node);

	return utilisation_cost(base, here + run, power) - utilisation_cost(base, here, power) + utilisation_cost(base, used + mem_mib, all) -
	       utilisation_cost(base, used, all) + node->load.v[LOAD_PSI_IO] * base;
}

bool policy_takes(const struct policy *p, const struct policy_node *node, double mem_mib)
{
	return node->state == NODE_OK && node->age_s <= p->age_max_s && free_of(node) - mem_mib >= p->mem_enough * node->load.v[LOAD_MAXMEM];
}

/* What the unit exchanges with other nodes than `there`, as a part of what a link carries. */
static double talk(const struct policy *p, const struct policy_unit *unit, uint64_t there)
{
	double mib_s = 0;

	for (size_t i = 0; i < unit->n_talks; i++)
		if (unit->talks[i].id != there)
			mib_s += unit->talks[i].mib_s;
	return mib_s / p->link_mib_s;
}

/* What it would gain: of CPU time as much as it has used is still to come, and of talking as much as it has talked. */
static double gain_of(const struct policy *p, const struct policy_unit *unit, const struct policy_node *here, const struct policy_node *there)
{
	double cpu = policy_slowness(&here->load, run_of(here)) - policy_slowness(&there->load, run_of(there) + unit->run);

	return unit->cpu_s * cpu + MAX(unit->talk_s, unit->cpu_s) * (talk(p, unit, here->id) - talk(p, unit, there->id));
}

static double slowness_of(const struct policy *p, const struct policy_node *node, const struct policy_unit *unit, double more)
{
	return policy_slowness(&node->load, run_of(node) + more) + talk(p, unit, node->id);
}

/* --- location: one node of those that would do, each offered once --- */

struct choice {
	const struct policy *p;
	struct rng *rng;
	double base;
	size_t best;     /* SIZE_MAX: none yet */
	double best_cost;
	uint64_t n, alike;
};

static void choice_init(struct choice *c, const struct policy *p, size_t n, struct rng *rng)
{
	*c = (struct choice){ .p = p, .rng = rng, .base = MIN(MAX((double)n, BASE_MIN), BASE_MAX), .best = SIZE_MAX };
}

/* The least; of those that are alike any one. */
static void offer_cost(struct choice *c, size_t i, double cost)
{
	if (c->best != SIZE_MAX && cost > c->best_cost)
		return;
	c->alike = c->best != SIZE_MAX && cost == c->best_cost ? c->alike + 1 : 1;
	if (c->alike > 1 && rng_below(c->rng, c->alike))
		return;
	c->best = i;
	c->best_cost = cost;
}

/* `talk`: what it would exchange over links there. */
static void offer(struct choice *c, const struct policy_node *nodes, size_t i, double run, double mem_mib, double talk)
{
	c->n++;
	if (c->p->location == POLICY_RANDOM)
		offer_cost(c, i, 0);
	else if (c->p->location == POLICY_BEST_FIT)
		offer_cost(c, i, free_of(&nodes[i]) - mem_mib);
	else
		offer_cost(c, i, policy_opportunity(&nodes[i], run, mem_mib, c->base) + talk * c->base);
}

/* --- selection --- */

static bool is_better(const struct policy *p, const struct policy_node *nodes, size_t i, size_t self, const struct policy_unit *unit, enum policy_reason why)
{
	double here, there;

	if (i == self || !policy_takes(p, &nodes[i], unit->mem_mib))
		return false;
	if (why != POLICY_BALANCE)
		return true;
	here = slowness_of(p, &nodes[self], unit, 0);
	there = slowness_of(p, &nodes[i], unit, unit->run);
	return there < here * (1 - EVEN_MARGIN);
}

/* Of all nodes, or of some taken at random. */
static size_t locate(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *unit, enum policy_reason why,
		     struct rng *rng)
{
	struct choice c;
	bool all = p->location != POLICY_TWO_CHOICES || n <= 4 * p->choices;

	choice_init(&c, p, n, rng);
	for (size_t tries = 0; tries < (all ? n : 8 * p->choices) && (all || c.n < p->choices); tries++) {
		size_t i = all ? tries : (size_t)rng_below(rng, n);

		if (is_better(p, nodes, i, self, unit, why))
			offer(&c, nodes, i, unit->run, unit->mem_mib, talk(p, unit, nodes[i].id));
	}
	return c.best;
}

static bool somebody_takes(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *unit)
{
	for (size_t i = 0; i < n; i++)
		if (i != self && policy_takes(p, &nodes[i], unit->mem_mib))
			return true;
	return false;
}

struct policy_verdict policy_judge(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *unit,
				   enum policy_reason why, size_t only, struct rng *rng)
{
	struct policy_verdict v = { .reason = POLICY_STAYS, .node = SIZE_MAX, .here = slowness_of(p, &nodes[self], unit, 0), .cost_s = policy_cost_s(p, unit) };

	if (unit->pinned)
		v.obstacle = POLICY_PINNED;
	else if (why == POLICY_BALANCE && unit->since_move_s < p->stay_s)
		v.obstacle = POLICY_JUST_MOVED;
	if (v.obstacle)
		return v;
	if (only == SIZE_MAX)
		v.node = locate(p, nodes, n, self, unit, why, rng);
	else if (is_better(p, nodes, only, self, unit, why))
		v.node = only;
	if (v.node == SIZE_MAX) {
		v.obstacle = why == POLICY_BALANCE && somebody_takes(p, nodes, n, self, unit) ? POLICY_NOT_LOADED : POLICY_NO_NODE;
		return v;
	}
	v.there = slowness_of(p, &nodes[v.node], unit, unit->run);
	v.gain_s = gain_of(p, unit, &nodes[self], &nodes[v.node]);
	if (why == POLICY_BALANCE && v.gain_s - v.cost_s <= p->gain_min_s)
		v.obstacle = POLICY_TOO_YOUNG;
	else
		v.reason = why;
	return v;
}

/* --- plans --- */

struct plan {
	const struct policy *p;
	struct policy_node *nodes;
	size_t n, self;
	const struct policy_unit *units;
	size_t n_units, only;
	struct rng *rng;
	struct policy_move *moves;
	size_t n_moves, max;
};

static bool is_planned(const struct plan *plan, size_t unit)
{
	for (size_t i = 0; i < plan->n_moves; i++)
		if (plan->moves[i].unit == unit)
			return true;
	return false;
}

static void enter(struct plan *plan, size_t i, const struct policy_verdict *v)
{
	const struct policy_unit *unit = &plan->units[i];
	struct load *here = &plan->nodes[plan->self].load;

	plan->moves[plan->n_moves++] = (struct policy_move){ i, *v };
	policy_sent(&plan->nodes[v->node], unit->run, unit->mem_mib);
	here->v[LOAD_RUN] = MAX(here->v[LOAD_RUN] - unit->run, 0);
	here->v[LOAD_MEM] += unit->mem_mib;
}

static struct policy_verdict judge(const struct plan *plan, size_t i, enum policy_reason why)
{
	return policy_judge(plan->p, plan->nodes, plan->n, plan->self, &plan->units[i], why, plan->only, plan->rng);
}

static void plan_eviction(struct plan *plan)
{
	for (size_t i = 0; i < plan->n_units && plan->n_moves < plan->max; i++) {
		struct policy_verdict v = judge(plan, i, POLICY_EVICTED);

		if (v.reason)
			enter(plan, i, &v);
	}
}

/* Too little is what begins it; it ends when there is enough. */
static double missing_mib(const struct plan *plan)
{
	const struct policy_node *here = &plan->nodes[plan->self];
	double all = here->load.v[LOAD_MAXMEM], have = free_of(here);

	if (!plan->n_moves && have >= plan->p->mem_low * all && here->load.v[LOAD_PSI_MEM] <= plan->p->psi_mem_high)
		return 0;
	return MAX(plan->p->mem_enough * all - have, 0);
}

/* The smallest that is enough, or else the largest. */
static bool fits_better(double a, double b, double missing)
{
	return a >= missing && b >= missing ? a < b : a > b;
}

static void plan_memory(struct plan *plan)
{
	double missing;

	while ((missing = missing_mib(plan)) > 0 && plan->n_moves < plan->max) {
		struct policy_verdict best = { .node = SIZE_MAX };
		size_t unit = 0;

		for (size_t i = 0; i < plan->n_units; i++) {
			struct policy_verdict v;

			if (is_planned(plan, i) || (best.node != SIZE_MAX && !fits_better(plan->units[i].mem_mib, plan->units[unit].mem_mib, missing)))
				continue;
			v = judge(plan, i, POLICY_MEMORY);
			if (v.reason) {
				best = v;
				unit = i;
			}
		}
		if (best.node == SIZE_MAX)
			return;
		enter(plan, unit, &best);
	}
}

static void plan_balance(struct plan *plan)
{
	while (plan->n_moves < plan->max) {
		struct policy_verdict best = { .node = SIZE_MAX };
		size_t unit = 0;

		for (size_t i = 0; i < plan->n_units; i++) {
			struct policy_verdict v;

			if (is_planned(plan, i))
				continue;
			v = judge(plan, i, POLICY_BALANCE);
			if (v.reason && (best.node == SIZE_MAX || v.gain_s - v.cost_s > best.gain_s - best.cost_s)) {
				best = v;
				unit = i;
			}
		}
		if (best.node == SIZE_MAX)
			return;
		enter(plan, unit, &best);
	}
}

size_t policy_plan(const struct policy *p, struct policy_node *nodes, size_t n, size_t self, const struct policy_unit *units, size_t n_units, size_t only,
		   struct rng *rng, struct policy_move *ret, size_t max)
{
	struct plan plan = { p, nodes, n, self, units, n_units, only, rng, ret, 0, max };
	enum node_state state = nodes[self].state;

	if (state == NODE_DRAINED || state == NODE_LEAVING) {
		plan_eviction(&plan);
		return plan.n_moves;
	}
	plan_memory(&plan);
	if (p->transfer != POLICY_RECEIVER || only != SIZE_MAX)
		plan_balance(&plan);
	return plan.n_moves;
}

size_t policy_ask(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, struct rng *rng)
{
	const struct policy_node *here = &nodes[self];
	double with_it = policy_slowness(&here->load, run_of(here) + 1);
	struct choice c;

	if (p->transfer == POLICY_SENDER || !policy_takes(p, here, 0) || run_of(here) + 1 > MAX(here->load.v[LOAD_CORES], 1))
		return SIZE_MAX;
	choice_init(&c, p, n, rng);
	for (size_t i = 0; i < n; i++) {
		double there = policy_slowness(&nodes[i].load, run_of(&nodes[i]));

		if (i != self && nodes[i].age_s <= p->age_max_s && run_of(&nodes[i]) >= MAX(nodes[i].load.v[LOAD_CORES], 1) + 1 && with_it < there * (1 - EVEN_MARGIN))
			offer_cost(&c, i, -there);
	}
	return c.best;
}

size_t policy_place(const struct policy *p, const struct policy_node *nodes, size_t n, size_t self, double run, double mem_mib, struct rng *rng)
{
	struct choice c;

	choice_init(&c, p, n, rng);
	if (policy_takes(p, &nodes[self], mem_mib) && policy_slowness(&nodes[self].load, run_of(&nodes[self]) + run) <= 1 / nodes[self].load.v[LOAD_SPEED])
		return self; /* nothing is gained elsewhere */
	for (size_t i = 0; i < n; i++)
		if (policy_takes(p, &nodes[i], mem_mib))
			offer(&c, nodes, i, run, mem_mib, 0);
	return c.best;
}

bool policy_accept(const struct policy *p, const struct policy_node *self, const struct policy_unit *unit, enum policy_reason reason, double here)
{
	if (!policy_takes(p, self, unit->mem_mib))
		return false;
	return reason != POLICY_BALANCE || slowness_of(p, self, unit, unit->run) < here * (1 - EVEN_MARGIN);
}

void policy_sent(struct policy_node *node, double run, double mem_mib)
{
	node->sent_run += run;
	node->sent_mib += mem_mib;
}

void policy_sent_fade(const struct policy *p, struct policy_node *node, double dt_s)
{
	double left = p->sent_fade_s > 0 ? exp(-dt_s / p->sent_fade_s) : 0;

	node->sent_run *= left;
	node->sent_mib *= left;
}
