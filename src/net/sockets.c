/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sockets.c - see sockets.h */
#include "net/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

#include "base/util.h"
#include "net/redirect_internal.h"

#define STATE_LISTEN 10

struct reading {
	struct sockets *s;
	uint8_t protocol;
};

static void copy_address(uint8_t to[16], uint8_t family, const uint32_t from[4])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	if (family == AF_INET6) {
		memcpy(to, from, 16);
		return;
	}
	memcpy(to, prefix, sizeof(prefix));
	memcpy(to + 12, from, 4);
	if (!from[0]) /* every address, and nobody, look alike in both families */
		memset(to, 0, 16);
}

static int on_socket(const struct nlmsghdr *m, void *arg)
{
	struct reading *reading = arg;
	struct sockets *s = reading->s;
	const struct inet_diag_msg *d = mnl_nlmsg_get_payload(m);
	struct redirect_flow flow = { .protocol = reading->protocol, .own_port = d->id.idiag_sport, .peer_port = d->id.idiag_dport };

	if (mnl_nlmsg_get_payload_len(m) < sizeof(*d))
		return 0;
	if (s->n == s->room) {
		void *more = realloc(s->v, (s->room * 2 + 256) * sizeof(*s->v));

		if (!more)
			return -ENOMEM;
		s->v = more;
		s->room = s->room * 2 + 256;
	}
	copy_address(flow.own, d->idiag_family, d->id.idiag_src);
	copy_address(flow.peer, d->idiag_family, d->id.idiag_dst);
	if (d->idiag_state == STATE_LISTEN && reading->protocol == IPPROTO_TCP)
		memset(flow.peer, 0, 16);
	s->v[s->n++] = flow;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct redirect_flow));
}

int sockets_read(struct sockets *s, struct err *e)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 }, protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct netlink nl;
	int r;

	*s = (struct sockets){ 0 };
	r = netlink_open(&nl, NETLINK_SOCK_DIAG, -1, e);
	for (size_t i = 0; i < 4 && r >= 0; i++) {
		struct reading reading = { s, protocols[i / 2] };
		char buf[512];
		struct nlmsghdr *m = netlink_begin(buf, SOCK_DIAG_BY_FAMILY, 0, sizeof(struct inet_diag_req_v2));
		struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(m);

		q->sdiag_family = families[i % 2];
		q->sdiag_protocol = reading.protocol;
		q->idiag_states = UINT32_MAX;
		r = netlink_dump(&nl, m, on_socket, &reading);
		if (r < 0)
			netlink_error(&nl, r, e, "listing the sockets of this host");
	}
	netlink_close(&nl);
	if (r >= 0 && s->n)
		qsort(s->v, s->n, sizeof(*s->v), compare);
	return r;
}

void sockets_free(struct sockets *s)
{
	free(s->v);
	*s = (struct sockets){ 0 };
}

static bool has(const struct sockets *s, const struct redirect_flow *flow)
{
	return s->n && bsearch(flow, s->v, s->n, sizeof(*flow), compare);
}

bool sockets_have(const struct sockets *s, const struct redirect_flow *flow)
{
	static const uint8_t none[16];
	struct redirect_flow any = *flow;

	if (has(s, flow))
		return true;
	if (flow->peer_port || memcmp(flow->peer, none, 16)) {
		if (flow->protocol != IPPROTO_UDP)
			return false;
		/* One without a peer gets datagrams of every one. */
		any.peer_port = 0;
		memset(any.peer, 0, 16);
		if (has(s, &any))
			return true;
	}
	memset(any.own, 0, 16);
	return has(s, &any);
}
