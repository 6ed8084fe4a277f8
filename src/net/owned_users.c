/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owned_users.c - see owned_users.h */
#include "net/owned_users.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdlib.h>

#include "base/util.h"

/* States of TCP (include/net/tcp_states.h). */
enum { FIN_WAIT1 = 4, TIME_WAIT = 6, CLOSED = 7, LAST_ACK = 9, CLOSING = 11 };

struct listing {
	const struct owned_address *v;
	size_t n;
	uint8_t protocol;
	struct owned_user *found;
	size_t n_found;
};

static bool copy_address(uint8_t to[16], uint8_t family, const uint32_t from[4])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (family != AF_INET && family != AF_INET6)
		return false;
	memcpy(to, family == AF_INET6 ? (const void *)from : mapped, family == AF_INET6 ? 16 : 12);
	if (family == AF_INET)
		memcpy(to + 12, from, 4);
	return true;
}

static bool is_one(const struct listing *l, const uint8_t own[16])
{
	for (size_t i = 0; i < l->n; i++)
		if (!memcmp(l->v[i].address, own, 16))
			return true;
	return false;
}

static int on_socket(const struct nlmsghdr *m, void *arg)
{
	const struct inet_diag_msg *d = mnl_nlmsg_get_payload(m);
	struct listing *l = arg;
	struct owned_user u = { .flow = { .protocol = l->protocol } };
	struct owned_user *more;

	if (mnl_nlmsg_get_payload_len(m) < sizeof(*d) || !copy_address(u.flow.own, d->idiag_family, d->id.idiag_src) || !is_one(l, u.flow.own))
		return 0;
	u.flow.own_port = d->id.idiag_sport;
	u.inode = d->idiag_inode;
	if (d->id.idiag_dport) {
		copy_address(u.flow.peer, d->idiag_family, d->id.idiag_dst);
		u.flow.peer_port = d->id.idiag_dport;
	}
	u.undelivered = l->protocol == IPPROTO_TCP && !u.inode && (d->idiag_state == FIN_WAIT1 || d->idiag_state == LAST_ACK || d->idiag_state == CLOSING);
	more = realloc(l->found, (l->n_found + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->found = more;
	l->found[l->n_found++] = u;
	return 0;
}

int owned_users(int ns, const struct owned_address *v, size_t n, struct owned_user **ret, size_t *ret_n, struct err *e)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 }, protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct listing l = { .v = v, .n = n };
	struct netlink nl;
	int r = netlink_open(&nl, NETLINK_SOCK_DIAG, ns, e);

	for (size_t i = 0; i < 4 && r >= 0; i++) {
		char buf[512];
		struct nlmsghdr *m = netlink_begin(buf, SOCK_DIAG_BY_FAMILY, 0, sizeof(struct inet_diag_req_v2));
		struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(m);

		q->sdiag_family = families[i % 2];
		q->sdiag_protocol = l.protocol = protocols[i / 2];
		q->idiag_states = l.protocol == IPPROTO_TCP ? ~(1u << TIME_WAIT | 1u << CLOSED) : UINT32_MAX;
		r = netlink_dump(&nl, m, on_socket, &l);
		if (r < 0)
			netlink_error(&nl, r, e, "listing the sockets of this host");
	}
	netlink_close(&nl);
	if (r < 0) {
		free(l.found);
		return r;
	}
	*ret = l.found;
	*ret_n = l.n_found;
	return 0;
}
