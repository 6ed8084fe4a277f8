// SPDX-License-Identifier: GPL-2.0-or-later
/* do_nodes.c - the nodes and how they are */
#include "base/util.h"
#include "daemon/node_ask.h"
#include "daemon/node_state.h"
#include "daemon/reply.h"

static json_t *answer_json(const struct daemon *d, const struct question *q)
{
	char address[CONN_ADDRESS_TEXT];
	json_t *o, *indices;
	struct load load;

	conn_address_text(&q->address, address);
	o = json_pack("{s:s, s:s, s:s, s:b}", "name", q->name, "address", address, "state", q->info ? node_state_name((enum node_state)q->info->state) : "unreachable", "self",
		      !strcmp(q->name, d->config.name));
	if (!q->info) {
		json_object_set_new(o, "error", reply_text(q->error.message));
		return o;
	}
	indices = json_object();
	json_object_set_new(o, "kernel", reply_text(q->info->kernel));
	json_object_set_new(o, "units", json_integer(q->info->units));
	json_object_set_new(o, "migrations", json_integer(q->info->migrations));
	json_object_set_new(o, "uptime_s", json_integer((json_int_t)q->info->uptime_s));
	json_object_set_new(o, "load", json_pack("[f, f, f]", q->info->load1, q->info->load5, q->info->load15));
	json_object_set_new(o, "mem_total_bytes", json_integer((json_int_t)q->info->mem_total_bytes));
	json_object_set_new(o, "mem_available_bytes", json_integer((json_int_t)q->info->mem_available_bytes));
	node_load(q->info, &load);
	for (int i = 0; i < LOAD_INDICES; i++)
		json_object_set_new(indices, load_name((enum load_index)i), json_real(load.v[i]));
	json_object_set_new(o, "indices", indices);
	json_object_set_new(o, "labels", reply_text(q->info->labels));
	return o;
}

int do_nodes(const struct daemon *d, int fd)
{
	struct question *q;
	struct err e = ERR_INIT;
	json_t *nodes;
	size_t n;

	if (ask_all_nodes(d, &q, &n, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	nodes = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(nodes, answer_json(d, &q[i]));
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "nodes", nodes));
	questions_free(q, n);
	return 0;
}
