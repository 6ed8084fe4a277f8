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

static int raw4 = -1, raw6 = -1;

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
	raw4 = open_raw(AF_INET, mark);
	raw6 = open_raw(AF_INET6, mark);
	return raw4 < 0 && raw6 < 0 ? err_sys(e, -errno, "a raw socket") : 0;
}

static uint32_t add(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *b = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)b[i] << 8 | b[i + 1];
	return sum;
}

/* RFC 9293, 3.1: over the addresses, the protocol and the length as well. */
static uint16_t checksum(const struct tcphdr *tcp, const void *from, const void *to, size_t address_len)
{
	uint32_t sum = add(tcp, sizeof(*tcp), add(to, address_len, add(from, address_len, IPPROTO_TCP + sizeof(*tcp))));

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static ssize_t send4(const struct endpoint *from, const struct endpoint *to, struct tcphdr *tcp)
{
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} __attribute__((packed)) p = { .ip = { .version = 4, .ihl = 5, .tot_len = htons(sizeof(p)), .ttl = HOPS, .protocol = IPPROTO_TCP } };
	struct sockaddr_in where = { .sin_family = AF_INET };

	memcpy(&p.ip.saddr, &from->address.s6_addr[12], 4);
	memcpy(&p.ip.daddr, &to->address.s6_addr[12], 4);
	where.sin_addr.s_addr = p.ip.daddr;
	tcp->check = checksum(tcp, &from->address.s6_addr[12], &to->address.s6_addr[12], 4);
	p.tcp = *tcp;
	return sendto(raw4, &p, sizeof(p), 0, (void *)&where, sizeof(where));
}

static ssize_t send6(const struct endpoint *from, const struct endpoint *to, struct tcphdr *tcp)
{
	struct {
		struct ip6_hdr ip;
		struct tcphdr tcp;
	} __attribute__((packed)) p = { .ip = { .ip6_src = from->address, .ip6_dst = to->address } };
	struct sockaddr_in6 where = { .sin6_family = AF_INET6, .sin6_addr = to->address };

	p.ip.ip6_flow = htonl(6u << 28);
	p.ip.ip6_plen = htons(sizeof(p.tcp));
	p.ip.ip6_nxt = IPPROTO_TCP;
	p.ip.ip6_hlim = HOPS;
	tcp->check = checksum(tcp, &from->address, &to->address, sizeof(struct in6_addr));
	p.tcp = *tcp;
	return sendto(raw6, &p, sizeof(p), 0, (void *)&where, sizeof(where));
}

int tcp_forge(const Gw__FdSocket *s, uint32_t number, uint32_t acknowledged, unsigned flags, struct err *e)
{
	struct endpoint from = endpoint_of(&s->peer), to = endpoint_of(&s->local);
	struct tcphdr tcp = { .source = from.port, .dest = to.port, .seq = htonl(number), .ack_seq = htonl(acknowledged), .doff = sizeof(tcp) / 4, .ack = 1,
			      .fin = (flags & TCP_FORGE_FIN) != 0, .rst = (flags & TCP_FORGE_RST) != 0 };
	uint32_t scale = s->tcp->options & TCPI_OPT_WSCALE ? s->tcp->send_scale : 0;

	tcp.window = htons((uint16_t)MIN(s->tcp->numbers->peer_window >> scale, WINDOW));
	if ((IN6_IS_ADDR_V4MAPPED(&to.address) ? send4(&from, &to, &tcp) : send6(&from, &to, &tcp)) < 0)
		return err_sys(e, -errno, "TCP: saying again what the other end has said");
	return 0;
}
