// SPDX-License-Identifier: GPL-2.0-or-later
/* do_started.c - a program that `godwit run` starts is a unit from its beginning: drain and balance know of it; and while balancing is on, where it should begin is said */
#include <errno.h>
#include <math.h>
#include <sys/random.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/balance.h"
#include "daemon/node_state.h"
#include "daemon/reply.h"
#include "daemon/reserve.h"
#include "migrate/registry.h"

#define PLACE_TRIES 3
#define PLACED_MIN 8.0    /* of late, so many may be on their way from here, */
#define PLACED_A_CORE 8.0 /* and more where there are CPUs for their moves; the others begin here, and balancing sees to them */

static bool many_are_on_their_way(const struct nodes_view *view)
{
	double sent = 0;

	for (size_t i = 1; i < view->n; i++)
		sent += MAX(view->nodes[i].sent_run, 0);
	return sent + 1 > MAX(PLACED_MIN, PLACED_A_CORE * view->nodes[0].load.v[LOAD_CORES]);
}

/* "": here. The node has reserved room for it. */
static void place(const struct daemon *d, const struct registry_entry *entry, char ret[HELLO_NAME_MAX + 1])
{
	const struct policy policy = balance_policy(d);
	struct policy_unit unit = { .run = 1, .since_move_s = HUGE_VAL };
	struct nodes_view view;
	struct rng rng;

	*ret = 0;
	if (!node_state_balances(d->shared) || nodes_view_known(d, &view, NULL) < 0)
		return;
	(void)!getrandom(&rng, sizeof(rng), 0);
	for (int i = 0; i < PLACE_TRIES && !*ret && !many_are_on_their_way(&view); i++) {
		size_t at = policy_place(&policy, view.nodes, view.n, 0, 1, 0, &rng);

		if (at == 0 || at == SIZE_MAX) {
			cluster_view_sent(d->view, view.nodes[0].id, 1, 0);
			break;
		}
		if (reserve_ask(d, &view.names[at].address, entry->unit, &unit, POLICY_BALANCE, policy_slowness(&view.nodes[0].load, view.nodes[0].load.v[LOAD_RUN] + view.nodes[0].sent_run + 1), NULL) < 0) {
			policy_sent(&view.nodes[at], 1, 0); /* busier than it was said to be */
			continue;
		}
		cluster_view_sent(d->view, view.nodes[at].id, 1, 0);
		snprintf(ret, HELLO_NAME_MAX + 1, "%s", view.names[at].name);
	}
	nodes_view_free(&view);
}

int do_started(const struct daemon *d, const struct request *request, int fd)
{
	struct registry_entry entry = { .pid = request->pid, .local = true, .started = true }, known;
	char node[HELLO_NAME_MAX + 1] = "";
	struct err e = ERR_INIT;

	snprintf(entry.unit, sizeof(entry.unit), "%s:%d", d->config.name, (int)request->pid);
	snprintf(entry.from, sizeof(entry.from), "%s", d->config.name);
	if (registry_lookup(request->pid, &known, NULL) < 0 && registry_add(&entry, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	if (request->take)
		place(d, &entry, node);
	reply_result(fd, json_pack("{s:s, s:s}", "unit", entry.unit, "node", node));
	return 0;
}
