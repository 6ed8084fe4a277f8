// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_bridge.c - bridges to other hosts over ssh (wire/bridge.h): made, listed, closed
 *
 * open, serve: the client has both ends of ssh, and sends them when it is asked to (event "send"): a byte with two descriptors, what is read and what is written. `godwit bridge --stdio`,
 * which ssh has begun over there, says who it is first; then this side. From then on the worker is godwit-bridge. It outlives the client, and godwitd.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "wire/bridge_relay.h"

#define SEND_MS 10000
#define CLOSE_MS 2000

/* --- both ends of ssh --- */

static int take_ends(int fd, int ret[2], struct err *e)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct pollfd p = { fd, POLLIN, 0 };
	const struct cmsghdr *c;

	reply_line(fd, json_pack("{s:s}", "event", "send"));
	if (poll(&p, 1, SEND_MS) <= 0 || recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1 || !(c = CMSG_FIRSTHDR(&m)) || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(2 * sizeof(int)))
		return err_set(e, -EPROTO, "a bridge needs both ends of ssh: two descriptors with one byte");
	memcpy(ret, CMSG_DATA(c), 2 * sizeof(int));
	return 0;
}

static int say_hello(int out, const struct bridge_hello *hello, struct err *e)
{
	uint8_t text[BRIDGE_HELLO_BYTES];

	bridge_hello_encode(hello, text);
	return write(out, text, sizeof(text)) == (ssize_t)sizeof(text) ? 0 : err_set(e, -ECONNRESET, "ssh has ended");
}

/* For as long as ssh takes, which may ask for a password; until the client goes. */
static int hear_hello(int in, int client, struct bridge_hello *ret, struct err *e)
{
	uint8_t text[BRIDGE_HELLO_BYTES] = { 0 };
	size_t have = 0;

	while (have < sizeof(text)) {
		struct pollfd p[] = { { in, POLLIN, 0 }, { client, POLLRDHUP, 0 } };
		ssize_t n = 0;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
		if (p[0].revents && (n = read(in, text + have, sizeof(text) - have)) <= 0)
			return have ? bridge_hello_decode(text, ret, e) : err_set(e, -ECONNRESET, "ssh has ended");
		have += (size_t)n;
		if (p[1].revents)
			return err_set(e, -ECANCELED, "nobody waits for it any more");
	}
	return bridge_hello_decode(text, ret, e);
}

/* --- addresses of the hosts --- */

static bool is_ours(struct in_addr address)
{
	struct ifaddrs *all = NULL, *i;
	bool found = false;

	if (!address.s_addr || ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET || getifaddrs(&all) < 0)
		return false;
	for (i = all; i && !found; i = i->ifa_next)
		found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET && ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == address.s_addr;
	freeifaddrs(all);
	return found;
}

/* "CLIENT PORT SERVER PORT", as sshd says it: of the host that it runs on. */
static void read_ssh_connection(const char *text, struct bridge_hello *ret)
{
	char client[64], server[64];

	if (sscanf(text, "%63s %*u %63s", client, server) != 2 || inet_pton(AF_INET, client, &ret->peer) != 1 || inet_pton(AF_INET, server, &ret->own) != 1 || !is_ours(ret->own))
		ret->own = ret->peer = (struct in_addr){ 0 };
}

/* --- the bridge --- */

static json_t *record_json(const struct bridge_record *r)
{
	char own[INET_ADDRSTRLEN] = "", peer[INET_ADDRSTRLEN] = "";

	if (r->own.s_addr && r->peer.s_addr) {
		inet_ntop(AF_INET, &r->own, own, sizeof(own));
		inet_ntop(AF_INET, &r->peer, peer, sizeof(peer));
	}
	return json_pack("{s:s, s:s, s:b, s:b, s:i, s:s, s:s}", "node", r->node, "how", r->how, "ours", r->ours, "kept", r->kept, "pid", (int)r->pid, "own_address", own, "address", peer);
}

static int shake_hands(const struct daemon *d, const struct request *request, int client, const int ends[2], struct bridge_record *r, struct err *e)
{
	struct bridge_hello own = { 0 }, peer = { 0 };
	int ret;

	snprintf(own.node, sizeof(own.node), "%s", d->config.name);
	r->ours = request->bridge == BRIDGE_OPEN_HERE;
	if (!r->ours) {
		read_ssh_connection(request->ssh, &own);
		ret = say_hello(ends[1], &own, e);
		if (ret < 0)
			return ret;
	}
	ret = hear_hello(ends[0], client, &peer, e);
	if (ret < 0)
		return ret;
	if (!strcmp(peer.node, own.node))
		return err_set(e, -EINVAL, "both hosts are the node %s: give one of them another `name` in [node] of its /etc/godwit/godwit.conf", own.node);
	if (r->ours && is_ours(peer.peer)) {
		own.own = peer.peer;
		own.peer = peer.own;
	}
	snprintf(r->node, sizeof(r->node), "%s", peer.node);
	snprintf(r->self, sizeof(r->self), "%s", own.node);
	snprintf(r->how, sizeof(r->how), "%s", request->how);
	r->kept = request->kept;
	r->pid = getpid();
	/* Both have to see it so. */
	if (r->ours ? own.own.s_addr : peer.own.s_addr) {
		r->own = r->ours ? own.own : peer.peer;
		r->peer = r->ours ? own.peer : peer.own;
	}
	return r->ours ? say_hello(ends[1], &own, e) : 0;
}

/* The result is there already where there is a bridge: -EEXIST, and no message. The new one has been good for showing that who has made it may. */
static int open_bridge(const struct daemon *d, const struct request *request, int client, struct bridge *b, struct bridge_record *record, struct err *e)
{
	struct bridge_record existing;
	int ends[2], lock, listener;

	if (take_ends(client, ends, e) < 0 || shake_hands(d, request, client, ends, record, e) < 0)
		return e->code;
	if (bridge_find(record->node, &existing)) {
		if (!record->ours && existing.ours && bridge_let_both(&existing, e) < 0)
			return e->code;
		reply_result(client, record_json(&existing));
		return -EEXIST;
	}
	lock = bridge_record_take(record, e); /* held until this process ends */
	listener = lock < 0 ? lock : bridge_relay_listen(record, e);
	if (listener < 0)
		return listener;
	*b = (struct bridge){ .record = record, .in = ends[0], .out = ends[1], .client = client, .dead_ms = (int)d->config.peer_timeout_ms };
	reply_result(client, record_json(record));
	return listener;
}

static int run_bridge(const struct daemon *d, const struct request *request, int client)
{
	static struct bridge_record record;
	struct err e = ERR_INIT;
	struct bridge b;
	int r;

	prctl(PR_SET_NAME, "godwit-bridge");
	r = open_bridge(d, request, client, &b, &record, &e);
	if (r == -EEXIST && !e.code)
		return 0;
	if (r < 0) {
		reply_error(client, r == -ECONNRESET ? "ssh-ended" : "failed", &e, NULL, NULL);
		return 1;
	}
	log_set_context("bridge=%s", record.node);
	log_info("event=bridge-opened how=\"%s\" by=%s", record.how, record.ours ? d->config.name : record.node);
	worker_set_done(d);
	r = bridge_relay_run(&b, r, &e);
	log_info("event=bridge-closed text=\"%s\"", r < 0 ? e.message : "nothing goes over it any more");
	return 0;
}

/* --- those that there are --- */

static int add_record(const struct bridge_record *record, void *arg)
{
	json_array_append_new(arg, record_json(record));
	return 0;
}

static int list_bridges(const struct daemon *d, int fd)
{
	json_t *list = json_array();

	bridge_list(add_record, list);
	reply_result(fd, json_pack("{s:s, s:o}", "node", d->config.name, "bridges", list));
	return 0;
}

static int close_bridge(const struct request *request, struct bridge_record *ret, struct err *e)
{
	char text[ERR_MESSAGE_MAX];
	struct sockaddr_in address;
	cleanup_close int fd = -1;
	struct pollfd p;

	if (!bridge_find(request->host, ret))
		return err_set(e, -ENOENT, "there is no bridge to a node %s: `godwit bridge` lists those that there are", request->host);
	address = bridge_address(request->host);
	fd = bridge_begin(BRIDGE_CLOSE, &address, 0, e);
	if (fd < 0)
		return fd;
	p = (struct pollfd){ fd, POLLIN, 0 };
	if (poll(&p, 1, CLOSE_MS) <= 0)
		return err_set(e, -ETIMEDOUT, "the bridge's process, %d, does not answer", (int)ret->pid);
	return tls_greeting_take(fd, text, e);
}

int do_bridge(const struct daemon *d, const struct request *request, int fd)
{
	struct bridge_record record;
	struct err e = ERR_INIT;
	int r;

	if (request->bridge == BRIDGE_LIST)
		return list_bridges(d, fd);
	if (request->bridge != BRIDGE_SHUT)
		return run_bridge(d, request, fd);
	r = close_bridge(request, &record, &e);
	if (r < 0)
		reply_error(fd, r == -EBUSY ? "busy" : "failed", &e, NULL, NULL);
	else
		reply_result(fd, record_json(&record));
	return r < 0;
}
