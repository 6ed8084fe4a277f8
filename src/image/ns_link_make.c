/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_link_make.c - network devices at the destination; see ns_link.h */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_bridge.h"
#include "image/ns_link.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_other.h"

#define FLAGS (IFF_UP | IFF_PROMISC | IFF_ALLMULTI | IFF_NOARP | IFF_MULTICAST | IFF_DEBUG | IFF_DYNAMIC) /* that are set from outside */

#define BRIDGE_LEARNED (IFLA_BR_MCAST_QUERIER_STATE + 1) /* IFLA_BR_FDB_N_LEARNED, of kernel 6.7: how many entries there are */

#define PORT_GROUPS (IFLA_BRPORT_LOCKED + 2)			 /* IFLA_BRPORT_MCAST_N_GROUPS, of kernel 6.3 */

/* Attributes that a new device may have, besides its name. */
static const uint16_t carried[] = { IFLA_MTU, IFLA_TXQLEN, IFLA_GROUP, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES };

/* The kernel may tell devices of each other's carriers a second later. */
#define SETTLE_MS 1500
#define SETTLE_STEP_MS 5

struct making {
	struct netlink *nl, *host;
	int host_ns;
	const Gw__Namespaces *msg;
	const Gw__NsNet *net;
	struct refusals *r;
};

static bool exists(struct netlink *nl, const char *name)
{
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg));

	mnl_attr_put_strz(m, IFLA_IFNAME, name);
	return netlink_do(nl, m) == 0;
}

static const struct nlmsghdr *find_number(const Gw__NsNet *net, uint32_t index)
{
	net_list_for_each(m, &net->lists[NET_LINKS])
		if ((uint32_t)((const struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index == index)
			return m;
	return NULL;
}

const uint8_t *net_link_address(const Gw__NsNet *net, uint32_t index)
{
	const struct nlmsghdr *m = find_number(net, index);
	struct net_link l;

	return m && net_link_read(m, &l) && l.a[IFLA_ADDRESS] && mnl_attr_get_payload_len(l.a[IFLA_ADDRESS]) == 6 ? mnl_attr_get_payload(l.a[IFLA_ADDRESS]) : NULL;
}

static Gw__NsPeer *find_peer(const Gw__NsNet *net, int index)
{
	for (size_t i = 0; i < net->n_peers; i++)
		if (net->peers[i]->index == (uint32_t)index)
			return net->peers[i];
	return NULL;
}

static void put_common(struct nlmsghdr *m, const struct net_link *l)
{
	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index = l->header->ifi_index;
	mnl_attr_put_strz(m, IFLA_IFNAME, l->name);
	for (size_t i = 0; i < ARRAY_SIZE(carried); i++)
		if (l->a[carried[i]])
			netlink_copy(m, l->a[carried[i]]);
	if (l->header->ifi_type == ARPHRD_ETHER && l->a[IFLA_ADDRESS])
		netlink_copy(m, l->a[IFLA_ADDRESS]);
}

static uint8_t u8_of(const struct nlattr *a)
{
	return a && mnl_attr_get_payload_len(a) ? mnl_attr_get_u8(a) : 0;
}

/* --- pairs --- */

/* The nested description of the other end. */
static struct nlattr *begin_end(struct nlmsghdr *m, int index)
{
	struct nlattr *nest = mnl_attr_nest_start(m, VETH_INFO_PEER);
	struct ifinfomsg *h = mnl_nlmsg_get_payload_tail(m);

	memset(h, 0, sizeof(*h));
	h->ifi_index = index;
	m->nlmsg_len += MNL_ALIGN(sizeof(*h));
	return nest;
}

/* ns: the namespace that it is in; -1: this one. */
static void put_end(struct nlmsghdr *m, const struct net_link *other, int ns)
{
	struct nlattr *nest = begin_end(m, other->header->ifi_index);

	if (ns >= 0)
		mnl_attr_put_u32(m, IFLA_NET_NS_FD, (uint32_t)ns);
	mnl_attr_put_strz(m, IFLA_IFNAME, other->name);
	for (size_t i = 0; i < ARRAY_SIZE(carried); i++)
		if (other->a[carried[i]])
			netlink_copy(m, other->a[carried[i]]);
	if (other->a[IFLA_ADDRESS])
		netlink_copy(m, other->a[IFLA_ADDRESS]);
	mnl_attr_nest_end(m, nest);
}

static void put_end_at_host(const struct making *k, struct nlmsghdr *m, Gw__NsPeer *p)
{
	struct nlattr *nest = begin_end(m, 0);

	/* Another worker may use a name of the form godwitN at the same time: then the kernel says so, and it is the migration that fails. */
	for (unsigned i = 0; exists(k->host, p->name) && i < 10000; i++) {
		char name[IFNAMSIZ];

		snprintf(name, sizeof(name), "godwit%u", i);
		string_set(&p->name, name);
	}
	mnl_attr_put_strz(m, IFLA_IFNAME, p->name);
	mnl_attr_put_u32(m, IFLA_NET_NS_FD, (uint32_t)k->host_ns);
	if (p->mtu)
		mnl_attr_put_u32(m, IFLA_MTU, p->mtu);
	if (p->address.len == 6)
		mnl_attr_put(m, IFLA_ADDRESS, 6, p->address.data);
	mnl_attr_nest_end(m, nest);
}

/* The end that is in another namespace of the unit's. */
static int put_end_elsewhere(const struct making *k, struct nlmsghdr *m, const Gw__NsPair *p)
{
	int ns = p->space ? ns_others_fd(p->space) : ns_first_fd(NS_NET); /* open until the kernel has read the message */
	const struct nlmsghdr *other = NULL;
	struct net_link end;
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(k->msg, i, &number)); i++)
		if (number == p->space)
			other = find_number(net, p->other);
	if (ns < 0 || !other || !net_link_read(other, &end))
		return -ENODEV;
	put_end(m, &end, ns);
	return 0;
}

static const Gw__NsPair *find_pair(const Gw__NsNet *net, int index)
{
	for (size_t i = 0; i < net->n_pairs; i++)
		if (net->pairs[i]->index == (uint32_t)index)
			return net->pairs[i];
	return NULL;
}

/* --- one device --- */

/* Made by its own door; the program's descriptors are attached to it later (tun.c). */
static int make_tun(const struct net_link *l)
{
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	const struct nlattr *a[IFLA_TUN_MAX + 1];
	struct ifreq r = { 0 };

	netlink_nested(l->data, a, IFLA_TUN_MAX);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", l->name);
	r.ifr_flags = (short)((a[IFLA_TUN_TYPE] ? u8_of(a[IFLA_TUN_TYPE]) : IFF_TUN) | (u8_of(a[IFLA_TUN_PI]) ? 0 : IFF_NO_PI) |
			      (u8_of(a[IFLA_TUN_VNET_HDR]) ? IFF_VNET_HDR : 0) | (u8_of(a[IFLA_TUN_MULTI_QUEUE]) ? IFF_MULTI_QUEUE : 0));
	if (fd < 0 || ioctl(fd, TUNSETIFINDEX, &l->header->ifi_index) < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETPERSIST, 1L) < 0 ||
	    (a[IFLA_TUN_OWNER] && ioctl(fd, TUNSETOWNER, (long)net_attr_u32(a[IFLA_TUN_OWNER])) < 0) ||
	    (a[IFLA_TUN_GROUP] && ioctl(fd, TUNSETGROUP, (long)net_attr_u32(a[IFLA_TUN_GROUP])) < 0))
		return -errno;
	return 0;
}

/* Not everything that a device says about itself is taken when one is made. */
enum rule { NEVER, IF_NOT_ZERO, AS_FLAG };
static const struct {
	const char *kind;
	uint16_t type;
	enum rule rule;
} rules[] = {
	{ "bridge", BRIDGE_LEARNED, NEVER },
	{ "bridge", IFLA_BR_VLAN_FILTERING, IF_NOT_ZERO }, /* not every kernel has it, but all say it */
	{ "macvlan", IFLA_MACVLAN_MACADDR_COUNT, NEVER },
	{ "macvlan", IFLA_MACVLAN_BC_QUEUE_LEN_USED, NEVER },
	{ "port", IFLA_BRPORT_STATE, NEVER }, /* follows from its being on */
	{ "port", IFLA_BRPORT_MCAST_EHT_HOSTS_CNT, NEVER },
	{ "port", PORT_GROUPS, NEVER },
	{ "vxlan", IFLA_VXLAN_TTL_INHERIT, AS_FLAG },	/* says 0 or 1, but is set by being there */
	{ "vxlan", IFLA_VXLAN_REMCSUM_TX, IF_NOT_ZERO }, /* its being there claims bits of the header */
	{ "vxlan", IFLA_VXLAN_REMCSUM_RX, IF_NOT_ZERO },
};

static void put_one(struct nlmsghdr *m, const char *kind, const struct nlattr *a)
{
	unsigned type = mnl_attr_get_type(a);

	if (strcmp(kind, "bridge") == 0 && type == IFLA_BR_MULTI_BOOLOPT && mnl_attr_get_payload_len(a) == sizeof(struct br_boolopt_multi)) {
		struct br_boolopt_multi on = *(const struct br_boolopt_multi *)mnl_attr_get_payload(a);

		on.optmask &= on.optval; /* some cannot even be switched off in a kernel that lacks them, and all of them are off in a new bridge */
		if (on.optmask)
			mnl_attr_put(m, IFLA_BR_MULTI_BOOLOPT, sizeof(on), &on);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (type == rules[i].type && strcmp(kind, rules[i].kind) == 0) {
			if (rules[i].rule == AS_FLAG && u8_of(a))
				mnl_attr_put(m, (uint16_t)type, 0, NULL);
			else if (rules[i].rule == IF_NOT_ZERO && u8_of(a))
				netlink_copy(m, a);
			return;
		}
	netlink_copy(m, a);
}

void net_link_put_data(struct nlmsghdr *m, const struct net_link *l)
{
	struct nlattr *nest;
	const struct nlattr *a;

	if (!l->data)
		return;
	nest = mnl_attr_nest_start(m, IFLA_INFO_DATA);
	mnl_attr_for_each_nested(a, l->data)
		put_one(m, l->kind, a);
	mnl_attr_nest_end(m, nest);
}

static int make_link(const struct making *k, const struct net_link *l)
{
	char buf[NETLINK_BYTES];
	struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	struct nlattr *info, *data;
	uint32_t below = net_attr_u32(l->a[IFLA_LINK]);
	const struct nlmsghdr *other = find_number(k->net, below);
	Gw__NsPeer *peer = find_peer(k->net, l->header->ifi_index);
	const Gw__NsPair *pair = find_pair(k->net, l->header->ifi_index);
	struct net_link end;

	if (strcmp(l->kind, "tun") == 0)
		return make_tun(l);
	put_common(m, l);
	if (below && strcmp(l->kind, "veth"))
		mnl_attr_put_u32(m, IFLA_LINK, below);
	info = mnl_attr_nest_start(m, IFLA_LINKINFO);
	mnl_attr_put_strz(m, IFLA_INFO_KIND, l->kind);
	if (strcmp(l->kind, "veth") == 0) {
		data = mnl_attr_nest_start(m, IFLA_INFO_DATA);
		if (peer)
			put_end_at_host(k, m, peer);
		else if (pair ? put_end_elsewhere(k, m, pair) < 0 : !other || !net_link_read(other, &end))
			return -ENODEV;
		else if (!pair)
			put_end(m, &end, -1);
		mnl_attr_nest_end(m, data);
	} else {
		net_link_put_data(m, l);
	}
	mnl_attr_nest_end(m, info);
	return netlink_do(k->nl, m);
}

/*
 * Devices that the kernel makes with each namespace, and the other ends of pairs, are there. What needs others (a VLAN, a VXLAN) has its turn when these have been made.
 */
static int make_all(const struct making *k, struct err *e)
{
	struct err why = ERR_INIT;
	bool more = true;
	int failed = 0;

	while (more) {
		more = false;
		failed = 0;
		net_list_for_each(m, &k->net->lists[NET_LINKS]) {
			struct net_link l;
			int ret;

			if (!net_link_read(m, &l))
				return err_set(e, -EBADMSG, "a network device without a name");
			if (!l.kind[0] || exists(k->nl, l.name))
				continue;
			ret = make_link(k, &l);
			more |= ret == 0;
			if (ret < 0)
				failed = netlink_error(k->nl, ret, &why, "network device %s (%s)", l.name, l.kind);
		}
	}
	if (failed == -EOPNOTSUPP) {
		refusals_add(k->r, "ns.net.device", "this host's kernel has no such devices", "remove it there", "%s", why.message);
		return 0;
	}
	return failed ? err_set(e, failed, "%s", why.message) : 0;
}

/* --- what they are to each other --- */

static int send_set(struct netlink *nl, struct nlmsghdr *m, const struct net_link *l, const char *what, struct err *e)
{
	int ret;

	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index = l->header->ifi_index;
	ret = netlink_do(nl, m);
	return ret < 0 ? netlink_error(nl, ret, e, "network device %s: its %s", l->name, what) : 0;
}

/* What the bridge that it is a port of keeps about it. */
static void put_port(struct nlmsghdr *m, const struct net_link *l)
{
	struct nlattr *info = mnl_attr_nest_start(m, IFLA_LINKINFO), *data;
	const struct nlattr *a;

	netlink_copy(m, l->slave_kind);
	data = mnl_attr_nest_start(m, IFLA_INFO_SLAVE_DATA);
	mnl_attr_for_each_nested(a, l->slave_data)
		put_one(m, "port", a);
	mnl_attr_nest_end(m, data);
	mnl_attr_nest_end(m, info);
}

static int describe(struct netlink *nl, const struct net_link *l, struct err *e)
{
	char buf[NETLINK_BYTES];
	struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
	int ret = 0;

	if ((l->header->ifi_flags & IFF_LOOPBACK || !strcmp(l->kind, "tun")) && l->a[IFLA_MTU])
		netlink_copy(m, l->a[IFLA_MTU]);
	if (l->a[IFLA_MASTER])
		netlink_copy(m, l->a[IFLA_MASTER]);
	if (l->a[IFLA_IFALIAS])
		netlink_copy(m, l->a[IFLA_IFALIAS]);
	if (l->a[IFLA_TXQLEN])
		netlink_copy(m, l->a[IFLA_TXQLEN]);
	if (!strcmp(l->kind, "tun") && l->header->ifi_type == ARPHRD_ETHER && l->a[IFLA_ADDRESS])
		netlink_copy(m, l->a[IFLA_ADDRESS]); /* others are made with theirs */
	ret = send_set(nl, m, l, "master, alias or queue length", e);
	if (ret == 0 && l->a[IFLA_MASTER] && l->slave_kind && l->slave_data && !mnl_attr_validate(l->slave_kind, MNL_TYPE_NUL_STRING) &&
	    !strcmp(mnl_attr_get_str(l->slave_kind), "bridge")) {
		m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
		put_port(m, l);
		ret = send_set(nl, m, l, "settings as a bridge's port", e);
	}
	if (ret == 0 && l->a[IFLA_PROP_LIST]) {
		m = netlink_begin(buf, RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND, sizeof(struct ifinfomsg));
		netlink_copy(m, l->a[IFLA_PROP_LIST]);
		ret = send_set(nl, m, l, "other names", e);
	}
	return ret;
}

/* Ends at the host: nobody is told of them, and nothing passes, before they are ports of a bridge. */
static int prepare_peers(const struct making *k, struct err *e)
{
	for (size_t i = 0; i < k->net->n_peers; i++) {
		Gw__NsPeer *p = k->net->peers[i];
		char buf[256];
		struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
		struct ifinfomsg *h = mnl_nlmsg_get_payload(m);
		int ret = p->bridge[0] ? net_bridge_provide(k->host, k->host_ns, k->net, p, k->r, e) : 0;

		if (ret < 0 || k->r->n)
			return ret;
		h->ifi_flags = h->ifi_change = p->up ? IFF_UP : 0;
		mnl_attr_put_strz(m, IFLA_IFNAME, p->name);
		ret = netlink_do(k->host, m);
		if (ret < 0)
			return netlink_error(k->host, ret, e, "network device %s on the host", p->name);
	}
	return 0;
}

void net_pairs_number(struct netlink *nl, const Gw__NsNet *net)
{
	for (size_t i = 0; i < net->n_pairs; i++) {
		const Gw__NsPair *p = net->pairs[i];
		char buf[128];
		struct nlmsghdr *m = netlink_begin(buf, RTM_NEWNSID, 0, sizeof(struct rtgenmsg));

		mnl_attr_put_u32(m, NETNSA_NSID, (uint32_t)p->id);
		mnl_attr_put_u32(m, NETNSA_FD, (uint32_t)(p->space ? ns_others_fd(p->space) : ns_first_fd(NS_NET)));
		(void)netlink_do(nl, m);
	}
}

int net_links_make(struct netlink *nl, struct netlink *host, int host_ns, const Gw__Namespaces *msg, const Gw__NsNet *net, struct refusals *r, struct err *e)
{
	struct making k = { nl, host, host_ns, msg, net, r };
	int ret = make_all(&k, e);

	if (ret < 0 || r->n)
		return ret;
	net_list_for_each(m, &net->lists[NET_LINKS]) {
		struct net_link l;

		ret = net_link_read(m, &l) ? describe(nl, &l, e) : 0;
		if (ret < 0)
			return ret;
	}
	return prepare_peers(&k, e);
}

int net_links_up(struct netlink *nl, const Gw__NsNet *net, struct err *e)
{
	net_list_for_each(m, &net->lists[NET_LINKS]) {
		char buf[256];
		struct nlmsghdr *request = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
		struct ifinfomsg *h = mnl_nlmsg_get_payload(request);
		struct net_link l;
		int ret;

		if (!net_link_read(m, &l))
			continue;
		h->ifi_flags = l.header->ifi_flags & FLAGS;
		h->ifi_change = FLAGS;
		ret = send_set(nl, request, &l, "flags", e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static bool is_running(const ProtobufCBinaryData *links, uint32_t index)
{
	net_list_for_each(m, links) {
		const struct ifinfomsg *h = mnl_nlmsg_get_payload(m);

		if ((uint32_t)h->ifi_index == index)
			return h->ifi_flags & IFF_RUNNING;
	}
	return false;
}

void net_links_settle(struct netlink *nl, const Gw__NsNet *net)
{
	bool settled = false;

	for (unsigned i = 0; i < SETTLE_MS / SETTLE_STEP_MS && !settled; i++) {
		ProtobufCBinaryData now = { 0 };

		if (i)
			nanosleep(&(struct timespec){ .tv_nsec = SETTLE_STEP_MS * 1000000 }, NULL);
		settled = net_list_capture(nl, NET_LINKS, &now, NULL) == 0;
		net_list_for_each(m, &net->lists[NET_LINKS]) {
			struct net_link l;

			if (net_link_read(m, &l) && strcmp(l.kind, "tun") && l.header->ifi_flags & IFF_RUNNING && !is_running(&now, (uint32_t)l.header->ifi_index))
				settled = false;
		}
		free(now.data);
	}
}

/* --- in the freeze --- */

static int set_master(struct netlink *host, const char *name, uint32_t master)
{
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));

	mnl_attr_put_strz(m, IFLA_IFNAME, name);
	mnl_attr_put_u32(m, IFLA_MASTER, master);
	return netlink_do(host, m);
}

int net_peers_attach(struct netlink *host, const Gw__NsNet *net, struct err *e)
{
	for (size_t i = 0; i < net->n_peers; i++) {
		const Gw__NsPeer *p = net->peers[i];
		uint32_t bridge;
		int ret;

		if (!p->bridge[0])
			continue;
		bridge = net_number_of(host, p->bridge);
		if (!bridge && net_bridge_again(host, p, e) == 0)
			bridge = net_number_of(host, p->bridge);
		ret = bridge ? set_master(host, p->name, bridge) : -ENODEV;
		if (ret < 0)
			return netlink_error(host, ret, e, "network device %s: making it a port of %s", p->name, p->bridge);
	}
	return 0;
}

void net_peers_detach(struct netlink *host, const Gw__NsNet *net)
{
	for (size_t i = 0; i < net->n_peers; i++)
		if (net->peers[i]->bridge[0])
			(void)set_master(host, net->peers[i]->name, 0);
}
