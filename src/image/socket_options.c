/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_options.c - options that sockets carry along; see socket_options.h */
#include "image/socket_options.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/ns_other.h"
#include "image/socket_groups.h"
#include "kern/nsfs.h"

#ifndef SOL_RAW
#define SOL_RAW 255
#endif
#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#ifndef SO_RESERVE_MEM
#define SO_RESERVE_MEM 73
#endif
/* Newer than the headers, perhaps. */
#ifndef IPV6_ADDR_PREFERENCES
#define IPV6_ADDR_PREFERENCES 72
#endif
#ifndef IPV6_AUTOFLOWLABEL
#define IPV6_AUTOFLOWLABEL 70
#endif
#ifndef IPV6_FLOWINFO
#define IPV6_FLOWINFO 11
#endif
#ifndef IPV6_ROUTER_ALERT_ISOLATE
#define IPV6_ROUTER_ALERT_ISOLATE 30
#endif
#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif
#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef IPV6_RECVERR_RFC4884
#define IPV6_RECVERR_RFC4884 31
#endif
#ifndef IPV6_RECVFRAGSIZE
#define IPV6_RECVFRAGSIZE 77
#endif
#ifndef IPV6_RECVORIGDSTADDR
#define IPV6_RECVORIGDSTADDR 74
#endif
#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
#ifndef IP_CHECKSUM
#define IP_CHECKSUM 23
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IP_MINTTL
#define IP_MINTTL 21
#endif
#ifndef IP_NODEFRAG
#define IP_NODEFRAG 22
#endif
#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif
#ifndef IP_RECVFRAGSIZE
#define IP_RECVFRAGSIZE 25
#endif
#ifndef IP_RECVORIGDSTADDR
#define IP_RECVORIGDSTADDR 20
#endif
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif
#ifndef SO_RCVPRIORITY
#define SO_RCVPRIORITY 82
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74
#endif
#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef SO_TXTIME
#define SO_TXTIME 61
#endif
#ifndef IP_UNICAST_IF
#define IP_UNICAST_IF 50
#endif
#ifndef IPV6_UNICAST_IF
#define IPV6_UNICAST_IF 76
#endif
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif
#ifndef TCP_RTO_MIN_US
#define TCP_RTO_MIN_US 45
#endif
#ifndef TCP_DELACK_MAX_US
#define TCP_DELACK_MAX_US 46
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif
#ifndef TCP_FASTOPEN_NO_COOKIE
#define TCP_FASTOPEN_NO_COOKIE 34
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif
#ifndef TCP_NOTSENT_LOWAT
#define TCP_NOTSENT_LOWAT 25
#endif
#ifndef TCP_SAVE_SYN
#define TCP_SAVE_SYN 27
#endif
#ifndef TCP_TX_DELAY
#define TCP_TX_DELAY 37
#endif
#ifndef UDP_ENCAP
#define UDP_ENCAP 100
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef UDP_NO_CHECK6_RX
#define UDP_NO_CHECK6_RX 102
#endif
#ifndef UDP_NO_CHECK6_TX
#define UDP_NO_CHECK6_TX 101
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define OPTION_VALUE_MAX 256u
#define FILTER_BYTES_MAX (BPF_MAXINSNS * sizeof(struct sock_filter))

enum families { V4 = 1, V6 = 2, LOCAL = 4, NETLINK = 8, PACKET = 16, INET = V4 | V6, ANY = INET | LOCAL | NETLINK | PACKET };

#define NO_STREAM (-1) /* as a type: all types but that */

/* What is carried, of which families; those of `type` 0 belong to all types. Order matters: address reuse comes before bind. */
static const struct carried {
	int level, name;
	enum families families;
	int type;
	enum socket_option_time time;
} carried[] = {
	{ SOL_SOCKET, SO_REUSEADDR, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_DEBUG, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_KEEPALIVE, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_BROADCAST, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_OOBINLINE, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_DONTROUTE, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_LINGER, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RCVLOWAT, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_MARK, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_NO_CHECK, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RXQ_OVFL, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_SELECT_ERR_QUEUE, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_WIFI_STATUS, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_NOFCS, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_TIMESTAMPING, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_BUSY_POLL, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_PREFER_BUSY_POLL, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_MAX_PACING_RATE, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_TXREHASH, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RCVMARK, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RCVPRIORITY, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_ZEROCOPY, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_TXTIME, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RESERVE_MEM, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_REUSEPORT, INET, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_BINDTODEVICE, INET, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_RCVTIMEO, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_SNDTIMEO, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_TIMESTAMP, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_TIMESTAMPNS, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_TIMESTAMP_NEW, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_TIMESTAMPNS_NEW, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_TIMESTAMPING_NEW, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_PASSCRED, LOCAL | NETLINK, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_PASSPIDFD, LOCAL, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_PASSRIGHTS, LOCAL, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_PASSSEC, LOCAL | NETLINK, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_PEEK_OFF, ANY, 0, OPTIONS_LATE },
	{ IPPROTO_IPV6, IPV6_V6ONLY, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_TCLASS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_MULTICAST_HOPS, V6, NO_STREAM, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_MULTICAST_LOOP, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_MTU_DISCOVER, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVHOPLIMIT, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVHOPOPTS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVRTHDR, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVDSTOPTS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVTCLASS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVPATHMTU, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVERR, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_DONTFRAG, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_FLOWINFO_SEND, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_MINHOPCOUNT, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVFRAGSIZE, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_MULTICAST_ALL, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_RECVERR_RFC4884, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_2292PKTINFO, V6, 0, OPTIONS_EARLY }, /* RFC 2292's, apart from RFC 3542's */
	{ IPPROTO_IPV6, IPV6_2292HOPOPTS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_2292DSTOPTS, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_2292RTHDR, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_2292HOPLIMIT, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_FLOWINFO, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_ROUTER_ALERT_ISOLATE, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_HDRINCL, V6, SOCK_RAW, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_TRANSPARENT, V6, 0, OPTIONS_EARLY },
	{ IPPROTO_IPV6, IPV6_FREEBIND, V6, 0, OPTIONS_EARLY },
	/* Sockets of IPv6 have them for what comes over IPv4. */
	{ IPPROTO_IP, IP_TOS, INET, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_PRIORITY, ANY, 0, OPTIONS_EARLY }, /* which IP_TOS sets, too */
	{ IPPROTO_IP, IP_OPTIONS, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_TTL, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_PKTINFO, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVOPTS, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RETOPTS, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVTTL, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVTOS, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVERR, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVERR_RFC4884, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVORIGDSTADDR, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_RECVFRAGSIZE, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_CHECKSUM, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_PASSSEC, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_MTU_DISCOVER, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_NODEFRAG, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_MINTTL, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_LOCAL_PORT_RANGE, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_MULTICAST_TTL, INET, NO_STREAM, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_MULTICAST_LOOP, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_MULTICAST_ALL, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_FREEBIND, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_TRANSPARENT, INET, 0, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_HDRINCL, V4, SOCK_RAW, OPTIONS_EARLY },
	{ IPPROTO_IP, IP_ROUTER_ALERT, V4, SOCK_RAW, OPTIONS_LATE },
	{ SOL_RAW, ICMP_FILTER, V4, SOCK_RAW, OPTIONS_EARLY },
	{ IPPROTO_ICMPV6, ICMP6_FILTER, V6, SOCK_RAW, OPTIONS_EARLY },
	{ IPPROTO_RAW, IPV6_CHECKSUM, V6, SOCK_RAW, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_NODELAY, INET, SOCK_STREAM, OPTIONS_LATE },
	{ IPPROTO_TCP, TCP_QUICKACK, INET, SOCK_STREAM, OPTIONS_LATE },
	{ IPPROTO_TCP, TCP_MAXSEG, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_CORK, INET, SOCK_STREAM, OPTIONS_LATE },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_KEEPIDLE, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_KEEPINTVL, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_KEEPCNT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_SYNCNT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_LINGER2, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_SAVE_SYN, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_FASTOPEN, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_FASTOPEN_CONNECT, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_INQ, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_TX_DELAY, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_RTO_MAX_MS, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_RTO_MIN_US, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_DELACK_MAX_US, INET, SOCK_STREAM, OPTIONS_EARLY },
	{ IPPROTO_TCP, TCP_CONGESTION, INET, SOCK_STREAM, OPTIONS_LATE },
	{ IPPROTO_UDP, UDP_NO_CHECK6_TX, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ IPPROTO_UDP, UDP_NO_CHECK6_RX, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ IPPROTO_UDP, UDP_SEGMENT, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ IPPROTO_UDP, UDP_CORK, INET, SOCK_DGRAM, OPTIONS_LATE },
	{ IPPROTO_UDP, UDP_GRO, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ IPPROTO_UDP, UDP_ENCAP, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_PKTINFO, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_BROADCAST_ERROR, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_NO_ENOBUFS, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_CAP_ACK, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_EXT_ACK, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_NETLINK, NETLINK_GET_STRICT_CHK, NETLINK, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_AUXDATA, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_ORIGDEV, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_VNET_HDR, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_VERSION, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_RESERVE, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_LOSS, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_COPY_THRESH, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_TIMESTAMP, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_QDISC_BYPASS, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_TX_HAS_OFF, PACKET, 0, OPTIONS_EARLY },
	{ SOL_PACKET, PACKET_IGNORE_OUTGOING, PACKET, 0, OPTIONS_EARLY },
	/* Those that name devices: socket_groups.h. */
	{ IPPROTO_IP, IP_MULTICAST_IF, INET, NO_STREAM, OPTIONS_LATE },
	{ IPPROTO_IP, IP_UNICAST_IF, INET, NO_STREAM, OPTIONS_LATE },
	{ IPPROTO_IPV6, IPV6_MULTICAST_IF, V6, NO_STREAM, OPTIONS_LATE },
	{ IPPROTO_IPV6, IPV6_UNICAST_IF, V6, NO_STREAM, OPTIONS_LATE },
	{ IPPROTO_IP, MCAST_JOIN_GROUP, INET, NO_STREAM, OPTIONS_LATE },
	{ IPPROTO_UDPLITE, 10 /* UDPLITE_SEND_CSCOV */, INET, SOCK_DGRAM, OPTIONS_EARLY },
	{ IPPROTO_UDPLITE, 11 /* UDPLITE_RECV_CSCOV */, INET, SOCK_DGRAM, OPTIONS_EARLY },
	/* Doubled by the kernel when set: handled apart. */
	{ SOL_SOCKET, SO_RCVBUF, ANY, 0, OPTIONS_EARLY },
	{ SOL_SOCKET, SO_SNDBUF, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_BUF_LOCK, ANY, 0, OPTIONS_LATE },
	/* A filter, and the lock on it. */
	{ SOL_SOCKET, SO_ATTACH_FILTER, ANY, 0, OPTIONS_LATE },
	{ SOL_SOCKET, SO_LOCK_FILTER, ANY, 0, OPTIONS_LATE },
};

static enum families family_bit(uint32_t family)
{
	return family == AF_INET ? V4 : family == AF_INET6 ? V6 : family == AF_UNIX ? LOCAL : family == AF_NETLINK ? NETLINK :
		family == AF_PACKET ? PACKET : 0;
}

static bool applies(const struct carried *o, uint32_t family, uint32_t type)
{
	return (o->families & family_bit(family)) && (!o->type || (uint32_t)o->type == type || (o->type == NO_STREAM && type != SOCK_STREAM));
}

static bool is_named(const struct carried *o)
{
	return socket_groups_is((uint32_t)o->level, (uint32_t)o->name);
}

static bool is_filter(int level, int name)
{
	return level == SOL_SOCKET && name == SO_ATTACH_FILTER;
}

int socket_get_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

int socket_set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static void add_option(Gw__FdSockOpt ***v, size_t *n, const struct carried *c, const void *value, size_t len)
{
	Gw__FdSockOpt *o = fd_alloc(sizeof(*o));

	gw__fd_sock_opt__init(o);
	o->level = (uint32_t)c->level;
	o->name = (uint32_t)c->name;
	o->value.data = fd_alloc(len);
	o->value.len = len;
	memcpy(o->value.data, value, len);
	fd_append(v, n, o);
}

/* A classic filter as it was attached: its length in instructions is the result of the call. */
static void capture_filter(int fd, const struct carried *c, Gw__FdSockOpt ***v, size_t *n)
{
	struct sock_filter code[BPF_MAXINSNS];
	socklen_t count = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &count) < 0 || !count || count > BPF_MAXINSNS)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, code, &count) == 0)
		add_option(v, n, c, code, count * sizeof(*code));
}

void socket_options_capture(int fd, uint32_t family, uint32_t type, Gw__FdSockOpt ***v, size_t *n)
{
	if ((family_bit(family) & INET) && type != SOCK_STREAM)
		socket_groups_capture(fd, v, n);
	for (size_t i = 0; i < ARRAY_SIZE(carried); i++) {
		uint8_t value[OPTION_VALUE_MAX];
		socklen_t len = sizeof(value);

		if (!applies(&carried[i], family, type) || is_named(&carried[i]))
			continue;
		if (is_filter(carried[i].level, carried[i].name))
			capture_filter(fd, &carried[i], v, n);
		else if (getsockopt(fd, carried[i].level, carried[i].name, value, &len) == 0 && len)
			add_option(v, n, &carried[i], value, len);
	}
}

void socket_options_free(Gw__FdSockOpt ***v, size_t *n)
{
	for (size_t i = 0; i < *n; i++)
		gw__fd_sock_opt__free_unpacked((*v)[i], NULL);
	free(*v);
	*v = NULL;
	*n = 0;
}

/* Of TCP's connections there may be very many, and what the kernel keeps about them has been looked at (kern/tcp_peek.h). */
static bool may_hide(int fd)
{
	int family = socket_get_int(fd, SOL_SOCKET, SO_DOMAIN);

	return (family == AF_INET || family == AF_INET6) &&
		(socket_get_int(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM || socket_get_int(fd, SOL_SOCKET, SO_REUSEPORT) > 0);
}

int socket_options_refuse(const struct fd_look *look, struct refusals *refusals)
{
	socklen_t count = 0;

	if (may_hide(look->held) && socket_groups_refuse(look, refusals))
		return FD_REFUSED;

	if (getsockopt(look->held, SOL_SOCKET, SO_GET_FILTER, NULL, &count) == 0 || errno != EACCES)
		return 0;
	refusals_add(refusals, "fd.socket.filter", "an eBPF program filters what it receives, and such cannot move yet",
		"detach the filter first (SO_DETACH_FILTER)", "fd %d (socket)", look->fd);
	return FD_REFUSED;
}

static const struct carried *find_carried(uint32_t family, uint32_t type, const Gw__FdSockOpt *o)
{
	for (size_t i = 0; i < ARRAY_SIZE(carried); i++)
		if (o->level == (uint32_t)carried[i].level && o->name == (uint32_t)carried[i].name && applies(&carried[i], family, type))
			return &carried[i];
	return NULL;
}

int socket_options_validate(uint32_t family, uint32_t type, Gw__FdSockOpt *const *v, size_t n, struct err *e)
{
	if (n > ARRAY_SIZE(carried))
		return err_set(e, -EPROTO, "socket: %zu options", n);
	for (size_t i = 0; i < n; i++) {
		const struct carried *c = find_carried(family, type, v[i]);
		bool filter = c && is_filter(c->level, c->name);

		if (c && is_named(c)) {
			if (!socket_groups_is_valid(v[i]))
				return err_set(e, -EPROTO, "socket: names of devices");
			continue;
		}
		if (!c || !v[i]->value.len || v[i]->value.len > (filter ? FILTER_BYTES_MAX : OPTION_VALUE_MAX) ||
		    (filter && v[i]->value.len % sizeof(struct sock_filter)))
			return err_set(e, -EPROTO, "socket: option %u of level %u", v[i]->name, v[i]->level);
	}
	return 0;
}

static int set_filter(int fd, const Gw__FdSockOpt *o, struct err *e)
{
	struct sock_fprog program = { (unsigned short)(o->value.len / sizeof(struct sock_filter)), (void *)o->value.data };

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
		return err_sys(e, -errno, "socket: its filter");
	return 0;
}

static int set_option(int fd, const Gw__FdSockOpt *o, struct err *e)
{
	uint8_t now[OPTION_VALUE_MAX];
	socklen_t len = sizeof(now);
	int size;

	if (is_filter((int)o->level, (int)o->name))
		return set_filter(fd, o, e);
	if (socket_groups_is(o->level, o->name))
		return socket_groups_set(fd, NULL, o, e);
	if (getsockopt(fd, (int)o->level, (int)o->name, now, &len) == 0 && len == o->value.len && !memcmp(now, o->value.data, len))
		return 0;
	if (o->level == SOL_SOCKET && (o->name == SO_RCVBUF || o->name == SO_SNDBUF)) {
		if (o->value.len != sizeof(size))
			return err_set(e, -EPROTO, "socket: buffer size of %zu bytes", o->value.len);
		memcpy(&size, o->value.data, sizeof(size));
		size /= 2;
		if (setsockopt(fd, SOL_SOCKET, o->name == SO_RCVBUF ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			return err_sys(e, -errno, "socket: buffer size %d", size);
		return 0;
	}
	if (setsockopt(fd, (int)o->level, (int)o->name, o->value.data, (socklen_t)o->value.len) < 0)
		return err_sys(e, -errno, "socket: option %u of level %u", o->name, o->level);
	return 0;
}

int socket_options_set(int fd, Gw__FdSockOpt *const *v, size_t n, enum socket_option_time time, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		for (size_t j = 0; j < ARRAY_SIZE(carried) && r == 0; j++)
			if (v[i]->level == (uint32_t)carried[j].level && v[i]->name == (uint32_t)carried[j].name) {
				if (carried[j].time == time)
					r = set_option(fd, v[i], e);
				break;
			}
	return r;
}

static const Gw__FdSockOpt *find_option(Gw__FdSockOpt *const *v, size_t n, uint32_t level, uint32_t name)
{
	for (size_t i = 0; i < n; i++)
		if (v[i]->level == level && v[i]->name == name)
			return v[i];
	return NULL;
}

void socket_options_drop(Gw__FdSockOpt **v, size_t *n, int level, int name)
{
	for (size_t i = 0; i < *n; i++)
		if (v[i]->level == (uint32_t)level && v[i]->name == (uint32_t)name) {
			gw__fd_sock_opt__free_unpacked(v[i], NULL);
			memmove(&v[i], &v[i + 1], (--*n - i) * sizeof(*v));
			return;
		}
}

int socket_options_set_one(int fd, Gw__FdSockOpt *const *v, size_t n, int level, int name, struct err *e)
{
	const Gw__FdSockOpt *o = find_option(v, n, (uint32_t)level, (uint32_t)name);

	return o ? set_option(fd, o, e) : 0;
}

int socket_options_int(Gw__FdSockOpt *const *v, size_t n, int level, int name)
{
	const Gw__FdSockOpt *o = find_option(v, n, (uint32_t)level, (uint32_t)name);
	int value = -1;

	if (o && o->value.len == sizeof(value))
		memcpy(&value, o->value.data, sizeof(value));
	return value;
}

const Gw__FdSockOpt *socket_options_find(Gw__FdSockOpt *const *v, size_t n, int level, int name)
{
	return find_option(v, n, (uint32_t)level, (uint32_t)name);
}

int socket_options_update(int fd, Gw__FdSockOpt *const *was, size_t n_was, Gw__FdSockOpt *const *v, size_t n, struct err *e)
{
	bool sets_priority = false;
	int r = 0;

	if (was == v) /* what is known by the offer (file_codec.c) */
		return 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		const Gw__FdSockOpt *o = find_option(was, n_was, v[i]->level, v[i]->name);

		if (!o || o->value.len != v[i]->value.len || memcmp(o->value.data, v[i]->value.data, o->value.len))
			r = socket_groups_is(v[i]->level, v[i]->name) ? socket_groups_set(fd, o, v[i], e) : set_option(fd, v[i], e);
		else
			continue;
		sets_priority = sets_priority || (v[i]->level == IPPROTO_IP && v[i]->name == IP_TOS);
	}
	/* To set IP_TOS sets it, too. */
	if (r == 0 && sets_priority)
		r = socket_options_set_one(fd, v, n, SOL_SOCKET, SO_PRIORITY, e);
	for (size_t i = 0; i < n_was && r == 0; i++)
		if (socket_groups_is(was[i]->level, was[i]->name) && !find_option(v, n, was[i]->level, was[i]->name))
			r = socket_groups_set(fd, was[i], NULL, e);
	return r;
}

bool socket_same_net_namespace(int fd)
{
	cleanup_close int ns = ioctl(fd, SIOCGSKNS);

	return ns < 0 || ns_id_of(ns) == ns_id(0, NS_NET);
}

uint32_t socket_net_namespace(int fd)
{
	cleanup_close int ns = ns_others_fd(1) < 0 ? -1 : ioctl(fd, SIOCGSKNS); /* mostly there are no others */
	uint32_t number = 0;

	return ns >= 0 && ns_others_find(NS_NET, ns_id_of(ns), &number) ? number : 0;
}

int socket_refuse_namespace(const struct fd_look *look, const char *what, struct refusals *refusals)
{
	refusals_add(refusals, "fd.socket.namespace", "unix sockets and TCP connections of another network namespace than that of the unit's first process cannot move yet",
		"start what needs it as a unit of its own", "fd %d (%s)", look->fd, what);
	return FD_REFUSED;
}
