/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_publish.c - published ports at the source; see ns_publish.h */
#include "image/ns_publish.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_net_refuse.h"
#include "image/ns_tool.h"
#include "kern/nsfs.h"

#define PUBLISHED_MAX 256u
#define CHAINS_MAX 256u
#define LINES_MAX 65536u

/* What nft(8) prints, by lines; `chains`: those that give packets the host's address. */
struct rules {
	char **lines;
	size_t n;
	char chains[CHAINS_MAX][128];
	size_t n_chains;
};

/* A rule that only counts for one address or device of the host. */
static bool is_special(const char *line)
{
	const char *device = strstr(line, "iifname \""), *address = strstr(line, "ip daddr ");

	return device || (address && strncmp(address, "ip daddr !=", 11) != 0);
}

/* " dport 8080 ", of one port only. */
static uint32_t port_of(const char *line)
{
	const char *port = strstr(line, " dport ");
	unsigned number;
	char next;

	return port && sscanf(port, " dport %u%c", &number, &next) == 2 && next == ' ' && number < 65536 ? number : 0;
}

static uint32_t protocol_of(const char *line)
{
	const char *port = strstr(line, " dport ");

	return !port || port - line < 3 ? 0 : !strncmp(port - 3, "tcp", 3) ? IPPROTO_TCP : !strncmp(port - 3, "udp", 3) ? IPPROTO_UDP : 0;
}

static bool is_for_one_address(const struct rules *r, uint32_t protocol, uint32_t port)
{
	for (size_t i = 0; i < r->n; i++)
		if (is_special(r->lines[i]) && port_of(r->lines[i]) == port && protocol_of(r->lines[i]) == protocol)
			return true;
	return false;
}

/* Whether it is an address of a device that leads to a bridge of the host. */
static bool is_units(const Gw__NsNet *net, uint32_t address)
{
	net_list_for_each(m, &net->lists[NET_ADDRESSES]) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1];

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		if (h->ifa_family == AF_INET && a[IFA_LOCAL] && net_attr_u32(a[IFA_LOCAL]) == address)
			return true;
	}
	return false;
}

static void add_published(Gw__NsNet *net, uint32_t protocol, uint32_t port, uint32_t address, uint32_t to_port)
{
	Gw__NsPublished *p, **grown;

	for (size_t i = 0; i < net->n_published; i++)
		if (net->published[i]->protocol == protocol && net->published[i]->port == port)
			return;
	grown = net->n_published < PUBLISHED_MAX ? realloc(net->published, (net->n_published + 1) * sizeof(*grown)) : NULL;
	if (!grown)
		return;
	net->published = grown;
	grown[net->n_published++] = p = must_alloc(sizeof(*p));
	gw__ns_published__init(p);
	p->protocol = protocol;
	p->port = port;
	p->address = address;
	p->to_port = to_port;
}

/* The address, in a table of version 4 or of both. */
static const char *target_of(const char *line)
{
	const char *to = strstr(line, "dnat to "), *of_both = strstr(line, "dnat ip to ");

	return to ? to + strlen("dnat to ") : of_both ? of_both + strlen("dnat ip to ") : NULL;
}

/* "tcp dport 8080 counter packets 0 bytes 0 dnat to 10.88.0.7:80" */
static void take_rule(const struct rules *r, const char *line, Gw__NsNet *net)
{
	const char *to = target_of(line);
	uint32_t port = port_of(line), protocol = protocol_of(line);
	unsigned to_port = port;
	char text[64], number[16] = "";
	struct in_addr address;

	if (!to || sscanf(to, "%63[0-9.]%15s", text, number) < 1 || inet_pton(AF_INET, text, &address) != 1 || !is_units(net, address.s_addr))
		return;
	if (number[0] && (sscanf(number, ":%u", &to_port) != 1 || strchr(number, '-') || to_port > 65535))
		port = 0;
	if (port && protocol && !is_for_one_address(r, protocol, port))
		add_published(net, protocol, port, address.s_addr, to_port);
	else
		notes_add("a rule of the host that it has left leads packets to %s; there is none like it where it is now.", text);
}

/* Chains in which there is "masquerade". */
static void find_chains(struct rules *r)
{
	char chain[128] = "";

	for (size_t i = 0; i < r->n; i++) {
		if (sscanf(r->lines[i], " chain %127s", chain) == 1)
			continue;
		if (strstr(r->lines[i], "masquerade") && r->n_chains < CHAINS_MAX)
			memcpy(r->chains[r->n_chains++], chain, sizeof(chain));
	}
}

static bool leads_to_masquerade(const struct rules *r, const char *line)
{
	const char *jump = strstr(line, "jump ");
	char chain[128];

	if (strstr(line, "masquerade"))
		return true;
	if (!jump || sscanf(jump, "jump %127s", chain) != 1)
		return false;
	for (size_t i = 0; i < r->n_chains; i++)
		if (!strcmp(r->chains[i], chain))
			return true;
	return false;
}

/* "ip saddr 10.88.0.0/16 ... jump CHAIN": of the bridge's network, or of one address in it. */
static bool is_masqueraded(const struct rules *r, const Gw__NsPeer *p)
{
	for (size_t i = 0; i < r->n; i++) {
		const char *from = strstr(r->lines[i], "ip saddr ");
		struct in_addr address;
		char text[64];

		if (!from || sscanf(from, "ip saddr %63[0-9.]", text) != 1 || inet_pton(AF_INET, text, &address) != 1 || !leads_to_masquerade(r, r->lines[i]))
			continue;
		net_list_for_each(m, &p->bridge_addresses) {
			const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
			const struct nlattr *a[IFA_MAX + 1];
			uint32_t mask = h->ifa_prefixlen ? htonl(0xffffffffu << (32 - MIN(h->ifa_prefixlen, 32))) : 0;

			netlink_attributes(m, sizeof(*h), a, IFA_MAX);
			if (h->ifa_family == AF_INET && a[IFA_LOCAL] && (net_attr_u32(a[IFA_LOCAL]) & mask) == (address.s_addr & mask))
				return true;
		}
	}
	return false;
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

/* NULL: there are none. */
static char *read_rules(int host_ns)
{
	static const char *const list[] = { "nft", "list", "ruleset", NULL };
	cleanup_close int back = ns_open(0, NS_NET);
	ProtobufCBinaryData text = { 0 };

	if (back < 0 || ns_enter(host_ns, NS_NET) < 0)
		return NULL;
	if (net_has_tables())
		(void)net_tool_save(list, &text, NULL);
	if (ns_enter(back, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
	if (text.len)
		text.data[text.len - 1] = 0;
	return (char *)text.data;
}

/* Whether somebody has port 53 of an address of the host, as podman's aardvark-dns has for the names of a network's containers; in the host's network namespace. */
static bool answers_names(uint32_t address)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = address };
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EADDRINUSE;
}

static void note_names(int host_ns, const Gw__NsPeer *p)
{
	cleanup_close int back = ns_open(0, NS_NET);

	if (back < 0 || ns_enter(host_ns, NS_NET) < 0)
		return;
	net_list_for_each(m, &p->bridge_addresses) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1];
		char text[INET_ADDRSTRLEN];

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		if (h->ifa_family != AF_INET || !a[IFA_LOCAL] || !answers_names(net_attr_u32(a[IFA_LOCAL])))
			continue;
		inet_ntop(AF_INET, mnl_attr_get_payload(a[IFA_LOCAL]), text, sizeof(text));
		notes_add("a name server of the host that it has left answers at %s (bridge %s); where it is now, only if that host has one.", text, p->bridge);
	}
	if (ns_enter(back, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
}

static struct rules *rules_new(char *text)
{
	struct rules *r = must_alloc(sizeof(*r));
	char *save = NULL;

	r->lines = must_alloc(LINES_MAX * sizeof(*r->lines));
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && r->n < LINES_MAX; line = strtok_r(NULL, "\n", &save))
		r->lines[r->n++] = line;
	find_chains(r);
	return r;
}

static void rules_free(struct rules *r)
{
	free(r->lines);
	free(r);
}

void published_read(char *text, Gw__Namespaces *msg)
{
	struct rules *r = rules_new(text);
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++) {
		for (size_t k = 0; k < r->n && net->n_peers; k++)
			take_rule(r, r->lines[k], net);
		for (size_t k = 0; k < net->n_peers; k++)
			net->peers[k]->masqueraded = is_masqueraded(r, net->peers[k]);
	}
	rules_free(r);
}

void published_capture(int host_ns, Gw__Namespaces *msg)
{
	cleanup_free char *text = has_peers(msg) ? read_rules(host_ns) : NULL;
	uint32_t space;
	Gw__NsNet *net;

	published_read(text, msg);
	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		for (size_t k = 0; k < net->n_peers; k++)
			note_names(host_ns, net->peers[k]);
}

static bool is_present(const struct rules *r, const Gw__NsPublished *p)
{
	char text[INET_ADDRSTRLEN + 16], address[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &(struct in_addr){ p->address }, address, sizeof(address));
	snprintf(text, sizeof(text), "%s:%u", address, p->to_port);
	for (size_t i = 0; i < r->n; i++) {
		const char *to = target_of(r->lines[i]);

		if (to && !strncmp(to, text, strlen(text)) && (!to[strlen(text)] || to[strlen(text)] == ' ') && port_of(r->lines[i]) == p->port && protocol_of(r->lines[i]) == p->protocol)
			return true;
	}
	return false;
}

static bool any_is_published(const Gw__Namespaces *msg)
{
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		if (net->n_published)
			return true;
	return false;
}

void published_look(int host_ns, const Gw__Namespaces *msg)
{
	cleanup_free char *text = any_is_published(msg) ? read_rules(host_ns) : NULL;
	struct rules *r = rules_new(text);
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		for (size_t k = 0; k < net->n_published; k++)
			net->published[k]->present = is_present(r, net->published[k]);
	rules_free(r);
}

int published_validate(const Gw__NsNet *net, struct err *e)
{
	for (size_t i = 0; i < net->n_published; i++) {
		const Gw__NsPublished *p = net->published[i];

		if ((p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP) || !p->port || p->port > 65535 || !p->to_port || p->to_port > 65535)
			return err_set(e, -EBADMSG, "network: published port %zu", i);
	}
	return net->n_published > PUBLISHED_MAX ? err_set(e, -EBADMSG, "network: %zu published ports", net->n_published) : 0;
}
