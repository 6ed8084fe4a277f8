/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_net_refuse.c - what of a network namespace nobody carries; see ns_net_refuse.h */
#include "image/ns_net_refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_bridge.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ns_conntrack.h"
#include "kern/netlink.h"
#include "kern/nsfs.h"

/* Newer than the headers, perhaps. */
#define ATTACH_FLOW_DISSECTOR 17u
#define ATTACH_SK_LOOKUP 36u
#define ATTACH_TCX_INGRESS 46u
#define ATTACH_TCX_EGRESS 47u
/* <linux/netfilter/ipset/ip_set.h> does not go with user space's headers. */
#define SET_LIST 7u
#define SET_PROTOCOL 1u
#define SET_PROTOCOL_VERSION 6u
#define NF(subsystem, message) ((uint16_t)((subsystem) << 8 | (message)))
#define FAMILY_IPMR 128u
#define FAMILY_IP6MR 129u

/* A list of the kernel that is empty where there is nothing. */
static const struct probe {
	int protocol;
	uint16_t type;
	uint8_t family;
	size_t header;
	const char *what, *way_out;
} probes[] = {
	{ NETLINK_XFRM, XFRM_MSG_GETSA, 0, sizeof(struct xfrm_usersa_id), "security associations of IPsec", "remove them (ip xfrm state flush)" },
	{ NETLINK_XFRM, XFRM_MSG_GETPOLICY, 0, sizeof(struct xfrm_userpolicy_id), "policies of IPsec", "remove them (ip xfrm policy flush)" },
	{ NETLINK_ROUTE, RTM_GETROUTE, FAMILY_IPMR, sizeof(struct rtmsg), "multicast routes", "end the multicast routing daemon" },
	{ NETLINK_ROUTE, RTM_GETROUTE, FAMILY_IP6MR, sizeof(struct rtmsg), "multicast routes", "end the multicast routing daemon" },
	{ NETLINK_NETFILTER, NF(NFNL_SUBSYS_ACCT, 1 /* NFNL_MSG_ACCT_GET */), 0, sizeof(struct nfgenmsg), "counters of nfacct(8)", "remove them (nfacct flush)" },
	{ NETLINK_NETFILTER, NF(NFNL_SUBSYS_CTNETLINK_TIMEOUT, 1 /* IPCTNL_MSG_TIMEOUT_GET */), 0, sizeof(struct nfgenmsg), "timeout policies of connection tracking", "remove them (nfct timeout)" },
	{ NETLINK_NETFILTER, NF(NFNL_SUBSYS_CTHELPER, 1 /* NFNL_MSG_CTHELPER_GET */), 0, sizeof(struct nfgenmsg), "helpers of connection tracking in user space", "remove them (nfct helper)" },
};

/* A file that says something, or has more than one line, where there is something. */
static const struct file_probe {
	const char *path, *what, *way_out;
	bool header;
} file_probes[] = {
	{ "/proc/thread-self/net/arp_tables_names", "rules of arptables", "use nftables, or remove them", false },
	{ "/proc/thread-self/net/ip_mr_vif", "interfaces of multicast routing", "end the multicast routing daemon", true },
	{ "/proc/thread-self/net/ip6_mr_vif", "interfaces of multicast routing", "end the multicast routing daemon", true },
};

static int count(const struct nlmsghdr *m, void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

/* How many messages the kernel answers with; 0 also where it has no such thing. */
static unsigned ask(int protocol, struct nlmsghdr *request)
{
	struct netlink nl = { 0 };
	unsigned n = 0;

	if (netlink_open(&nl, protocol, -1, NULL) == 0)
		(void)netlink_dump(&nl, request, count, &n);
	netlink_close(&nl);
	return n;
}

static unsigned dump(int protocol, uint16_t type, size_t header, uint8_t family)
{
	char buf[512];
	struct nlmsghdr *m = netlink_begin(buf, type, 0, header);

	*(uint8_t *)mnl_nlmsg_get_payload(m) = family;
	return ask(protocol, m);
}

static unsigned lines(const char *path)
{
	cleanup_fclose FILE *f = fopen(path, "re");
	unsigned n = 0;
	int c;

	while (f && (c = fgetc(f)) != EOF)
		n += c == '\n';
	return n;
}

bool net_has_sets(void)
{
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, NF(NFNL_SUBSYS_IPSET, SET_LIST), 0, sizeof(struct nfgenmsg));

	mnl_attr_put_u8(m, SET_PROTOCOL, SET_PROTOCOL_VERSION);
	return ask(NETLINK_NETFILTER, m) > 0;
}

bool net_has_tables(void)
{
	return dump(NETLINK_NETFILTER, NF(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE), sizeof(struct nfgenmsg), 0) > 0;
}

bool net_has_iptables(void)
{
	return lines("/proc/thread-self/net/ip_tables_names") > 0;
}

bool net_has_ip6tables(void)
{
	return lines("/proc/thread-self/net/ip6_tables_names") > 0;
}

static void refuse(struct refusals *r, const char *what, const char *way_out)
{
	refusals_add(r, "ns.net.other", "they cannot move yet", way_out, "network namespace (%s)", what);
}

/* --- members of groups that were put into bridges and devices by hand --- */

static int find_permanent(const struct nlmsghdr *m, void *arg)
{
	const struct nlattr *a[MDBA_MAX + 1], *one, *group, *info;

	netlink_attributes(m, sizeof(struct br_port_msg), a, MDBA_MAX);
	if (a[MDBA_MDB])
		mnl_attr_for_each_nested(one, a[MDBA_MDB])
			mnl_attr_for_each_nested(group, one)
				if (mnl_attr_get_payload_len(info = group) >= sizeof(struct br_mdb_entry))
					*(bool *)arg |= ((const struct br_mdb_entry *)mnl_attr_get_payload(info))->state == MDB_PERMANENT;
	return 0;
}

static bool has_permanent_groups(void)
{
	struct netlink nl = { 0 };
	bool found = false;
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETMDB, 0, sizeof(struct br_port_msg));

	((struct br_port_msg *)mnl_nlmsg_get_payload(m))->family = AF_BRIDGE;
	if (netlink_open(&nl, NETLINK_ROUTE, -1, NULL) == 0)
		(void)netlink_dump(&nl, m, find_permanent, &found);
	netlink_close(&nl);
	return found;
}

/* The fourth column says how many have asked for an address from outside of the kernel. */
static bool has_set_addresses(void)
{
	cleanup_fclose FILE *f = fopen("/proc/thread-self/net/dev_mcast", "re");
	int global;

	while (f && fscanf(f, "%*d %*s %*d %d %*s", &global) == 1)
		if (global > 0)
			return true;
	return false;
}

/* --- programs of BPF --- */

static bool has_program(uint32_t target, uint32_t type)
{
	union bpf_attr attr = { .query = { .target_fd = target, .attach_type = type } };

	return syscall(SYS_bpf, BPF_PROG_QUERY, &attr, sizeof(attr)) == 0 && attr.query.prog_cnt > 0;
}

static bool has_programs(void)
{
	cleanup_close int ns = ns_open(0, NS_NET);
	struct if_nameindex *devices = if_nameindex();
	bool found = has_program((uint32_t)ns, ATTACH_FLOW_DISSECTOR) || has_program((uint32_t)ns, ATTACH_SK_LOOKUP);

	for (size_t i = 0; devices && devices[i].if_index; i++)
		found |= has_program(devices[i].if_index, ATTACH_TCX_INGRESS) || has_program(devices[i].if_index, ATTACH_TCX_EGRESS);
	if (devices)
		if_freenameindex(devices);
	return found;
}

int ns_net_refuse(struct refusals *r, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(probes); i++)
		if (dump(probes[i].protocol, probes[i].type, probes[i].header, probes[i].family))
			refuse(r, probes[i].what, probes[i].way_out);
	for (size_t i = 0; i < ARRAY_SIZE(file_probes); i++)
		if (lines(file_probes[i].path) > file_probes[i].header)
			refuse(r, file_probes[i].what, file_probes[i].way_out);
	if (has_permanent_groups())
		refuse(r, "members of groups in a bridge's table", "remove them (bridge mdb del)");
	if (has_set_addresses())
		refuse(r, "multicast addresses of devices that were set by hand", "remove them (ip maddress del)");
	if (has_programs())
		refuse(r, "BPF programs of the namespace or of its devices", "detach them");
	return conntrack_refuse(r, e);
}
