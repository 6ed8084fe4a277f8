/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * udp_outside.c - see udp_outside.h
 *
 * A datagram that is received once more leaves by the loopback device and comes back by it (raw(7)). The kernel makes its IP header, in fragments where it must, from an
 * address that may be any host's (IP_TRANSPARENT, IP_PKTINFO); the header of UDP is ours.
 */
#include "image/udp_outside.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/socket_udp.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

static bool can_move, begun;
static uint32_t our_mark;

void udp_outside_set(bool can)
{
	can_move = can;
}

bool udp_outside_can_move(void)
{
	return can_move;
}

static bool is_multicast(const struct endpoint *p)
{
	return IN6_IS_ADDR_MULTICAST(&p->address) || (IN6_IS_ADDR_V4MAPPED(&p->address) && p->address.s6_addr[12] >= 224);
}

bool udp_outside_has_end(const Gw__FdTable *t, const Gw__FdDesc *d)
{
	const Gw__FdSocket *s = d->kind == GW__FD_KIND__FD_SOCKET ? d->socket : NULL;
	struct endpoint own;

	if (!s || s->type != SOCK_DGRAM || s->protocol != IPPROTO_UDP || !socket_udp_is_one(s) || !s->local.len)
		return false;
	own = endpoint_of(&s->local);
	/* What is for a group comes to every host by itself. */
	return !is_multicast(&own) && (!s->peer.len || !socket_udp_peer_is_inside(t, s));
}

void udp_outside_begin(uint32_t mark)
{
	our_mark = mark;
	begun = true;
}

bool udp_outside_begun(void)
{
	return begun;
}

static int open_raw(int family, int protocol)
{
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, protocol), at = offsetof(struct udphdr, check), r;

	if (fd < 0)
		return -errno;
	r = begun ? socket_set_int(fd, SOL_SOCKET, SO_MARK, (int)our_mark) : 0;
	if (r == 0)
		r = socket_set_int(fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, family == AF_INET ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1);
	/* Over IPv4 none says that it has not been computed. */
	if (r == 0 && family == AF_INET6 && protocol == IPPROTO_UDP && setsockopt(fd, IPPROTO_IPV6, IPV6_CHECKSUM, &at, sizeof(at)) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static ssize_t send_from(int fd, const struct endpoint *from, const struct in6_addr *to, struct iovec iov[2])
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { 0 };
	bool four = IN6_IS_ADDR_V4MAPPED(&from->address);
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = *to };
	struct msghdr m = { .msg_name = four ? (void *)&in : (void *)&in6, .msg_namelen = four ? sizeof(in) : sizeof(in6), .msg_iov = iov, .msg_iovlen = 2,
			    .msg_control = &control, .msg_controllen = four ? CMSG_SPACE(sizeof(struct in_pktinfo)) : CMSG_SPACE(sizeof(struct in6_pktinfo)) };
	struct in6_pktinfo info6 = { .ipi6_addr = from->address };
	struct in_pktinfo info = { 0 };

	memcpy(&in.sin_addr, &to->s6_addr[12], 4);
	memcpy(&info.ipi_spec_dst, &from->address.s6_addr[12], 4);
	control.header = (struct cmsghdr){ .cmsg_len = four ? CMSG_LEN(sizeof(info)) : CMSG_LEN(sizeof(info6)), .cmsg_level = four ? IPPROTO_IP : IPPROTO_IPV6,
					   .cmsg_type = four ? IP_PKTINFO : IPV6_PKTINFO };
	memcpy(CMSG_DATA(&control.header), four ? (void *)&info : (void *)&info6, four ? sizeof(info) : sizeof(info6));
	return sendmsg(fd, &m, MSG_DONTWAIT);
}

int udp_outside_receive(const Gw__FdSocket *s, const Gw__FdUnixMessage *m, struct err *e)
{
	struct endpoint from = endpoint_of(&m->sender), own = endpoint_of(&s->local);
	bool four = IN6_IS_ADDR_V4MAPPED(&from.address);
	cleanup_close int fd = open_raw(four ? AF_INET : AF_INET6, IPPROTO_UDP);
	struct udphdr head = { .source = from.port, .dest = own.port, .len = htons((uint16_t)(sizeof(head) + m->data.len)) };
	struct iovec iov[2] = { { &head, sizeof(head) }, { m->data.data, m->data.len } };

	if (fd < 0)
		return err_sys(e, fd, "UDP socket: a raw socket for what it has received");
	/* Whoever is bound to every address hears what is for any. */
	if (send_from(fd, &from, endpoint_is_any(&own) ? &from.address : &own.address, iov) != (ssize_t)(sizeof(head) + m->data.len))
		return err_sys(e, -errno, "UDP socket: receiving again what it has not read");
	return 0;
}

static uint16_t sum_of(const void *data, size_t len)
{
	const uint16_t *words = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < len / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~(sum + (sum >> 16));
}

/* What a host answers at whose port nobody is: with the beginning of what the socket has sent, by which the kernel finds that. */
void udp_outside_refuse(const Gw__FdSocket *s, int fd)
{
	struct sockaddr_storage local = { 0 };
	socklen_t len = sizeof(local);
	ProtobufCBinaryData bound = { sizeof(local), (uint8_t *)&local };
	struct endpoint to = endpoint_of(&s->peer), own;
	bool four = IN6_IS_ADDR_V4MAPPED(&to.address);
	struct udphdr udp = { .dest = to.port, .len = htons(sizeof(udp)) };
	struct {
		struct icmphdr icmp;
		struct iphdr ip;
		struct udphdr udp;
	} v4 = { .icmp = { .type = ICMP_DEST_UNREACH, .code = ICMP_PORT_UNREACH }, .ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .tot_len = htons(sizeof(v4.ip) + sizeof(v4.udp)) } };
	struct {
		struct icmp6_hdr icmp;
		struct ip6_hdr ip;
		struct udphdr udp;
	} v6 = { .icmp = { .icmp6_type = ICMP6_DST_UNREACH, .icmp6_code = ICMP6_DST_UNREACH_NOPORT }, .ip = { .ip6_flow = htonl(6u << 28), .ip6_plen = htons(sizeof(v6.udp)), .ip6_nxt = IPPROTO_UDP, .ip6_hlim = 64 } };
	cleanup_close int raw = -1;

	if (getsockname(fd, (void *)&local, &len) < 0)
		return;
	bound.len = len;
	own = endpoint_of(&bound);
	udp.source = own.port;
	raw = open_raw(four ? AF_INET : AF_INET6, four ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (raw < 0)
		return;
	v4.udp = v6.udp = udp;
	memcpy(&v4.ip.saddr, &own.address.s6_addr[12], 4);
	memcpy(&v4.ip.daddr, &to.address.s6_addr[12], 4);
	v4.ip.check = sum_of(&v4.ip, sizeof(v4.ip));
	v4.icmp.checksum = sum_of(&v4, sizeof(v4));
	v6.ip.ip6_src = own.address;
	v6.ip.ip6_dst = to.address;
	send_from(raw, &to, &own.address, (struct iovec[2]){ four ? (struct iovec){ &v4, sizeof(v4) } : (struct iovec){ &v6, sizeof(v6) } });
}
