// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_select.c - the nodes that match a requirement, the best one first
 *
 * What gossip says is good enough to choose from. Before something is sent to the best one (`take`) that one is asked how it is now, and the next one when it does not do any more.
 */
#include <errno.h>

#include "base/util.h"
#include "cluster/gossip.h"
#include "daemon/node_ask.h"
#include "daemon/reply.h"

struct candidate {
	const struct cluster_node *node;
	struct load load; /* with what has been sent there, and what would be used */
};

static const struct require *sorted_by; /* qsort has no argument for it; this is a process of its own */

/* What is alike stays in the order of the table. */
static int by_rank(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int order = require_compare(sorted_by, &x->load, &y->load);

	return order ? order : x->node < y->node ? -1 : 1;
}

/* A run queue that has got what was sent to it, before it says so itself. */
static void add_sent(const struct daemon *d, uint64_t id, struct load *load)
{
	struct policy_node node = { .id = id };

	cluster_view_add_sent(d->view, &node);
	load_add(load, node.sent_run, node.sent_mib);
}

static bool matches(const struct daemon *d, const struct require *r, const struct cluster_node *node, const char *labels, struct load *load)
{
	struct require_node one = { .name = node->name, .labels = labels, .load = load };

	add_sent(d, node->id, load);
	return require_match(r, &one);
}

static size_t match(const struct daemon *d, const struct require *r, const struct cluster_node *nodes, size_t n, struct candidate *ret)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		struct candidate c = { .node = &nodes[i], .load = nodes[i].load };

		if (!nodes[i].reachable || nodes[i].state != NODE_OK || !matches(d, r, &nodes[i], nodes[i].labels, &c.load))
			continue;
		require_reserve(r, &c.load);
		ret[found++] = c;
	}
	sorted_by = r;
	if (found)
		qsort(ret, found, sizeof(*ret), by_rank);
	return found;
}

/* Whether the node does at this moment. This one's figures are fresh. */
static bool still_does(const struct daemon *d, const struct require *r, const struct cluster_node *node)
{
	struct question *q = NULL;
	struct load load;
	bool does = false;

	if (!strcmp(node->name, d->config.name))
		return true;
	if (ask_nodes(d, node, 1, &q, NULL) < 0)
		return false;
	if (q->info && node_takes(q->info)) {
		node_load(q->info, &load);
		does = matches(d, r, node, q->info->labels, &load);
	}
	questions_free(q, 1);
	return does;
}

/* Those before the first one that does are dropped. Returns how many. */
static size_t take(const struct daemon *d, const struct require *r, const struct candidate *found, size_t n)
{
	size_t i = 0;

	while (i < n && !still_does(d, r, found[i].node))
		i++;
	if (i < n)
		cluster_view_sent(d->view, found[i].node->id, 1, r->usage[LOAD_MEM]);
	return i;
}

int do_select(const struct daemon *d, const struct request *request, int fd)
{
	cleanup_free struct cluster_node *all = NULL;
	cleanup_free struct candidate *found = NULL;
	struct require r;
	struct err e = ERR_INIT;
	json_t *nodes;
	size_t n = 0, n_found, first;
	int ret = require_parse(&r, request->require, &e);

	if (ret >= 0)
		ret = node_list_heard(d, &all, &n, &e);
	if (ret >= 0) {
		found = calloc(n, sizeof(*found));
		if (!found)
			ret = err_sys(&e, -ENOMEM, "%zu nodes", n);
	}
	if (ret < 0 || !found) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	n_found = match(d, &r, all, n, found);
	first = request->take ? take(d, &r, found, n_found) : 0;
	nodes = json_array();
	for (size_t i = first; i < n_found; i++)
		json_array_append_new(nodes, json_string(found[i].node->name));
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "nodes", nodes));
	return 0;
}
