/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_destroy.c - see sock_destroy.h */
#include "kern/sock_destroy.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

static bool prepare(struct question *q, const struct sockaddr *own, const struct sockaddr *peer)
{
	struct inet_diag_sockid *id = &q->request.id;
	uint8_t family;

	*q = (struct question){ .head = { .nlmsg_len = sizeof(*q) }, .request = { .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u } };
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	return fill_end(own, &q->request.sdiag_family, &id->idiag_sport, id->idiag_src) && fill_end(peer, &family, &id->idiag_dport, id->idiag_dst) &&
		family == q->request.sdiag_family;
}

/* Where there is none a listener is found, which is another one. */
static bool destroy_found(int nl, struct question *q, bool orphan)
{
	struct inet_diag_msg found = { .idiag_state = TCP_LISTEN };

	if (ask(nl, q, SOCK_DIAG_BY_FAMILY, &found) != SOCK_DIAG_BY_FAMILY || found.idiag_state == TCP_LISTEN || (orphan && found.idiag_inode))
		return false;
	memcpy(q->request.id.idiag_cookie, found.id.idiag_cookie, sizeof(found.id.idiag_cookie));
	return ask(nl, q, SOCK_DESTROY, NULL) == NLMSG_ERROR;
}

static bool destroy(const struct sockaddr *own, const struct sockaddr *peer, bool orphan)
{
	struct question q;
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (nl < 0 || !prepare(&q, own, peer))
		return false;
	return destroy_found(nl, &q, orphan);
}

/* Those of one answer; false behind the last one. */
static bool destroy_listed(const char *answer, ssize_t n, const struct question *asked, int nl, size_t *count)
{
	static const uint32_t none[4];
	const uint32_t *own = asked->request.id.idiag_src;

	for (const struct nlmsghdr *head = (const void *)answer; NLMSG_OK(head, (size_t)n); head = NLMSG_NEXT(head, n)) {
		const struct inet_diag_msg *found = NLMSG_DATA(head);
		struct question q = *asked;

		if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY)
			return false;
		if (found->idiag_inode || (memcmp(own, none, sizeof(none)) != 0 && memcmp(own, found->id.idiag_src, sizeof(none)) != 0))
			continue;
		q.request.id = found->id;
		*count += ask(nl, &q, SOCK_DESTROY, NULL) == NLMSG_ERROR;
	}
	return true;
}

size_t sock_destroy_ended(const struct sockaddr *own)
{
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), other = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	_Alignas(struct nlmsghdr) char answer[16384];
	struct question q = { .head = { .nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1u << TCP_TIME_WAIT | 1u << TCP_FIN_WAIT2 } };
	uint8_t families[] = { AF_INET, AF_INET6 };
	size_t count = 0;
	ssize_t n;

	if (nl < 0 || other < 0 || !fill_end(own, &q.request.sdiag_family, &q.request.id.idiag_sport, q.request.id.idiag_src))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		q.request.sdiag_family = families[i];
		n = send(nl, &q, sizeof(q), 0) < 0 ? -1 : recv(nl, answer, sizeof(answer), 0);
		while (n > 0 && destroy_listed(answer, n, &q, other, &count))
			n = recv(nl, answer, sizeof(answer), 0);
	}
	return count;
}

/* Opened once: to close it takes milliseconds. */
static int lasting(void)
{
	static int nl = -1;

	if (nl < 0)
		nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	return nl;
}

void sock_make_way(const struct sockaddr *own, const struct sockaddr *peer)
{
	struct question q;

	if (lasting() >= 0 && prepare(&q, own, peer))
		destroy_found(lasting(), &q, true);
}

bool sock_is_connected(const struct sockaddr *own, const struct sockaddr *peer)
{
	int nl = lasting();
	struct question q;
	struct inet_diag_msg found;

	return nl >= 0 && prepare(&q, own, peer) && ask(nl, &q, SOCK_DIAG_BY_FAMILY, &found) == SOCK_DIAG_BY_FAMILY && found.idiag_state != TCP_LISTEN &&
		found.idiag_state != TCP_TIME_WAIT;
}

bool sock_destroy_orphan(const struct sockaddr *own, const struct sockaddr *peer)
{
	return destroy(own, peer, true);
}

bool sock_destroy(const struct sockaddr *own, const struct sockaddr *peer)
{
	return destroy(own, peer, false);
}
