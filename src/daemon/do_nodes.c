// SPDX-License-Identifier: GPL-2.0-or-later
/* do_nodes.c - the nodes and how they are, as gossip says */
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "wire/conn.h"

static void add_error(json_t *o, const struct cluster_node *node)
{
	char text[200];

	if (node->reachable)
		return;
	if (!node->measured_ms)
		snprintf(text, sizeof(text), "nothing has been heard of it: does godwitd run there?");
	else if (node->state == NODE_GONE)
		snprintf(text, sizeof(text), "godwitd has been ended there");
	else
		snprintf(text, sizeof(text), "it does not answer; what is known is %.0f s old: does godwitd run there?", (double)cluster_node_age_ms(node) / 1000);
	json_object_set_new(o, "error", json_string(text));
}

static json_t *node_json(const struct cluster_node *node, bool self)
{
	char address[CONN_ADDRESS_TEXT];
	json_t *o, *indices;

	conn_address_text(&node->address, address);
	o = json_pack("{s:s, s:s, s:s, s:b}", "name", node->name, "address", address, "state", cluster_node_state(node), "self", self);
	add_error(o, node);
	if (!node->measured_ms)
		return o;
	indices = json_object();
	json_object_set_new(o, "age_ms", json_integer((json_int_t)cluster_node_age_ms(node)));
	json_object_set_new(o, "kernel", reply_text(node->kernel));
	json_object_set_new(o, "units", json_integer(node->units));
	for (int i = 0; i < LOAD_INDICES; i++)
		json_object_set_new(indices, load_name((enum load_index)i), json_real(node->load.v[i]));
	json_object_set_new(o, "indices", indices);
	json_object_set_new(o, "labels", reply_text(node->labels));
	return o;
}

int do_nodes(const struct daemon *d, int fd)
{
	cleanup_free struct cluster_node *nodes = NULL;
	struct err e = ERR_INIT;
	json_t *list;
	size_t n = 0;

	if (node_list_bridged(d, &nodes, &n, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, node_json(&nodes[i], i == 0));
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "nodes", list));
	return 0;
}
