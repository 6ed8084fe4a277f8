/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_address.h - internet addresses that can be compared, whatever family the socket is of */
#ifndef GODWIT_IMAGE_SOCKET_ADDRESS_H
#define GODWIT_IMAGE_SOCKET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "file.pb-c.h"

/* Address, as IPv6 has it (IPv4 mapped), and port in network order. */
struct endpoint {
	struct in6_addr address;
	uint16_t port, zero; /* no padding: two are compared byte by byte */
};

/* Of a struct sockaddr_in or sockaddr_in6; none: all zero. */
static inline struct endpoint endpoint_of(const ProtobufCBinaryData *b)
{
	struct endpoint p = { 0 };
	struct sockaddr_in6 in6 = { 0 };
	struct sockaddr_in in = { 0 };

	if (!b->len)
		return p;
	memcpy(&in, b->data, MIN(b->len, sizeof(in)));
	if (in.sin_family == AF_INET) {
		p.port = in.sin_port;
		if (in.sin_addr.s_addr) {
			p.address.s6_addr[10] = p.address.s6_addr[11] = 0xff;
			memcpy(&p.address.s6_addr[12], &in.sin_addr, 4);
		}
	} else {
		memcpy(&in6, b->data, MIN(b->len, sizeof(in6)));
		p.port = in6.sin6_port;
		p.address = in6.sin6_addr;
	}
	return p;
}

static inline bool endpoint_is_any(const struct endpoint *p)
{
	return IN6_IS_ADDR_UNSPECIFIED(&p->address);
}

static inline bool endpoint_is_loopback(const struct endpoint *p)
{
	return IN6_IS_ADDR_LOOPBACK(&p->address) || (IN6_IS_ADDR_V4MAPPED(&p->address) && p->address.s6_addr[12] == 127);
}

/* Whether this network namespace, which the unit has for itself, has the address. */
static inline bool endpoint_is_local(const struct endpoint *p)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = p->address };
	cleanup_close int fd = endpoint_is_loopback(p) ? -1 : socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return endpoint_is_loopback(p) || (fd >= 0 && bind(fd, (void *)&a, sizeof(a)) == 0);
}

static inline bool endpoint_same(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && !memcmp(&a->address, &b->address, sizeof(a->address));
}

#endif
