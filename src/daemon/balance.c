// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * balance.c - the loop of godwit-balance; see balance.h
 *
 * What moves at this moment counts as gone here and as there at its destination, exactly; what has moved counts so for a while, until figures contain it (policy_sent). A node that
 * refuses, or does not answer, is left out for CLOSED_NS, a unit that the engine refuses for REFUSED_NS, since what keeps it (a device, say) lasts; one that failed for FAILED_NS.
 */
#include "daemon/balance.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/move.h"
#include "daemon/node_state.h"
#include "daemon/reserve.h"
#include "daemon/work.h"

#define PERIOD_NS 1000000000ull
#define LOOK_MS 1000       /* until one that has died is started anew */
#define STAY_FACTOR 5.0    /* a unit stays for so many times what moves take here, so that they are a small part of what happens */
#define CLOSED_MAX 32
#define CLOSED_NS 2000000000ull
#define REFUSED_NS 60000000000ull
#define FAILED_NS 3000000000ull
#define AHEAD_S 2.0        /* figures are of the last second, and the next look is in another one */
#define FALL_SHARE 0.5
#define UP_MARGIN_MS 5000
#define FACTOR_SHARE 0.3   /* of the latest move in the mean */
#define FACTOR_MIN 0.2
#define FACTOR_MAX 50.0

struct under_way {
	struct move move;
	struct policy_unit unit;
	uint64_t node;
};

struct balancer {
	const struct daemon *d;
	struct balance_shared *shared;
	struct policy policy;
	struct nodes_view view;
	struct units units;
	struct talks talks;
	struct under_way moves[BALANCE_MOVES_MAX];
	struct {
		uint64_t node, until_ns;
	} closed[CLOSED_MAX]; /* nodes that have refused */
	size_t next_closed;
	double free_mib, fall_mib_s; /* memory of this node: at the last period, and how fast it goes */
	uint64_t free_ns;
	double ahead_mib;            /* that has been taken from what the view says */
	struct rng rng;
};

int balance_init(struct balance_shared **ret, struct err *e)
{
	*ret = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return *ret == MAP_FAILED ? err_sys(e, -errno, "mmap") : 0;
}

static bool should_run(const struct daemon *d)
{
	return node_state_balances(d->shared) || d->config.workstation;
}

int balance_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	pid_t daemon = getpid();
	bool child;

	if (!should_run(d) || worker_count(d, WORKER_BALANCE))
		return -1; /* who switches it on, and its end, wake */
	if (now >= d->balance_due_ns) {
		d->balance_due_ns = now + PERIOD_NS;
		worker_start(d, WORKER_BALANCE, &d->asks[0], 1, &child, NULL);
		if (child)
			balance_loop(d, daemon);
	}
	return LOOK_MS;
}

struct policy balance_policy(const struct daemon *d)
{
	const struct balance_shared *s = d->balance;
	struct policy p = policy_default;
	double factor = s->cost_factor;

	p.transfer = d->config.transfer;
	p.location = d->config.location;
	p.stay_s = MAX(p.stay_s, STAY_FACTOR * s->took_s);
	if (factor > 0) {
		p.cost.move_s *= factor;
		p.cost.connection_s *= factor;
		p.cost.mib_s *= factor;
	}
	return p;
}

const struct balance_note *balance_note_of(const struct balance_shared *s, const struct unit_info *unit)
{
	uint64_t now = clock_ns(CLOCK_BOOTTIME);

	for (size_t i = 0; i < BALANCE_NOTES; i++)
		if (s->notes[i].pid == unit->entry.pid && s->notes[i].start_ticks == unit->entry.start_ticks && now < s->notes[i].until_ns)
			return &s->notes[i];
	return NULL;
}

struct policy_unit balance_unit(const struct balance_shared *s, const struct unit_info *unit)
{
	struct policy_unit u = units_policy(unit);

	talks_add(&s->talks, unit, &u);
	u.pinned = balance_note_of(s, unit) != NULL;
	return u;
}

size_t balance_plan(const struct balance_question *q, const struct balance_shared *s, const struct unit_info *const *units, size_t n, size_t only, struct rng *rng, struct balance_move *ret, size_t max)
{
	cleanup_free struct policy_unit *seen = calloc(n + 1, sizeof(*seen));
	cleanup_free size_t *from = calloc(n + 1, sizeof(*from));
	cleanup_free struct policy_node *nodes = calloc(q->view->n + 1, sizeof(*nodes));
	cleanup_free struct policy_move *moves = calloc(max + 1, sizeof(*moves));
	size_t n_seen = 0, n_moves;

	if (!seen || !from || !nodes || !moves)
		return 0;
	for (size_t i = 0; i < n; i++)
		if (!q->owner || units[i]->foreign) {
			seen[n_seen] = balance_unit(s, units[i]);
			from[n_seen++] = i;
		}
	memcpy(nodes, q->view->nodes, q->view->n * sizeof(*nodes));
	if (q->owner)
		nodes[0].state = NODE_DRAINED; /* for the foreign ones */
	n_moves = policy_plan(q->policy, nodes, q->view->n, 0, seen, n_seen, only, rng, moves, max);
	for (size_t i = 0; i < n_moves; i++)
		ret[i] = (struct balance_move){ units[from[moves[i].unit]], seen[moves[i].unit], moves[i].verdict };
	return n_moves;
}

bool balance_owner_works(const struct config *config, const struct load *load)
{
	double idle_ms = load->v[LOAD_IT] * 60000, up_ms = (double)clock_ns(CLOCK_BOOTTIME) / 1e6;

	return config->workstation && idle_ms < config->owner_idle_ms && idle_ms + UP_MARGIN_MS < up_ms; /* else nobody has touched it since it was started */
}

double balance_look_ahead(const struct balance_shared *s, struct nodes_view *view)
{
	double *mem = &view->nodes[0].load.v[LOAD_MEM], taken = MIN(*mem, s->ahead_mib);

	*mem -= taken;
	return taken;
}

/* --- what is known --- */

static void note_unit(struct balancer *b, const struct move *m, uint64_t for_ns, const char *why)
{
	struct balance_note *at = b->shared->notes;
	struct balance_note note = { m->pid, m->start_ticks, clock_ns(CLOCK_BOOTTIME) + for_ns, "" };

	for (size_t i = 1; i < BALANCE_NOTES; i++)
		if (b->shared->notes[i].until_ns < at->until_ns)
			at = &b->shared->notes[i];
	snprintf(note.why, sizeof(note.why), "%s", why);
	*at = note;
}

static void close_node(struct balancer *b, uint64_t node)
{
	size_t at = b->next_closed++ % CLOSED_MAX;

	b->closed[at].node = node;
	b->closed[at].until_ns = clock_ns(CLOCK_MONOTONIC) + CLOSED_NS;
}

static bool is_closed(const struct balancer *b, uint64_t node)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	for (size_t i = 0; i < CLOSED_MAX; i++)
		if (b->closed[i].node == node && now < b->closed[i].until_ns)
			return true;
	return false;
}

static bool is_moving(const struct balancer *b, pid_t pid)
{
	for (size_t i = 0; i < BALANCE_MOVES_MAX; i++)
		if (b->moves[i].move.fd >= 0 && b->moves[i].move.pid == pid)
			return true;
	return false;
}

static size_t count_moving(const struct balancer *b)
{
	size_t n = 0;

	for (size_t i = 0; i < BALANCE_MOVES_MAX; i++)
		n += b->moves[i].move.fd >= 0;
	return n;
}

/* The nodes as they will be when what moves has moved. */
static void add_moving(const struct balancer *b, struct nodes_view *view)
{
	for (size_t i = 0; i < BALANCE_MOVES_MAX; i++) {
		const struct under_way *w = &b->moves[i];

		for (size_t k = 0; k < view->n && w->move.fd >= 0; k++)
			if (view->nodes[k].id == w->node)
				policy_sent(&view->nodes[k], w->unit.run, w->unit.mem_mib);
		if (w->move.fd >= 0)
			policy_sent(&view->nodes[0], -w->unit.run, -w->unit.mem_mib);
	}
	for (size_t k = 1; k < view->n; k++)
		if (is_closed(b, view->nodes[k].id))
			view->nodes[k].state = NODE_BUSY;
}

/*
 * Memory gets short before it is: what is free counts less what will be used until a move that is begun now is over. What leaves frees memory, so that the growth of those that stay says
 * more than what is free.
 */
static void look_ahead(struct balancer *b, const struct load *load)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	double fall = b->free_ns ? MAX(b->free_mib - load->v[LOAD_MEM], 0) * 1e9 / (double)(now - b->free_ns) : 0, growth = 0;

	for (size_t i = 0; i < b->units.n; i++)
		growth += MAX(b->units.v[i].grows_mib_s, 0);
	fall = MAX(fall, growth);
	b->fall_mib_s = MAX(fall, b->fall_mib_s + FALL_SHARE * (fall - b->fall_mib_s));
	b->free_mib = load->v[LOAD_MEM];
	b->free_ns = now;
	b->shared->ahead_mib = b->fall_mib_s * (AHEAD_S + 2 * b->shared->took_s);
}

/* --- moving --- */

static void begin(struct balancer *b, const struct balance_question *q, const struct unit_info *unit, const struct policy_unit *u, const struct policy_verdict *v)
{
	const struct policy_node *to = &b->view.nodes[v->node];
	char reason[BALANCE_TEXT_MAX];
	struct under_way *w = b->moves;
	struct err e = ERR_INIT;

	while (w->move.fd >= 0)
		w++;
	if (reserve_ask(b->d, &b->view.names[v->node].address, unit->entry.unit, u, v->reason, v->here, &e) < 0) {
		close_node(b, to->id);
		log_info("event=not-reserved unit=%s to=%s error=\"%s\"", unit->entry.unit, b->view.names[v->node].name, e.message);
		return;
	}
	balance_reason(q, u, v, reason);
	if (move_begin(&w->move, b->d, unit, b->view.names[v->node].name, reason, &e) < 0) {
		w->move.fd = -1;
		log_warning("event=not-begun unit=%s error=\"%s\"", unit->entry.unit, e.message);
		return;
	}
	w->unit = *u;
	w->node = to->id;
}

static double learn(double mean, double x)
{
	return mean > 0 ? mean + FACTOR_SHARE * (x - mean) : x;
}

/* A move costs the time that the unit stands still, and CPU: of this worker, and about as much at the destination. */
static void learn_cost(struct balancer *b, const struct under_way *w, const json_t *result)
{
	double frozen_s = json_number_value(json_object_get(result, "freeze_us")) / 1e6, cpu_s = json_number_value(json_object_get(result, "cpu_ms")) / 1e3;
	double factor = (frozen_s + 2 * cpu_s) / policy_cost_s(&policy_default, &w->unit);

	b->shared->cost_factor = learn(b->shared->cost_factor, MIN(MAX(factor, FACTOR_MIN), FACTOR_MAX));
	b->shared->took_s = learn(b->shared->took_s, json_number_value(json_object_get(result, "total_ms")) / 1e3);
}

static bool is_node_closed(const json_t *error)
{
	const char *code = json_string_value(json_object_get(json_array_get(json_object_get(error, "refusals"), 0), "code"));

	return code && !strcmp(code, "node.closed");
}

static void finish(struct balancer *b, const struct under_way *w, const json_t *line)
{
	const json_t *error = json_object_get(line, "error");
	const char *code = json_string_value(json_object_get(error, "code")), *message = json_string_value(json_object_get(error, "message"));

	if (!error) {
		cluster_view_sent(b->d->view, w->node, w->unit.run, w->unit.mem_mib);
		cluster_view_sent(b->d->view, gossip_id(b->d->config.name), -w->unit.run, 0); /* its memory is free now, and seen so a second later */
		b->shared->moves++;
		learn_cost(b, w, json_object_get(line, "result"));
		return;
	}
	b->shared->failures++;
	if (is_node_closed(error))
		close_node(b, w->node);
	else
		note_unit(b, &w->move, code && !strcmp(code, "refused") ? REFUSED_NS : FAILED_NS, message ? message : "");
}

/* --- a period --- */

/* `only`: the node that has asked for work, SIZE_MAX: none. */
static void plan(struct balancer *b, bool owner, size_t only, size_t max)
{
	cleanup_free const struct unit_info **units = calloc(b->units.n + 1, sizeof(*units));
	struct balance_question q = { &b->policy, &b->view, owner, b->ahead_mib };
	struct balance_move moves[BALANCE_MOVES_MAX];
	size_t n = 0, n_moves;

	for (size_t i = 0; units && i < b->units.n; i++)
		if (!is_moving(b, b->units.v[i].entry.pid))
			units[n++] = &b->units.v[i];
	n_moves = balance_plan(&q, b->shared, units, n, only, &b->rng, moves, MIN(max, BALANCE_MOVES_MAX - count_moving(b)));
	for (size_t i = 0; i < n_moves; i++)
		begin(b, &q, moves[i].unit, &moves[i].seen, &moves[i].verdict);
}

/* Takes the nodes anew. */
static bool look(struct balancer *b)
{
	struct nodes_view fresh;

	if (nodes_view_known(b->d, &fresh, NULL) < 0)
		return false;
	nodes_view_free(&b->view);
	b->view = fresh;
	b->policy = balance_policy(b->d);
	b->ahead_mib = balance_look_ahead(b->shared, &b->view);
	add_moving(b, &b->view);
	return true;
}

/* There is room here, and a node that has too much. */
static void ask_for_work(struct balancer *b)
{
	size_t whom = policy_ask(&b->policy, b->view.nodes, b->view.n, 0, &b->rng);
	struct err e = ERR_INIT;

	if (whom == SIZE_MAX)
		return;
	log_debug("event=asks-for-work node=%s", b->view.names[whom].name);
	cluster_view_sent(b->d->view, b->view.nodes[whom].id, -1, 0); /* the next second asks another one */
	if (work_ask(b->d, &b->view.names[whom].address, &e) < 0)
		log_info("event=not-asked node=%s error=\"%s\"", b->view.names[whom].name, e.message);
}

/* A node has asked for work: one unit, if that is good for both. */
static void give_work(struct balancer *b, const struct work_ask *ask)
{
	if (!node_state_balances(b->d->shared) || !b->units.n || count_moving(b) == BALANCE_MOVES_MAX || !look(b))
		return;
	for (size_t i = 1; i < b->view.n; i++) {
		struct policy_node *node = &b->view.nodes[i];

		if (node->id != ask->node || node->state != NODE_OK)
			continue;
		node->load = ask->load;
		node->age_s = 0;
		log_debug("event=asked-for-work node=%s run=%.2f", b->view.names[i].name, ask->load.v[LOAD_RUN]);
		plan(b, false, i, 1);
		return;
	}
}

static void read_moves(struct balancer *b, const struct pollfd p[BALANCE_MOVES_MAX])
{
	for (size_t i = 0; i < BALANCE_MOVES_MAX; i++) {
		struct under_way w = b->moves[i];
		json_t *line;

		if (w.move.fd < 0 || !p[i].revents || !move_read(&b->moves[i].move, &line))
			continue;
		finish(b, &w, line);
		json_decref(line);
	}
}

/* Until the next period. */
static void wait_moves(struct balancer *b, uint64_t until_ns)
{
	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC);
		struct pollfd p[BALANCE_MOVES_MAX + 1];
		struct work_ask ask;

		if (now >= until_ns)
			return;
		for (size_t i = 0; i < BALANCE_MOVES_MAX; i++)
			p[i] = (struct pollfd){ .fd = b->moves[i].move.fd, .events = POLLIN };
		p[BALANCE_MOVES_MAX] = (struct pollfd){ .fd = b->d->asks[0], .events = POLLIN };
		if (poll(p, BALANCE_MOVES_MAX + 1, (int)((until_ns - now) / 1000000) + 1) <= 0)
			continue;
		read_moves(b, p);
		while (p[BALANCE_MOVES_MAX].revents && work_next(b->d->asks[0], &ask))
			give_work(b, &ask);
	}
}

static void period(struct balancer *b)
{
	struct load load;
	bool owner;

	cluster_view_load(b->d->view, b->d->config.speed, &load);
	owner = balance_owner_works(&b->d->config, &load);
	node_state_set_owner(b->d->shared, owner);
	if ((!owner && !node_state_balances(b->d->shared)) || units_read(&b->units, b->d, NULL, 0, NULL) < 0)
		return;
	look_ahead(b, &load);
	talks_sample(&b->talks, &b->shared->talks, b->d, &b->units);
	if (!look(b))
		return;
	log_debug("event=period units=%zu moving=%zu run=%.2f free_mib=%.0f falls_mib_s=%.1f ahead_mib=%.0f", b->units.n, count_moving(b), load.v[LOAD_RUN], load.v[LOAD_MEM],
		  b->fall_mib_s, b->shared->ahead_mib);
	if (b->units.n && count_moving(b) < BALANCE_MOVES_MAX)
		plan(b, owner, SIZE_MAX, BALANCE_MOVES_MAX);
	if (!owner && node_state_balances(b->d->shared))
		ask_for_work(b);
}

void balance_loop(const struct daemon *d, pid_t daemon)
{
	static struct balancer b;

	prctl(PR_SET_NAME, "godwit-balance");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_set_context("side=balance");
	b = (struct balancer){ .d = d, .shared = d->balance };
	(void)!getrandom(&b.rng, sizeof(b.rng), 0);
	for (size_t i = 0; i < BALANCE_MOVES_MAX; i++)
		b.moves[i].move.fd = -1;
	while (getppid() == daemon && (should_run(d) || count_moving(&b))) {
		uint64_t due = clock_ns(CLOCK_MONOTONIC) + PERIOD_NS;

		period(&b);
		wait_moves(&b, due);
	}
	node_state_set_owner(d->shared, false);
	d->balance->ahead_mib = 0;
	_exit(0);
}
