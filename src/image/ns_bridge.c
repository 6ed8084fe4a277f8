/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_bridge.c - see ns_bridge.h */
#include "image/ns_bridge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <net/if.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_link_internal.h"
#include "kern/neighbour.h"

#define MARK "made by godwit"
#define MADE_MAX 64u
#define PROBES 2u
#define PROBE_MS 25

static char made[MADE_MAX][IFNAMSIZ]; /* by this worker */
static size_t n_made;

struct address {
	uint8_t family, prefix;
	uint8_t bytes[16];
};

static bool read_address(const struct nlmsghdr *m, struct address *ret)
{
	const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *a[IFA_MAX + 1], *local;
	uint16_t len = h->ifa_family == AF_INET ? 4 : 16;

	netlink_attributes(m, sizeof(*h), a, IFA_MAX);
	local = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
	if (!local || mnl_attr_get_payload_len(local) != len || h->ifa_prefixlen > len * 8)
		return false;
	*ret = (struct address){ .family = h->ifa_family, .prefix = h->ifa_prefixlen };
	memcpy(ret->bytes, mnl_attr_get_payload(local), len);
	return true;
}

static void text_of(const struct address *a, char text[64])
{
	char number[INET6_ADDRSTRLEN] = "?";

	inet_ntop(a->family, a->bytes, number, sizeof(number));
	snprintf(text, 64, "%s/%u", number, a->prefix);
}

/* Whether the shorter of the two networks contains the other. */
static bool overlap(const struct address *a, const struct address *b)
{
	unsigned bits = MIN(a->prefix, b->prefix);

	if (a->family != b->family)
		return false;
	for (unsigned i = 0; i < bits; i++)
		if ((a->bytes[i / 8] ^ b->bytes[i / 8]) & 0x80 >> i % 8)
			return false;
	return true;
}

/* --- source --- */

void net_bridge_capture(struct netlink *host, Gw__NsPeer *p)
{
	ProtobufCBinaryData all = { 0 };

	if (net_list_capture(host, NET_ADDRESSES, &all, NULL) == 0)
		net_list_for_each(one, &all) {
			const struct ifaddrmsg *h = mnl_nlmsg_get_payload(one);

			if (h->ifa_index == p->master && h->ifa_scope != RT_SCOPE_LINK)
				bytes_append(&p->bridge_addresses, one, NLMSG_ALIGN(one->nlmsg_len));
		}
	free(all.data);
}

/* --- destination --- */

int net_bridge_validate(const Gw__NsPeer *p, struct err *e)
{
	if (!net_list_is_valid(NET_LINKS, &p->bridge_link) || !net_list_is_valid(NET_ADDRESSES, &p->bridge_addresses))
		return err_set(e, -EBADMSG, "network: the bridge %s", p->bridge);
	return 0;
}

static int take_number(const struct nlmsghdr *m, void *arg)
{
	if (m->nlmsg_type == RTM_NEWLINK)
		*(uint32_t *)arg = (uint32_t)((const struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index;
	return 0;
}

uint32_t net_number_of(struct netlink *nl, const char *name)
{
	char buf[256];
	uint32_t index = 0;
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg));

	mnl_attr_put_strz(m, IFLA_IFNAME, name);
	(void)netlink_ask(nl, m, take_number, &index);
	return index;
}

/* One that the host has, in whose network an address would be; NULL: none. */
static const struct nlmsghdr *find_overlap(const ProtobufCBinaryData *all, const struct address *a)
{
	net_list_for_each(m, all) {
		struct address other;

		if (read_address(m, &other) && overlap(&other, a))
			return m;
	}
	return NULL;
}

static bool are_free(struct netlink *host, const Gw__NsPeer *p, struct refusals *r)
{
	ProtobufCBinaryData all = { 0 };
	size_t before = r->n;

	if (net_list_capture(host, NET_ADDRESSES, &all, NULL) < 0)
		return true; /* then the kernel will say it */
	net_list_for_each(m, &p->bridge_addresses) {
		struct address a;
		char text[64];

		if (!read_address(m, &a) || !find_overlap(&all, &a))
			continue;
		text_of(&a, text);
		refusals_add(r, "ns.net.bridge", "the destination has no bridge of that name, and another device there has addresses of its network, so that it cannot be made",
			     "use another network for the bridge (podman network create --subnet)", "bridge %s (%s)", p->bridge, text);
	}
	free(all.data);
	return r->n == before;
}

static int make_bridge(struct netlink *host, const struct net_link *l, struct err *e)
{
	char buf[NETLINK_BYTES];
	struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	struct nlattr *info;
	int ret;

	mnl_attr_put_strz(m, IFLA_IFNAME, l->name);
	if (l->a[IFLA_MTU])
		netlink_copy(m, l->a[IFLA_MTU]);
	info = mnl_attr_nest_start(m, IFLA_LINKINFO);
	mnl_attr_put_strz(m, IFLA_INFO_KIND, "bridge");
	net_link_put_data(m, l);
	mnl_attr_nest_end(m, info);
	ret = netlink_do(host, m);
	if (ret < 0)
		return ret == -EEXIST ? 0 : netlink_error(host, ret, e, "the bridge %s on the host", l->name); /* another unit's worker was faster */
	if (n_made < MADE_MAX)
		snprintf(made[n_made++], IFNAMSIZ, "%s", l->name);
	m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_flags = ((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_change = l->header->ifi_flags & IFF_UP;
	mnl_attr_put_strz(m, IFLA_IFNAME, l->name);
	mnl_attr_put_strz(m, IFLA_IFALIAS, MARK);
	ret = netlink_do(host, m);
	return ret < 0 ? netlink_error(host, ret, e, "the bridge %s on the host", l->name) : 0;
}

static int add_addresses(struct netlink *host, const Gw__NsPeer *p, char text[128], struct err *e)
{
	uint32_t index = net_number_of(host, p->bridge);
	size_t len = 0;

	text[0] = 0;
	net_list_for_each(m, &p->bridge_addresses) {
		char buf[256], one[64];
		struct nlmsghdr *request = netlink_begin(buf, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifaddrmsg));
		struct ifaddrmsg *h = mnl_nlmsg_get_payload(request);
		struct address a;
		int ret;

		if (!read_address(m, &a))
			continue;
		*h = (struct ifaddrmsg){ .ifa_family = a.family, .ifa_prefixlen = a.prefix, .ifa_index = index };
		mnl_attr_put(request, IFA_LOCAL, a.family == AF_INET ? 4 : 16, a.bytes);
		mnl_attr_put(request, IFA_ADDRESS, a.family == AF_INET ? 4 : 16, a.bytes);
		if (a.family == AF_INET && a.prefix < 31) { /* as ip(8) does, and podman */
			uint32_t broadcast = *(const uint32_t *)(const void *)a.bytes | htonl(0xffffffffu >> a.prefix);

			mnl_attr_put_u32(request, IFA_BROADCAST, broadcast);
		}
		ret = netlink_do(host, request);
		if (ret < 0 && ret != -EEXIST)
			return netlink_error(host, ret, e, "an address of the bridge %s on the host", p->bridge);
		text_of(&a, one);
		if (len < 128)
			len += (size_t)snprintf(text + len, 128 - len, "%s%s", len ? ", " : "", one);
	}
	return 0;
}

static int make(struct netlink *host, const Gw__NsPeer *p, const struct net_link *l, char text[128], struct err *e)
{
	int ret = make_bridge(host, l, e);

	return ret < 0 ? ret : add_addresses(host, p, text, e);
}

static int provide(struct netlink *host, const Gw__NsPeer *p, struct refusals *r, struct err *e)
{
	const struct nlmsghdr *m = (const void *)p->bridge_link.data;
	const struct nlattr *a[IFLA_BR_MAX + 1];
	struct net_link l;
	char text[128];
	int ret;

	if (!p->bridge_link.len || !net_link_read(m, &l) || strcmp(l.name, p->bridge) != 0 || strcmp(l.kind, "bridge") != 0)
		return err_set(e, -EBADMSG, "the bridge %s", p->bridge);
	netlink_nested(l.data, a, IFLA_BR_MAX);
	if (a[IFLA_BR_VLAN_FILTERING] && mnl_attr_get_u8(a[IFLA_BR_VLAN_FILTERING])) {
		refusals_add(r, "ns.net.bridge", "the destination has no bridge of that name, and one with VLANs is not made", "make it there (ip link add NAME type bridge)", "bridge %s",
			     p->bridge);
		return 0;
	}
	if (!are_free(host, p, r))
		return 0;
	ret = make(host, p, &l, text, e);
	if (ret == 0)
		notes_add("the destination had no bridge %s: it was made%s%s.", p->bridge, text[0] ? " with " : "", text);
	return ret;
}

int net_bridge_again(struct netlink *host, const Gw__NsPeer *p, struct err *e)
{
	struct net_link l;
	char text[128];

	return p->bridge_link.len && net_link_read((const void *)p->bridge_link.data, &l) ? make(host, p, &l, text, e) : -ENODEV;
}

static bool host_has(const ProtobufCBinaryData *all, const struct address *a)
{
	net_list_for_each(m, all) {
		struct address own;

		if (read_address(m, &own) && own.family == a->family && !memcmp(own.bytes, a->bytes, sizeof(a->bytes)))
			return true;
	}
	return false;
}

/* By somebody on the link. Where the bridges of two hosts are connected, it is the unit itself that answers. */
static bool is_taken(struct netlink *host, int host_ns, const Gw__NsNet *net, const Gw__NsPeer *p, const struct address *a)
{
	struct neighbour n = { .ns = host_ns, .device = net_number_of(host, p->bridge), .family = a->family };
	uint8_t other[6];

	memcpy(n.address, a->bytes, sizeof(n.address));
	return a->family == AF_INET && neighbour_ask(&n, PROBES, PROBE_MS, net_link_address(net, p->index), other) == NEIGHBOUR_OTHER;
}

/* Refuses addresses of the unit that somebody has there. */
static void check_addresses(struct netlink *host, int host_ns, const Gw__NsNet *net, const Gw__NsPeer *p, struct refusals *r)
{
	ProtobufCBinaryData all = { 0 };

	if (net_list_capture(host, NET_ADDRESSES, &all, NULL) < 0)
		return;
	net_list_for_each(m, &net->lists[NET_ADDRESSES]) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		struct address a;
		char text[64];

		if (h->ifa_index != p->index || h->ifa_scope == RT_SCOPE_LINK || !read_address(m, &a))
			continue;
		text_of(&a, text);
		if (host_has(&all, &a) || is_taken(host, host_ns, net, p, &a))
			refusals_add(r, "ns.net.address", "another one has that address at the destination", "give it another address (podman run --ip), or end that one", "address %s (bridge %s)", text,
				     p->bridge);
	}
	free(all.data);
}

/* --- what has been made --- */

struct looking {
	const char *name;
	uint32_t index;
	bool marked, used;
};

static int look(const struct nlmsghdr *m, void *arg)
{
	struct looking *k = arg;
	struct net_link l;

	if (m->nlmsg_type != RTM_NEWLINK || !net_link_read(m, &l))
		return 0;
	if (!strcmp(l.name, k->name))
		k->marked = l.a[IFLA_IFALIAS] && !mnl_attr_validate(l.a[IFLA_IFALIAS], MNL_TYPE_NUL_STRING) && !strcmp(mnl_attr_get_str(l.a[IFLA_IFALIAS]), MARK);
	k->used |= net_attr_u32(l.a[IFLA_MASTER]) == k->index;
	return 0;
}

static bool look_at(struct netlink *host, struct looking *k)
{
	char buf[256];

	return k->index && netlink_dump(host, netlink_begin(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg)), look, k) == 0;
}

int net_bridge_provide(struct netlink *host, int host_ns, const Gw__NsNet *net, Gw__NsPeer *p, struct refusals *r, struct err *e)
{
	int ret = net_number_of(host, p->bridge) ? 0 : provide(host, p, r, e);
	struct looking k = { .name = p->bridge, .index = net_number_of(host, p->bridge) };

	p->made = look_at(host, &k) && k.marked;
	if (ret == 0 && !r->n)
		check_addresses(host, host_ns, net, p, r);
	return ret;
}

bool net_bridge_release(struct netlink *host, const char *name)
{
	struct looking k = { .name = name, .index = net_number_of(host, name) };
	char buf[256];
	struct nlmsghdr *m;

	if (!look_at(host, &k) || !k.marked)
		return true;
	if (k.used)
		return false;
	m = netlink_begin(buf, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index = (int)k.index;
	(void)netlink_do(host, m);
	return true;
}

void net_bridges_undo(struct netlink *host)
{
	while (n_made)
		(void)net_bridge_release(host, made[--n_made]);
}
