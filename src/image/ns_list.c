/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_list.c - see ns_list.h */
#include "image/ns_list.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_addrlabel.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include "base/util.h"
#include "image/bytes.h"

#define ADDRESS_FLAGS (IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR) /* that are set from outside */
#define ROUTE_FLAGS (RTNH_F_ONLINK | RTNH_F_PERVASIVE)
#define TICKS_PER_SECOND 100
#define KERNEL_MS 100u

struct list_class {
	const char *name;
	uint16_t get, put, del; /* del 0: what the kernel has made by itself may stay */
	size_t header;
	bool (*wanted)(const struct nlmsghdr *m);
	/* Writes what is sent to the kernel to make the same thing; `key`: without what may differ. `out` has the header already. */
	void (*tidy)(struct nlmsghdr *out, const struct nlmsghdr *in, bool key);
};

static bool is_ip(unsigned family)
{
	return family == AF_INET || family == AF_INET6;
}

static bool any_of_ip(const struct nlmsghdr *m)
{
	return is_ip(((const struct rtgenmsg *)mnl_nlmsg_get_payload(m))->rtgen_family);
}

/* --- addresses --- */

static void tidy_address(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct ifaddrmsg *h = mnl_nlmsg_get_payload(out);
	uint32_t flags = h->ifa_flags;
	const struct nlattr *a;

	mnl_attr_for_each(a, in, sizeof(*h)) {
		unsigned type = mnl_attr_get_type(a);

		if (type == IFA_FLAGS)
			flags = mnl_attr_get_u32(a);
		else if (type != IFA_TARGET_NETNSID && !(key && (type == IFA_CACHEINFO || type == IFA_PROTO)))
			netlink_copy(out, a);
	}
	h->ifa_flags = 0;
	mnl_attr_put_u32(out, IFA_FLAGS, flags & (key ? ADDRESS_FLAGS : ADDRESS_FLAGS | IFA_F_NODAD));
}

void net_settled_addresses(const ProtobufCBinaryData *all, ProtobufCBinaryData *ret)
{
	*ret = (ProtobufCBinaryData){ 0 };
	net_list_for_each(m, all) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);

		if (!(h->ifa_flags & IFA_F_TENTATIVE))
			bytes_append(ret, m, NLMSG_ALIGN(m->nlmsg_len));
	}
}

/* --- routes and next hops --- */

static bool want_route(const struct nlmsghdr *m)
{
	const struct rtmsg *h = mnl_nlmsg_get_payload(m);

	return is_ip(h->rtm_family) && !(h->rtm_flags & RTM_F_CLONED);
}

static void clear_hop_flags(struct nlattr *multipath)
{
	struct rtnexthop *hop = mnl_attr_get_payload(multipath);
	int left = mnl_attr_get_payload_len(multipath);

	while (RTNH_OK(hop, left)) {
		hop->rtnh_flags &= ROUTE_FLAGS;
		left -= (int)RTNH_ALIGN(hop->rtnh_len);
		hop = RTNH_NEXT(hop);
	}
}

static void copy_route_attribute(struct nlmsghdr *out, const struct nlattr *a, bool has_object, bool key)
{
	struct nlattr *copy = mnl_nlmsg_get_payload_tail(out);

	switch (mnl_attr_get_type(a)) {
	case RTA_CACHEINFO: {
		const struct rta_cacheinfo *c = mnl_attr_get_payload(a);

		if (!key && mnl_attr_get_payload_len(a) >= sizeof(*c) && c->rta_expires > 0)
			mnl_attr_put_u32(out, RTA_EXPIRES, (uint32_t)c->rta_expires / TICKS_PER_SECOND + 1);
		return;
	}
	case RTA_OIF:
	case RTA_GATEWAY:
	case RTA_VIA:
		if (!has_object) /* that says them */
			netlink_copy(out, a);
		return;
	case RTA_MULTIPATH:
		if (has_object)
			return;
		netlink_copy(out, a);
		clear_hop_flags(copy);
		return;
	default:
		netlink_copy(out, a);
	}
}

static void tidy_route(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct rtmsg *h = mnl_nlmsg_get_payload(out);
	const struct nlattr *a, *table[RTA_NH_ID + 1];

	netlink_attributes(in, sizeof(*h), table, RTA_NH_ID);
	h->rtm_flags &= ROUTE_FLAGS;
	mnl_attr_for_each(a, in, sizeof(*h))
		copy_route_attribute(out, a, table[RTA_NH_ID], key);
}

static bool want_any(const struct nlmsghdr *m)
{
	return true;
}

static void tidy_nexthop(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct nhmsg *h = mnl_nlmsg_get_payload(out);
	const struct nlattr *a;

	h->nh_flags &= RTNH_F_ONLINK;
	h->nh_scope = 0;
	mnl_attr_for_each(a, in, sizeof(*h))
		netlink_copy(out, a);
}

static void tidy_rule(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct fib_rule_hdr *h = mnl_nlmsg_get_payload(out);
	const struct nlattr *a;

	h->flags &= FIB_RULE_INVERT;
	mnl_attr_for_each(a, in, sizeof(*h))
		netlink_copy(out, a);
}

/* --- neighbours --- */

static bool want_neighbour(const struct nlmsghdr *m)
{
	const struct ndmsg *h = mnl_nlmsg_get_payload(m);

	return is_ip(h->ndm_family) && (h->ndm_state & NUD_PERMANENT || h->ndm_flags & NTF_PROXY);
}

static bool want_forwarding(const struct nlmsghdr *m)
{
	const struct ndmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *table[NDA_MASTER + 1];

	netlink_attributes(m, sizeof(*h), table, NDA_MASTER);
	/* Group addresses are there because somebody is a member. */
	return h->ndm_family == AF_BRIDGE && h->ndm_state & (NUD_PERMANENT | NUD_NOARP) &&
	       !(h->ndm_flags & NTF_SELF && table[NDA_LLADDR] && *(const uint8_t *)mnl_attr_get_payload(table[NDA_LLADDR]) & 1);
}

static void tidy_neighbour(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct ndmsg *h = mnl_nlmsg_get_payload(out);
	const struct nlattr *a;

	if (h->ndm_family == AF_BRIDGE && !(h->ndm_flags & NTF_SELF)) {
		const struct nlattr *table[NDA_MASTER + 1];

		netlink_attributes(in, sizeof(*h), table, NDA_MASTER);
		h->ndm_flags |= table[NDA_MASTER] && mnl_attr_get_u32(table[NDA_MASTER]) != (uint32_t)h->ndm_ifindex ? NTF_MASTER : NTF_SELF;
	}
	mnl_attr_for_each(a, in, sizeof(*h)) {
		unsigned type = mnl_attr_get_type(a);

		if (type != NDA_CACHEINFO && type != NDA_PROBES && type != NDA_MASTER)
			netlink_copy(out, a);
	}
}

static void tidy_label(struct nlmsghdr *out, const struct nlmsghdr *in, bool key)
{
	struct ifaddrlblmsg *h = mnl_nlmsg_get_payload(out);
	const struct nlattr *a;

	h->ifal_seq = 0;
	mnl_attr_for_each(a, in, sizeof(*h))
		netlink_copy(out, a);
}

static const struct list_class classes[NET_LISTS] = {
	[NET_LINKS] = { "device", RTM_GETLINK, RTM_NEWLINK, 0, sizeof(struct ifinfomsg), want_any, NULL },
	[NET_ADDRESSES] = { "address", RTM_GETADDR, RTM_NEWADDR, RTM_DELADDR, sizeof(struct ifaddrmsg), any_of_ip, tidy_address },
	[NET_NEXTHOPS] = { "next hop", RTM_GETNEXTHOP, RTM_NEWNEXTHOP, RTM_DELNEXTHOP, sizeof(struct nhmsg), want_any, tidy_nexthop },
	[NET_RULES] = { "routing rule", RTM_GETRULE, RTM_NEWRULE, RTM_DELRULE, sizeof(struct fib_rule_hdr), any_of_ip, tidy_rule },
	[NET_ROUTES] = { "route", RTM_GETROUTE, RTM_NEWROUTE, RTM_DELROUTE, sizeof(struct rtmsg), want_route, tidy_route },
	[NET_NEIGHBOURS] = { "neighbour", RTM_GETNEIGH, RTM_NEWNEIGH, 0, sizeof(struct ndmsg), want_neighbour, tidy_neighbour },
	[NET_FORWARDING] = { "bridge's or VXLAN's forwarding entry", RTM_GETNEIGH, RTM_NEWNEIGH, 0, sizeof(struct ndmsg), want_forwarding, tidy_neighbour },
	[NET_LABELS] = { "address label", RTM_GETADDRLABEL, RTM_NEWADDRLABEL, RTM_DELADDRLABEL, sizeof(struct ifaddrlblmsg), want_any, tidy_label },
};

/* --- reading --- */

struct reading {
	const struct list_class *class;
	ProtobufCBinaryData *list;
};

static int take(const struct nlmsghdr *m, void *arg)
{
	const struct reading *r = arg;

	if (m->nlmsg_type == r->class->put && mnl_nlmsg_get_payload_len(m) >= r->class->header && r->class->wanted(m))
		bytes_append(r->list, m, NLMSG_ALIGN(m->nlmsg_len));
	return 0;
}

static int read_list(struct netlink *nl, enum net_list kind, uint8_t neighbour_flags, ProtobufCBinaryData *ret)
{
	char buf[256];
	struct reading reading = { &classes[kind], ret };
	struct nlmsghdr *m = netlink_begin(buf, classes[kind].get, 0, classes[kind].header);

	if (kind == NET_FORWARDING)
		((struct rtgenmsg *)mnl_nlmsg_get_payload(m))->rtgen_family = AF_BRIDGE;
	if (neighbour_flags)
		((struct ndmsg *)mnl_nlmsg_get_payload(m))->ndm_flags = neighbour_flags;
	return netlink_dump(nl, m, take, &reading);
}

int net_list_capture(struct netlink *nl, enum net_list kind, ProtobufCBinaryData *ret, struct err *e)
{
	int code = -EINTR;

	for (unsigned i = 0; i < 10 && code == -EINTR; i++) { /* it changed while it was read */
		bytes_set(ret, NULL, 0);
		code = read_list(nl, kind, 0, ret);
		if (code == 0 && kind == NET_NEIGHBOURS)
			code = read_list(nl, kind, NTF_PROXY, ret);
	}
	if (code == -EOPNOTSUPP && (kind == NET_NEXTHOPS || kind == NET_LABELS))
		return 0;
	return code < 0 ? err_sys(e, -code, "the network's list: %s", classes[kind].name) : 0;
}

bool net_list_is_valid(enum net_list kind, const ProtobufCBinaryData *list)
{
	int left = (int)list->len;
	const struct nlmsghdr *m = (const void *)list->data;

	for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left))
		if (m->nlmsg_type != classes[kind].put || m->nlmsg_len > NETLINK_BYTES / 2 || mnl_nlmsg_get_payload_len(m) < MNL_ALIGN(classes[kind].header))
			return false;
	return left == 0;
}

/* --- making it the same --- */

static struct nlmsghdr *tidied(char *buf, const struct list_class *class, uint16_t type, const struct nlmsghdr *in, bool key)
{
	struct nlmsghdr *m = netlink_begin(buf, type, 0, class->header);

	memcpy(mnl_nlmsg_get_payload(m), mnl_nlmsg_get_payload(in), class->header);
	class->tidy(m, in, key);
	return m;
}

static bool is_in(const struct list_class *class, const ProtobufCBinaryData *list, const struct nlmsghdr *one)
{
	char a[NETLINK_BYTES], b[NETLINK_BYTES];
	struct nlmsghdr *key = tidied(a, class, class->put, one, true);

	net_list_for_each(m, list) {
		struct nlmsghdr *other = tidied(b, class, class->put, m, true);

		if (key->nlmsg_len == other->nlmsg_len && !memcmp(key, other, key->nlmsg_len))
			return true;
	}
	return false;
}

/* Adds what is not in `now`. What depends on others (a route over a gateway) has its turn when these are there. */
static int add_missing(struct netlink *nl, const struct list_class *class, const ProtobufCBinaryData *list, const ProtobufCBinaryData *now, struct err *e)
{
	ProtobufCBinaryData missing = { 0 };
	char buf[NETLINK_BYTES];
	int code = 0;

	net_list_for_each(m, list)
		if (!is_in(class, now, m))
			bytes_append(&missing, m, NLMSG_ALIGN(m->nlmsg_len));
	for (size_t before = 0; missing.len && missing.len != before;) {
		ProtobufCBinaryData rest = { 0 };

		before = missing.len;
		net_list_for_each(m, &missing) {
			struct nlmsghdr *request = tidied(buf, class, class->put, m, false);
			int ret;

			request->nlmsg_flags |= NLM_F_CREATE | (class->put == RTM_NEWROUTE ? NLM_F_APPEND : NLM_F_EXCL);
			ret = netlink_do(nl, request);
			if (ret < 0 && ret != -EEXIST) {
				code = ret;
				bytes_append(&rest, m, NLMSG_ALIGN(m->nlmsg_len));
			}
		}
		free(missing.data);
		missing = rest;
	}
	free(missing.data);
	return missing.len ? netlink_error(nl, code, e, "the unit's network: a %s cannot be made here", class->name) : 0;
}

/* Whether the list lacks a route that the kernel itself makes with an address: for those of version 6 it does that in a task of its own. */
static bool awaits_kernel(const ProtobufCBinaryData *list, const ProtobufCBinaryData *now)
{
	net_list_for_each(m, list) {
		const struct rtmsg *h = mnl_nlmsg_get_payload(m);

		if (h->rtm_protocol == RTPROT_KERNEL && h->rtm_family == AF_INET6 && !is_in(&classes[NET_ROUTES], now, m))
			return true;
	}
	return false;
}

static int read_settled(struct netlink *nl, enum net_list kind, const ProtobufCBinaryData *list, ProtobufCBinaryData *now, struct err *e)
{
	int ret = net_list_capture(nl, kind, now, e);

	for (unsigned i = 0; i < KERNEL_MS && ret == 0 && kind == NET_ROUTES && awaits_kernel(list, now); i++) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		ret = net_list_capture(nl, kind, now, e);
	}
	return ret;
}

int net_list_restore(struct netlink *nl, enum net_list kind, const ProtobufCBinaryData *list, struct err *e)
{
	const struct list_class *class = &classes[kind];
	ProtobufCBinaryData now = { 0 };
	char buf[NETLINK_BYTES];
	int ret = read_settled(nl, kind, list, &now, e);

	if (ret == 0 && class->del)
		net_list_for_each(m, &now)
			if (!is_in(class, list, m))
				(void)netlink_do(nl, tidied(buf, class, class->del, m, true));
	if (ret == 0)
		ret = add_missing(nl, class, list, &now, e);
	free(now.data);
	return ret;
}
