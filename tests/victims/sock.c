// SPDX-License-Identifier: GPL-2.0-or-later
/* sock.c - victims with state of sockets that no call shows: memberships in multicast groups, devices to send over; programs, keys, queues of errors */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "victim.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define GROUP 0xef070707u /* 239.7.7.7 */

static int sender, receiver, receiver6;
static uint16_t port;
static const struct in6_addr group6 = { { { 0xff, 0x02, [15] = 0x77 } } };

static int bound(int family, uint16_t at)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(at) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(at) };
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	must(fd >= 0 && !bind(fd, family == AF_INET ? (void *)&v4 : (void *)&v6, family == AF_INET ? sizeof(v4) : sizeof(v6)));
	return fd;
}

static struct ip_mreqn membership(void)
{
	return (struct ip_mreqn){ .imr_multiaddr.s_addr = htonl(GROUP), .imr_ifindex = (int)if_nametoindex("lo") };
}

static void groups_setup(void)
{
	struct ip_mreqn m = membership();
	struct ipv6_mreq m6 = { group6, if_nametoindex("lo") };
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int lo = (int)m6.ipv6mr_interface, index = (int)htonl(m6.ipv6mr_interface);

	receiver = bound(AF_INET, 0);
	must(!getsockname(receiver, (void *)&a, &len));
	port = ntohs(a.sin_port);
	must(!setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	receiver6 = bound(AF_INET6, 0);
	must(!setsockopt(receiver6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m6, sizeof(m6)));
	must(!setsockopt(receiver6, IPPROTO_IPV6, IPV6_MULTICAST_IF, &lo, sizeof(lo)));
	sender = bound(AF_INET, 0);
	must(!setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &m, sizeof(m)));
	must(!setsockopt(sender, IPPROTO_IP, 50 /* IP_UNICAST_IF */, &index, sizeof(index)));
}

static void groups_check(void)
{
	struct ip_mreqn m = membership();
	struct ipv6_mreq m6 = { group6, if_nametoindex("lo") };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(GROUP) };
	socklen_t len = sizeof(int);
	char byte;
	int lo;

	expect(setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) < 0 && errno == EADDRINUSE);
	expect(setsockopt(receiver6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m6, sizeof(m6)) < 0 && errno == EADDRINUSE);
	expect(!getsockopt(receiver6, IPPROTO_IPV6, IPV6_MULTICAST_IF, &lo, &len) && lo == (int)m6.ipv6mr_interface);
	expect(!getsockopt(sender, IPPROTO_IP, 50, &lo, &len) && ntohl((uint32_t)lo) == m6.ipv6mr_interface);
	expect(!setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 5, 0 }, sizeof(struct timeval)));
	expect(sendto(sender, "g", 1, 0, (void *)&to, sizeof(to)) == 1 && recv(receiver, &byte, 1, 0) == 1); /* over lo, which no route leads to */
	expect(!setsockopt(receiver, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)));
}

VICTIM(sock_groups, 0, groups_setup, NULL, groups_check);

/* Members of other groups again and again. */
static void joining_work(void)
{
	struct ip_mreqn m = membership();

	must(!setsockopt(receiver, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)));
	must(setsockopt(receiver, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)) < 0);
	must(!setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	usleep(500);
}

VICTIM(sock_joining, V_OPENS, groups_setup, joining_work, groups_check);

/* ---- connected to where nobody is: what came back has not been reported yet ---- */

#define REFUSERS 3

static int refused_by[REFUSERS];

static void refused_setup(void)
{
	for (int i = 0; i < REFUSERS; i++) {
		struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
		struct sockaddr *at = i == 1 ? (void *)&v6 : (void *)&v4;
		socklen_t len = i == 1 ? sizeof(v6) : sizeof(v4);
		int nobody = socket(at->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		struct pollfd p = { .fd = refused_by[i] = socket(at->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0) };

		must(p.fd >= 0 && !bind(nobody, at, len) && !getsockname(nobody, at, &len));
		must(!connect(p.fd, at, len));
		if (i == 2) { /* with something in its queue */
			struct sockaddr_storage own;
			socklen_t own_len = sizeof(own);

			must(!getsockname(p.fd, (void *)&own, &own_len) && sendto(nobody, "before", 6, 0, (void *)&own, own_len) == 6);
		}
		must(!close(nobody) && send(p.fd, "x", 1, 0) == 1);
		must(poll(&p, 1, 10000) == 1 && p.revents & POLLERR);
	}
}

static void refused_check(void)
{
	char text[16] = "";

	for (int i = 0; i < REFUSERS; i++) {
		struct pollfd p = { .fd = refused_by[i], .events = POLLIN };
		int error = 0;
		socklen_t len = sizeof(error);

		expect(poll(&p, 1, 0) == 1 && p.revents == (i == 2 ? POLLERR | POLLIN : POLLERR));
		expect(!getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &len));
		expect_u64("what has not been reported", ECONNREFUSED, (uint64_t)error);
	}
	expect(recv(refused_by[2], text, sizeof(text), MSG_DONTWAIT) == 6 && !memcmp(text, "before", 6));
}

VICTIM(sock_refused, 0, refused_setup, NULL, refused_check);

/* ---- what cannot move ---- */

#define REFUSED(id, setup, text) VICTIM_TEXT(victim_refuse_##id, "refuse_" #id, setup, NULL, unharmed, V_REFUSED, text)

static void unharmed(void)
{
}

static void chooser_setup(void)
{
	struct sock_filter code[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
	struct sock_fprog program = { 1, code };
	int on = 1;

	receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(!setsockopt(receiver, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	must(!bind(receiver, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof(struct sockaddr_in)));
	must(!setsockopt(receiver, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)));
}

REFUSED(sock_chooser, chooser_setup, "program of BPF chooses among the sockets");

static void errors_setup(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(to);
	int on = 1;

	receiver = bound(AF_INET, 0);
	must(!getsockname(receiver, (void *)&to, &len) && !close(receiver));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(!setsockopt(sender, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)));
	must(sendto(sender, "x", 1, 0, (void *)&to, sizeof(to)) == 1); /* nobody is there */
}

REFUSED(sock_errors, errors_setup, "error queue has messages");

static void sources_setup(void)
{
	struct ip_mreq_source m = { .imr_multiaddr.s_addr = htonl(GROUP), .imr_interface.s_addr = htonl(INADDR_LOOPBACK), .imr_sourceaddr.s_addr = htonl(0x7f000002) };

	receiver = bound(AF_INET, 0);
	must(!setsockopt(receiver, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &m, sizeof(m)));
}

REFUSED(sock_sources, sources_setup, "lists of sources");

static void signed_setup(void)
{
	struct tcp_md5sig key = { .tcpm_keylen = 4, .tcpm_key = "keys" };
	struct sockaddr_in *from = (void *)&key.tcpm_addr;

	receiver = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	from->sin_family = AF_INET;
	from->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!bind(receiver, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof(struct sockaddr_in)) && !listen(receiver, 1));
	must(!setsockopt(receiver, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)));
}

REFUSED(sock_signed, signed_setup, "keys that sign its segments");

/* One that has been sent to with MSG_ZEROCOPY; what the kernel tells of that has been read, or not. */
static void copyless(bool read_it)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char control[128], data[16];
	struct msghdr h = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct pollfd p = { 0 };
	socklen_t len = sizeof(at);
	int on = 1;

	receiver = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sender = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!bind(receiver, (void *)&at, len) && !listen(receiver, 1) && !getsockname(receiver, (void *)&at, &len) && !connect(sender, (void *)&at, len));
	p.fd = accept4(receiver, NULL, NULL, SOCK_CLOEXEC);
	must(!setsockopt(sender, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) && send(sender, "copyless", 8, MSG_ZEROCOPY) == 8 && read(p.fd, data, sizeof(data)) == 8);
	p.fd = sender;
	must(poll(&p, 1, 10000) == 1 && p.revents & POLLERR);
	if (read_it)
		must(!recvmsg(sender, &h, MSG_ERRQUEUE));
}

static void lending_setup(void)
{
	copyless(true);
}

REFUSED(sock_lending, lending_setup, "MSG_ZEROCOPY");

static void telling_setup(void)
{
	copyless(false);
}

REFUSED(sock_telling, telling_setup, "MSG_ERRQUEUE");

/* ---- MPTCP: sockets that listen, or have never been connected ---- */

static int many_listen, many_fresh, plain_client, plain_server;
static struct sockaddr_in many_at;

static int many_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
}

static int protocol_of(int fd)
{
	int protocol = -1;
	socklen_t len = sizeof(protocol);

	expect(!getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len));
	return protocol;
}

static void mptcp_setup(void)
{
	socklen_t len = sizeof(many_at);
	int on = 1;

	many_listen = many_socket();
	if (many_listen < 0) { /* the kernel has none */
		report("info mptcp=0");
		return;
	}
	many_fresh = many_socket();
	many_at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	must(many_fresh >= 0 && !setsockopt(many_listen, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	must(!bind(many_listen, (void *)&many_at, len) && !listen(many_listen, 7) && !getsockname(many_listen, (void *)&many_at, &len));
	plain_client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(plain_client >= 0 && !connect(plain_client, (void *)&many_at, len));
	plain_server = accept4(many_listen, NULL, NULL, SOCK_CLOEXEC);
	must(plain_server >= 0 && write(plain_client, "early", 5) == 5);
}

static void mptcp_check(void)
{
	char text[8] = "";
	int on = 0, server;
	socklen_t len = sizeof(on);
	struct tcp_info info = { 0 };

	if (many_listen < 0)
		return;
	expect_u64("protocol of the socket that listens", IPPROTO_MPTCP, (uint64_t)protocol_of(many_listen));
	expect_u64("protocol of the fresh socket", IPPROTO_MPTCP, (uint64_t)protocol_of(many_fresh));
	expect(!getsockopt(many_listen, SOL_SOCKET, SO_KEEPALIVE, &on, &len) && on == 1);
	len = sizeof(info);
	expect(!getsockopt(many_listen, IPPROTO_TCP, TCP_INFO, &info, &len));
	expect_u64("backlog", 7, info.tcpi_sacked);
	expect(read(plain_server, text, sizeof(text)) == 5);
	expect_text("what a client that speaks TCP had sent", "early", text);
	expect(!connect(many_fresh, (void *)&many_at, sizeof(many_at)));
	server = accept4(many_listen, NULL, NULL, SOCK_CLOEXEC);
	expect(server >= 0 && write(many_fresh, "x", 1) == 1 && read(server, text, 1) == 1 && text[0] == 'x');
	expect_u64("protocol of a new connection", IPPROTO_MPTCP, (uint64_t)protocol_of(server));
}

VICTIM(sock_mptcp, 0, mptcp_setup, NULL, mptcp_check);

/* ---- options that others change when they are set, that have two names, or that only one family has ---- */

static const struct {
	int family, type, protocol, level, name, value;
} singular[] = {
	{ AF_INET, SOCK_DGRAM, 0, IPPROTO_IP, IP_TOS, 0x10 },
	{ AF_INET, SOCK_DGRAM, 0, SOL_SOCKET, SO_PRIORITY, 5 }, /* of the same socket */
	{ AF_INET, SOCK_DGRAM, 0, SOL_SOCKET, SO_TIMESTAMP_NEW, 1 },
	{ AF_INET, SOCK_STREAM, 0, SOL_SOCKET, SO_PRIORITY, 6 },
	{ AF_INET6, SOCK_DGRAM, 0, SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1 },
	{ AF_UNIX, SOCK_DGRAM, 0, SOL_SOCKET, SO_TIMESTAMP, 1 },
	{ AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, SOL_SOCKET, SO_TIMESTAMPING_NEW, 0x18 },
	{ AF_INET6, SOCK_STREAM, 0, SOL_SOCKET, SO_TIMESTAMPNS, 1 },
	{ AF_INET6, SOCK_RAW, 253, IPPROTO_IPV6, 36 /* IPV6_HDRINCL */, 1 },
	{ AF_INET6, SOCK_RAW, 253, IPPROTO_IPV6, IPV6_2292PKTINFO, 1 },
	{ AF_INET6, SOCK_RAW, 253, IPPROTO_IPV6, IPV6_2292HOPLIMIT, 1 },
	{ AF_INET6, SOCK_RAW, 253, IPPROTO_IPV6, 11 /* IPV6_FLOWINFO */, 1 },
	{ AF_INET, SOCK_RAW, 253, IPPROTO_IP, IP_ROUTER_ALERT, 1 },
	{ AF_NETLINK, SOCK_RAW, 0, SOL_SOCKET, SO_PASSCRED, 1 }, /* without which udev's listeners take nothing */
	{ AF_NETLINK, SOCK_RAW, 15, SOL_SOCKET, SO_PASSSEC, 1 },
	{ AF_PACKET, SOCK_RAW, 0, SOL_PACKET, PACKET_TX_HAS_OFF, 1 },
	{ AF_UNIX, SOCK_STREAM, 0, SOL_SOCKET, SO_DEBUG, 1 },
};
#define SINGULAR (sizeof(singular) / sizeof(*singular))
static int singular_fds[SINGULAR];

static int option_of(size_t i)
{
	int value[2] = { -1, 0 };
	socklen_t len = sizeof(value);

	return getsockopt(singular_fds[i], singular[i].level, singular[i].name, value, &len) < 0 ? -1 : value[0];
}

static void singular_setup(void)
{
	for (size_t i = 0; i < SINGULAR; i++) {
		bool same = i && singular[i].family == singular[i - 1].family && singular[i].type == singular[i - 1].type && singular[i].protocol == singular[i - 1].protocol;

		singular_fds[i] = same ? singular_fds[i - 1] : socket(singular[i].family, singular[i].type | SOCK_CLOEXEC, singular[i].protocol);
		must(singular_fds[i] >= 0);
		must(!setsockopt(singular_fds[i], singular[i].level, singular[i].name, &singular[i].value, sizeof(int)));
	}
	for (size_t i = 0; i < SINGULAR; i++)
		must(singular[i].name == IP_ROUTER_ALERT || option_of(i) == singular[i].value);
}

static void singular_check(void)
{
	for (size_t i = 0; i < SINGULAR; i++)
		if (option_of(i) != singular[i].value && (singular[i].name != IP_ROUTER_ALERT || option_of(i) >= 0))
			fail("option %d of level %d of a socket of family %d: expected %d, got %d", singular[i].name, singular[i].level, singular[i].family,
				singular[i].value, option_of(i));
}

VICTIM(sock_singular, 0, singular_setup, NULL, singular_check);
