// SPDX-License-Identifier: GPL-2.0-or-later
/* nodes_view.c - see nodes_view.h */
#include "daemon/nodes_view.h"

#include <errno.h>

#include "base/util.h"
#include "daemon/node_ask.h"
#include "daemon/node_state.h"

static void add(struct nodes_view *v, size_t at, const struct question *q)
{
	v->nodes[at] = (struct policy_node){ .id = gossip_id(q->name), .state = q->info->state ? (enum node_state)q->info->state : NODE_OK };
	node_load(q->info, &v->nodes[at].load);
	memcpy(v->names[at].name, q->name, sizeof(q->name));
	v->names[at].address = q->address;
}

static void add_self(const struct daemon *d, struct nodes_view *v)
{
	v->nodes[0] = (struct policy_node){ .id = gossip_id(d->config.name), .state = node_state(d->shared) };
	host_load_read(d->load, d->config.speed, &v->nodes[0].load);
	snprintf(v->names[0].name, sizeof(v->names[0].name), "%s", d->config.name);
	v->names[0].address = d->config.listen;
}

int nodes_view_take(const struct daemon *d, struct nodes_view *ret, struct err *e)
{
	struct question *q;
	size_t n;
	int r = ask_all_nodes(d, &q, &n, e);

	if (r < 0)
		return r;
	*ret = (struct nodes_view){ .n = 1, .nodes = calloc(n + 1, sizeof(*ret->nodes)), .names = calloc(n + 1, sizeof(*ret->names)) };
	if (ret->nodes && ret->names) {
		add_self(d, ret);
		for (size_t i = 0; i < n; i++)
			if (q[i].info && strcmp(q[i].name, d->config.name) != 0)
				add(ret, ret->n++, &q[i]);
		host_load_add_sent(d->load, ret->nodes, ret->n);
	} else {
		nodes_view_free(ret);
		r = err_sys(e, -ENOMEM, "%zu nodes", n);
	}
	questions_free(q, n);
	return r;
}

void nodes_view_free(struct nodes_view *v)
{
	freep(&v->nodes);
	freep(&v->names);
	v->n = 0;
}
