/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_destroy.c - see sock_destroy.h */
#include "kern/sock_destroy.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>

#include "base/util.h"

struct question {
	struct nlmsghdr head;
	struct inet_diag_req_v2 request;
};

static bool fill_end(const struct sockaddr *a, uint8_t *family, uint16_t *port, uint32_t address[4])
{
	const struct sockaddr_in *in = (const void *)a;
	const struct sockaddr_in6 *in6 = (const void *)a;
	bool mapped = a->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

	if (a->sa_family != AF_INET && a->sa_family != AF_INET6)
		return false;
	*family = a->sa_family == AF_INET || mapped ? AF_INET : AF_INET6;
	*port = a->sa_family == AF_INET ? in->sin_port : in6->sin6_port;
	if (a->sa_family == AF_INET)
		memcpy(address, &in->sin_addr, 4);
	else
		memcpy(address, &in6->sin6_addr.s6_addr[mapped ? 12 : 0], mapped ? 4 : 16);
	return true;
}

/* The answer's type; *ret: a socket. */
static int ask(int nl, struct question *q, int type, struct inet_diag_msg *ret)
{
	_Alignas(struct nlmsghdr) char answer[8192];
	const struct nlmsghdr *head = (const void *)answer;
	ssize_t n;

	q->head.nlmsg_type = (uint16_t)type;
	q->head.nlmsg_flags = NLM_F_REQUEST | (type == SOCK_DESTROY ? NLM_F_ACK : 0);
	n = send(nl, q, sizeof(*q), 0) < 0 ? -1 : recv(nl, answer, sizeof(answer), 0);
	if (n < (ssize_t)sizeof(*head))
		return -1;
	if (ret && head->nlmsg_type == SOCK_DIAG_BY_FAMILY && head->nlmsg_len >= NLMSG_LENGTH(sizeof(*ret)))
		memcpy(ret, NLMSG_DATA(head), sizeof(*ret));
	if (head->nlmsg_type == NLMSG_ERROR && ((const struct nlmsgerr *)NLMSG_DATA(head))->error)
		return -1;
	return head->nlmsg_type;
}

static bool destroy(const struct sockaddr *own, const struct sockaddr *peer, bool orphan)
{
	struct question q = { .head = { .nlmsg_len = sizeof(q) }, .request = { .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u } };
	struct inet_diag_sockid *id = &q.request.id;
	struct inet_diag_msg found;
	uint8_t family;
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (nl < 0 || !fill_end(own, &q.request.sdiag_family, &id->idiag_sport, id->idiag_src) || !fill_end(peer, &family, &id->idiag_dport, id->idiag_dst) ||
	    family != q.request.sdiag_family)
		return false;
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	if (ask(nl, &q, SOCK_DIAG_BY_FAMILY, &found) != SOCK_DIAG_BY_FAMILY || (orphan && found.idiag_inode))
		return false;
	memcpy(id->idiag_cookie, found.id.idiag_cookie, sizeof(id->idiag_cookie));
	return ask(nl, &q, SOCK_DESTROY, NULL) == NLMSG_ERROR;
}

bool sock_destroy_orphan(const struct sockaddr *own, const struct sockaddr *peer)
{
	return destroy(own, peer, true);
}

bool sock_destroy(const struct sockaddr *own, const struct sockaddr *peer)
{
	return destroy(own, peer, false);
}
