/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_net.c - connections with others, at the destination (net/redirect.h, image/tcp_outside.h)
 *
 * Their ends are entered when the unit is judged, and become ours between the commit and the moment when the processes run: before it nobody hears anything of the
 * sockets here, whatever becomes of this worker.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "image/socket_tcp.h"
#include "image/tcp_outside.h"
#include "image/tcp_waiting.h"
#include "image/udp_outside.h"
#include "migrate/dest.h"
#include "migrate/heir.h"
#include "migrate/timeline.h"
#include "migrate/unit_page.h"
#include "wire/frame.h"

#define DOUBT_MS 60000 /* the agent knows at once */
#define PUT_TRIES 1000 /* while queues of listeners are full */
#define SETTLE_MS 3 /* until a connection's congestion control has something to measure (image/tcp_outside.h) */

int dest_net_answer(struct dest *d, struct err *e)
{
	Gw__NetAnswer answer = GW__NET_ANSWER__INIT;
	cleanup_free uint8_t *packed = NULL;
	struct redirect_node self;
	struct err why = ERR_INIT;
	Gw__NetNode node;

	if ((!d->net.r && redirect_open(&d->net.r, &why) < 0) || redirect_self(d->link.control, d->self_name, &self, &why) < 0) {
		answer.obstacle = why.message;
	} else {
		net_node_encode(&self, &node);
		answer.node = &node;
		answer.takes_waiting = redirect_takes_calls(d->net.r);
	}
	packed = malloc(gw__net_answer__get_packed_size(&answer) + 1);
	return packed ? frame_send(d->link.control, FRAME_NET, packed, gw__net_answer__pack(&answer, packed), e) : err_sys(e, ENOMEM, "connections");
}

int dest_net_judge(struct dest *d, struct refusals *refusals, struct err *e)
{
	struct dest_net *n = &d->net;
	struct err why = ERR_INIT;
	struct net_flows flows;
	struct redirect_known *known;
	int ret;

	if (!d->offer->n_flows)
		return 0;
	if (!n->r)
		return err_set(e, -EPROTO, "connections with others that nobody has asked about");
	ret = net_flows_decode(d->offer->flows, d->offer->n_flows, &flows, &known, e);
	if (ret < 0)
		return ret;
	udp_outside_begin(REDIRECT_MARK);
	ret = tcp_outside_begin(REDIRECT_MARK, dest_clock_deltas(d).monotonic_delta_ns, e);
	if (ret == 0 && redirect_arrive(n->r, flows.v, known, flows.n, &n->move, &why) < 0)
		refusals_add(refusals, "net.redirect", why.message, "end what has this connection on the destination", "its connections");
	net_flows_free(&flows);
	free(known);
	return ret;
}

static int expect_call(void *arg, const struct sockaddr *own, const struct sockaddr *peer, const struct tcp_call *call)
{
	const struct dest *d = arg;
	struct redirect_call c = { .stamp = call->stamp, .peer_stamp = call->peer_stamp, .segment_max = call->segment_max, .send_scale = call->send_scale,
				   .receive_scale = call->receive_scale, .has_stamps = call->has_stamps, .has_scale = call->has_scale, .has_sack = call->has_sack,
				   .has_ecn = call->has_ecn, .counts_us = call->counts_us };
	struct redirect_flow flow;

	return redirect_flow_set(&flow, IPPROTO_TCP, own, peer) ? redirect_expect_call(d->net.r, &flow, &c, call->calling) : -EPROTO;
}

static void forget_call(void *arg, const struct sockaddr *own, const struct sockaddr *peer)
{
	const struct dest *d = arg;
	struct redirect_flow flow;

	if (redirect_flow_set(&flow, IPPROTO_TCP, own, peer))
		redirect_forget_call(d->net.r, &flow);
}

int dest_net_go(struct dest *d, struct err *e)
{
	struct net_flows flows;
	struct redirect_known *known;
	int ret;

	if (!d->go.msg->n_flows)
		return 0;
	if (!d->net.move)
		return err_set(e, -EPROTO, "connections with others that have not been offered");
	ret = net_flows_decode(d->go.msg->flows, d->go.msg->n_flows, &flows, &known, e);
	if (ret < 0)
		return ret;
	ret = redirect_add(d->net.move, flows.v, known, flows.n, e);
	net_flows_free(&flows);
	free(known);
	return ret < 0 || !d->go.fds ? ret : tcp_waiting_expect(d->go.fds, expect_call, d, e);
}

int dest_net_take_ahead(struct dest *d, const void *payload, size_t len, struct err *e)
{
	Gw__FdTable *news;
	int ret = d->net.move ? fdtable_decode_ahead(payload, len, d->fds, &news, e) : err_set(e, -EPROTO, "connections with others that have not been offered");

	if (ret < 0)
		return ret;
	ret = socket_tcp_go_ahead(d->fds, news, d->restore.fds, d->restore.others, e);
	gw__fd_table__free_unpacked(news, NULL);
	return ret < 0 ? ret : frame_send(d->link.control, FRAME_CONNECTIONS, NULL, 0, e);
}

/* --- when this worker has been killed --- */

static const Gw__FdTable *table_of(const struct dest *d)
{
	return d->go.fds ? d->go.fds : d->fds;
}

static size_t keeps(void *arg, int *ret, size_t max)
{
	const struct dest *d = arg;
	const Gw__FdTable *t = table_of(d);
	size_t n = redirect_descriptors(d->net.r, d->net.move, ret, max);

	for (size_t i = 0; t && i < t->n_descs && i < d->restore.n && n < max; i++)
		if (t->descs[i]->socket && tcp_outside_is_one(t->descs[i]->socket) && d->restore.fds[i] >= 0)
			ret[n++] = d->restore.fds[i];
	return n;
}

/* The agent finds out whether the unit lives here: then its connections do, too. If not, they end without a word. */
static void inherit(void *arg)
{
	struct dest *d = arg;
	const struct agent *root = &d->procs[0].skeleton->agent;
	uint32_t state;

	for (unsigned waited_ms = 0; (state = unit_state(root)) != STATE_COMMITTED && state != STATE_ABORTED && waited_ms < DOUBT_MS; waited_ms++)
		poll(NULL, 0, 1);
	if (state == STATE_COMMITTED && d->net.move) {
		dest_net_live(d);
		dest_net_settle(d);
	} else if (table_of(d)) {
		socket_tcp_forget_outside(table_of(d), d->restore.fds, d->restore.n);
	}
	redirect_cancel(&d->net.move);
}

int dest_net_prepare(struct dest *d, struct err *e)
{
	static struct heir heir = { NULL, keeps, inherit, NULL };

	int ret;

	if (!d->net.move)
		return 0;
	heir.arg = d;
	ret = heir_start(&heir, e);
	if (ret > 0)
		redirect_set_owner(d->net.move, (pid_t)ret);
	return MIN(ret, 0);
}

/* Returns how many connections are still to be put into the queues of listeners. */
static size_t put_waiting(struct dest *d)
{
	struct err e = ERR_INIT;
	size_t left = d->go.fds && d->net.move ? tcp_waiting_put(d->go.fds, forget_call, d, &e) : 0;

	if (e.code)
		log_error("event=connection-lost text=\"%s\"", e.message);
	return left;
}

void dest_net_live(struct dest *d)
{
	struct err e = ERR_INIT;

	if (d->net.move)
		redirect_live(d->net.move);
	if (socket_tcp_go_live(d->fds, d->go.fds, d->restore.fds, &d->net.live, &e) < 0)
		log_error("event=connection-lost text=\"%s\"", e.message);
	d->net.unput = put_waiting(d);
	timeline_mark("connections live");
}

static int pidfd_of(const void *arg, uint32_t process)
{
	const struct dest *d = arg;

	return process < d->nprocs && d->procs[process].skeleton ? d->procs[process].skeleton->pidfd : -1;
}

void dest_net_settle(struct dest *d)
{
	if (!d->net.move)
		return;
	if (fdtable_must_settle(d->go.fds)) {
		poll(NULL, 0, SETTLE_MS);
		fdtable_restore_settle(&d->restore, d->go.fds, pidfd_of, d);
	}
	for (unsigned i = 0; d->net.unput && i < PUT_TRIES; i++) {
		poll(NULL, 0, SETTLE_MS);
		d->net.unput = put_waiting(d);
	}
	if (d->net.unput)
		log_error("event=connection-lost text=\"%zu connections that nobody had accepted: the queues are full\"", d->net.unput);
	redirect_settle(&d->net.move);
	heir_dismiss();
}

void dest_net_undo(struct dest *d)
{
	heir_dismiss();
	redirect_cancel(&d->net.move);
}
