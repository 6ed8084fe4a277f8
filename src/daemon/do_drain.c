// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_drain.c - giving everything away: godwit drain, and godwitd that shuts down
 *
 * The node's state is set first, so that nothing new comes. Then every unit moves, some at a time, each to the node that the policy names for it; a node that refuses one, or where a
 * move failed, is not named for that unit again, and when there is no other one, the unit stays and what was said last is why. Units that come meanwhile (they were on their way, or
 * somebody runs `godwit run`) are taken as well. It ends when nothing is left to try; the state stays.
 *
 * The client may go: then nothing more is begun, what has not been committed is cancelled, and the node stays drained.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/nodes_view.h"
#include "daemon/daemon.h"
#include "daemon/move.h"
#include "daemon/node_state.h"
#include "daemon/reply.h"
#include "daemon/reserve.h"
#include "home/where.h"

#define TRIES_MAX 6
#define NOT_THERE 2
#define TICK_MS 100
#define PLAN_MS 60000  /* for the answer about one unit */
#define AGAIN_NS 300000000ull
#define ARRIVING_NS 10000000000ull /* who was on the way here when it began has arrived by then, or waits for its pages */
#define VIEW_NS 1000000000ull
#define SETTLE_US 200000
#define IDLE_RUN 0.25  /* what sleeps may wake: it counts for the nodes that are chosen next */
#define LEAVES_MS 2000 /* from the answer of a move until nothing of the unit is in the registry */

/* A unit that has been tried. */
struct tried {
	pid_t pid;
	uint64_t start_ticks;
	struct {
		uint64_t node;
		unsigned weight;    /* a refusal is final, a failure may have passed the next time */
	} not_to[TRIES_MAX];
	size_t n;
	uint64_t again_ns;          /* not before */
	uint64_t gone_ns;           /* it has moved, and its record goes soon; 0: it has not */
	json_t *error;              /* why not; NULL: there is no reason but that no node takes it */
	bool stays;
};

struct draining {
	const struct daemon *d;
	const struct request *request;
	int fd;                     /* of the client, -1: nobody */
	struct units units;
	struct nodes_view view;
	uint64_t view_ns, begun_ns;
	struct tried *tried;
	size_t n_tried;
	struct move moves[REQUEST_PARALLEL_MAX];
	json_t *moved;
	struct rng rng;
	const char *reason;
};

static struct tried *tried_of(struct draining *g, pid_t pid, uint64_t start_ticks)
{
	struct tried *grown;

	for (size_t i = 0; i < g->n_tried; i++)
		if (g->tried[i].pid == pid && g->tried[i].start_ticks == start_ticks)
			return &g->tried[i];
	grown = reallocarray(g->tried, g->n_tried + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	g->tried = grown;
	g->tried[g->n_tried] = (struct tried){ .pid = pid, .start_ticks = start_ticks };
	return &g->tried[g->n_tried++];
}

static bool is_moving(const struct draining *g, pid_t pid)
{
	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		if (g->moves[i].fd >= 0 && g->moves[i].pid == pid)
			return true;
	return false;
}

static size_t count_moving(const struct draining *g)
{
	size_t n = 0;

	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		n += g->moves[i].fd >= 0;
	return n;
}

static void report_unit(struct draining *g, const struct move *m, const json_t *line)
{
	json_t *error = json_object_get(line, "error"), *result = json_object_get(line, "result");

	if (g->fd < 0)
		return;
	reply_line(g->fd, json_pack("{s:s, s:o, s:i, s:s, s:O*, s:O*}", "event", "unit", "unit", reply_text(m->unit), "pid", (int)m->pid, "to", m->to, "error", error, "result",
				    result));
}

static void report_progress(struct draining *g)
{
	size_t moving = count_moving(g), stay = 0, left = 0;
	uint64_t bytes = 0;

	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		bytes += g->moves[i].fd >= 0 ? g->moves[i].bytes_sent : 0;
	for (size_t i = 0; i < g->units.n; i++) {
		const struct tried *t = tried_of(g, g->units.v[i].entry.pid, g->units.v[i].entry.start_ticks);

		stay += t && t->stays;
		left += !t || (!t->stays && !t->gone_ns);
	}
	if (g->fd >= 0)
		reply_line(g->fd, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "event", "progress", "phase", "drain", "moved", (json_int_t)json_array_size(g->moved), "moving",
					    (json_int_t)moving, "left", (json_int_t)left, "stay", (json_int_t)stay, "bytes_sent", (json_int_t)bytes));
}

static bool not_there(const struct tried *t, uint64_t node)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->not_to[i].node == node)
			return t->not_to[i].weight >= NOT_THERE;
	return false;
}

static void note_not_there(struct tried *t, uint64_t node, unsigned weight)
{
	size_t i = 0;

	while (i < t->n && t->not_to[i].node != node)
		i++;
	if (i == TRIES_MAX)
		return;
	t->not_to[i].node = node;
	t->not_to[i].weight += weight;
	t->n = MAX(t->n, i + 1);
}

/* Where it goes; SIZE_MAX: nowhere. */
static size_t choose(struct draining *g, const struct unit_info *unit, const struct tried *t)
{
	struct policy_unit u = units_policy(unit);
	cleanup_free struct policy_node *nodes = calloc(g->view.n, sizeof(*nodes));

	if (!nodes)
		return SIZE_MAX;
	u.run = MAX(u.run, IDLE_RUN);
	memcpy(nodes, g->view.nodes, g->view.n * sizeof(*nodes));
	for (size_t i = 0; i < g->view.n; i++)
		if (not_there(t, nodes[i].id))
			nodes[i].state = NODE_BUSY;
	return policy_judge(&policy_default, nodes, g->view.n, 0, &u, POLICY_EVICTED, SIZE_MAX, &g->rng).node;
}

/* When nobody has said why: what is known of the nodes. */
static json_t *no_node(const struct draining *g)
{
	char text[400] = "";
	size_t len = 0;

	for (size_t i = 1; i < g->view.n && len < sizeof(text) - 1; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s is %s with %.0f MiB free of %.0f", i > 1 ? ", " : "", g->view.names[i].name,
					node_state_name(g->view.nodes[i].state), g->view.nodes[i].load.v[LOAD_MEM], g->view.nodes[i].load.v[LOAD_MAXMEM]);
	return json_pack("{s:s, s:i, s:s+, s:[]}", "code", "no-node", "errno", ENOSPC, "message", "no node takes it: ", len ? text : "none answers", "refusals");
}

static void take_view(struct draining *g)
{
	struct nodes_view fresh;

	if (g->view_ns && clock_ns(CLOCK_MONOTONIC) < g->view_ns + VIEW_NS)
		return;
	if (nodes_view_take(g->d, &fresh, NULL) == 0) {
		nodes_view_free(&g->view);
		g->view = fresh;
	}
	g->view_ns = clock_ns(CLOCK_MONOTONIC);
}

static void stay(struct draining *g, struct tried *t, json_t *error)
{
	t->stays = true;
	if (!t->error)
		t->error = error ? error : no_node(g);
}

static void begin(struct draining *g, const struct unit_info *unit, struct tried *t)
{
	struct policy_unit u = units_policy(unit);
	struct move *m = g->moves;
	struct err e = ERR_INIT;
	size_t to;

	while (m->fd >= 0)
		m++;
	take_view(g);
	to = t->n < TRIES_MAX ? choose(g, unit, t) : SIZE_MAX;
	if (to == SIZE_MAX) {
		stay(g, t, NULL);
		return;
	}
	u.run = MAX(u.run, IDLE_RUN);
	if (reserve_ask(g->d, &g->view.names[to].address, unit->entry.unit, &u, POLICY_EVICTED, 0, &e) < 0) {
		json_decref(t->error);
		t->error = json_pack("{s:s, s:i, s:o, s:[]}", "code", "no-room", "errno", -e.code, "message", reply_text(e.message), "refusals");
		t->again_ns = clock_ns(CLOCK_MONOTONIC) + AGAIN_NS;
		note_not_there(t, g->view.nodes[to].id, 1);
		return;
	}
	if (move_begin(m, g->d, unit, g->view.names[to].name, g->reason, &e) < 0) {
		stay(g, t, json_pack("{s:s, s:i, s:o, s:[]}", "code", "failed", "errno", -e.code, "message", reply_text(e.message), "refusals"));
		return;
	}
	cluster_view_sent(g->d->view, g->view.nodes[to].id, MAX(unit->run, IDLE_RUN), unit->mem_mib);
	policy_sent(&g->view.nodes[to], MAX(unit->run, IDLE_RUN), unit->mem_mib);
}

static void begin_some(struct draining *g)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	for (size_t i = 0; i < g->units.n && count_moving(g) < g->request->parallel; i++) {
		const struct unit_info *unit = &g->units.v[i];
		struct tried *t = tried_of(g, unit->entry.pid, unit->entry.start_ticks);

		if (t && !t->stays && !t->gone_ns && now >= t->again_ns && !is_moving(g, unit->entry.pid))
			begin(g, unit, t);
	}
}

/* A code that says that the process is not this node's affair any more. */
static bool is_gone(const json_t *error)
{
	const char *code = json_string_value(json_object_get(error, "code"));

	return json_integer_value(json_object_get(error, "errno")) == ESRCH || (code && !strcmp(code, "not-here"));
}

static void finish_move(struct draining *g, const struct move *m, const json_t *line)
{
	struct tried *t = tried_of(g, m->pid, m->start_ticks);
	json_t *error = json_object_get(line, "error");
	const char *code;

	report_unit(g, m, line);
	if (!error)
		json_array_append_new(g->moved, json_pack("{s:o, s:i, s:s, s:O}", "unit", reply_text(m->unit), "pid", (int)m->pid, "to", m->to, "freeze_us",
							  json_object_get(json_object_get(line, "result"), "freeze_us")));
	if (!t)
		return;
	if (!error || is_gone(error)) {
		t->gone_ns = clock_ns(CLOCK_MONOTONIC);
		return;
	}
	json_decref(t->error);
	t->error = json_incref(error);
	t->again_ns = clock_ns(CLOCK_MONOTONIC) + AGAIN_NS;
	code = json_string_value(json_object_get(error, "code"));
	if (code && !strcmp(code, "in-doubt"))
		t->stays = true;
	else if (!code || strcmp(code, "busy") != 0) /* somebody else moves it */
		note_not_there(t, m->node, code && !strcmp(code, "refused") ? NOT_THERE : 1);
}

/* Returns whether the client is still there. */
static bool wait_some(struct draining *g)
{
	struct pollfd p[REQUEST_PARALLEL_MAX + 1];

	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		p[i] = (struct pollfd){ .fd = g->moves[i].fd, .events = POLLIN };
	p[REQUEST_PARALLEL_MAX] = (struct pollfd){ .fd = g->fd };
	if (poll(p, REQUEST_PARALLEL_MAX + 1, TICK_MS) < 0)
		return true;
	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++) {
		struct move *m = &g->moves[i], said = *m;
		json_t *line;

		if (m->fd < 0 || !p[i].revents || !move_read(m, &line))
			continue;
		finish_move(g, &said, line);
		json_decref(line);
	}
	return !(p[REQUEST_PARALLEL_MAX].revents & (POLLHUP | POLLERR));
}

/* Nothing moves, nothing is on its way here, and everything that is here stays or is on the way out. */
static bool is_over(struct draining *g)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (count_moving(g) || (node_state_arriving(g->d->shared) && now < g->begun_ns + ARRIVING_NS))
		return false;
	for (size_t i = 0; i < g->units.n; i++) {
		struct tried *t = tried_of(g, g->units.v[i].entry.pid, g->units.v[i].entry.start_ticks);

		if (!t || (!t->stays && (!t->gone_ns || now < t->gone_ns + LEAVES_MS * 1000000ull)))
			return false;
	}
	return true;
}

/* Begins and waits until there is nothing left to do. false: the client has gone. */
static int give_all_away(struct draining *g, struct err *e)
{
	uint64_t deadline = g->request->timeout_ms ? clock_ns(CLOCK_MONOTONIC) + g->request->timeout_ms * 1000000ull : UINT64_MAX;
	size_t done = SIZE_MAX;

	for (;;) {
		int r = units_read(&g->units, g->d, g->request->also, g->request->n_also, e);

		if (r < 0)
			return r;
		if (node_state(g->d->shared) != NODE_DRAINED && node_state(g->d->shared) != NODE_LEAVING)
			return err_set(e, -ECANCELED, "%s has been undrained meanwhile", g->d->config.name);
		if (clock_ns(CLOCK_MONOTONIC) > deadline)
			return err_set(e, -ETIMEDOUT, "not done within %u ms; %s stays drained", g->request->timeout_ms, g->d->config.name);
		begin_some(g);
		if (done != json_array_size(g->moved) || count_moving(g))
			report_progress(g);
		done = json_array_size(g->moved);
		if (is_over(g))
			return 0;
		if (!wait_some(g))
			return err_set(e, -ECANCELED, "the client has gone; %s stays drained", g->d->config.name);
	}
}

static json_t *list_stayed(struct draining *g)
{
	json_t *list = json_array();

	for (size_t i = 0; i < g->units.n; i++) {
		const struct unit_info *unit = &g->units.v[i];
		struct tried *t = tried_of(g, unit->entry.pid, unit->entry.start_ticks);

		if (t && !t->gone_ns)
			json_array_append_new(list, json_pack("{s:o, s:i, s:o, s:o}", "unit", reply_text(unit->entry.unit), "pid", (int)unit->entry.pid, "command",
							      reply_text(unit->command), "error", t->error ? json_incref(t->error) : no_node(g)));
	}
	return list;
}

struct needing {
	const struct daemon *d;
	json_t *list;
};

/* A unit elsewhere for which something is still here: a stub for who waits for it, relays, files. */
static int add_needing(const char *unit, void *arg)
{
	struct needing *n = arg;
	struct door_where w;

	if (where_ask(unit, &w, NULL) == 0 && strcmp(w.host, n->d->config.name) != 0)
		json_array_append_new(n->list, json_pack("{s:o, s:o, s:o}", "unit", reply_text(unit), "on", reply_text(w.host), "command", reply_text(w.command)));
	return 0;
}

static json_t *list_needing(const struct daemon *d)
{
	struct needing n = { d, json_array() };
	char prefix[HELLO_NAME_MAX + 2];

	snprintf(prefix, sizeof(prefix), "%s:", d->config.name);
	door_list(prefix, add_needing, &n);
	return n.list;
}

/* Answers on fd when there is a client. Returns 0 when nothing is left here. */
static int drain_here(const struct daemon *d, const struct request *request, int fd, const char *reason)
{
	static struct draining g;
	struct err e = ERR_INIT;
	json_t *stayed, *needed;
	size_t n_stayed;
	int r;

	g = (struct draining){ .d = d, .request = request, .fd = fd, .moved = json_array(), .reason = reason, .begun_ns = clock_ns(CLOCK_MONOTONIC) };
	(void)!getrandom(&g.rng, sizeof(g.rng), 0);
	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		g.moves[i].fd = -1;
	r = give_all_away(&g, &e);
	for (size_t i = 0; i < REQUEST_PARALLEL_MAX; i++)
		move_free(&g.moves[i]);
	stayed = list_stayed(&g);
	if (json_array_size(g.moved)) /* who stands for the last one at home opens its door a moment after that has left, and nothing says when */
		usleep(SETTLE_US);
	needed = list_needing(d);
	n_stayed = json_array_size(stayed);
	log_info("event=drained moved=%zu stayed=%zu needed=%zu text=\"%s\"", json_array_size(g.moved), n_stayed, json_array_size(needed), e.message);
	if (fd >= 0) {
		json_t *result = json_pack("{s:s, s:s, s:o, s:o, s:o}", "node", d->config.name, "state", node_state_name(node_state(d->shared)), "moved", g.moved, "stayed", stayed,
					   "needed", needed);

		if (r < 0)
			reply_error(fd, r == -ECANCELED ? "cancelled" : "failed", &e, NULL, result);
		else
			reply_result(fd, result);
	}
	return r < 0 || n_stayed;
}

static int is_other(const struct daemon *d, const struct request *request)
{
	return request->host[0] && strcmp(request->host, d->config.name) != 0;
}

/* On the node that is named. */
static int forward(const struct daemon *d, const struct request *request, const char *verb, int fd)
{
	json_t *also = json_array(), *order;
	struct err e = ERR_INIT;
	int r;

	for (size_t i = 0; i < request->n_also; i++)
		json_array_append_new(also, json_integer(request->also[i]));
	order = json_pack("{s:s, s:s, s:i, s:I, s:I, s:o}", "verb", verb, "host", request->host, "hops", 1, "parallel", (json_int_t)request->parallel, "timeout_ms", (json_int_t)request->timeout_ms,
			  "also", also);
	if (request->drain)
		json_object_set_new(order, "drain", json_true());
	r = request->hops ? err_set(&e, -ELOOP, "%s is not %s: the configurations of the nodes disagree about who that is", d->config.name, request->host) :
			    do_forward_to(d, request->host, order, fd, &e);
	json_decref(order);
	if (r < 0)
		reply_error(fd, r == -ENOENT ? "unknown-host" : "failed", &e, NULL, NULL);
	return r < 0;
}

int do_drain(const struct daemon *d, const struct request *request, int fd)
{
	struct err e = ERR_INIT;

	prctl(PR_SET_NAME, "godwit-drain");
	if (is_other(d, request))
		return forward(d, request, "drain", fd);
	log_set_context("side=drain");
	if (node_state_set_drained(d->shared, true, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	return drain_here(d, request, fd, "drain: its node is emptied");
}

/* As begin() asks for a move. */
static json_t *ask_about(const struct draining *g, const struct unit_info *unit, const char *to)
{
	json_t *line = NULL;
	struct err e = ERR_INIT;

	if (move_order(g->d, json_pack("{s:s, s:i, s:s}", "verb", "plan", "pid", (int)unit->entry.pid, "host", to), PLAN_MS, &line, &e) < 0)
		line = json_pack("{s:{s:s, s:i, s:o, s:[]}}", "error", "code", "failed", "errno", -e.code, "message", reply_text(e.message), "refusals");
	return line;
}

/* Where it would go, and how, or why nowhere. Each counts as gone for those behind it. */
static json_t *plan_unit(struct draining *g, const struct unit_info *unit)
{
	struct tried t = { .pid = unit->entry.pid };
	json_t *o = json_pack("{s:o, s:i, s:o}", "unit", reply_text(unit->entry.unit), "pid", (int)unit->entry.pid, "command", reply_text(unit->command));
	size_t to;

	while (t.n < TRIES_MAX && (to = choose(g, unit, &t)) != SIZE_MAX) {
		json_t *line = ask_about(g, unit, g->view.names[to].name), *error = json_object_get(line, "error");

		json_decref(t.error);
		t.error = json_incref(error);
		note_not_there(&t, g->view.nodes[to].id, NOT_THERE);
		if (!error) {
			json_object_set_new(o, "to", json_string(g->view.names[to].name));
			json_object_set(o, "plan", json_object_get(line, "result"));
			policy_sent(&g->view.nodes[to], MAX(unit->run, IDLE_RUN), unit->mem_mib);
		}
		json_decref(line);
		if (!error)
			return o;
	}
	json_object_set_new(o, "error", t.error ? t.error : no_node(g));
	return o;
}

/* So many at once, at best. */
static json_t *whole_estimate(const json_t *moves, unsigned parallel)
{
	double low = 0, high = 0;
	const json_t *m;
	size_t i;

	json_array_foreach(moves, i, m) {
		const json_t *estimate = json_object_get(json_object_get(m, "plan"), "estimate");

		low += json_number_value(json_object_get(estimate, "low_ms"));
		high += json_number_value(json_object_get(estimate, "high_ms"));
	}
	return json_pack("{s:f, s:f}", "low_ms", low / MAX(parallel, 1u), "high_ms", high);
}

int do_plan_drain(const struct daemon *d, const struct request *request, int fd)
{
	static struct draining g;
	struct err e = ERR_INIT;
	json_t *moves, *stayed;
	int r;

	if (is_other(d, request))
		return forward(d, request, "plan", fd);
	g = (struct draining){ .d = d, .request = request, .fd = -1 };
	(void)!getrandom(&g.rng, sizeof(g.rng), 0);
	r = units_read(&g.units, d, request->also, request->n_also, &e);
	if (r == 0)
		r = nodes_view_take(d, &g.view, &e);
	if (r < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	moves = json_array();
	stayed = json_array();
	for (size_t i = 0; i < g.units.n; i++) {
		json_t *unit = plan_unit(&g, &g.units.v[i]);

		json_array_append_new(json_object_get(unit, "error") ? stayed : moves, unit);
	}
	reply_result(fd, json_pack("{s:b, s:s, s:s, s:o, s:o, s:o, s:o}", "dry_run", true, "node", d->config.name, "state", node_state_name(node_state(d->shared)), "estimate",
				   whole_estimate(moves, request->parallel), "moves", moves, "stayed", stayed, "needed", list_needing(d)));
	return 0;
}

int do_undrain(const struct daemon *d, const struct request *request, int fd)
{
	struct err e = ERR_INIT;
	bool was = node_state(d->shared) == NODE_DRAINED;

	if (is_other(d, request))
		return forward(d, request, "undrain", fd);
	if (node_state_set_drained(d->shared, false, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	log_info("event=undrained");
	reply_result(fd, json_pack("{s:s, s:s, s:b}", "node", d->config.name, "state", node_state_name(node_state(d->shared)), "was_drained", was));
	return 0;
}

int do_leave(const struct daemon *d)
{
	struct request request = { .parallel = REQUEST_PARALLEL_DEFAULT, .timeout_ms = d->config.drain_timeout_ms };

	prctl(PR_SET_NAME, "godwit-drain");
	log_set_context("side=drain");
	return drain_here(d, &request, -1, "shutdown: the godwitd of its node ends");
}
