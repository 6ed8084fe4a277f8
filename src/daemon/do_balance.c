// SPDX-License-Identifier: GPL-2.0-or-later
/* do_balance.c - godwit balance: on, off, how it is, and why a unit moved or does not */
#include <errno.h>
#include <math.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/balance.h"
#include "daemon/node_state.h"
#include "daemon/reply.h"
#include "daemon/reserve.h"

#define SAMPLE_US 300000

struct asked {
	struct policy policy;
	struct nodes_view view;
	struct units units;
	struct rng rng;
	bool owner;
	double ahead_mib;
};

/* Everything that godwit-balance would look at. */
static int look(const struct daemon *d, struct asked *a, struct err *e)
{
	int r = units_read(&a->units, d, NULL, 0, e);

	if (r == 0 && a->units.n) {
		usleep(SAMPLE_US); /* what wants a CPU is seen in a while only */
		r = units_read(&a->units, d, NULL, 0, e);
	}
	if (r == 0)
		r = nodes_view_known(d, &a->view, e);
	if (r < 0)
		return r;
	a->ahead_mib = balance_look_ahead(d->balance, &a->view);
	a->policy = balance_policy(d);
	a->owner = balance_owner_works(&d->config, &a->view.nodes[0].load);
	(void)!getrandom(&a->rng, sizeof(a->rng), 0);
	return 0;
}

static void asked_free(struct asked *a)
{
	units_free(&a->units);
	nodes_view_free(&a->view);
}

/* Why it would have to go, whatever is gained. */
static enum policy_reason must_go(const struct asked *a, const struct unit_info *unit)
{
	const struct policy_node *here = &a->view.nodes[0];
	double all = here->load.v[LOAD_MAXMEM];

	if (here->state == NODE_DRAINED || here->state == NODE_LEAVING || (a->owner && unit->foreign))
		return POLICY_EVICTED;
	return here->load.v[LOAD_MEM] < a->policy.mem_low * all || here->load.v[LOAD_PSI_MEM] > a->policy.psi_mem_high ? POLICY_MEMORY : POLICY_BALANCE;
}

static json_t *number(double x)
{
	return json_real(isfinite(x) ? x : -1);
}

/* Of nodes that are known by name. */
static json_t *talks_json(const struct asked *a, const struct policy_unit *unit)
{
	json_t *list = json_array();

	for (size_t i = 0; i < unit->n_talks; i++)
		for (size_t k = 0; k < a->view.n; k++)
			if (a->view.nodes[k].id == unit->talks[i].id)
				json_array_append_new(list, json_pack("{s:s, s:f}", "node", a->view.names[k].name, "mib_s", unit->talks[i].mib_s));
	return list;
}

static json_t *verdict_json(const struct daemon *d, struct asked *a, const struct unit_info *unit)
{
	const struct balance_note *note = balance_note_of(d->balance, unit);
	struct balance_question q = { &a->policy, &a->view, a->owner, a->ahead_mib };
	struct policy_unit u = balance_unit(d->balance, unit);
	struct policy_verdict v;
	char why[BALANCE_TEXT_MAX];
	json_t *o;

	v = policy_judge(&a->policy, a->view.nodes, a->view.n, 0, &u, must_go(a, unit), SIZE_MAX, &a->rng);
	if (v.reason)
		balance_reason(&q, &u, &v, why);
	else
		balance_obstacle(&q, &u, &v, note, why);
	o = json_pack("{s:o, s:i, s:o, s:b, s:s, s:o, s:i, s:o}", "unit", reply_text(unit->entry.unit), "pid", (int)unit->entry.pid, "command", reply_text(unit->command), "goes",
		      v.reason != POLICY_STAYS, "obstacle", balance_obstacle_name(v.obstacle), "why", reply_text(why), "moves", (int)unit->entry.moves, "last_reason",
		      reply_text(unit->entry.reason));
	json_object_set_new(o, "to", v.node < a->view.n ? json_string(a->view.names[v.node].name) : json_null());
	json_object_set_new(o, "cpu_s", number(unit->cpu_s));
	json_object_set_new(o, "run", number(u.run));
	json_object_set_new(o, "mem_mib", number(u.mem_mib));
	json_object_set_new(o, "since_move_s", number(u.since_move_s));
	json_object_set_new(o, "slowness_here", number(v.here));
	json_object_set_new(o, "slowness_there", number(v.there));
	json_object_set_new(o, "gain_s", number(v.gain_s));
	json_object_set_new(o, "cost_s", number(v.cost_s));
	json_object_set_new(o, "talks", talks_json(a, &u));
	return o;
}

/* What godwit-balance would begin now, were nothing under way. */
static json_t *plan_json(const struct daemon *d, struct asked *a)
{
	cleanup_free const struct unit_info **units = calloc(a->units.n + 1, sizeof(*units));
	struct balance_question q = { &a->policy, &a->view, a->owner, a->ahead_mib };
	struct balance_move moves[BALANCE_MOVES_MAX];
	json_t *list = json_array();
	size_t n = 0;

	for (; units && n < a->units.n; n++)
		units[n] = &a->units.v[n];
	n = balance_plan(&q, d->balance, units, n, SIZE_MAX, &a->rng, moves, BALANCE_MOVES_MAX);
	for (size_t i = 0; i < n; i++) {
		const struct unit_info *unit = moves[i].unit;
		char why[BALANCE_TEXT_MAX];

		balance_reason(&q, &moves[i].seen, &moves[i].verdict, why);
		json_array_append_new(list, json_pack("{s:o, s:i, s:o, s:s, s:o}", "unit", reply_text(unit->entry.unit), "pid", (int)unit->entry.pid, "command", reply_text(unit->command), "to",
						      a->view.names[moves[i].verdict.node].name, "why", reply_text(why)));
	}
	return list;
}

static json_t *nodes_json(const struct asked *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < a->view.n; i++) {
		const struct policy_node *n = &a->view.nodes[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "name", a->view.names[i].name, "state", node_state_name(n->state), "run",
						      n->load.v[LOAD_RUN], "sent_run", n->sent_run, "cores", n->load.v[LOAD_CORES], "speed", n->load.v[LOAD_SPEED], "mem_mib",
						      n->load.v[LOAD_MEM], "maxmem_mib", n->load.v[LOAD_MAXMEM], "psimem", n->load.v[LOAD_PSI_MEM]));
	}
	return list;
}

static json_t *state_json(const struct daemon *d)
{
	return json_pack("{s:s, s:b, s:s, s:s, s:s, s:I, s:I}", "node", d->config.name, "balance", node_state_balances(d->shared), "state", node_state_name(node_state(d->shared)),
			 "transfer", policy_transfer_name(d->config.transfer), "location", policy_location_name(d->config.location), "moves", (json_int_t)d->balance->moves,
			 "failures", (json_int_t)d->balance->failures);
}

static int set(const struct daemon *d, bool on, int fd)
{
	struct err e = ERR_INIT;

	if (node_state_set_balance(d->shared, on, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	log_info("event=balance on=%d", on);
	reply_result(fd, state_json(d));
	return 0;
}

static int status(const struct daemon *d, int fd)
{
	struct asked a = { 0 };
	struct err e = ERR_INIT;
	json_t *o = state_json(d), *units = json_array();
	int r = look(d, &a, &e);

	for (size_t i = 0; r == 0 && i < a.units.n; i++)
		json_array_append_new(units, verdict_json(d, &a, &a.units.v[i]));
	json_object_set_new(o, "units", units);
	if (r == 0)
		json_object_set_new(o, "nodes", nodes_json(&a));
	if (r == 0)
		json_object_set_new(o, "plan", plan_json(d, &a));
	if (r == 0)
		reply_result(fd, o);
	else
		reply_error(fd, "failed", &e, NULL, o);
	asked_free(&a);
	return r < 0;
}

/* request->pid is the unit here. */
static int explain(const struct daemon *d, const struct request *request, int fd)
{
	struct asked a = { 0 };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	const struct unit_info *unit = NULL;
	int r = caller_check(&request->caller, &request->pid, 1, &refusals, &e);

	if (r == 0 && refusals.n)
		r = err_set(&e, -EPERM, "%s: %s", refusals.v[0].thing, refusals.v[0].cause);
	refusals_free(&refusals);
	if (r == 0)
		r = look(d, &a, &e);
	for (size_t i = 0; r == 0 && i < a.units.n; i++)
		if (a.units.v[i].entry.pid == request->pid)
			unit = &a.units.v[i];
	if (r == 0 && !unit)
		r = err_set(&e, -ENOENT, "process %d is no unit: balancing moves what came from elsewhere and what `godwit run` started, each with all below it (`godwit ps` lists them)",
			    (int)request->pid);
	if (r == 0) {
		json_t *o = verdict_json(d, &a, unit);

		json_object_set_new(o, "node", json_string(d->config.name));
		json_object_set_new(o, "balance", json_boolean(node_state_balances(d->shared)));
		json_object_set_new(o, "nodes", nodes_json(&a));
		reply_result(fd, o);
	} else {
		reply_error(fd, r == -ENOENT ? "unknown-unit" : "failed", &e, NULL, NULL);
	}
	asked_free(&a);
	return r < 0;
}

/* A unit that is elsewhere is explained there. */
static int find_and_explain(const struct daemon *d, struct request request, int fd)
{
	struct err e = ERR_INIT;

	request_name_unit(d, &request);
	if (request.pid)
		return explain(d, &request, fd);
	if (do_forward(d, &request, fd, &e) >= 0)
		return 0;
	reply_error(fd, "unknown-unit", &e, NULL, NULL);
	return 1;
}

static int forward_to_host(const struct daemon *d, const struct request *request, int fd)
{
	static const char *const actions[] = { [BALANCE_STATUS] = "status", [BALANCE_ON] = "on", [BALANCE_OFF] = "off", [BALANCE_EXPLAIN] = "explain" };
	struct err e = ERR_INIT;
	json_t *order = json_pack("{s:s, s:s, s:s, s:i}", "verb", "balance", "action", actions[request->action], "host", request->host, "hops", 1);
	int r = request->hops ? err_set(&e, -ELOOP, "%s is not %s: the configurations of the nodes disagree about who that is", d->config.name, request->host) :
				do_forward_to(d, request->host, order, fd, &e);

	json_decref(order);
	if (r < 0)
		reply_error(fd, r == -ENOENT ? "unknown-host" : "failed", &e, NULL, NULL);
	return r < 0;
}

int do_balance(const struct daemon *d, const struct request *request, int fd)
{
	if (request->action == BALANCE_EXPLAIN)
		return find_and_explain(d, *request, fd);
	if (request->host[0] && strcmp(request->host, d->config.name) != 0)
		return forward_to_host(d, request, fd);
	return request->action == BALANCE_STATUS ? status(d, fd) : set(d, request->action == BALANCE_ON, fd);
}
