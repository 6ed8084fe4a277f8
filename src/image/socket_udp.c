/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_udp.c - UDP inside the unit; see socket_udp.h */
#include "image/socket_udp.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/udp_outside.h"
#include "kern/sock_peek.h"

#define UDP_CORK_OPTION 1
#define DATAGRAM_MAX 65536u
#define QUEUE_BYTES_MAX (64u << 20)
#define QUEUE_MAX 65536u

bool socket_udp_is_one(const Gw__FdSocket *s)
{
	return (s->family == AF_INET || s->family == AF_INET6) && s->type == SOCK_DGRAM &&
		(s->protocol == IPPROTO_UDP || s->protocol == IPPROTO_UDPLITE);
}

static size_t address_len(uint32_t family)
{
	return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* Which directions are shut down, from sock_diag. */
static uint32_t ask_shutdown(uint64_t ino, const Gw__FdSocket *s)
{
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 request;
	} message = {
		.head = { .nlmsg_len = sizeof(message), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_family = (uint8_t)s->family, .sdiag_protocol = (uint8_t)s->protocol, .idiag_states = ~0u },
	};
	_Alignas(struct nlmsghdr) char answer[32768];
	bool done = nl < 0 || send(nl, &message, sizeof(message), 0) < 0;
	uint32_t found = 0;

	while (!done) {
		ssize_t n = recv(nl, answer, sizeof(answer), 0);

		done = n <= 0;
		for (struct nlmsghdr *head = (void *)answer; !done && NLMSG_OK(head, n); head = NLMSG_NEXT(head, n)) {
			const struct inet_diag_msg *m = NLMSG_DATA(head);

			done = head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR;
			if (done || m->idiag_inode != (uint32_t)ino)
				continue;
			for (const char *at = (const char *)(m + 1); at + sizeof(struct nlattr) <= (char *)head + head->nlmsg_len;) {
				const struct nlattr *a = (const void *)at;

				if (a->nla_len < sizeof(*a))
					break;
				if (a->nla_type == INET_DIAG_SHUTDOWN)
					found = *(const uint8_t *)(a + 1) & 3;
				at += NLA_ALIGN(a->nla_len);
			}
		}
	}
	return found;
}

void socket_udp_capture(int held, Gw__FdSocket *s)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	struct stat st;

	memset(&peer, 0, sizeof(peer));
	if (getpeername(held, (void *)&peer, &len) < 0)
		len = 0;
	bytes_set(&s->peer, &peer, len);
	/* Only what has been connected can be shut down. */
	if (len && fstat(held, &st) == 0)
		s->shut_down = ask_shutdown(st.st_ino, s);
}

static void forget_queue(Gw__FdSocket *s)
{
	for (size_t i = 0; i < s->n_queue; i++)
		gw__fd_unix_message__free_unpacked(s->queue[i], NULL);
	free(s->queue);
	s->queue = NULL;
	s->n_queue = 0;
}

bool socket_udp_error_can_move(int held, unsigned int error)
{
	int family = socket_get_int(held, SOL_SOCKET, SO_DOMAIN);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	/* Where such errors are queued as well, the kernel takes one for the other. */
	return error == ECONNREFUSED && socket_get_int(held, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && socket_get_int(held, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP &&
		getpeername(held, (void *)&peer, &len) == 0 && socket_get_int(held, IPPROTO_IP, IP_RECVERR) <= 0 &&
		(family != AF_INET6 || socket_get_int(held, IPPROTO_IPV6, IPV6_RECVERR) <= 0);
}

/* In the freeze, without taking it. */
static void capture_error(int held, Gw__FdSocket *s)
{
	cleanup_free struct sock_record *records = NULL;
	size_t n;

	s->error = 0;
	if (s->peer.len && sock_peek(held, &records, &n, NULL) == 0 && n && socket_udp_error_can_move(held, records[0].error))
		s->error = records[0].error;
}

static int peek_all(int held, Gw__FdSocket *s, struct err *e)
{
	cleanup_free uint8_t *data = fd_alloc(DATAGRAM_MAX);
	size_t sum = 0;
	bool taken = false;

	for (;;) {
		struct sockaddr_storage from;
		struct iovec iov = { data, DATAGRAM_MAX };
		struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n = recvmsg(held, &m, MSG_PEEK | MSG_DONTWAIT);
		Gw__FdUnixMessage *message;

		/* It comes before all that waits. */
		if (n < 0 && s->error && !s->n_queue && errno == (int)s->error && !taken) {
			taken = true;
			continue;
		}
		if (n < 0)
			return errno == EAGAIN ? 0 : err_sys(e, -errno, "reading the queue of a UDP socket");
		sum += (size_t)n;
		if (s->n_queue >= QUEUE_MAX || sum > QUEUE_BYTES_MAX)
			return err_set(e, -E2BIG, "the queue of a UDP socket is too long");
		message = fd_alloc(sizeof(*message));
		gw__fd_unix_message__init(message);
		bytes_set(&message->data, data, (size_t)n);
		bytes_set(&message->sender, &from, m.msg_namelen);
		fd_append(&s->queue, &s->n_queue, message);
	}
}

int socket_udp_refuse_corked(const struct fd_look *look, struct refusals *refusals)
{
	int under_way = 0;

	if (socket_get_int(look->held, IPPROTO_UDP, UDP_CORK_OPTION) != 1 || ioctl(look->held, SIOCOUTQ, &under_way) < 0 || !under_way)
		return 0;
	refusals_add(refusals, "fd.socket.udp.corked", "a datagram that is not complete yet (UDP_CORK) cannot be read", "try again when the program has sent it",
		"fd %d (UDP)", look->fd);
	return FD_REFUSED;
}

int socket_udp_capture_queue(const struct fd_look *look, Gw__FdSocket *s, struct refusals *refusals, struct err *e)
{
	int was = socket_get_int(look->held, SOL_SOCKET, SO_PEEK_OFF), off = 0, r;
	struct pollfd waits = { .fd = look->held, .events = POLLIN };

	forget_queue(s);
	if (socket_udp_refuse_corked(look, refusals))
		return FD_REFUSED;
	capture_error(look->held, s);
	/* The error stays where it is, should the unit go on here: to read the queue would take it. */
	if (!s->local.len || (s->error && (poll(&waits, 1, 0) <= 0 || !(waits.revents & POLLIN))))
		return 0;
	if (setsockopt(look->held, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)) < 0)
		return err_sys(e, -errno, "fd %d: SO_PEEK_OFF", look->fd);
	r = peek_all(look->held, s, e);
	setsockopt(look->held, SOL_SOCKET, SO_PEEK_OFF, &was, sizeof(was));
	for (size_t i = 0; i < s->n_queue && r == 0; i++) {
		struct endpoint from = endpoint_of(&s->queue[i]->sender);

		if (ns_has_net() ? endpoint_is_local(&from) : endpoint_is_loopback(&from) || (udp_outside_can_move() && s->protocol == IPPROTO_UDP))
			continue;
		refusals_add(refusals, "fd.socket.queue", "datagrams of another host wait in its queue, and such cannot move yet",
			"try again when the program has read them", "fd %d (UDP)", look->fd);
		return FD_REFUSED;
	}
	return r;
}

/* The description whose socket has this address; -1: none. */
static int find_bound(const Gw__FdTable *t, const struct endpoint *p, bool exactly)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdSocket *s = t->descs[i]->kind == GW__FD_KIND__FD_SOCKET ? t->descs[i]->socket : NULL;
		struct endpoint at;

		if (!s || !socket_udp_is_one(s) || !s->local.len)
			continue;
		at = endpoint_of(&s->local);
		if (endpoint_same(&at, p) || (!exactly && at.port == p->port && endpoint_is_any(&at)))
			return (int)i;
	}
	return -1;
}

bool socket_udp_peer_is_inside(const Gw__FdTable *t, const Gw__FdSocket *s)
{
	struct endpoint p;

	if (!s->peer.len)
		return true;
	p = endpoint_of(&s->peer);
	return ns_has_net() || (endpoint_is_loopback(&p) && find_bound(t, &p, false) >= 0);
}

int socket_udp_validate(const Gw__FdSocket *s, struct err *e)
{
	uint64_t sum = 0;

	if (s->shut_down > 3 || s->n_queue > QUEUE_MAX || (s->error && s->error != ECONNREFUSED) || (s->peer.len && s->peer.len != address_len(s->family)))
		return err_set(e, -EPROTO, "UDP socket: shutdown %u, %zu datagrams", s->shut_down, s->n_queue);
	for (size_t i = 0; i < s->n_queue; i++) {
		sum += s->queue[i]->data.len;
		if (s->queue[i]->sender.len != address_len(s->family) || s->queue[i]->n_descs || sum > QUEUE_BYTES_MAX)
			return err_set(e, -EPROTO, "UDP socket: datagram %zu", i);
	}
	return 0;
}

/* Where to send so that the socket receives it. */
static socklen_t target_of(const Gw__FdSocket *s, const ProtobufCBinaryData *sender, struct sockaddr_storage *ret)
{
	struct endpoint from = endpoint_of(sender), to = endpoint_of(&s->local);
	struct sockaddr_in *in = (void *)ret;
	struct sockaddr_in6 *in6 = (void *)ret;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret, s->local.data, MIN(s->local.len, sizeof(*ret)));
	if (endpoint_is_any(&to) && s->family == AF_INET)
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else if (endpoint_is_any(&to))
		in6->sin6_addr = from.address; /* a loopback address of its kind */
	return (socklen_t)address_len(s->family);
}

/* From the sender's address, by a socket that may be bound to its port only; ip(7), ipv6(7): PKTINFO. */
static ssize_t send_from(int via, const struct sockaddr_storage *target, socklen_t len, const ProtobufCBinaryData *sender, const ProtobufCBinaryData *data)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { 0 };
	struct iovec iov = { data->data, data->len };
	struct msghdr m = { .msg_name = (void *)(uintptr_t)target, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	bool four = target->ss_family == AF_INET;
	struct in_pktinfo info = { 0 };
	struct in6_pktinfo info6 = { 0 };

	if (four)
		info.ipi_spec_dst = ((const struct sockaddr_in *)(void *)sender->data)->sin_addr;
	else
		info6.ipi6_addr = ((const struct sockaddr_in6 *)(void *)sender->data)->sin6_addr;
	control.header = (struct cmsghdr){ .cmsg_len = four ? CMSG_LEN(sizeof(info)) : CMSG_LEN(sizeof(info6)), .cmsg_level = four ? IPPROTO_IP : IPPROTO_IPV6,
					   .cmsg_type = four ? IP_PKTINFO : IPV6_PKTINFO };
	memcpy(CMSG_DATA(&control.header), four ? (void *)&info : (void *)&info6, four ? sizeof(info) : sizeof(info6));
	m.msg_controllen = four ? CMSG_SPACE(sizeof(info)) : CMSG_SPACE(sizeof(info6));
	return sendmsg(via, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What has come before the unit did: it was for nobody, or has come to the source as well (a group's). */
static void drain(int fd)
{
	char byte;

	while (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0)
		;
}

/* Through the sender's own socket where it is one of the unit's, or else one in its place. */
static int send_again(const Gw__FdTable *t, const int *fds, const Gw__FdSocket *s, const Gw__FdUnixMessage *m, struct err *e)
{
	struct endpoint from = endpoint_of(&m->sender);
	int known = find_bound(t, &from, true), wide = known >= 0 ? -1 : find_bound(t, &from, false), on = 1;
	cleanup_close int stranger = -1;
	struct sockaddr_storage target;
	socklen_t len = target_of(s, &m->sender, &target);
	int cork = known >= 0 ? socket_get_int(fds[known], IPPROTO_UDP, UDP_CORK_OPTION) : 0, off = 0;
	int via = known >= 0 ? fds[known] : -1;

	if (udp_outside_begun() && s->protocol == IPPROTO_UDP && known < 0 && (wide < 0 || !endpoint_is_loopback(&from)))
		return udp_outside_receive(s, m, e);
	if (wide >= 0 && t->descs[wide]->socket->family == s->family) {
		if (send_from(fds[wide], &target, len, &m->sender, &m->data) != (ssize_t)m->data.len)
			return err_sys(e, -errno, "UDP socket: filling its queue");
		return 0;
	}
	if (via < 0) {
		via = stranger = socket((int)s->family, SOCK_DGRAM | SOCK_CLOEXEC, (int)s->protocol);
		setsockopt(stranger, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (stranger < 0 || bind(stranger, (void *)m->sender.data, (socklen_t)m->sender.len) < 0)
			return err_sys(e, -errno, "UDP socket: a sender of a datagram in its queue");
	}
	if (cork > 0)
		setsockopt(via, IPPROTO_UDP, UDP_CORK_OPTION, &off, sizeof(off));
	if (sendto(via, m->data.data, m->data.len, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&target, len) != (ssize_t)m->data.len)
		return err_sys(e, -errno, "UDP socket: filling its queue");
	if (cork > 0)
		setsockopt(via, IPPROTO_UDP, UDP_CORK_OPTION, &cork, sizeof(cork));
	return 0;
}

static int finish(const Gw__FdSocket *s, int fd, struct err *e)
{
	uint32_t how = s->shut_down;

	if (s->peer.len && connect(fd, (void *)s->peer.data, (socklen_t)s->peer.len) < 0)
		return err_sys(e, -errno, "UDP socket: connecting it");
	if (s->error)
		udp_outside_refuse(s, fd);
	if (how && shutdown(fd, how == 1 ? SHUT_RD : how == 2 ? SHUT_WR : SHUT_RDWR) < 0)
		return err_sys(e, -errno, "UDP socket: shutdown");
	return 0;
}

int socket_udp_fill(const Gw__FdTable *t, const int *fds, struct err *e)
{
	int r = 0;

	for (int pass = 0; pass < 3; pass++)
		for (size_t i = 0; i < t->n_descs && r == 0; i++) {
			const Gw__FdSocket *s = t->descs[i]->kind == GW__FD_KIND__FD_SOCKET ? t->descs[i]->socket : NULL;

			if (!s || !socket_udp_is_one(s))
				continue;
			if (pass == 0 && s->local.len)
				drain(fds[i]);
			for (size_t k = 0; pass == 1 && k < s->n_queue && r == 0; k++)
				r = send_again(t, fds, s, s->queue[k], e);
			if (pass == 2)
				r = finish(s, fds[i], e);
		}
	return r;
}
