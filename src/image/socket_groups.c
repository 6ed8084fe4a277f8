/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_groups.c - options of Internet sockets that name a network device; see socket_groups.h */
#include "image/socket_groups.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_options.h"
#include "image/socket_udp.h"
#include "kern/sock_peek.h"

/* Newer than the headers, perhaps. */
#ifndef IP_UNICAST_IF
#define IP_UNICAST_IF 50
#endif
#ifndef IPV6_UNICAST_IF
#define IPV6_UNICAST_IF 76
#endif

_Static_assert(sizeof(((struct socket_group *)0)->device) == IF_NAMESIZE, "names of devices");

bool socket_groups_is(uint32_t level, uint32_t name)
{
	return (level == IPPROTO_IP && (name == MCAST_JOIN_GROUP || name == IP_MULTICAST_IF || name == IP_UNICAST_IF)) ||
		(level == IPPROTO_IPV6 && (name == IPV6_MULTICAST_IF || name == IPV6_UNICAST_IF));
}

static bool is_groups(const Gw__FdSockOpt *o)
{
	return o->level == IPPROTO_IP && o->name == MCAST_JOIN_GROUP;
}

static const struct socket_group *group_at(const Gw__FdSockOpt *o, size_t i, struct socket_group *buffer)
{
	memcpy(buffer, o->value.data + i * sizeof(*buffer), sizeof(*buffer));
	return buffer;
}

bool socket_groups_is_valid(const Gw__FdSockOpt *o)
{
	struct socket_group g;
	size_t n = o->value.len / sizeof(g);

	if (!n || n > (is_groups(o) ? SOCKET_GROUPS_MAX : 1) || o->value.len % sizeof(g))
		return false;
	for (size_t i = 0; i < n; i++) {
		group_at(o, i, &g);
		if (!memchr(g.device, 0, sizeof(g.device)) || (g.family != AF_INET && g.family != AF_INET6))
			return false;
	}
	return true;
}

/* --- source --- */

static void add(Gw__FdSockOpt ***v, size_t *n, int level, int name, const struct socket_group *groups, size_t count)
{
	Gw__FdSockOpt *o = fd_alloc(sizeof(*o));

	gw__fd_sock_opt__init(o);
	o->level = (uint32_t)level;
	o->name = (uint32_t)name;
	o->value.len = count * sizeof(*groups);
	o->value.data = fd_alloc(o->value.len);
	memcpy(o->value.data, groups, o->value.len);
	fd_append(v, n, o);
}

static struct socket_group name_group(uint32_t family, uint32_t device, const void *address, size_t len)
{
	struct socket_group g = { .family = family };

	if (device && !if_indextoname(device, g.device))
		g.device[0] = 0; /* it has gone, and what was bound to it goes nowhere */
	if (len)
		memcpy(g.address, address, len);
	return g;
}

static void capture_device(int fd, int level, int name, Gw__FdSockOpt ***v, size_t *n)
{
	struct socket_group g;
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, name, &value, &len) < 0 || len != sizeof(value) || !value)
		return;
	g = name_group(AF_INET, name == IPV6_MULTICAST_IF ? (uint32_t)value : ntohl((uint32_t)value), NULL, 0);
	if (g.device[0])
		add(v, n, level, name, &g, 1);
}

void socket_groups_capture(int fd, Gw__FdSockOpt ***v, size_t *n)
{
	cleanup_free struct sock_record *records = NULL;
	cleanup_free struct socket_group *groups = NULL;
	struct in_addr address = { 0 };
	socklen_t len = sizeof(address);
	size_t n_records, n_groups = 0;

	if (sock_peek(fd, &records, &n_records, NULL) < 0 || !n_records)
		return;
	groups = fd_alloc(n_records * sizeof(*groups));
	for (size_t i = 1; i < n_records && n_groups < SOCKET_GROUPS_MAX; i++)
		groups[n_groups++] = name_group(records[i].family, records[i].device, records[i].address, records[i].family == AF_INET6 ? 16 : 4);
	if (n_groups)
		add(v, n, IPPROTO_IP, MCAST_JOIN_GROUP, groups, n_groups);
	(void)getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &address, &len);
	if (records[0].device || address.s_addr) {
		groups[0] = name_group(AF_INET, records[0].device, &address, sizeof(address));
		add(v, n, IPPROTO_IP, IP_MULTICAST_IF, groups, 1);
	}
	capture_device(fd, IPPROTO_IP, IP_UNICAST_IF, v, n);
	if (records[0].family != AF_INET6)
		return;
	capture_device(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, v, n);
	capture_device(fd, IPPROTO_IPV6, IPV6_UNICAST_IF, v, n);
}

static const struct {
	unsigned flag;
	const char *cause, *way_out;
} refused[] = {
	{ SOCK_HAS_CHOOSER, "a program of BPF chooses among the sockets of its port, and such cannot move yet", "detach it (SO_DETACH_REUSEPORT_BPF)" },
	{ SOCK_HAS_POLICY, "it has an IPsec policy of its own, and such cannot move", "remove it (IP_XFRM_POLICY)" },
	{ SOCK_HAS_ERRORS, "its error queue has messages that the program has not read yet", "wait until it has read them (MSG_ERRQUEUE)" },
	{ SOCK_HAS_ERROR, "an error has not been reported to the program yet", "wait until it has made another call on it" },
	{ SOCK_HAS_EXTENSIONS, "extension headers of IPv6 that were set cannot move", "remove them (IPV6_HOPOPTS, IPV6_RTHDR, IPV6_DSTOPTS)" },
	{ SOCK_HAS_ANYCAST, "memberships in anycast groups cannot move", "leave them (IPV6_LEAVE_ANYCAST)" },
	{ SOCK_HAS_FLOWLABELS, "flow labels that it has leased cannot move", "release them (IPV6_FLOWLABEL_MGR)" },
	{ SOCK_HAS_FILTERED, "memberships in multicast groups with lists of sources cannot move", "use them without (MCAST_JOIN_GROUP)" },
};

int socket_groups_refuse(const struct fd_look *look, struct refusals *refusals)
{
	cleanup_free struct sock_record *records = NULL;
	size_t n_records, before = refusals->n;
	unsigned flags = 0;

	if (sock_peek(look->held, &records, &n_records, NULL) < 0) {
		refusals_add(refusals, "fd.socket.state", "what no call shows of it cannot be read from this kernel", "use a kernel with BTF", "fd %d (socket)", look->fd);
		return FD_REFUSED;
	}
	for (size_t i = 0; i < n_records; i++)
		flags |= records[i].flags;
	if (n_records && socket_udp_error_can_move(look->held, records[0].error))
		flags &= ~SOCK_HAS_ERROR;
	/* Of TCP's connections it is seen where they are sorted (socket_tcp.c): some errors move. */
	if (socket_get_int(look->held, SOL_SOCKET, SO_TYPE) == SOCK_STREAM && socket_get_int(look->held, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP)
		flags &= ~SOCK_HAS_ERROR;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (flags & refused[i].flag)
			refusals_add(refusals, "fd.socket.state", refused[i].cause, refused[i].way_out, "fd %d (socket)", look->fd);
	return refusals->n > before ? FD_REFUSED : 0;
}

/* --- destination --- */

static int device_of(const struct socket_group *g, unsigned *ret, struct err *e)
{
	*ret = g->device[0] ? if_nametoindex(g->device) : 0;
	return g->device[0] && !*ret ? err_set(e, -ENODEV, "socket: this host has no network device %s, which it is bound to", g->device) : 0;
}

static int change_group(int fd, const struct socket_group *g, bool join, struct err *e)
{
	struct group_req request = { 0 };
	struct sockaddr_in *v4 = (void *)&request.gr_group;
	struct sockaddr_in6 *v6 = (void *)&request.gr_group;
	unsigned device;
	int ret = device_of(g, &device, e);

	if (ret < 0)
		return join ? ret : 0;
	request.gr_interface = device;
	request.gr_group.ss_family = (sa_family_t)g->family;
	if (g->family == AF_INET6)
		memcpy(&v6->sin6_addr, g->address, sizeof(v6->sin6_addr));
	else
		memcpy(&v4->sin_addr, g->address, sizeof(v4->sin_addr));
	if (setsockopt(fd, g->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, join ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &request, sizeof(request)) < 0 &&
	    join && errno != EADDRINUSE)
		return err_sys(e, -errno, "socket: joining a multicast group on %s", g->device[0] ? g->device : "any device");
	return 0;
}

static bool has_group(const Gw__FdSockOpt *o, const struct socket_group *g)
{
	struct socket_group other;

	for (size_t i = 0; o && i < o->value.len / sizeof(other); i++)
		if (!memcmp(group_at(o, i, &other), g, sizeof(other)))
			return true;
	return false;
}

static int set_groups(int fd, const Gw__FdSockOpt *was, const Gw__FdSockOpt *o, struct err *e)
{
	struct socket_group g;
	int ret = 0;

	for (size_t i = 0; was && i < was->value.len / sizeof(g) && ret == 0; i++)
		if (!has_group(o, group_at(was, i, &g)))
			ret = change_group(fd, &g, false, e);
	for (size_t i = 0; o && i < o->value.len / sizeof(g) && ret == 0; i++)
		if (!has_group(was, group_at(o, i, &g)))
			ret = change_group(fd, &g, true, e);
	return ret;
}

int socket_groups_set(int fd, const Gw__FdSockOpt *was, const Gw__FdSockOpt *o, struct err *e)
{
	struct ip_mreqn multicast = { 0 };
	const void *value = &multicast;
	socklen_t len = sizeof(multicast);
	struct socket_group g = { .family = AF_INET };
	unsigned device;
	int ret;

	if (is_groups(o ? o : was))
		return set_groups(fd, was, o, e);
	if (o)
		group_at(o, 0, &g);
	else
		o = was;
	ret = device_of(&g, &device, e);
	if (ret < 0)
		return ret;
	if (o->level == IPPROTO_IP && o->name == IP_MULTICAST_IF) {
		memcpy(&multicast.imr_address, g.address, sizeof(multicast.imr_address));
		multicast.imr_ifindex = (int)device;
	} else {
		device = o->name == IPV6_MULTICAST_IF ? device : htonl(device);
		value = &device;
		len = sizeof(device);
	}
	return setsockopt(fd, (int)o->level, (int)o->name, value, len) < 0 ? err_sys(e, -errno, "socket: sending over %s", g.device) : 0;
}
