// SPDX-License-Identifier: GPL-2.0-or-later
/* nodes_view.c - see nodes_view.h */
#include "daemon/nodes_view.h"

#include <errno.h>

#include "base/util.h"
#include "daemon/node_ask.h"
#include "daemon/node_state.h"

static int make(struct nodes_view *ret, size_t n, struct err *e)
{
	*ret = (struct nodes_view){ .nodes = calloc(n, sizeof(*ret->nodes)), .names = calloc(n, sizeof(*ret->names)) };
	if (ret->nodes && ret->names)
		return 0;
	nodes_view_free(ret);
	return err_sys(e, -ENOMEM, "%zu nodes", n);
}

static void add(struct nodes_view *v, const struct cluster_node *node)
{
	v->nodes[v->n] = (struct policy_node){ .id = node->id, .load = node->load, .age_s = (double)cluster_node_age_ms(node) / 1000, .state = (enum node_state)node->state };
	memcpy(v->names[v->n].name, node->name, sizeof(node->name));
	v->names[v->n].address = node->address;
	v->n++;
}

static int by_age(const void *a, const void *b)
{
	uint64_t x = ((const struct cluster_node *)a)->measured_ms, y = ((const struct cluster_node *)b)->measured_ms;

	return x > y ? -1 : x < y;
}

static int known(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	size_t n = 0;
	int r = node_list_heard(d, ret, ret_n, e);

	for (size_t i = 0; r == 0 && i < *ret_n; i++)
		if ((*ret)[i].reachable)
			(*ret)[n++] = (*ret)[i];
	if (n > NODES_VIEW_MAX) {
		qsort(*ret + 1, n - 1, sizeof(**ret), by_age);
		n = NODES_VIEW_MAX;
	}
	*ret_n = n;
	return r;
}

static void add_sent(const struct daemon *d, struct nodes_view *v)
{
	for (size_t i = 0; i < v->n; i++)
		cluster_view_add_sent(d->view, &v->nodes[i]);
}

int nodes_view_known(const struct daemon *d, struct nodes_view *ret, struct err *e)
{
	cleanup_free struct cluster_node *nodes = NULL;
	size_t n = 0;
	int r = known(d, &nodes, &n, e);

	if (r == 0)
		r = make(ret, n, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		add(ret, &nodes[i]);
	add_sent(d, ret);
	return 0;
}

/* What it says of itself now. */
static void refresh(struct cluster_node *node, const Gw__NodeInfo *info)
{
	node_load(info, &node->load);
	node->state = info->state ? (uint8_t)info->state : NODE_OK;
	node->measured_ms = cluster_now_ms();
}

int nodes_view_take(const struct daemon *d, struct nodes_view *ret, struct err *e)
{
	cleanup_free struct cluster_node *nodes = NULL;
	struct question *q = NULL;
	size_t n = 0;
	int r = known(d, &nodes, &n, e);

	if (r == 0)
		r = make(ret, n, e);
	if (r < 0)
		return r;
	r = ask_nodes(d, nodes + 1, n - 1, &q, e);
	if (r < 0) {
		nodes_view_free(ret);
		return r;
	}
	add(ret, &nodes[0]);
	for (size_t i = 1; i < n; i++) {
		if (!q[i - 1].info)
			continue;
		refresh(&nodes[i], q[i - 1].info);
		add(ret, &nodes[i]);
	}
	add_sent(d, ret);
	questions_free(q, n - 1);
	return 0;
}

void nodes_view_free(struct nodes_view *v)
{
	freep(&v->nodes);
	freep(&v->names);
	v->n = 0;
}
