// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * run.c - the simulation; see sim.h
 *
 * Four things happen: a job arrives, a job ends, a job that moves lands, a node has its second. The earliest one is next: arrivals are made one ahead, ends come out of
 * the model's heap, those that land are in a heap, and the seconds of the nodes follow each other in a fixed round.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cluster/view.h"
#include "sim/jobs.h"
#include "sim/model.h"
#include "sim/sim.h"

#define VIEW_MAX 256
#define UNITS_MAX 64         /* of a node that are judged at a time */
#define MOVES_MAX 4          /* of a node in a second */
#define AGE_EVERY 97         /* one table in so many is sampled */
#define AGES_MAX 4096        /* bins of 10 ms */
#define AGE_BIN_S 0.01
#define LONG_S 10.0
#define START_MS (2 * GOSSIP_FORGET_MS) /* gossip's clock: what is at 0 is old from the beginning */

struct node {
	struct view view;
	struct rng rng;
};

struct sim {
	const struct sim_config *c;
	struct sim_result *r;
	struct model model;
	struct node *nodes;
	struct jobs jobs;
	struct rng rng;
	double now_s;
	size_t turn;              /* the node whose second comes next */
	uint64_t turns;
	struct job *next;         /* arrives next; NULL: nobody any more */
	struct {
		double at_s;
		struct job *job;
		double left_s;
	} *landing;               /* heap by at_s */
	size_t n_landing, room_landing;
	double *slowdowns;
	size_t n_slow, room_slow;
	double long_sum;
	uint64_t n_long;
	uint64_t ages[AGES_MAX], n_ages;
	double age_sum;
	double series_sum[SIM_SAMPLES];
	uint64_t series_n[SIM_SAMPLES];
	double busy_before;
	bool failed;
	struct err *e;
};

static bool moves(const struct sim *s)
{
	return s->c->scheduler == SIM_MIGRATE || s->c->scheduler == SIM_BOTH;
}

static bool places(const struct sim *s)
{
	return s->c->scheduler == SIM_PLACE || s->c->scheduler == SIM_BOTH;
}

static bool gossips(const struct sim *s)
{
	return moves(s) || places(s);
}

static uint64_t now_ms(const struct sim *s)
{
	return START_MS + (uint64_t)(s->now_s * 1000);
}

static size_t sample_of(const struct sim *s, double at_s)
{
	return MIN((size_t)(at_s / s->c->end_s * SIM_SAMPLES), SIM_SAMPLES - 1);
}

/* --- what a node says of itself --- */

static void measure(struct sim *s, uint32_t i)
{
	const struct machine *k = &s->model.machines[i];
	struct load load = { 0 };

	load.v[LOAD_RUN] = k->n;
	load.v[LOAD_R15S] = load.v[LOAD_R1M] = load.v[LOAD_R15M] = k->n / (k->cores * k->speed);
	load.v[LOAD_UT] = MIN(k->n / k->cores, 1);
	load.v[LOAD_CORES] = k->cores;
	load.v[LOAD_SPEED] = k->speed;
	load.v[LOAD_MAXMEM] = k->mem_mib;
	load.v[LOAD_MEM] = MAX(k->mem_mib - k->used_mib, 0);
	gossip_measured(&s->nodes[i].view.gossip, &load, NODE_OK, now_ms(s));
}

static void count_ages(struct sim *s, const struct gossip *g)
{
	for (size_t i = 1; i < g->n; i++) {
		double age = (double)gossip_age_ms(&g->entries[i], now_ms(s)) / 1000;

		s->ages[MIN((size_t)(age / AGE_BIN_S), AGES_MAX - 1)]++;
		s->age_sum += age;
		s->n_ages++;
	}
}

/* After a failure: does this one still take a dead one for alive? */
static void count_dead(struct sim *s, const struct gossip *g)
{
	for (size_t i = 1; i < g->n; i++)
		if (s->model.machines[g->ids[i] - 1].dead && (double)gossip_age_ms(&g->entries[i], now_ms(s)) / 1000 <= s->c->policy.age_max_s)
			s->r->dead_known_s = s->now_s - s->c->fail_at_s;
}

static void gossip(struct sim *s, uint32_t i)
{
	struct gossip *g = &s->nodes[i].view.gossip;
	struct gossip_message m;
	uint32_t to = (uint32_t)rng_below(&s->nodes[i].rng, s->c->nodes - 1);

	to += to >= i;
	gossip_tell(g, now_ms(s), &m);
	s->r->messages++;
	if (!s->model.machines[to].dead)
		gossip_merge(&s->nodes[to].view.gossip, &m, now_ms(s));
	if (s->turns % AGE_EVERY == 0)
		count_ages(s, g);
	if (s->failed)
		count_dead(s, g);
}

/* --- moving --- */

static void landing_swap(struct sim *s, size_t a, size_t b)
{
	typeof(*s->landing) t = s->landing[a];

	s->landing[a] = s->landing[b];
	s->landing[b] = t;
}

static int landing_push(struct sim *s, double at_s, struct job *job, double left_s)
{
	size_t i = s->n_landing;

	if (i == s->room_landing) {
		size_t room = MAX(64, 2 * i);
		void *grown = reallocarray(s->landing, room, sizeof(*s->landing));

		if (!grown)
			return err_sys(s->e, -ENOMEM, "jobs that move");
		s->landing = grown;
		s->room_landing = room;
	}
	s->landing[i].at_s = at_s;
	s->landing[i].job = job;
	s->landing[i].left_s = left_s;
	for (s->n_landing++; i > 0 && s->landing[(i - 1) / 2].at_s > s->landing[i].at_s; i = (i - 1) / 2)
		landing_swap(s, i, (i - 1) / 2);
	return 0;
}

static void landing_pop(struct sim *s)
{
	size_t i = 0, child;

	landing_swap(s, 0, --s->n_landing);
	while ((child = 2 * i + 1) < s->n_landing) {
		if (child + 1 < s->n_landing && s->landing[child + 1].at_s < s->landing[child].at_s)
			child++;
		if (s->landing[i].at_s <= s->landing[child].at_s)
			break;
		landing_swap(s, i, child);
		i = child;
	}
}

static int add_overhead(struct sim *s, uint32_t node, double cpu_s)
{
	struct job *job;

	if (cpu_s <= 0)
		return 0;
	job = calloc(1, sizeof(*job));
	if (!job)
		return err_sys(s->e, -ENOMEM, "a job");
	*job = (struct job){ .arrival_s = s->now_s, .cpu_s = cpu_s, .overhead = 1 };
	return model_add(&s->model, node, job, cpu_s, s->now_s, s->e);
}

static int move(struct sim *s, struct job *job, uint32_t to)
{
	uint32_t from = job->node;
	double left;
	int ret;

	model_advance(&s->model, from, s->now_s);
	left = model_left(&s->model, job);
	model_remove(&s->model, job, s->now_s);
	job->node = to;
	job->moved_s = s->now_s;
	job->moves++;
	s->r->moves++;
	ret = landing_push(s, s->now_s + s->c->freeze_s + s->c->freeze_mib_s * job->mem_mib, job, left);
	if (ret == 0)
		ret = add_overhead(s, from, s->c->overhead_mib_s * job->mem_mib);
	return ret < 0 ? ret : add_overhead(s, to, s->c->overhead_mib_s * job->mem_mib);
}

static struct policy_unit unit_of(const struct sim *s, const struct job *job)
{
	return (struct policy_unit){ .cpu_s = job->cpu_s - model_left(&s->model, job), .run = 1, .mem_mib = job->mem_mib,
				     .since_move_s = job->moved_s < 0 ? HUGE_VAL : s->now_s - job->moved_s };
}

/* The destination is asked, and knows itself. */
static bool agrees(struct sim *s, uint32_t to, const struct policy_unit *unit, const struct policy_verdict *v)
{
	struct policy_node self;

	s->r->messages += 2;
	if (s->model.machines[to].dead) {
		s->r->lost++;
		return false;
	}
	measure(s, to);
	self = view_self(&s->nodes[to].view, &s->c->policy, now_ms(s));
	return policy_accept(&s->c->policy, &self, unit, v->reason, v->here);
}

static int carry_out(struct sim *s, uint32_t from, struct job **jobs, const struct policy_unit *units, const struct policy_node *view, const struct policy_move *m)
{
	struct view *mine = &s->nodes[from].view;
	const struct policy_unit *unit = &units[m->unit];
	uint32_t to = (uint32_t)(view[m->verdict.node].id - 1);

	if (!agrees(s, to, unit, &m->verdict)) {
		s->r->refused++;
		if (s->model.machines[to].dead)
			gossip_forget(&mine->gossip, to + 1);
		else
			view_note_sent(mine, &s->c->policy, to + 1, unit->run, 0, now_ms(s)); /* busier than it said */
		return 0;
	}
	view_note_sent(mine, &s->c->policy, to + 1, unit->run, unit->mem_mib, now_ms(s));
	if (s->c->freeze_s + s->c->freeze_mib_s * unit->mem_mib > 0.5) /* it will not be in the figures for a while */
		view_note_sent(&s->nodes[to].view, &s->c->policy, to + 1, unit->run, unit->mem_mib, now_ms(s));
	return move(s, jobs[m->unit], to);
}

/* What a node does with its jobs; `asked`: the node that wants work, 0: nobody. */
static int give(struct sim *s, uint32_t i, uint64_t asked)
{
	struct machine *k = &s->model.machines[i];
	struct policy_node view[VIEW_MAX], changed[VIEW_MAX];
	struct policy_unit units[UNITS_MAX];
	struct policy_move planned[MOVES_MAX];
	struct job *jobs[UNITS_MAX];
	size_t n, n_units = 0, only = SIZE_MAX, n_moves;
	int ret = 0;

	model_advance(&s->model, i, s->now_s);
	for (uint32_t j = 0; j < k->n && n_units < UNITS_MAX; j++)
		if (!k->jobs[j]->overhead) {
			jobs[n_units] = k->jobs[j];
			units[n_units++] = unit_of(s, k->jobs[j]);
		}
	n = view_nodes(&s->nodes[i].view, &s->c->policy, now_ms(s), view, VIEW_MAX);
	for (size_t j = 1; asked && j < n; j++)
		if (view[j].id == asked)
			only = j;
	if (n_units == 0 || (asked && only == SIZE_MAX))
		return 0;
	memcpy(changed, view, n * sizeof(*view));
	n_moves = policy_plan(&s->c->policy, changed, n, 0, units, n_units, only, &s->nodes[i].rng, planned, asked ? 1 : MOVES_MAX);
	for (size_t j = 0; ret == 0 && j < n_moves; j++)
		ret = carry_out(s, i, jobs, units, view, &planned[j]);
	return ret;
}

static int ask(struct sim *s, uint32_t i)
{
	struct policy_node view[VIEW_MAX];
	size_t n = view_nodes(&s->nodes[i].view, &s->c->policy, now_ms(s), view, VIEW_MAX), whom = policy_ask(&s->c->policy, view, n, 0, &s->nodes[i].rng);
	struct gossip_message m;
	uint32_t giver;

	if (whom == SIZE_MAX)
		return 0;
	s->r->messages++;
	giver = (uint32_t)(view[whom].id - 1);
	if (s->model.machines[giver].dead) {
		gossip_forget(&s->nodes[i].view.gossip, view[whom].id);
		return 0;
	}
	view_note_sent(&s->nodes[i].view, &s->c->policy, view[whom].id, -1, 0, now_ms(s)); /* the next second asks another one */
	gossip_tell(&s->nodes[i].view.gossip, now_ms(s), &m); /* the question says how it is here */
	gossip_merge(&s->nodes[giver].view.gossip, &m, now_ms(s));
	measure(s, giver);
	return give(s, giver, i + 1);
}

static int second(struct sim *s)
{
	uint32_t i = (uint32_t)s->turn;
	struct machine *k = &s->model.machines[i];
	int ret = 0;

	s->turn = (s->turn + 1) % s->c->nodes;
	s->turns++;
	if (k->dead || !gossips(s))
		return 0;
	measure(s, i);
	gossip(s, i);
	if (!moves(s))
		return 0;
	if (k->n > k->cores || s->c->speed_spread > 1 || k->used_mib > k->mem_mib * (1 - s->c->policy.mem_low))
		ret = give(s, i, 0);
	return ret == 0 && k->n < k->cores ? ask(s, i) : ret;
}

/* --- the omniscient one --- */

static double slowness(const struct machine *k, uint32_t n)
{
	return k->dead ? HUGE_VAL : MAX(1, n / k->cores) / k->speed;
}

/* The node where one more job is least slow. */
static uint32_t least(const struct sim *s)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < s->c->nodes; i++)
		if (slowness(&s->model.machines[i], s->model.machines[i].n + 1) < slowness(&s->model.machines[best], s->model.machines[best].n + 1))
			best = i;
	return best;
}

/* The node has become less busy: it takes from those that are worst off, as long as that helps. */
static int even_out(struct sim *s, uint32_t to)
{
	for (;;) {
		struct machine *k = &s->model.machines[to];
		uint32_t worst = to;
		struct job *job;
		double left;
		int ret;

		for (uint32_t i = 0; i < s->c->nodes; i++)
			if (s->model.machines[i].n && slowness(&s->model.machines[i], s->model.machines[i].n) > slowness(&s->model.machines[worst], s->model.machines[worst].n))
				worst = i;
		if (worst == to || slowness(k, k->n + 1) >= slowness(&s->model.machines[worst], s->model.machines[worst].n))
			return 0;
		job = s->model.machines[worst].jobs[0];
		model_advance(&s->model, worst, s->now_s);
		left = model_left(&s->model, job);
		model_remove(&s->model, job, s->now_s);
		s->r->moves++;
		ret = model_add(&s->model, to, job, left, s->now_s, s->e);
		if (ret < 0)
			return ret;
	}
}

/* --- arrivals and ends --- */

static int read_next(struct sim *s)
{
	struct job *job = calloc(1, sizeof(*job));
	int ret = job ? jobs_next(&s->jobs, job, s->e) : err_sys(s->e, -ENOMEM, "a job");

	job = ret <= 0 ? (free(job), NULL) : job;
	s->next = job;
	return MIN(ret, 0);
}

static uint32_t begin_at(struct sim *s, const struct job *job)
{
	struct policy_node view[VIEW_MAX];
	struct view *mine = &s->nodes[job->node].view;
	size_t n, at;

	if (s->c->scheduler == SIM_OMNISCIENT)
		return least(s);
	if (!places(s))
		return job->node;
	measure(s, job->node);
	for (int tries = 0; tries < 3; tries++) { /* who is asked may say no */
		struct policy_unit unit = { .run = 1, .mem_mib = job->mem_mib };
		struct policy_verdict v = { .reason = POLICY_BALANCE };
		uint32_t to;

		n = view_nodes(mine, &s->c->policy, now_ms(s), view, VIEW_MAX);
		at = policy_place(&s->c->policy, view, n, 0, 1, job->mem_mib, &s->nodes[job->node].rng);
		if (at == 0 || at == SIZE_MAX)
			return job->node;
		to = (uint32_t)(view[at].id - 1);
		v.here = policy_slowness(&view[0].load, view[0].load.v[LOAD_RUN] + 1);
		if (!agrees(s, to, &unit, &v)) {
			if (s->model.machines[to].dead)
				gossip_forget(&mine->gossip, to + 1);
			else
				view_note_sent(mine, &s->c->policy, to + 1, 1, 0, now_ms(s));
			continue;
		}
		view_note_sent(mine, &s->c->policy, to + 1, 1, job->mem_mib, now_ms(s));
		s->r->placed_elsewhere++;
		return to;
	}
	return job->node;
}

static int arrive(struct sim *s)
{
	struct job *job = s->next;
	int ret;

	job->moved_s = -1;
	while (s->model.machines[job->node].dead)
		job->node = (uint32_t)rng_below(&s->rng, s->c->nodes);
	ret = model_add(&s->model, begin_at(s, job), job, job->cpu_s, s->now_s, s->e);
	return ret < 0 ? ret : read_next(s);
}

static int count(struct sim *s, const struct job *job)
{
	double slowdown = (s->now_s - job->arrival_s) / job->cpu_s;
	size_t at = sample_of(s, s->now_s);

	s->series_sum[at] += slowdown;
	s->series_n[at]++;
	if (job->arrival_s < s->c->warm_s)
		return 0;
	if (s->n_slow == s->room_slow) {
		size_t room = MAX(4096, 2 * s->room_slow);
		double *grown = reallocarray(s->slowdowns, room, sizeof(*grown));

		if (!grown)
			return err_sys(s->e, -ENOMEM, "results");
		s->slowdowns = grown;
		s->room_slow = room;
	}
	s->slowdowns[s->n_slow++] = slowdown;
	s->r->moves_a_job += job->moves;
	if (job->cpu_s >= LONG_S) {
		s->long_sum += slowdown;
		s->n_long++;
	}
	return 0;
}

static int end(struct sim *s, uint32_t node)
{
	struct job *job = model_ending(&s->model, node);
	int ret = 0;

	model_remove(&s->model, job, s->now_s);
	if (!job->overhead)
		ret = count(s, job);
	free(job);
	return ret == 0 && s->c->scheduler == SIM_OMNISCIENT ? even_out(s, node) : ret;
}

static int land(struct sim *s)
{
	struct job *job = s->landing[0].job;
	double left = s->landing[0].left_s;

	landing_pop(s);
	while (s->model.machines[job->node].dead)
		job->node = (uint32_t)rng_below(&s->rng, s->c->nodes);
	return model_add(&s->model, job->node, job, left, s->now_s, s->e);
}

/* Nodes die: their jobs begin anew elsewhere. */
static int fail(struct sim *s)
{
	size_t n = (size_t)(s->c->fail_part * (double)s->c->nodes);

	s->failed = true;
	for (size_t i = 0; i < n; i++)
		s->model.machines[i].dead = 1;
	for (uint32_t i = 0; i < n; i++)
		while (s->model.machines[i].n) {
			struct job *job = s->model.machines[i].jobs[0];
			int ret;

			model_remove(&s->model, job, s->now_s);
			if (job->overhead) {
				free(job);
				continue;
			}
			ret = landing_push(s, s->now_s + s->c->recover_s, job, job->cpu_s);
			if (ret < 0)
				return ret;
		}
	return 0;
}

/* --- the whole --- */

static int step(struct sim *s)
{
	double end_s, turn_s = (double)s->turns / (double)s->c->nodes, at = s->c->end_s;
	uint32_t node = model_first(&s->model, &end_s);
	enum { OVER, FAIL, ARRIVE, LAND, END, TURN } what = OVER;

	if (s->c->fail_part > 0 && !s->failed && s->c->fail_at_s < at)
		at = s->c->fail_at_s, what = FAIL;
	if (s->next && s->next->arrival_s < at)
		at = s->next->arrival_s, what = ARRIVE;
	if (s->n_landing && s->landing[0].at_s < at)
		at = s->landing[0].at_s, what = LAND;
	if (end_s < at)
		at = end_s, what = END;
	if (turn_s < at)
		at = turn_s, what = TURN;
	s->now_s = MAX(at, s->now_s);
	switch (what) {
	case OVER:
		return 1;
	case FAIL:
		return fail(s);
	case ARRIVE:
		return arrive(s);
	case LAND:
		return land(s);
	case END:
		return end(s, node);
	default:
		return second(s);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void conclude(struct sim *s)
{
	struct sim_result *r = s->r;
	double sum = 0, busy = 0, cores = 0;
	uint64_t seen = 0;

	r->jobs = s->n_slow;
	if (s->n_slow) {
		qsort(s->slowdowns, s->n_slow, sizeof(*s->slowdowns), by_size);
		for (size_t i = 0; i < s->n_slow; i++)
			sum += s->slowdowns[i];
		r->slowdown_mean = sum / (double)s->n_slow;
		r->slowdown_p50 = s->slowdowns[s->n_slow / 2];
		r->slowdown_p99 = s->slowdowns[(size_t)((double)s->n_slow * 0.99)];
		r->moves_a_job /= (double)s->n_slow;
	}
	r->long_mean = s->n_long ? s->long_sum / (double)s->n_long : 0;
	for (size_t i = 0; i < s->c->nodes; i++) {
		model_advance(&s->model, (uint32_t)i, s->now_s);
		busy += s->model.machines[i].busy_s;
		cores += s->model.machines[i].cores;
	}
	r->utilisation = busy / (cores * s->c->end_s);
	r->messages_node_s = (double)r->messages / ((double)s->c->nodes * s->c->end_s);
	r->age_mean_s = s->n_ages ? s->age_sum / (double)s->n_ages : 0;
	for (size_t i = 0; s->n_ages && i < AGES_MAX; i++) {
		seen += s->ages[i];
		if (seen * 100 >= s->n_ages * 99) {
			r->age_p99_s = (double)(i + 1) * AGE_BIN_S;
			break;
		}
	}
	for (size_t i = 0; i < SIM_SAMPLES; i++)
		r->series_slowdown[i] = s->series_n[i] ? s->series_sum[i] / (double)s->series_n[i] : 0;
}

static int begin(struct sim *s)
{
	const struct sim_config *c = s->c;
	double power = 0;
	int ret = model_init(&s->model, c->nodes, s->e);

	s->rng.state = c->seed ^ 0x5eed;
	s->nodes = calloc(c->nodes, sizeof(*s->nodes));
	if (!s->nodes)
		return err_sys(s->e, -ENOMEM, "%zu nodes", c->nodes);
	for (size_t i = 0; ret == 0 && i < c->nodes; i++) {
		struct machine *k = &s->model.machines[i];
		struct gossip_entry self = { .id = i + 1, .version = START_MS, .state = NODE_OK, .measured_ms = START_MS };

		k->cores = c->cores;
		k->speed = pow(c->speed_spread, 2 * rng_unit(&s->rng) - 1);
		k->mem_mib = c->mem_mib;
		power += k->cores * k->speed;
		s->nodes[i].rng.state = rng_next(&s->rng);
		if (gossips(s))
			ret = gossip_init(&s->nodes[i].view.gossip, &self, c->table, s->e);
	}
	if (ret == 0)
		ret = jobs_open(&s->jobs, c, power, s->e);
	return ret < 0 ? ret : read_next(s);
}

static void finish(struct sim *s)
{
	for (size_t i = 0; s->nodes && i < s->c->nodes; i++)
		gossip_free(&s->nodes[i].view.gossip);
	for (size_t i = 0; s->model.machines && i < s->c->nodes; i++)
		for (uint32_t j = 0; j < s->model.machines[i].n; j++)
			free(s->model.machines[i].jobs[j]);
	for (size_t i = 0; i < s->n_landing; i++)
		free(s->landing[i].job);
	free(s->next);
	free(s->landing);
	free(s->slowdowns);
	free(s->nodes);
	jobs_close(&s->jobs);
	model_free(&s->model);
}

/* The CPUs in use, each time a sample of the series is over. */
static void sample_busy(struct sim *s, size_t *done)
{
	double busy = 0, cores = 0;

	for (; *done < sample_of(s, s->now_s); ++*done) {
		if (busy == 0)
			for (size_t i = 0; i < s->c->nodes; i++) {
				model_advance(&s->model, (uint32_t)i, s->now_s);
				busy += s->model.machines[i].busy_s;
				cores += s->model.machines[i].cores;
			}
		s->r->series_busy[*done] = (busy - s->busy_before) / (cores * s->c->end_s / SIM_SAMPLES);
		s->busy_before = busy;
	}
}

int sim_run(const struct sim_config *c, struct sim_result *ret, struct err *e)
{
	cleanup_free struct sim *s = calloc(1, sizeof(*s));
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	size_t sampled = 0;
	int r;

	if (!s)
		return err_sys(e, -ENOMEM, "the simulation");
	*ret = (struct sim_result){ 0 };
	s->c = c;
	s->r = ret;
	s->e = e;
	r = sim_config_check(c, e);
	if (r == 0)
		r = begin(s);
	while (r == 0) {
		sample_busy(s, &sampled);
		r = step(s);
	}
	if (r > 0)
		conclude(s);
	finish(s);
	ret->wall_s = (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e9;
	return MIN(r, 0);
}
