/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_publish.c - see ns_publish.h */
#include "image/ns_publish.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/notes.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_net_refuse.h"
#include "image/ns_tool.h"
#include "kern/nsfs.h"

/* Whether it is an address of a device that leads to a bridge of the host. */
static bool is_units(const Gw__NsNet *net, const char *text)
{
	struct in_addr wanted;

	if (inet_pton(AF_INET, text, &wanted) != 1)
		return false;
	net_list_for_each(m, &net->lists[NET_ADDRESSES]) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1];

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		if (h->ifa_family == AF_INET && a[IFA_LOCAL] && net_attr_u32(a[IFA_LOCAL]) == wanted.s_addr)
			return true;
	}
	return false;
}

/* A rule as nft(8) prints it: "tcp dport 8080 counter packets 0 bytes 0 dnat to 10.88.0.7:80". */
static void take_rule(const char *line, const Gw__Namespaces *msg)
{
	const char *to = strstr(line, "dnat to "), *port = strstr(line, " dport ");
	char address[64], protocol[8] = "?";
	unsigned number = 0;
	uint32_t space;
	Gw__NsNet *net;

	if (!to || sscanf(to, "dnat to %63[0-9.]", address) != 1)
		return;
	if (port && port - line >= 3)
		snprintf(protocol, sizeof(protocol), "%.3s", port - 3);
	if (port)
		(void)!sscanf(port, " dport %u", &number);
	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		if (net->n_peers && is_units(net, address))
			notes_add("port %u/%s of the host that it has left led to it (%s) by a rule of that host: it does so no more.", number, protocol, address);
}

static bool has_peers(const Gw__Namespaces *msg)
{
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		if (net->n_peers)
			return true;
	return false;
}

void published_note(int host_ns, const Gw__Namespaces *msg)
{
	static const char *const list[] = { "nft", "list", "ruleset", NULL };
	cleanup_close int back = ns_open(0, NS_NET);
	ProtobufCBinaryData rules = { 0 };
	char *save = NULL;

	if (!has_peers(msg) || back < 0 || ns_enter(host_ns, NS_NET) < 0)
		return;
	if (net_has_tables())
		(void)net_tool_save(list, &rules, NULL);
	if (ns_enter(back, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
	if (rules.len)
		rules.data[rules.len - 1] = 0;
	for (char *line = rules.len ? strtok_r((char *)rules.data, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
		take_rule(line, msg);
	free(rules.data);
}
