// SPDX-License-Identifier: GPL-2.0-or-later
/* node_list.c - the nodes that there are; see daemon.h */
#include <errno.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "wire/bridge.h"

#define GREET_NS 1000000000ull /* since the start of godwitd: until then who has not been heard of may be */
#define WAIT_US 5000

bool node_address(const struct daemon *d, const char *name, struct sockaddr_in *ret)
{
	const struct config_node *listed = config_find(&d->config, name);
	struct cluster_node node;

	if (listed)
		*ret = listed->address;
	else if (cluster_view_find(d->view, name, &node))
		*ret = node.address;
	else if (bridge_find(name, NULL))
		*ret = bridge_address(name);
	else
		return false;
	return true;
}

/* Without godwit-cluster: what the configuration says. */
static int list_config(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	const struct config *config = &d->config;
	struct cluster_node *nodes = calloc(config->n_nodes + 1, sizeof(*nodes));
	size_t n = 1;

	if (!nodes)
		return err_sys(e, -ENOMEM, "%zu nodes", config->n_nodes);
	nodes[0] = (struct cluster_node){ .id = gossip_id(config->name), .address = config->listen, .reachable = true, .state = (uint8_t)node_state(d->shared) };
	nodes[0].measured_ms = cluster_now_ms();
	memcpy(nodes[0].name, config->name, sizeof(nodes[0].name));
	memcpy(nodes[0].labels, config->labels, sizeof(nodes[0].labels));
	cluster_view_load(d->view, config->speed, &nodes[0].load);
	for (size_t i = 0; i < config->n_nodes; i++) {
		if (!strcmp(config->nodes[i].name, config->name)) {
			nodes[0].address = config->nodes[i].address;
			continue;
		}
		nodes[n] = (struct cluster_node){ .id = gossip_id(config->nodes[i].name), .address = config->nodes[i].address };
		memcpy(nodes[n].name, config->nodes[i].name, sizeof(nodes[n].name));
		n++;
	}
	*ret = nodes;
	*ret_n = n;
	return 0;
}

int node_list(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	return cluster_view_read(d->view, ret, ret_n, NULL) == 0 ? 0 : list_config(d, ret, ret_n, e);
}

int node_list_heard(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	for (;;) {
		int r = node_list(d, ret, ret_n, e);
		size_t heard = 0;

		if (r < 0)
			return r;
		for (size_t i = 0; i < *ret_n; i++)
			heard += (*ret)[i].measured_ms > 0;
		if (heard == *ret_n || clock_ns(CLOCK_BOOTTIME) - d->started_ns >= GREET_NS)
			return 0;
		free(*ret);
		usleep(WAIT_US);
	}
}

struct bridged {
	struct cluster_node *nodes;
	size_t n;
};

static int add_bridged(const struct bridge_record *record, void *arg)
{
	struct bridged *b = arg;
	struct cluster_node *grown;

	for (size_t i = 0; i < b->n; i++)
		if (!strcmp(b->nodes[i].name, record->node))
			return 0;
	grown = realloc(b->nodes, (b->n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	b->nodes = grown;
	grown[b->n] = (struct cluster_node){ .id = gossip_id(record->node), .address = bridge_address(record->node), .reachable = true, .state = NODE_OK };
	snprintf(grown[b->n++].name, sizeof(grown->name), "%s", record->node);
	return 0;
}

int node_list_bridged(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e)
{
	struct bridged b = { 0 };
	int r = node_list_heard(d, &b.nodes, &b.n, e);

	if (r == 0 && (r = bridge_list(add_bridged, &b)) < 0) {
		free(b.nodes);
		return err_sys(e, r, "nodes");
	}
	if (r < 0)
		return r;
	*ret = b.nodes;
	*ret_n = b.n;
	return 0;
}
