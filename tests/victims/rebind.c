// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rebind.c - victims whose sockets do not last: closed, made anew and bound to the same address all the time
 *
 * At every moment of a move the socket at an address is another one than a moment before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "victim.h"

#define PAUSE_US 1000
#define TRIES 1000

static struct bound {
	const char *what;
	int family, type, fd;
	struct sockaddr_storage address;
	socklen_t len;
} bound[] = {
	{ .what = "TCP over IPv4", .family = AF_INET, .type = SOCK_STREAM },
	{ .what = "TCP over IPv6", .family = AF_INET6, .type = SOCK_STREAM },
	{ .what = "UDP over IPv4", .family = AF_INET, .type = SOCK_DGRAM },
	{ .what = "UDP over IPv6", .family = AF_INET6, .type = SOCK_DGRAM },
	{ .what = "a unix socket with an abstract name", .family = AF_UNIX, .type = SOCK_STREAM },
	{ .what = "a unix socket of datagrams with an abstract name", .family = AF_UNIX, .type = SOCK_DGRAM },
};

static size_t first, behind; /* those that the victim is about */

static int open_at(const struct bound *b)
{
	int one = 1, fd = socket(b->family, b->type | SOCK_CLOEXEC, 0), e;

	if (fd < 0)
		return -1;
	if (b->family == AF_INET && b->type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&b->address, b->len) == 0 && (b->type == SOCK_DGRAM || listen(fd, 8) == 0))
		return fd;
	e = errno;
	close(fd);
	errno = e;
	return -1;
}

static void set_address(struct bound *b)
{
	struct sockaddr_in *v4 = (void *)&b->address;
	struct sockaddr_in6 *v6 = (void *)&b->address;
	struct sockaddr_un *un = (void *)&b->address;

	b->address.ss_family = (sa_family_t)b->family;
	if (b->family == AF_INET) {
		v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		b->len = sizeof(*v4);
	} else if (b->family == AF_INET6) {
		v6->sin6_addr = in6addr_loopback;
		b->len = sizeof(*v6);
	} else {
		snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, "godwit-rebind-%d-%d", b->type, (int)getpid());
		b->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(un->sun_path + 1));
	}
}

static void setup(size_t from, size_t to)
{
	first = from;
	behind = to;
	for (size_t i = first; i < behind; i++) {
		struct bound *b = &bound[i];

		set_address(b);
		b->fd = open_at(b);
		must(b->fd >= 0);
		must(getsockname(b->fd, (struct sockaddr *)&b->address, &b->len) == 0);
	}
}

static void work(void)
{
	for (size_t i = first; i < behind; i++) {
		struct bound *b = &bound[i];

		close(b->fd);
		/* Who looks at a socket has it open as well for some moments. */
		for (int tries = 0; (b->fd = open_at(b)) < 0 && errno == EADDRINUSE && tries < TRIES; tries++)
			usleep(PAUSE_US);
		if (b->fd < 0)
			fail("%s: its address, just closed: %s", b->what, strerror(errno));
	}
	usleep(PAUSE_US);
}

static void check(void)
{
	work();
	for (size_t i = first; i < behind; i++) {
		struct sockaddr_storage now = { 0 };
		socklen_t len = sizeof(now);

		expect(getsockname(bound[i].fd, (struct sockaddr *)&now, &len) == 0 && len == bound[i].len && !memcmp(&now, &bound[i].address, len));
	}
}

static void tcp_setup(void) { setup(0, 2); }
static void udp_setup(void) { setup(2, 4); }
static void unix_setup(void) { setup(4, 6); }

VICTIM(rebind_tcp, V_OPENS, tcp_setup, work, check);
VICTIM(rebind_udp, V_OPENS, udp_setup, work, check);
VICTIM(rebind_unix, V_OPENS, unix_setup, work, check);
