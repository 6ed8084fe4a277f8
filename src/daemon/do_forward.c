// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_forward.c - a request for a unit that is on another node
 *
 * The node is asked that the unit's home (home/where.h) says, then its home, then all others; the first one that knows the unit does what is asked. From
 * then on bytes pass both ways, so that the client may cancel. Those that it is handed to hand it on at most along their own knowledge (hops).
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "home/where.h"
#include "wire/conn.h"

#define CONNECT_MS 2000

struct forwarding {
	const struct daemon *d;
	const struct request *request;
	int fd;
	char tried[600]; /* nodes, for the message */
};

static char *line_of(const json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	char *line = text ? malloc(strlen(text) + 2) : NULL;

	if (line)
		sprintf(line, "%s\n", text);
	free(text);
	return line;
}

static json_t *protect_order(const struct request *r)
{
	json_t *to = json_array();

	if (r->verb == VERB_UNPROTECT) {
		json_decref(to);
		return json_pack("{s:s, s:s, s:i}", "verb", "unprotect", "unit", r->unit, "hops", (int)r->hops + 1);
	}
	for (size_t i = 0; i < r->protection.n_to; i++)
		json_array_append_new(to, json_string(r->protection.to[i]));
	return json_pack("{s:s, s:s, s:i, s:i, s:s, s:s, s:o, s:i}", "verb", "protect", "unit", r->unit, "every_ms", (int)r->protection.every_ms, "copies", (int)r->protection.copies, "files",
			 fsfile_policy_name(r->protection.files), "tcp", tcp_outside_policy_name(r->protection.tcp), "to", to, "hops", (int)r->hops + 1);
}

static char *make_line(const struct request *r)
{
	json_t *o = r->verb == VERB_PROTECT || r->verb == VERB_UNPROTECT ? protect_order(r) : r->verb == VERB_BALANCE ? json_pack("{s:s, s:s, s:s, s:i}", "verb", "balance", "action", "explain", "unit", r->unit, "hops", (int)r->hops + 1) :
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:i}", "verb", r->verb == VERB_PLAN ? "plan" : "migrate", "unit", r->unit, "host", r->host, "strategy", strategy_name(r->strategy), "files",
			  fsfile_policy_name(r->files), "tcp", tcp_outside_policy_name(r->tcp), "reason", r->reason, "timeout_ms", (json_int_t)r->timeout_ms, "hops",
			  (int)r->hops + 1);
	char *line;

	if (r->portable)
		json_object_set_new(o, "portable", json_true());
	if (r->caller.limited)
		json_object_set_new(o, "as", json_pack("[I, I]", (json_int_t)r->caller.uid, (json_int_t)r->caller.gid));
	line = line_of(o);
	json_decref(o);
	return line;
}

static int open_order(const struct daemon *d, const char *line, const struct sockaddr_in *address, struct err *e)
{
	cleanup_close int fd = conn_connect(address, CONNECT_MS, e);
	static uint8_t none[HELLO_MIG_ID_BYTES];
	Gw__Hello hello;

	if (fd < 0)
		return fd;
	hello_fill(&hello);
	hello.role = ROLE_ORDER;
	hello.node_name = (char *)(uintptr_t)d->config.name;
	hello.mig_id = (ProtobufCBinaryData){ sizeof(none), none };
	if (hello_send(fd, &hello, e) < 0 || !line || reply_bytes(fd, line, strlen(line), -1) < 0)
		return err_set(e, -EPIPE, "sending the request");
	return take_fd(&fd);
}

/* What it says first: whether it knows the unit. Everything read is in `text`. */
static ssize_t read_first(int fd, char *text, size_t size, bool *ret_knows)
{
	size_t have = 0;

	while (have < size - 1 && !memchr(text, '\n', have)) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n = poll(&p, 1, -1) > 0 ? recv(fd, text + have, size - 1 - have, MSG_DONTWAIT) : -1;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	text[have] = 0;
	*ret_knows = text[0] == '{' && !strstr(text, "\"unknown-unit\"");
	return (ssize_t)have;
}

static void pass_on(int client, int node)
{
	static char buffer[65536];
	bool client_talks = true;

	for (;;) {
		struct pollfd p[2] = { { node, POLLIN, 0 }, { client_talks ? client : -1, POLLIN, 0 } };
		ssize_t n;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents) {
			n = recv(client, buffer, sizeof(buffer), MSG_DONTWAIT);
			client_talks = n > 0;
			if (n <= 0 && (p[1].revents & (POLLHUP | POLLERR)))
				return; /* its end cancels there, too */
			if (n > 0)
				reply_bytes(node, buffer, (size_t)n, -1);
		}
		if (p[0].revents) {
			n = recv(node, buffer, sizeof(buffer), MSG_DONTWAIT);
			if (n == 0 || (n < 0 && errno != EAGAIN))
				return;
			if (n > 0 && reply_bytes(client, buffer, (size_t)n, -1) < 0)
				return;
		}
	}
}

static bool was_tried(const struct forwarding *f, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = f->tried; (at = strstr(at, name)); at += len)
		if ((at == f->tried || at[-1] == ' ') && (!at[len] || at[len] == ','))
			return true;
	return false;
}

/* Whether the node has done it. */
static bool try_node(struct forwarding *f, const char *name, const struct sockaddr_in *address)
{
	static char first[65536];
	cleanup_close int node = -1;
	cleanup_free char *line = NULL;
	struct err e = ERR_INIT;
	bool knows;
	ssize_t n;

	if (!strcmp(name, f->d->config.name) || was_tried(f, name))
		return false;
	snprintf(f->tried + strlen(f->tried), sizeof(f->tried) - strlen(f->tried), "%s%s", f->tried[0] ? ", " : "", name);
	line = make_line(f->request);
	node = open_order(f->d, line, address, &e);
	if (node < 0) {
		log_warning("event=order-failed node=%s text=\"%s\"", name, e.message);
		return false;
	}
	n = read_first(node, first, sizeof(first), &knows);
	if (!knows)
		return false;
	if (reply_bytes(f->fd, first, (size_t)n, -1) == 0)
		pass_on(f->fd, node);
	return true;
}

int do_forward_to(const struct daemon *d, const char *name, const json_t *order, int fd, struct err *e)
{
	cleanup_free char *line = line_of(order);
	struct sockaddr_in address;
	cleanup_close int to = -1;

	if (!node_address(d, name, &address))
		return err_set(e, -ENOENT, "no node %s is known here: `godwit nodes` lists those that are", name);
	to = open_order(d, line, &address, e);
	if (to < 0)
		return err_wrap(e, "%s", name);
	pass_on(fd, to);
	return 0;
}

int do_forward(const struct daemon *d, const struct request *request, int fd, struct err *e)
{
	struct forwarding f = { d, request, fd, "" };
	char home[sizeof(request->unit)];
	cleanup_free struct cluster_node *nodes = NULL;
	struct door_where where;
	struct sockaddr_in address;
	size_t n = 0;

	snprintf(home, sizeof(home), "%.*s", (int)strcspn(request->unit, ":"), request->unit);
	if (request->hops < REQUEST_HOPS_MAX && where_ask(request->unit, &where, NULL) == 0) {
		memcpy(&address, where.address, sizeof(address));
		if (try_node(&f, where.host, &address)) /* it may have moved on a moment ago: then another one knows it */
			return 0;
	}
	if (!request->hops && node_address(d, home, &address) && try_node(&f, home, &address))
		return 0;
	if (!request->hops)
		node_list_bridged(d, &nodes, &n, NULL);
	for (size_t i = 1; i < n; i++)
		if (try_node(&f, nodes[i].name, &nodes[i].address))
			return 0;
	if (!f.tried[0])
		return err_set(e, -ENOENT, "%s knows of no unit %s", d->config.name, request->unit);
	return err_set(e, -ENOENT, "nobody knows of a unit %s (asked: %s, %s)", request->unit, d->config.name, f.tried);
}
