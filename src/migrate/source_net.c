/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source_net.c - see source_net.h */
#include "migrate/source_net.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "image/ns.h"
#include "image/tcp_outside.h"
#include "image/udp_outside.h"
#include "kern/tcp_peek.h"
#include "migrate/heir.h"
#include "migrate/source.h"
#include "migrate/timeline.h"
#include "migrate/unit_page.h"
#include "wire/frame.h"

#define NET_ANSWER_MS 30000 /* it may have to load the programs itself, where godwitd has just been started on a busy machine */
#define NEVER_PARKED_MS 5000 /* nothing has been done that could be missed */
#define CALM_NS 1000000000ull
#define ANSWER_NS 3000000ull
#define AHEAD_ROUNDS_MAX 8u
#define AHEAD_FEW 64u /* take a millisecond in the freeze */
#define AHEAD_WORTH 8u /* so many in the first rounds, or the last one is left out */
#define AHEAD_ANSWER_MS 60000
#define NAMED_MAX 20u /* refusals that name a connection each */

static int ask(struct source *s, char *ret_obstacle, size_t size, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	Gw__NetAnswer *answer;
	int ret = frame_send(s->link.control, FRAME_NET, NULL, 0, e);

	if (ret == 0)
		ret = frame_recv_expect(s->link.control, FRAME_NET, &f, FRAME_HELLO_MAX, NET_ANSWER_MS, e);
	if (ret < 0)
		return ret;
	answer = gw__net_answer__unpack(NULL, f.len, f.payload);
	if (!answer || (!answer->node && !answer->obstacle[0])) {
		ret = err_set(e, -EPROTO, "an answer about connections that cannot be read");
	} else if (answer->obstacle[0]) {
		snprintf(ret_obstacle, size, "%s", answer->obstacle);
		for (char *c = ret_obstacle; *c; c++)
			if ((unsigned char)*c < ' ' || *c == 0x7f)
				*c = '?';
	} else {
		ret = net_node_decode(answer->node, &s->net.dest, e);
		tcp_outside_set_takes_waiting(ret == 0 && answer->takes_waiting);
	}
	if (answer)
		gw__net_answer__free_unpacked(answer, NULL);
	return ret;
}

/* Each connection is named. What listens only moves all the same: it is found under the new address. */
static int give_up(struct source *s, const struct net_flows *l, const char *cause)
{
	const char *way_out_tcp = s->request->image ? "with --tcp=close it finds them ended when it is restored" : "--tcp=close ends such connections, or move it to a host on the same link";
	const char *way_out_other = s->request->image ? "let the program close the socket" : "move it to a host on the same link, or let the program close the socket";
	char text[REDIRECT_FLOW_TEXT];
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (!net_flow_is_connection(&l->v[i]) || n++ >= NAMED_MAX)
			continue;
		refusals_add(s->refusals, "net.redirect", cause, l->v[i].protocol == IPPROTO_TCP ? way_out_tcp : way_out_other, "connection %s", redirect_flow_text(&l->v[i], text));
	}
	if (!n && l->n)
		log_info("event=no-redirection pid=%d text=\"%s\"", s->request->pid, cause);
	tcp_outside_ask_elsewhere(NULL, NULL);
	tcp_outside_set_takes_waiting(false);
	redirect_close(&s->net.r);
	return 0;
}

static bool needs_redirection(const struct source *s)
{
	struct net_flows all;
	bool any;

	if (ns_has_net() || net_flows_of(s->unit.fds.msg, NULL, &all, NULL) < 0)
		return false;
	any = all.n > 0 || fdtable_listens(s->unit.fds.msg);
	net_flows_free(&all);
	return any;
}

static bool is_elsewhere(const struct sockaddr_in6 *own, const struct sockaddr_in6 *peer, void *arg)
{
	const struct source *s = arg;
	struct redirect_known known;
	struct redirect_flow flow;

	if (!redirect_flow_set(&flow, IPPROTO_TCP, (const void *)own, (const void *)peer))
		return false;
	redirect_tell(s->net.r, &flow, &s->net.self, &known);
	return known.other.name[0] != 0;
}

static void note_socket(pid_t pid, uint32_t inode, void *arg)
{
	(void)pid;
	(void)inode;
	*(bool *)arg = true;
}

int source_net_ready(struct source *s, struct err *e)
{
	struct redirect *r = NULL;
	bool sockets = false;

	if (s->request->image)
		return 0;
	source_each_socket(s->request->pid, note_socket, &sockets);
	if (!sockets || redirect_open(&r, NULL) < 0)
		return 0;
	redirect_close(&r);
	s->net.asked = true;
	return ask(s, s->net.obstacle, sizeof(s->net.obstacle), e);
}

void source_net_look(struct source *s)
{
	if (redirect_find(&s->net.r, NULL) < 0)
		s->net.r = NULL;
	tcp_outside_ask_elsewhere(s->net.r ? is_elsewhere : NULL, s);
}

int source_net_begin(struct source *s, struct err *e)
{
	struct err why = ERR_INIT;
	struct net_flows known;
	char *obstacle = s->net.obstacle;
	int ret;

	if (!needs_redirection(s)) {
		tcp_outside_ask_elsewhere(NULL, NULL);
		redirect_close(&s->net.r);
		return 0;
	}
	redirect_close(&s->net.r);
	if (s->request->image)
		ret = err_set(&why, -EPERM, "its other end is outside, and will know nothing of it when the image is restored");
	else
		ret = redirect_open(&s->net.r, &why);
	tcp_outside_ask_elsewhere(ret == 0 ? is_elsewhere : NULL, s);
	if (ret < 0) {
		net_flows_of(s->unit.fds.msg, NULL, &known, NULL);
		give_up(s, &known, why.message);
		net_flows_free(&known);
		return 0;
	}
	ret = net_flows_of(s->unit.fds.msg, s->net.r, &s->net.offered, e);
	if (ret == 0 && redirect_self(s->link.control, s->request->self_name, &s->net.self, &why) < 0)
		snprintf(obstacle, sizeof(s->net.obstacle), "%s", why.message);
	if (ret == 0 && !obstacle[0] && !s->net.asked)
		ret = ask(s, obstacle, sizeof(s->net.obstacle), e);
	if (ret < 0)
		return ret;
	if (!obstacle[0] && redirect_check_node(s->net.r, &s->net.dest, net_flows_have_ipv6(&s->net.offered), &why) < 0)
		snprintf(obstacle, sizeof(s->net.obstacle), "%s", why.message);
	udp_outside_set(!obstacle[0]);
	return obstacle[0] ? give_up(s, &s->net.offered, obstacle) : 0;
}

void source_net_offer(struct source *s, Gw__Offer *o)
{
	if (s->net.r)
		net_flows_encode(&s->net.offered, s->net.r, &s->net.self, &o->flows, &o->n_flows);
}

void source_net_offered(Gw__Offer *o)
{
	net_flows_release(o->flows, o->n_flows);
	o->flows = NULL;
	o->n_flows = 0;
}

/* --- when this worker has been killed --- */

static void first(void *arg)
{
	(void)arg;
	tcp_outside_end_repair();
}

static size_t keeps(void *arg, int *ret, size_t max)
{
	const struct source *s = arg;
	size_t n = redirect_descriptors(s->net.r, s->net.move, ret, max);

	n += redirect_descriptors(s->net.r, s->net.calls, ret + n, max - n);
	if (n < max)
		ret[n++] = s->unit.procs[0].pidfd;
	return n;
}

/* The agent gives the process back, or asks until it is known where it runs. */
static void inherit(void *arg)
{
	struct source *s = arg;
	struct pollfd process = { s->unit.procs[0].pidfd, POLLIN, 0 };
	uint32_t state = unit_state(source_root(s));
	unsigned waited_ms = 0;

	while (state != STATE_COMMITTED && state != STATE_ABORTED && (s->net.parked || waited_ms++ < NEVER_PARKED_MS)) {
		bool gone = poll(&process, 1, 1) > 0;

		state = unit_state(source_root(s));
		if (gone)
			break;
	}
	if (state == STATE_COMMITTED) {
		redirect_forward(s->net.move);
		redirect_forward(s->net.calls);
		source_address_release(s);
	} else {
		redirect_unpark(s->net.calls);
		redirect_unpark(s->net.move);
	}
	redirect_settle(&s->net.move);
	redirect_settle(&s->net.calls);
}

static bool is_called(const struct redirect_flow *f)
{
	return f->protocol == IPPROTO_TCP && !net_flow_is_connection(f);
}

/* Connections and what listens each for themselves: the latter are held first. */
static int depart(struct source_net *n, struct err *e)
{
	struct redirect_flow *v = malloc((n->entered.n + 1) * sizeof(*v));
	size_t front = 0, back = n->entered.n;
	int ret;

	if (!v)
		return err_sys(e, ENOMEM, "connections");
	for (size_t i = 0; i < n->entered.n; i++)
		v[is_called(&n->entered.v[i]) ? --back : front++] = n->entered.v[i];
	ret = redirect_depart(n->r, &n->dest, v, front, &n->move, e);
	if (ret == 0)
		ret = redirect_depart(n->r, &n->dest, v + front, n->entered.n - front, &n->calls, e);
	free(v);
	return ret;
}

int source_net_depart(struct source *s, struct err *e)
{
	static struct heir heir = { first, keeps, inherit, NULL };
	struct source_net *n = &s->net;
	int ret;

	if (!n->r)
		return 0;
	ret = net_flows_of_fresh(&s->unit.fds, n->r, &n->entered, e);
	if (ret == 0)
		ret = depart(n, e);
	heir.arg = s;
	if (ret == 0)
		ret = heir_start(&heir, e);
	if (ret > 0) {
		redirect_set_owner(n->move, (pid_t)ret);
		redirect_set_owner(n->calls, (pid_t)ret);
	}
	return MIN(ret, 0);
}

/* fd: the connection that the destination listens to at this moment. *ret_n: how many. */
static int tell_once(struct source *s, int fd, size_t *ret_n, struct err *e)
{
	cleanup_frame struct frame answer = { 0 };
	cleanup_free uint8_t *data = NULL;
	size_t len;
	int ret;

	source_look_at_descriptors(s);
	ret = fdtable_encode_ahead(&s->unit.fds, &data, &len, ret_n, e);
	if (ret == 0 && *ret_n)
		ret = frame_send(fd, FRAME_CONNECTIONS, data, len, e);
	if (ret == 0 && *ret_n)
		ret = frame_recv_expect(s->link.control, FRAME_CONNECTIONS, &answer, FRAME_HELLO_MAX, AHEAD_ANSWER_MS, e);
	return ret;
}

int source_net_tell_ahead(struct source *s, int fd, struct err *e)
{
	size_t last = SIZE_MAX, n = 0, all = 0;
	bool is_first = fd == s->link.control;
	int ret = 0;

	/* The working set has gone ahead: each moment until the stop makes more of it different. */
	if (!is_first && s->net.told_ahead < AHEAD_WORTH)
		return 0;
	for (unsigned i = 0; s->net.r && i < AHEAD_ROUNDS_MAX && ret == 0; i++) {
		ret = tell_once(s, fd, &n, e);
		all += n;
		if (n <= AHEAD_FEW || n > last - last / 4)
			break;
		last = n;
	}
	timeline_mark("connections told ahead");
	if (is_first)
		s->net.told_ahead = all;
	if (all)
		log_info("event=connections-ahead pid=%d n=%zu", s->request->pid, all);
	return ret;
}

/* Of the listeners that this process has open. */
static bool are_calm(bool queues)
{
	struct tcp_record *records = NULL;
	bool calm = true;
	size_t n = 0;

	if (tcp_peek(&records, &n, NULL) < 0)
		return true;
	for (size_t i = 0; i < n && calm; i++)
		calm = !records[i].half_open && !(queues && records[i].flags & TCP_RECORD_WAITING);
	free(records);
	return calm;
}

/* queues: also whether nobody waits in one. */
static bool is_calm(const struct source *s, bool queues)
{
	int told = fdtable_are_listeners_calm(&s->unit.fds, queues), *fds = NULL;
	bool calm;
	size_t n;

	if (told >= 0)
		return told;
	n = fdtable_hold_listeners(&s->unit.fds, &fds);
	calm = !n || are_calm(queues);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	free(fds);
	return calm;
}

/*
 * No client may begin any more (what it sends is held, and goes to the destination). Those that have and wait to be accepted go along; who is about to come is waited for, for
 * a moment: that costs less than to take him along.
 * A destination that cannot put them into queues needs these empty: an answer takes clients a round trip, the program a moment. What takes longer than that is lost when it
 * has no client (a port scan), or makes the freeze fail.
 */
void source_net_hold(struct source *s)
{
	bool queues = !tcp_outside_takes_waiting();
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + (queues ? CALM_NS : ANSWER_NS);

	if (!s->net.calls || s->hold)
		return;
	redirect_park(s->net.calls);
	s->net.parked = true;
	while (!is_calm(s, queues) && clock_ns(CLOCK_MONOTONIC) < end)
		poll(NULL, 0, 1);
}

void source_net_park(struct source *s)
{
	if (!s->net.move)
		return;
	s->net.parked = true;
	redirect_park(s->net.calls);
	redirect_park(s->net.move);
}

static bool has_connections(const struct net_flows *l)
{
	size_t i = 0;

	while (i < l->n && !net_flow_is_connection(&l->v[i]))
		i++;
	return i < l->n;
}

int source_net_add(struct source *s, struct err *e)
{
	struct source_net *n = &s->net;
	struct net_flows now, fresh;
	int ret;

	ret = net_flows_of_fresh(&s->unit.fds, NULL, &now, e);
	if (!n->move) {
		if (ret == 0 && has_connections(&now) && !ns_has_net())
			ret = err_set(e, -EAGAIN, "process %d has begun to talk to others since the offer", s->request->pid);
		net_flows_free(&now);
		return ret;
	}
	if (ret < 0)
		return ret;
	net_flows_new(&now, &n->entered, &fresh);
	net_flows_free(&now);
	ret = fresh.n ? redirect_add(n->move, fresh.v, NULL, fresh.n, e) : 0;
	if (ret == 0) {
		net_flows_merge(&n->entered, &fresh);
		ret = fresh.n > 0;
	}
	net_flows_free(&fresh);
	return ret;
}

/* What they have sent waits for a listener of the unit, which they will call again at the destination. */
static void leave_out(void *arg, uint8_t protocol, const struct sockaddr *own, const struct sockaddr *peer)
{
	struct redirect_flow sender;

	if (redirect_flow_set(&sender, protocol, own, peer))
		redirect_leave_out(arg, &sender);
}

void source_net_go(struct source *s, Gw__Go *go)
{
	struct net_flows fresh;

	if (!s->net.move)
		return;
	fdtable_list_callers(s->unit.fds.msg, leave_out, s->net.calls);
	net_flows_new(&s->net.entered, &s->net.offered, &fresh);
	net_flows_encode(&fresh, s->net.r, &s->net.self, &go->flows, &go->n_flows);
	net_flows_free(&fresh);
}

void source_net_gone(Gw__Go *go)
{
	net_flows_release(go->flows, go->n_flows);
	go->flows = NULL;
	go->n_flows = 0;
}

void source_net_forward(struct source *s)
{
	if (!s->net.move)
		return;
	redirect_forward(s->net.move);
	redirect_forward(s->net.calls);
}

void source_net_settle(struct source *s)
{
	if (s->net.move) {
		redirect_settle(&s->net.move);
		redirect_settle(&s->net.calls);
	}
	heir_dismiss();
}

void source_net_stay(struct source *s)
{
	redirect_cancel(&s->net.calls);
	redirect_cancel(&s->net.move);
	s->net.parked = false;
	heir_dismiss();
}

void source_net_free(struct source *s)
{
	source_net_stay(s);
	udp_outside_set(false);
	net_flows_free(&s->net.offered);
	net_flows_free(&s->net.entered);
	tcp_outside_ask_elsewhere(NULL, NULL);
	redirect_close(&s->net.r);
}
