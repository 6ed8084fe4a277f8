/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_link.c - network devices at the source; see ns_link.h */
#include "image/ns_link.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_bridge.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_other.h"

static const char *const kinds[] = {
	"bridge", "veth", "tun", "macvlan", "ipvlan", "vlan", "vxlan", "geneve", "dummy", "ifb", "vrf", "ipip", "sit", "gre", "gretap", "ip6tnl", "ip6gre", "ip6gretap", "vti", "vti6",
};

bool net_is_name(const char *name)
{
	return name[0] && strlen(name) < IFNAMSIZ && !strchr(name, '/') && !strchr(name, '%');
}

bool net_link_read(const struct nlmsghdr *m, struct net_link *l)
{
	const struct nlattr *info[IFLA_INFO_MAX + 1];

	*l = (struct net_link){ .header = mnl_nlmsg_get_payload(m) };
	netlink_attributes(m, sizeof(*l->header), l->a, IFLA_MAX);
	netlink_nested(l->a[IFLA_LINKINFO], info, IFLA_INFO_MAX);
	l->name = l->a[IFLA_IFNAME] && !mnl_attr_validate(l->a[IFLA_IFNAME], MNL_TYPE_NUL_STRING) ? mnl_attr_get_str(l->a[IFLA_IFNAME]) : NULL;
	l->kind = info[IFLA_INFO_KIND] && !mnl_attr_validate(info[IFLA_INFO_KIND], MNL_TYPE_NUL_STRING) ? mnl_attr_get_str(info[IFLA_INFO_KIND]) : "";
	l->data = info[IFLA_INFO_DATA];
	l->slave_kind = info[IFLA_INFO_SLAVE_KIND];
	l->slave_data = info[IFLA_INFO_SLAVE_DATA];
	return l->name && net_is_name(l->name);
}

uint32_t net_attr_u32(const struct nlattr *a)
{
	return a && mnl_attr_get_payload_len(a) >= 4 ? mnl_attr_get_u32(a) : 0;
}

static int take_id(const struct nlmsghdr *m, void *arg)
{
	const struct nlattr *a[NETNSA_MAX + 1];

	netlink_attributes(m, sizeof(struct rtgenmsg), a, NETNSA_MAX);
	if (a[NETNSA_NSID])
		*(int32_t *)arg = (int32_t)net_attr_u32(a[NETNSA_NSID]);
	return 0;
}

/* By which number this namespace knows the host's; -1: it does not. */
static int32_t id_of(struct netlink *nl, int ns)
{
	char buf[128];
	int32_t id = -1;
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETNSID, 0, sizeof(struct rtgenmsg));

	mnl_attr_put_u32(m, NETNSA_FD, (uint32_t)ns);
	return netlink_ask(nl, m, take_id, &id) < 0 ? -1 : id;
}

/* --- the ends at the host --- */

static int take_end(const struct nlmsghdr *m, void *arg)
{
	Gw__NsPeer *p = arg;
	struct net_link l;

	if (m->nlmsg_type != RTM_NEWLINK || !net_link_read(m, &l))
		return 0;
	string_set(&p->name, l.name);
	p->up = l.header->ifi_flags & IFF_UP;
	p->mtu = net_attr_u32(l.a[IFLA_MTU]);
	if (l.a[IFLA_ADDRESS])
		bytes_set(&p->address, mnl_attr_get_payload(l.a[IFLA_ADDRESS]), mnl_attr_get_payload_len(l.a[IFLA_ADDRESS]));
	p->master = net_attr_u32(l.a[IFLA_MASTER]);
	return 0;
}

static int take_master(const struct nlmsghdr *m, void *arg)
{
	Gw__NsPeer *p = arg;
	struct net_link l;

	if (m->nlmsg_type == RTM_NEWLINK && net_link_read(m, &l) && strcmp(l.kind, "bridge") == 0) {
		string_set(&p->bridge, l.name);
		bytes_set(&p->bridge_link, m, NLMSG_ALIGN(m->nlmsg_len));
	}
	return 0;
}

static int read_link(struct netlink *nl, uint32_t index, int (*each)(const struct nlmsghdr *m, void *arg), void *arg)
{
	char buf[128];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg));

	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index = (int)index;
	return netlink_ask(nl, m, each, arg);
}

static bool has_addresses(struct netlink *host, uint32_t index)
{
	ProtobufCBinaryData list = { 0 };
	bool found = false;

	if (net_list_capture(host, NET_ADDRESSES, &list, NULL) == 0)
		net_list_for_each(m, &list) {
			const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);

			found |= h->ifa_index == index && h->ifa_scope != RT_SCOPE_LINK;
		}
	free(list.data);
	return found;
}

static void capture_peer(struct netlink *host, Gw__NsNet *net, const struct net_link *l, struct refusals *r)
{
	Gw__NsPeer *p = must_alloc(sizeof(*p)), **grown = realloc(net->peers, (net->n_peers + 1) * sizeof(*grown));

	if (!grown)
		abort();
	net->peers = grown;
	grown[net->n_peers++] = p;
	gw__ns_peer__init(p);
	p->index = (uint32_t)l->header->ifi_index;
	p->host_index = net_attr_u32(l->a[IFLA_LINK]);
	if (read_link(host, p->host_index, take_end, p) < 0)
		refusals_add(r, "ns.net.peer", "its other end on the host cannot be read", "try again", "network device %s", l->name);
	else if (p->master && (read_link(host, p->master, take_master, p) < 0 || !p->bridge[0]))
		refusals_add(r, "ns.net.peer", "its other end belongs to a device of the host that is no bridge", "make it a port of a bridge", "network device %s (%s on the host)", l->name,
			     p->name);
	else if (!p->master && has_addresses(host, p->host_index))
		refusals_add(r, "ns.net.peer", "its other end on the host has addresses, which are the host's", "make it a port of a bridge that both hosts have, with the addresses on that",
			     "network device %s (%s on the host)", l->name, p->name);
	if (p->bridge[0])
		net_bridge_capture(host, p);
}

/* --- what can move --- */

static bool is_known(const char *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i], kind) == 0)
			return true;
	return false;
}

static bool has_program(const struct nlattr *xdp)
{
	const struct nlattr *a[IFLA_XDP_MAX + 1];

	netlink_nested(xdp, a, IFLA_XDP_MAX);
	return a[IFLA_XDP_ATTACHED] && mnl_attr_get_u8(a[IFLA_XDP_ATTACHED]) != XDP_ATTACHED_NONE;
}

/* What of a known kind does not move. */
static bool is_special(const struct net_link *l)
{
	const struct nlattr *a[IFLA_BR_MAX + 1];

	netlink_nested(l->data, a, IFLA_BR_MAX);
	if (strcmp(l->kind, "bridge") == 0)
		return a[IFLA_BR_VLAN_FILTERING] && mnl_attr_get_u8(a[IFLA_BR_VLAN_FILTERING]);
	return strcmp(l->kind, "macvlan") == 0 && net_attr_u32(a[IFLA_MACVLAN_MODE]) == MACVLAN_MODE_SOURCE;
}

static void check_link(const struct net_link *l, bool peer_is_known, struct refusals *r)
{
	if (l->header->ifi_flags & IFF_LOOPBACK)
		return;
	if (!l->kind[0])
		refusals_add(r, "ns.net.device", "it is a device of this host", "give it back to the host (ip link set DEVICE netns 1)", "network device %s", l->name);
	else if (!is_known(l->kind))
		refusals_add(r, "ns.net.device", "devices of this kind cannot move", "remove it there", "network device %s (%s)", l->name, l->kind);
	else if (l->a[IFLA_LINK_NETNSID] && !peer_is_known)
		refusals_add(r, "ns.net.peer", strcmp(l->kind, "veth") ? "it is above a device of another network namespace" : "its other end is in a network namespace that does not move",
			     "use a pair of virtual Ethernet devices (veth) with the other end in a bridge of the host", "network device %s (%s)", l->name, l->kind);
	else if (is_special(l))
		refusals_add(r, "ns.net.device", "VLANs of bridges, and lists of allowed sources, cannot move", "use another mode", "network device %s (%s)", l->name, l->kind);
	if (has_program(l->a[IFLA_XDP]))
		refusals_add(r, "ns.net.xdp", "BPF programs of network devices cannot move", "remove it there", "network device %s", l->name);
}

static int check_qdisc(const struct nlmsghdr *m, void *arg)
{
	const struct tcmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *a[TCA_MAX + 1];

	netlink_attributes(m, sizeof(*h), a, TCA_MAX);
	if (h->tcm_handle && a[TCA_KIND]) /* those that the kernel has chosen have none */
		refusals_add(arg, "ns.net.qdisc", "queueing disciplines that were set cannot move", "remove it (tc qdisc del)", "network device %d (qdisc %s)", h->tcm_ifindex,
			     mnl_attr_get_str(a[TCA_KIND]));
	return 0;
}

/* Whether the other end of a pair is in another network namespace of the unit's. */
static bool capture_pair(struct netlink *nl, const Gw__Namespaces *msg, Gw__NsNet *net, const struct net_link *l)
{
	int32_t id = (int32_t)net_attr_u32(l->a[IFLA_LINK_NETNSID]);
	uint32_t number;

	for (size_t i = 0; ns_net_of(msg, i, &number); i++) {
		Gw__NsPair *p, **grown;

		if (ns_net_of(msg, i, &number) == net || id_of(nl, number ? ns_others_fd(number) : ns_first_fd(NS_NET)) != id)
			continue;
		grown = realloc(net->pairs, (net->n_pairs + 1) * sizeof(*grown));
		if (!grown)
			abort();
		net->pairs = grown;
		grown[net->n_pairs++] = p = must_alloc(sizeof(*p));
		gw__ns_pair__init(p);
		p->index = (uint32_t)l->header->ifi_index;
		p->space = number;
		p->other = net_attr_u32(l->a[IFLA_LINK]);
		p->id = id;
		return true;
	}
	return false;
}

int net_links_capture(struct netlink *nl, int host_ns, const Gw__Namespaces *msg, Gw__NsNet *net, struct refusals *r, struct err *e)
{
	struct netlink host;
	int32_t id = id_of(nl, host_ns);
	char buf[128];
	int ret = netlink_open(&host, NETLINK_ROUTE, host_ns, e);

	if (ret < 0)
		return ret;
	net_list_for_each(m, &net->lists[NET_LINKS]) {
		struct net_link l;
		bool peer_is_host;

		if (!net_link_read(m, &l))
			continue;
		peer_is_host = !strcmp(l.kind, "veth") && l.a[IFLA_LINK_NETNSID] && (int32_t)net_attr_u32(l.a[IFLA_LINK_NETNSID]) == id && id >= 0;
		check_link(&l, peer_is_host || (!strcmp(l.kind, "veth") && l.a[IFLA_LINK_NETNSID] && capture_pair(nl, msg, net, &l)), r);
		if (peer_is_host)
			capture_peer(&host, net, &l, r);
	}
	netlink_close(&host);
	return netlink_dump(nl, netlink_begin(buf, RTM_GETQDISC, 0, sizeof(struct tcmsg)), check_qdisc, r) < 0 ? err_set(e, -EIO, "queueing disciplines") : 0;
}

/* --- while it moves --- */

static int set_port_state(struct netlink *host, uint32_t index, uint8_t state)
{
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, RTM_SETLINK, 0, sizeof(struct ifinfomsg));
	struct ifinfomsg *h = mnl_nlmsg_get_payload(m);
	struct nlattr *nest;

	h->ifi_family = AF_BRIDGE;
	h->ifi_index = (int)index;
	nest = mnl_attr_nest_start(m, IFLA_PROTINFO);
	mnl_attr_put_u8(m, IFLA_BRPORT_STATE, state);
	mnl_attr_nest_end(m, nest);
	return netlink_do(host, m);
}

void net_peers_pass(struct netlink *host, const Gw__NsNet *net, bool pass)
{
	for (size_t i = 0; i < net->n_peers; i++)
		if (net->peers[i]->bridge[0] && net->peers[i]->up)
			(void)set_port_state(host, net->peers[i]->host_index, pass ? BR_STATE_FORWARDING : BR_STATE_DISABLED);
}

void net_peers_part(struct netlink *host, const Gw__NsNet *net)
{
	for (size_t i = 0; i < net->n_peers; i++) {
		char buf[128];
		struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
		struct ifinfomsg *h = mnl_nlmsg_get_payload(m);

		h->ifi_index = (int)net->peers[i]->host_index;
		h->ifi_change = IFF_UP;
		mnl_attr_put_u32(m, IFLA_MASTER, 0);
		(void)netlink_do(host, m);
		if (net->peers[i]->bridge[0])
			(void)net_bridge_release(host, net->peers[i]->bridge);
	}
}
