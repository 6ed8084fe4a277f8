/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* host.c - addresses, devices, rules and settings of this host, as far as redirected packets need them (rtnetlink(7), ip-sysctl) */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/fib_rules.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "net/redirect_internal.h"
#include "wire/conn.h"

#define RULE_PRIORITY 100
#define TUN_MTU 65535
#define TUN_PACKETS 20000
#define LO_MTU_LEAST 1280

static struct ifaddrs *addresses;

bool host_is_ipv4(const uint8_t a[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(a, prefix, sizeof(prefix));
}

bool host_is_loopback(const uint8_t a[16])
{
	return host_is_ipv4(a) ? a[12] == 127 : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)a);
}

static bool is_same(const struct sockaddr *s, const uint8_t a[16])
{
	if (host_is_ipv4(a))
		return s->sa_family == AF_INET && !memcmp(&((const struct sockaddr_in *)s)->sin_addr, a + 12, 4);
	return s->sa_family == AF_INET6 && !memcmp(&((const struct sockaddr_in6 *)s)->sin6_addr, a, 16);
}

int host_load(struct err *e)
{
	struct ifaddrs *now = NULL;

	if (getifaddrs(&now) < 0)
		return err_sys(e, -errno, "reading the addresses of this host");
	if (addresses)
		freeifaddrs(addresses);
	addresses = now;
	return 0;
}

bool host_has_address(const uint8_t a[16])
{
	if (host_is_loopback(a))
		return true;
	for (const struct ifaddrs *i = addresses; i; i = i->ifa_next)
		if (i->ifa_addr && is_same(i->ifa_addr, a))
			return true;
	return false;
}

void host_list_addresses(void (*each)(const uint8_t address[16], void *arg), void *arg)
{
	struct redirect_flow flow;

	for (const struct ifaddrs *i = addresses; i; i = i->ifa_next)
		if (i->ifa_addr && redirect_flow_set(&flow, IPPROTO_UDP, i->ifa_addr, NULL))
			each(flow.own, arg);
}

int redirect_addresses(int family, struct in6_addr **ret, size_t *ret_n, struct err *e)
{
	cleanup_free struct in6_addr *v = NULL;
	struct redirect_flow flow;
	size_t n = 0;
	int r = host_load(e);

	for (const struct ifaddrs *i = addresses; r >= 0 && i; i = i->ifa_next) {
		struct in6_addr *more;

		if (!i->ifa_addr || i->ifa_addr->sa_family != family || !redirect_flow_set(&flow, IPPROTO_TCP, i->ifa_addr, NULL))
			continue;
		/* Those of a link mean another host on each: nobody offers services there. */
		if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL((struct in6_addr *)flow.own))
			continue;
		more = realloc(v, (n + 1) * sizeof(*v));
		if (!more)
			return err_set(e, -ENOMEM, "out of memory");
		v = more;
		memcpy(&v[n++], flow.own, 16);
	}
	if (r < 0)
		return r;
	*ret = take_ptr(v);
	*ret_n = n;
	return 0;
}

static bool has_header(int fd, const char *device)
{
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	return ioctl(fd, SIOCGIFHWADDR, &request) < 0 || request.ifr_hwaddr.sa_family == ARPHRD_ETHER || request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
}

int host_each_device(void (*each)(unsigned device, bool has_header, void *arg), void *arg, struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct ifaddrs *i, *before;
	int r = host_load(e);

	if (r < 0)
		return r;
	for (i = addresses; i; i = i->ifa_next) {
		if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6) || !(i->ifa_flags & IFF_UP))
			continue;
		for (before = addresses; before != i; before = before->ifa_next)
			if (before->ifa_addr && (before->ifa_addr->sa_family == AF_INET || before->ifa_addr->sa_family == AF_INET6) &&
			    !strcmp(before->ifa_name, i->ifa_name))
				break;
		if (before == i && strncmp(i->ifa_name, "godwit", 6))
			each(if_nametoindex(i->ifa_name), has_header(fd, i->ifa_name), arg);
	}
	return 0;
}

/* NLM_F_CREATE without NLM_F_EXCL would make a second rule. */
static int change_rule(struct netlink *nl, int family, uint16_t type)
{
	uint16_t flags = type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0;
	char buf[1024];
	struct nlmsghdr *m = netlink_begin(buf, type, flags, sizeof(struct fib_rule_hdr));
	struct fib_rule_hdr *h = mnl_nlmsg_get_payload(m);

	h->family = (uint8_t)family;
	h->action = FR_ACT_TO_TBL;
	h->table = RT_TABLE_UNSPEC;
	mnl_attr_put_u32(m, FRA_TABLE, REDIRECT_TABLE);
	mnl_attr_put_u32(m, FRA_FWMARK, REDIRECT_MARK);
	mnl_attr_put_u32(m, FRA_FWMASK, 0xffffffff);
	mnl_attr_put_u32(m, FRA_PRIORITY, RULE_PRIORITY);
	return netlink_do(nl, m);
}

static int change_route(struct netlink *nl, int family, uint16_t type)
{
	uint16_t flags = type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_REPLACE : 0;
	char buf[1024];
	struct nlmsghdr *m = netlink_begin(buf, type, flags, sizeof(struct rtmsg));
	struct rtmsg *h = mnl_nlmsg_get_payload(m);

	h->rtm_family = (uint8_t)family;
	h->rtm_table = RT_TABLE_UNSPEC;
	h->rtm_protocol = RTPROT_STATIC;
	h->rtm_scope = RT_SCOPE_HOST;
	h->rtm_type = RTN_LOCAL;
	mnl_attr_put_u32(m, RTA_TABLE, REDIRECT_TABLE);
	mnl_attr_put_u32(m, RTA_OIF, if_nametoindex("lo"));
	return netlink_do(nl, m);
}

int host_add_rules(struct err *e)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct netlink nl;
	int r = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	for (size_t i = 0; i < ARRAY_SIZE(families) && r >= 0; i++) {
		r = change_route(&nl, families[i], RTM_NEWROUTE);
		if (r >= 0)
			r = change_rule(&nl, families[i], RTM_NEWRULE);
		if (r == -EEXIST || (r < 0 && families[i] == AF_INET6)) /* a kernel without IPv6 has none to redirect */
			r = 0;
		if (r < 0)
			netlink_error(&nl, r, e, "the rule that makes redirected packets local");
	}
	netlink_close(&nl);
	return r;
}

void host_remove_rules(void)
{
	struct netlink nl;

	if (netlink_open(&nl, NETLINK_ROUTE, -1, NULL) < 0)
		return;
	change_rule(&nl, AF_INET, RTM_DELRULE);
	change_rule(&nl, AF_INET6, RTM_DELRULE);
	change_route(&nl, AF_INET, RTM_DELROUTE);
	change_route(&nl, AF_INET6, RTM_DELROUTE);
	netlink_close(&nl);
}

static void set(const char *family, const char *device, const char *name, const char *value)
{
	char path[128];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, device, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : write(fd, value, strlen(value));
	(void)n;
}

void host_trust_device(const char *device)
{
	set("ipv4", device, "accept_local", "1");
	set("ipv4", device, "route_localnet", "1");
	set("ipv4", device, "src_valid_mark", "1");
}

struct route {
	uint32_t device;
	bool gateway, local;
};

static int on_route(const struct nlmsghdr *m, void *arg)
{
	const struct rtmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *table[RTA_MAX + 1] = { 0 };
	struct route *route = arg;

	netlink_attributes(m, sizeof(*h), table, RTA_MAX);
	route->local = h->rtm_type != RTN_UNICAST;
	route->gateway = table[RTA_GATEWAY] || table[RTA_VIA];
	if (table[RTA_OIF])
		route->device = mnl_attr_get_u32(table[RTA_OIF]);
	return 0;
}

int host_device_towards(int family, const void *address, uint32_t *ret, struct err *e)
{
	size_t len = family == AF_INET ? 4 : 16;
	struct route route = { 0 };
	char buf[1024], text[INET6_ADDRSTRLEN];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETROUTE, 0, sizeof(struct rtmsg));
	struct rtmsg *h = mnl_nlmsg_get_payload(m);
	struct netlink nl;
	int r = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	if (r < 0)
		return r;
	inet_ntop(family, address, text, sizeof(text));
	h->rtm_family = (uint8_t)family;
	h->rtm_dst_len = (uint8_t)(len * 8);
	mnl_attr_put(m, RTA_DST, len, address);
	r = netlink_ask(&nl, m, on_route, &route);
	if (r < 0)
		netlink_error(&nl, r, e, "the route to %s", text);
	netlink_close(&nl);
	if (r < 0)
		return r;
	if (route.local || !route.device)
		return err_set(e, -EHOSTUNREACH, "%s is an address of this host, or none of another", text);
	if (route.gateway)
		return err_set(e, -EHOSTUNREACH, "%s is behind a router: connections can be redirected between hosts on one link only", text);
	*ret = route.device;
	return 0;
}

static int on_neighbour(const struct nlmsghdr *m, void *arg)
{
	const struct ndmsg *h = mnl_nlmsg_get_payload(m);

	*(uint16_t *)arg = h->ndm_state;
	return 0;
}

void host_revive_neighbour(uint32_t device, const uint8_t address[16])
{
	static const uint8_t nobody[6] = { 2 };
	bool ipv4 = host_is_ipv4(address);
	uint16_t state = 0;
	struct netlink nl;

	if (netlink_open(&nl, NETLINK_ROUTE, -1, NULL) < 0)
		return;
	for (int i = 0; i < 2; i++) {
		char buf[512];
		struct nlmsghdr *m = netlink_begin(buf, i ? RTM_NEWNEIGH : RTM_GETNEIGH, i ? NLM_F_CREATE | NLM_F_REPLACE : 0, sizeof(struct ndmsg));
		struct ndmsg *h = mnl_nlmsg_get_payload(m);

		h->ndm_family = ipv4 ? AF_INET : AF_INET6;
		h->ndm_ifindex = (int)device;
		mnl_attr_put(m, NDA_DST, ipv4 ? 4 : 16, ipv4 ? address + 12 : address);
		if (i) {
			/* Of no importance which: these packets get another link address, and the host's own answers replace it. */
			h->ndm_state = NUD_STALE;
			mnl_attr_put(m, NDA_LLADDR, sizeof(nobody), nobody);
			netlink_do(&nl, m);
		} else if (netlink_ask(&nl, m, on_neighbour, &state) < 0 || !(state & (NUD_FAILED | NUD_INCOMPLETE))) {
			break;
		}
	}
	netlink_close(&nl);
}

/* --- whose addresses belong together --- */

struct known_neighbour {
	uint32_t device;
	uint8_t address[16], link[6];
};

static struct known_neighbour *neighbours;
static size_t n_neighbours;

static int on_known_neighbour(const struct nlmsghdr *m, void *arg)
{
	const struct ndmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *table[NDA_MAX + 1] = { 0 };
	size_t len = h->ndm_family == AF_INET ? 4 : 16;
	struct known_neighbour *more;

	(void)arg;
	netlink_attributes(m, sizeof(*h), table, NDA_MAX);
	if ((h->ndm_family != AF_INET && h->ndm_family != AF_INET6) || !table[NDA_DST] || mnl_attr_get_payload_len(table[NDA_DST]) != len || !table[NDA_LLADDR] ||
	    mnl_attr_get_payload_len(table[NDA_LLADDR]) != sizeof(more->link))
		return 0;
	more = realloc(neighbours, (n_neighbours + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	neighbours = more;
	more += n_neighbours++;
	*more = (struct known_neighbour){ .device = (uint32_t)h->ndm_ifindex, .address = { [10] = 0xff, [11] = 0xff } };
	memcpy(more->address + 16 - len, mnl_attr_get_payload(table[NDA_DST]), len);
	memcpy(more->link, mnl_attr_get_payload(table[NDA_LLADDR]), sizeof(more->link));
	return 0;
}

void host_load_neighbours(void)
{
	struct netlink nl;
	char buf[512];

	free(neighbours);
	neighbours = NULL;
	n_neighbours = 0;
	if (netlink_open(&nl, NETLINK_ROUTE, -1, NULL) >= 0)
		netlink_dump(&nl, netlink_begin(buf, RTM_GETNEIGH, 0, sizeof(struct ndmsg)), on_known_neighbour, NULL);
	netlink_close(&nl);
}

void host_ipv4_beside(const uint8_t address[16], uint8_t ret[16])
{
	const struct known_neighbour *a = neighbours, *end = neighbours + n_neighbours;

	memmove(ret, address, 16);
	while (a != end && memcmp(a->address, address, 16))
		a++;
	for (const struct known_neighbour *b = neighbours; a != end && !host_is_ipv4(address) && b != end; b++)
		if (b->device == a->device && !memcmp(b->link, a->link, sizeof(b->link)) && host_is_ipv4(b->address)) {
			memcpy(ret, b->address, 16);
			return;
		}
}

static int mtu_of(int fd, const char *device, int *set_to)
{
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	if (set_to) {
		request.ifr_mtu = *set_to;
		return ioctl(fd, SIOCSIFMTU, &request) < 0 ? -errno : 0;
	}
	return ioctl(fd, SIOCGIFMTU, &request) < 0 ? -errno : request.ifr_mtu;
}

int host_lower_lo(struct redirect *r, uint32_t device, struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[IF_NAMESIZE] = "";
	int here, there, code = 0;

	if_indextoname(device, name);
	here = mtu_of(fd, "lo", NULL);
	there = mtu_of(fd, name, NULL);
	if (here > 0 && there >= LO_MTU_LEAST && there < here) {
		code = mtu_of(fd, "lo", &there);
		if (code >= 0 && !r->config->lo_mtu)
			r->config->lo_mtu = (uint32_t)here;
	}
	return code < 0 ? err_sys(e, code, "device lo: its packets cannot be made as small as those of %s", name) : 0;
}

void host_restore_lo(struct redirect *r)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int mtu = (int)r->config->lo_mtu;

	if (mtu)
		mtu_of(fd, "lo", &mtu);
	r->config->lo_mtu = 0;
}

static int set_up(int fd, struct ifreq *request)
{
	request->ifr_qlen = TUN_PACKETS;
	if (ioctl(fd, SIOCSIFTXQLEN, request) < 0)
		return -errno;
	request->ifr_mtu = TUN_MTU;
	if (ioctl(fd, SIOCSIFMTU, request) < 0)
		return -errno;
	request->ifr_flags = IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, request) < 0 ? -errno : 0;
}

int host_make_tun(int *ret_fd, uint32_t *ret_device, struct err *e)
{
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "godwit%d", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	char name[IFNAMSIZ];
	int r;

	if (fd < 0)
		return err_sys(e, -errno, "/dev/net/tun, where packets wait while their connection moves");
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return err_sys(e, -errno, "making a tun device");
	/* Whole segments of the sender are one packet each, as far as the kernel can. */
	(void)!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN);
	memcpy(name, request.ifr_name, sizeof(name));
	set("ipv6", name, "addr_gen_mode", "1");
	set("ipv4", name, "rp_filter", "0");
	host_trust_device(name);
	r = set_up(s, &request);
	if (r < 0)
		return err_sys(e, r, "device %s", name);
	*ret_device = if_nametoindex(name);
	*ret_fd = take_fd(&fd);
	return 0;
}

int redirect_self(int connection, const char *name, struct redirect_node *ret, struct err *e)
{
	struct sockaddr_in own = { 0 }, peer;
	struct redirect_node node = { 0 };
	const struct ifaddrs *i, *at = NULL;
	int r = host_load(e);

	if (r < 0)
		return r;
	r = conn_host_addresses(connection, &own, &peer);
	if (r == -EHOSTUNREACH)
		return err_set(e, r, "the hosts do not see each other under the addresses that ssh uses (a jump host, a proxy or address translation is between them)");
	if (r < 0 || own.sin_family != AF_INET)
		return err_set(e, -EAFNOSUPPORT, "the connection between the nodes is not one of IPv4");
	snprintf(node.name, sizeof(node.name), "%s", name);
	memcpy(node.v4, &own.sin_addr, 4);
	for (i = addresses; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == own.sin_addr.s_addr)
			at = i;
	for (i = addresses; i && at; i = i->ifa_next) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)i->ifa_addr;

		/* One of the link rather than others: it is there as long as the device. */
		if (v6 && v6->sin6_family == AF_INET6 && !strcmp(i->ifa_name, at->ifa_name) && (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) || !node.v6[0]))
			memcpy(node.v6, &v6->sin6_addr, 16);
	}
	*ret = node;
	return 0;
}
