/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_forge.c - segments to a socket of this host that say what the other end has said before (tcp_outside.h)
 *
 * They leave by the loopback device and come back by it: their mark makes them local whatever their addresses (raw(7), IP_HDRINCL; tests/facts/tcp_remake.c).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/tcp_outside.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif
#define HOPS 64
#define WINDOW 65535u
#define DATA_MAX 1200 /* fits through whatever the loopback device has been made */

static int raw4 = -1, raw6 = -1;
static uint32_t our_mark;

static int open_raw(int family, uint32_t mark)
{
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), on = 1;

	if (fd >= 0)
		socket_set_int(fd, SOL_SOCKET, SO_MARK, (int)mark);
	if (fd >= 0 && family == AF_INET6)
		(void)!setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on));
	return fd;
}

int tcp_forge_open(uint32_t mark, struct err *e)
{
	close_fdp(&raw4);
	close_fdp(&raw6);
	our_mark = mark;
	raw4 = open_raw(AF_INET, mark);
	raw6 = open_raw(AF_INET6, mark);
	return raw4 < 0 && raw6 < 0 ? err_sys(e, -errno, "a raw socket") : 0;
}

uint32_t tcp_forge_mark(void)
{
	return our_mark;
}

struct segment {
	struct tcphdr tcp;
	uint8_t data[DATA_MAX];
	size_t len;          /* of data */
};

static uint32_t add(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *b = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)b[i] << 8 | b[i + 1];
	return len & 1 ? sum + ((uint32_t)b[len - 1] << 8) : sum;
}

/* RFC 9293, 3.1: over the addresses, the protocol and the length as well. */
static uint16_t checksum(const struct segment *s, const void *from, const void *to, size_t address_len)
{
	uint32_t len = (uint32_t)(sizeof(s->tcp) + s->len), sum = add(&s->tcp, len, add(to, address_len, add(from, address_len, IPPROTO_TCP + len)));

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static ssize_t send_packet(int fd, const void *ip, size_t ip_len, const struct segment *s, const struct sockaddr *where, socklen_t where_len)
{
	struct iovec parts[] = { { (void *)(uintptr_t)ip, ip_len }, { (void *)(uintptr_t)&s->tcp, sizeof(s->tcp) + s->len } };
	struct msghdr m = { .msg_name = (void *)(uintptr_t)where, .msg_namelen = where_len, .msg_iov = parts, .msg_iovlen = 2 };

	return sendmsg(fd, &m, 0);
}

static ssize_t send4(const struct endpoint *from, const struct endpoint *to, struct segment *s)
{
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = HOPS, .protocol = IPPROTO_TCP };
	struct sockaddr_in where = { .sin_family = AF_INET };

	ip.tot_len = htons((uint16_t)(sizeof(ip) + sizeof(s->tcp) + s->len));
	memcpy(&ip.saddr, &from->address.s6_addr[12], 4);
	memcpy(&ip.daddr, &to->address.s6_addr[12], 4);
	where.sin_addr.s_addr = ip.daddr;
	s->tcp.check = checksum(s, &from->address.s6_addr[12], &to->address.s6_addr[12], 4);
	return send_packet(raw4, &ip, sizeof(ip), s, (void *)&where, sizeof(where));
}

static ssize_t send6(const struct endpoint *from, const struct endpoint *to, struct segment *s)
{
	struct ip6_hdr ip = { .ip6_src = from->address, .ip6_dst = to->address };
	struct sockaddr_in6 where = { .sin6_family = AF_INET6, .sin6_addr = to->address };

	ip.ip6_flow = htonl(6u << 28);
	ip.ip6_plen = htons((uint16_t)(sizeof(s->tcp) + s->len));
	ip.ip6_nxt = IPPROTO_TCP;
	ip.ip6_hlim = HOPS;
	s->tcp.check = checksum(s, &from->address, &to->address, sizeof(struct in6_addr));
	return send_packet(raw6, &ip, sizeof(ip), s, (void *)&where, sizeof(where));
}

static int forge(const Gw__FdSocket *s, struct segment *segment, uint32_t number, uint32_t acknowledged, struct err *e)
{
	struct endpoint from = endpoint_of(&s->peer), to = endpoint_of(&s->local);
	uint32_t scale = s->tcp->options & TCPI_OPT_WSCALE ? s->tcp->send_scale : 0;
	struct tcphdr *tcp = &segment->tcp;

	tcp->source = from.port;
	tcp->dest = to.port;
	tcp->seq = htonl(number);
	tcp->ack_seq = htonl(acknowledged);
	tcp->doff = sizeof(*tcp) / 4;
	tcp->ack = 1;
	tcp->window = htons((uint16_t)MIN(s->tcp->numbers->peer_window >> scale, WINDOW));
	if ((IN6_IS_ADDR_V4MAPPED(&to.address) ? send4(&from, &to, segment) : send6(&from, &to, segment)) < 0)
		return err_sys(e, -errno, "TCP: saying again what the other end has said");
	return 0;
}

int tcp_forge(const Gw__FdSocket *s, uint32_t number, uint32_t acknowledged, unsigned flags, struct err *e)
{
	struct segment segment = { .tcp = { .fin = (flags & TCP_FORGE_FIN) != 0, .rst = (flags & TCP_FORGE_RST) != 0 } };

	return forge(s, &segment, number, acknowledged, e);
}

int tcp_forge_data(const Gw__FdSocket *s, uint32_t number, uint32_t acknowledged, const ProtobufCBinaryData *data, struct err *e)
{
	int r = 0;

	for (size_t at = 0, len; at < data->len && r == 0; at += len) {
		struct segment segment = { .tcp = { .psh = 1 } };

		len = segment.len = MIN(data->len - at, (size_t)DATA_MAX);
		memcpy(segment.data, data->data + at, len);
		r = forge(s, &segment, number + (uint32_t)at, acknowledged, e);
	}
	return r;
}
