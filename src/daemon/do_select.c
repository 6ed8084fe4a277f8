// SPDX-License-Identifier: GPL-2.0-or-later
/* do_select.c - the nodes that match a requirement, the best one first */
#include <errno.h>

#include "base/util.h"
#include "cluster/gossip.h"
#include "daemon/node_ask.h"
#include "daemon/reply.h"

struct candidate {
	const struct question *q;
	struct load load; /* with what has been sent there, and what would be used */
};

static const struct require *sorted_by; /* qsort has no argument for it; this is a process of its own */

/* What is alike stays in the order of the configuration. */
static int by_rank(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int order = require_compare(sorted_by, &x->load, &y->load);

	return order ? order : x->q < y->q ? -1 : 1;
}

/* A run queue that has got what was sent to it, before it says so itself. */
static void add_sent(const struct daemon *d, const char *name, struct load *load)
{
	struct policy_node node = { .id = gossip_id(name) };
	double length;

	host_load_add_sent(d->load, &node, 1);
	length = node.sent_run / load_power(load);
	load->v[LOAD_RUN] += node.sent_run;
	load->v[LOAD_R15S] += length;
	load->v[LOAD_R1M] += length;
	load->v[LOAD_R15M] += length;
	load->v[LOAD_MEM] = MAX(load->v[LOAD_MEM] - node.sent_mib, 0);
}

static size_t match(const struct daemon *d, const struct require *r, const struct question *q, size_t n, struct candidate *ret)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		struct candidate c = { .q = &q[i] };
		struct require_node node = { .name = q[i].name, .load = &c.load };

		if (!q[i].info || (q[i].info->state && q[i].info->state != NODE_OK))
			continue; /* it takes nothing */
		node.labels = q[i].info->labels;
		node_load(q[i].info, &c.load);
		add_sent(d, q[i].name, &c.load);
		if (!require_match(r, &node))
			continue;
		require_reserve(r, &c.load);
		ret[found++] = c;
	}
	sorted_by = r;
	if (found)
		qsort(ret, found, sizeof(*ret), by_rank);
	return found;
}

int do_select(const struct daemon *d, const struct request *request, int fd)
{
	cleanup_free struct candidate *found = NULL;
	struct question *q = NULL;
	struct require r;
	struct err e = ERR_INIT;
	json_t *nodes;
	size_t n = 0, matches;
	int ret = require_parse(&r, request->require, &e);

	if (ret >= 0)
		ret = ask_all_nodes(d, &q, &n, &e);
	if (ret >= 0) {
		found = calloc(n, sizeof(*found));
		if (!found)
			ret = err_sys(&e, -ENOMEM, "%zu nodes", n);
	}
	if (ret < 0 || !found) {
		reply_error(fd, "failed", &e, NULL, NULL);
		questions_free(q, n);
		return 1;
	}
	matches = match(d, &r, q, n, found);
	if (request->take && matches)
		host_load_sent(d->load, gossip_id(found[0].q->name), 1, r.usage[LOAD_MEM]);
	nodes = json_array();
	for (size_t i = 0; i < matches; i++)
		json_array_append_new(nodes, json_string(found[i].q->name));
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "nodes", nodes));
	questions_free(q, n);
	return 0;
}
