/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_conntrack.c - the table of tracked connections; see ns_conntrack.h
 *
 * The kernel does not take everything as it says it. That a connection is translated it takes as an order to translate: its answering tuple is sent as if it were not, with
 * the addresses that it is to get. Of flags it takes those that a mask names.
 */
#include "image/ns_conntrack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/netlink.h"

#define TYPE(subsystem, message) ((uint16_t)((subsystem) << 8 | (message)))
#define CONNECTION TYPE(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW)
#define STATUS_SET (IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED | IPS_FIXED_TIMEOUT)

/* --- reading --- */

static bool is_any(void)
{
	cleanup_close int fd = open("/proc/sys/net/netfilter/nf_conntrack_count", O_RDONLY | O_CLOEXEC);
	char text[16];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	return n > 0 && text[0] != '0';
}

static int take(const struct nlmsghdr *m, void *arg)
{
	if (m->nlmsg_type == CONNECTION)
		bytes_append(arg, m, NLMSG_ALIGN(m->nlmsg_len));
	return 0;
}

int conntrack_capture(ProtobufCBinaryData *ret, struct err *e)
{
	struct netlink nl = { 0 };
	char buf[256];
	int code;

	bytes_set(ret, NULL, 0);
	if (!is_any())
		return 0;
	code = netlink_open(&nl, NETLINK_NETFILTER, -1, e);
	if (code < 0)
		return code;
	code = netlink_dump(&nl, netlink_begin(buf, TYPE(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET), 0, sizeof(struct nfgenmsg)), take, ret);
	netlink_close(&nl);
	return code < 0 ? err_sys(e, -code, "the table of tracked connections") : 0;
}

static int count(const struct nlmsghdr *m, void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

int conntrack_refuse(struct refusals *r, struct err *e)
{
	struct netlink nl = { 0 };
	unsigned expected = 0;
	char buf[256];
	int code = is_any() ? netlink_open(&nl, NETLINK_NETFILTER, -1, e) : 0;

	if (!nl.socket)
		return code;
	(void)netlink_dump(&nl, netlink_begin(buf, TYPE(NFNL_SUBSYS_CTNETLINK_EXP, IPCTNL_MSG_EXP_GET), 0, sizeof(struct nfgenmsg)), count, &expected);
	netlink_close(&nl);
	if (expected)
		refusals_add(r, "ns.net.conntrack", "a helper (FTP, SIP, ...) expects connections that belong to others, and what it knows cannot move", "wait until they are over",
			     "network namespace (%u expected connections)", expected);
	return 0;
}

bool conntrack_is_valid(const ProtobufCBinaryData *list)
{
	int left = (int)list->len;
	const struct nlmsghdr *m = (const void *)list->data;

	for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left))
		if (m->nlmsg_type != CONNECTION || m->nlmsg_len > NETLINK_BYTES / 2 || mnl_nlmsg_get_payload_len(m) < sizeof(struct nfgenmsg))
			return false;
	return left == 0;
}

/* --- making it the same --- */

/* One tuple; addresses and ports stay as they lie in the message. */
struct tuple {
	const struct nlattr *source, *dest; /* addresses */
	const struct nlattr *number, *source_port, *dest_port;
	bool v6;
};

static bool read_tuple(const struct nlattr *a, struct tuple *ret)
{
	const struct nlattr *parts[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1], *proto[CTA_PROTO_MAX + 1];

	netlink_nested(a, parts, CTA_TUPLE_MAX);
	netlink_nested(parts[CTA_TUPLE_IP], ip, CTA_IP_MAX);
	netlink_nested(parts[CTA_TUPLE_PROTO], proto, CTA_PROTO_MAX);
	ret->v6 = ip[CTA_IP_V6_SRC];
	ret->source = ip[ret->v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC];
	ret->dest = ip[ret->v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST];
	ret->number = proto[CTA_PROTO_NUM];
	ret->source_port = proto[CTA_PROTO_SRC_PORT];
	ret->dest_port = proto[CTA_PROTO_DST_PORT];
	return ret->source && ret->dest && ret->number && ret->source_port && ret->dest_port;
}

static void put(struct nlmsghdr *m, uint16_t type, const struct nlattr *value)
{
	mnl_attr_put(m, type, mnl_attr_get_payload_len(value), mnl_attr_get_payload(value));
}

/* The answer to what was asked when nothing is translated. */
static void put_answer(struct nlmsghdr *m, const struct tuple *asked)
{
	struct nlattr *whole = mnl_attr_nest_start(m, CTA_TUPLE_REPLY), *part = mnl_attr_nest_start(m, CTA_TUPLE_IP);

	put(m, asked->v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, asked->dest);
	put(m, asked->v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST, asked->source);
	mnl_attr_nest_end(m, part);
	part = mnl_attr_nest_start(m, CTA_TUPLE_PROTO);
	put(m, CTA_PROTO_NUM, asked->number);
	put(m, CTA_PROTO_SRC_PORT, asked->dest_port);
	put(m, CTA_PROTO_DST_PORT, asked->source_port);
	mnl_attr_nest_end(m, part);
	mnl_attr_nest_end(m, whole);
}

static void put_translation(struct nlmsghdr *m, uint16_t type, bool v6, const struct nlattr *address, const struct nlattr *port)
{
	struct nlattr *whole = mnl_attr_nest_start(m, type), *part;

	put(m, v6 ? CTA_NAT_V6_MINIP : CTA_NAT_V4_MINIP, address);
	put(m, v6 ? CTA_NAT_V6_MAXIP : CTA_NAT_V4_MAXIP, address);
	part = mnl_attr_nest_start(m, CTA_NAT_PROTO);
	put(m, CTA_PROTONAT_PORT_MIN, port);
	put(m, CTA_PROTONAT_PORT_MAX, port);
	mnl_attr_nest_end(m, part);
	mnl_attr_nest_end(m, whole);
}

/* Who is asked under other addresses answers with these. */
static int put_translated(struct nlmsghdr *m, const struct nlattr *const *a, uint32_t status, struct err *e)
{
	struct tuple asked, answered;

	if (!read_tuple(a[CTA_TUPLE_ORIG], &asked) || !read_tuple(a[CTA_TUPLE_REPLY], &answered) || asked.v6 != answered.v6)
		return err_set(e, -EOPNOTSUPP, "a tracked connection is translated, and is not of a protocol with ports");
	put_answer(m, &asked);
	if (status & IPS_SRC_NAT)
		put_translation(m, CTA_NAT_SRC, asked.v6, answered.dest, answered.dest_port);
	if (status & IPS_DST_NAT)
		put_translation(m, CTA_NAT_DST, asked.v6, answered.source, answered.source_port);
	return 0;
}

/* A copy of it, in which the flags of both directions are to be taken whole. */
static void put_protocol(struct nlmsghdr *m, const struct nlattr *a)
{
	const struct nlattr *info[CTA_PROTOINFO_MAX + 1], *tcp[CTA_PROTOINFO_TCP_MAX + 1];
	static const int flags[] = { CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY };
	const struct nlattr *copy = mnl_nlmsg_get_payload_tail(m);

	netlink_copy(m, a);
	netlink_nested(copy, info, CTA_PROTOINFO_MAX);
	netlink_nested(info[CTA_PROTOINFO_TCP], tcp, CTA_PROTOINFO_TCP_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (tcp[flags[i]] && mnl_attr_get_payload_len(tcp[flags[i]]) >= sizeof(struct nf_ct_tcp_flags))
			((struct nf_ct_tcp_flags *)mnl_attr_get_payload(tcp[flags[i]]))->mask = 0xff;
}

static int make_one(struct netlink *nl, const struct nlmsghdr *m, const struct nlattr *const *a, struct err *e)
{
	static const uint16_t as_they_are[] = { CTA_TUPLE_ORIG, CTA_ZONE, CTA_TIMEOUT, CTA_MARK, CTA_LABELS, CTA_HELP, CTA_TUPLE_MASTER, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY };
	uint32_t status = a[CTA_STATUS] && mnl_attr_get_payload_len(a[CTA_STATUS]) == sizeof(status) ? ntohl(mnl_attr_get_u32(a[CTA_STATUS])) : 0;
	char buf[NETLINK_BYTES];
	struct nlmsghdr *out = netlink_begin(buf, CONNECTION, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct nfgenmsg));
	int ret = 0;

	*(struct nfgenmsg *)mnl_nlmsg_get_payload(out) = *(const struct nfgenmsg *)mnl_nlmsg_get_payload(m);
	for (size_t i = 0; i < ARRAY_SIZE(as_they_are); i++)
		if (a[as_they_are[i]])
			netlink_copy(out, a[as_they_are[i]]);
	if (status & IPS_NAT_MASK)
		ret = put_translated(out, a, status, e);
	else if (a[CTA_TUPLE_REPLY])
		netlink_copy(out, a[CTA_TUPLE_REPLY]);
	if (a[CTA_PROTOINFO])
		put_protocol(out, a[CTA_PROTOINFO]);
	mnl_attr_put_u32(out, CTA_STATUS, htonl(status & STATUS_SET));
	if (ret < 0)
		return ret;
	ret = netlink_do(nl, out);
	return ret < 0 ? netlink_error(nl, ret, e, "a tracked connection cannot be made here") : 0;
}

/* With those that belong to others after these. One without a time that it has left is in nobody's hands but a device's, and found anew. */
static int make_all(struct netlink *nl, const ProtobufCBinaryData *list, bool belonging, struct err *e)
{
	const struct nlmsghdr *m = (const void *)list->data;
	int left = (int)list->len, ret = 0;

	for (; ret == 0 && mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
		const struct nlattr *a[CTA_MAX + 1];

		netlink_attributes(m, sizeof(struct nfgenmsg), a, CTA_MAX);
		if (a[CTA_TIMEOUT] && (a[CTA_TUPLE_MASTER] != NULL) == belonging)
			ret = make_one(nl, m, a, e);
	}
	return ret;
}

int conntrack_restore(const ProtobufCBinaryData *list, struct err *e)
{
	struct netlink nl = { 0 };
	char buf[256];
	int ret = list->len || is_any() ? netlink_open(&nl, NETLINK_NETFILTER, -1, e) : 0;

	if (!nl.socket)
		return ret;
	ret = netlink_do(&nl, netlink_begin(buf, TYPE(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE), 0, sizeof(struct nfgenmsg)));
	if (ret < 0)
		ret = netlink_error(&nl, ret, e, "emptying the table of tracked connections");
	for (int belonging = 0; belonging < 2 && ret == 0; belonging++)
		ret = make_all(&nl, list, belonging, e);
	netlink_close(&nl);
	return ret;
}
