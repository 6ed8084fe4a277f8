// SPDX-License-Identifier: GPL-2.0-or-later
/* do_connections.c - the connections that have moved, as this node knows them: where their ends are, how packets get there, who is needed for that */
#include <arpa/inet.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "net/owned.h"
#include "net/owned_users.h"
#include "net/tidy.h"

struct listing {
	const struct daemon *d;
	struct cluster_node *nodes;
	size_t n_nodes;
	json_t *connections;
};

static void address_text_port(const uint8_t a[16], uint16_t port, char text[INET6_ADDRSTRLEN + 10])
{
	bool ipv4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a);
	char address[INET6_ADDRSTRLEN] = "?";

	inet_ntop(ipv4 ? AF_INET : AF_INET6, ipv4 ? a + 12 : a, address, sizeof(address));
	snprintf(text, INET6_ADDRSTRLEN + 10, ipv4 ? "%s:%u" : "[%s]:%u", address, ntohs(port));
}

/* The node that has an address, as far as nodes are known; NULL: none that is. */
static const char *node_of(const struct listing *l, const uint8_t a[16], bool ours)
{
	if (ours)
		return l->d->config.name;
	for (size_t i = 0; i < l->n_nodes; i++)
		if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a) && !memcmp(a + 12, &l->nodes[i].address.sin_addr, 4))
			return l->nodes[i].name;
	return NULL;
}

/*
 * direct: every node sends to where the end is. through: whoever has no Godwit sends to the node that has the address, which forwards; it is
 * needed as long as such a peer talks.
 */
static void add_route(const struct listing *l, const struct redirect_item *item, json_t *o)
{
	const char *home = node_of(l, item->own_host, item->own_is_ours);
	const char *peer = item->other[0] ? item->other : node_of(l, item->peer_host, item->peer_is_ours);
	bool is_home = item->state == REDIRECT_HERE && item->flags & REDIRECT_NATIVE;
	bool through = !is_home && (item->listener || !peer);
	json_t *needs = json_array();

	if (through && home)
		json_array_append_new(needs, reply_text(home));
	if (!item->listener)
		json_object_set_new(o, "peer_on", reply_text(peer ? peer : "outside"));
	json_object_set_new(o, "route", json_string(is_home ? "home" : through ? "through" : "direct"));
	json_object_set_new(o, "through", reply_text(through ? home ? home : "the host with the address" : ""));
	json_object_set_new(o, "needs", needs);
}

static int add(const struct redirect_item *item, void *arg)
{
	static const char *const states[] = { "home", "here", "there", "held" };
	struct listing *l = arg;
	char own[INET6_ADDRSTRLEN + 10], peer[INET6_ADDRSTRLEN + 10];
	json_t *o;

	/* Ends that have never moved are entered where their other end has; one that has is listed itself. */
	if (item->state == REDIRECT_NONE || (item->state == REDIRECT_HERE && item->flags & REDIRECT_NATIVE && !item->moves_made))
		return 0;
	address_text_port(item->flow.own, item->flow.own_port, own);
	address_text_port(item->flow.peer, item->flow.peer_port, peer);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:i, s:I}", "protocol", item->flow.protocol == IPPROTO_TCP ? "tcp" : "udp", "kind",
		      item->listener ? "listener" : "connection", "address", own, "peer", item->listener ? "" : peer, "state", states[item->state & 3], "on",
		      reply_text(item->state == REDIRECT_HERE ? l->d->config.name : item->node), "moves", (int)item->moves_made, "idle_ms",
		      (json_int_t)(item->idle_ns / 1000000));
	add_route(l, item, o);
	json_array_append_new(l->connections, o);
	return 0;
}

/* A process with addresses of its own, that are here: whoever talks to them finds them by themselves. */
static int add_owned(const struct owned *o, void *arg)
{
	struct listing *l = arg;
	struct owned_user *users = NULL;
	size_t n = 0;

	for (size_t i = 0; i < o->n && !o->coming; i++) {
		char text[ADDRESS_TEXT];

		json_array_append_new(l->connections, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:i, s:s, s:[]}", "protocol", "ip", "kind", "address", "address",
								address_text(&o->v[i], text), "peer", "", "state", "here", "on", l->d->config.name, "pid", (int)o->pid, "device",
								o->v[i].on, "route", "owned", "moves", 0, "through", "", "needs"));
	}
	if (o->coming || owned_users(-1, o->v, o->n, &users, &n, NULL) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		char own[INET6_ADDRSTRLEN + 10], peer[INET6_ADDRSTRLEN + 10];
		const struct redirect_flow *flow = &users[i].flow;
		const char *node = node_of(l, flow->peer, false);

		address_text_port(flow->own, flow->own_port, own);
		address_text_port(flow->peer, flow->peer_port, peer);
		json_array_append_new(l->connections, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:[]}", "protocol", flow->protocol == IPPROTO_TCP ? "tcp" : "udp",
								"kind", flow->peer_port ? "connection" : "listener", "address", own, "peer", flow->peer_port ? peer : "", "state",
								"here", "on", l->d->config.name, "moves", 0, "peer_on", flow->peer_port ? node ? node : "outside" : "-", "route",
								"owned", "through", "", "needs"));
	}
	free(users);
	return 0;
}

int do_connections(const struct daemon *d, int fd)
{
	struct listing l = { .d = d, .connections = json_array() };
	struct redirect *r = NULL;
	struct err e = ERR_INIT;
	int code = node_list(d, &l.nodes, &l.n_nodes, &e);

	if (code >= 0)
		code = redirect_find(&r, &e);
	if (code >= 0 && r)
		code = redirect_list(r, add, &l, &e);
	redirect_close(&r);
	owned_list(add_owned, &l);
	free(l.nodes);
	if (code < 0) {
		json_decref(l.connections);
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "connections", l.connections));
	return 0;
}
