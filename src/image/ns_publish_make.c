/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_publish_make.c - published ports at the destination; see ns_publish.h */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/host_keeper.h"
#include "image/notes.h"
#include "image/ns.h"
#include "image/ns_bridge.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_publish.h"
#include "image/ns_tool.h"
#include "kern/nsfs.h"

#define RELEASE_TRIES 50u
#define RELEASE_STEP_MS 100

/* What godwit-net works with: a copy of the worker's memory. */
struct keeping {
	const Gw__Namespaces *msg;
	ProtobufCBinaryData rules; /* its chains */
	char table[32];
};

static void add(ProtobufCBinaryData *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(ProtobufCBinaryData *text, const char *format, ...)
{
	char line[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	bytes_append(text, line, MIN((size_t)n, sizeof(line) - 1));
}

/* A socket that keeps the port from others, where nobody has it: what comes for it gets the unit's address before it would be looked for. */
static int reserve(const Gw__NsPublished *p)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons((uint16_t)p->port) };
	cleanup_close int fd = socket(AF_INET, (p->protocol == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);

	return fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0 ? take_fd(&fd) : -1;
}

static const char *protocol_name(const Gw__NsPublished *p)
{
	return p->protocol == IPPROTO_TCP ? "tcp" : "udp";
}

static void add_port(ProtobufCBinaryData *to, const Gw__NsPublished *p)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &(struct in_addr){ p->address }, text, sizeof(text));
	add(to, "fib daddr type local %s dport %u dnat to %s:%u\n", protocol_name(p), p->port, text, p->to_port);
}

/* From the bridge's network to elsewhere, with the host's address. */
static void add_masquerade(ProtobufCBinaryData *to, const Gw__NsPeer *p)
{
	net_list_for_each(m, &p->bridge_addresses) {
		const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
		const struct nlattr *a[IFA_MAX + 1];
		char text[INET_ADDRSTRLEN];

		netlink_attributes(m, sizeof(*h), a, IFA_MAX);
		if (h->ifa_family != AF_INET || !a[IFA_LOCAL] || mnl_attr_get_payload_len(a[IFA_LOCAL]) != 4 || h->ifa_prefixlen > 32)
			continue;
		inet_ntop(AF_INET, mnl_attr_get_payload(a[IFA_LOCAL]), text, sizeof(text));
		add(to, "ip saddr %s/%u ip daddr != %s/%u ip daddr != 224.0.0.0/4 masquerade\n", text, h->ifa_prefixlen, text, h->ifa_prefixlen);
		/* The unit calling itself by the host's address. */
		add(to, "ip saddr %s/%u ip daddr %s/%u ct status dnat masquerade\n", text, h->ifa_prefixlen, text, h->ifa_prefixlen);
	}
}

/* --- in godwit-net --- */

static bool load(const ProtobufCBinaryData *text)
{
	static const char *const from_input[] = { "nft", "-f", "-", NULL };
	cleanup_close int fd = net_tool_file(NULL);

	return fd >= 0 && pwrite(fd, text->data, text->len, 0) == (ssize_t)text->len && net_tool_run(from_input, 0, fd) == 0;
}

static void switch_on(const char *setting)
{
	char path[128];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/%s", setting);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "1", 1);
}

/* As podman does: packets pass between devices, and such that come from the host's own 127.0.0.1 go out to the bridge. */
static void forward(const struct keeping *k)
{
	uint32_t space;
	Gw__NsNet *net;

	switch_on("ip_forward");
	for (size_t i = 0; (net = ns_net_of(k->msg, i, &space)); i++)
		for (size_t n = 0; n < net->n_peers && net->n_published; n++) {
			char name[64];

			snprintf(name, sizeof(name), "conf/%.15s/route_localnet", net->peers[n]->bridge);
			switch_on(name);
		}
}

static bool begin(void *arg, const int fds[HOST_KEEPER_FDS])
{
	struct keeping *k = arg;
	ProtobufCBinaryData text = { 0 };
	uint32_t space;
	Gw__NsNet *net;
	bool ret;

	for (size_t i = 0; (net = ns_net_of(k->msg, i, &space)); i++)
		for (size_t n = 0; n < net->n_published; n++)
			if (net->published[n]->reserved)
				(void)reserve(net->published[n]); /* until this process ends */
	snprintf(k->table, sizeof(k->table), "godwit_%d", getpid());
	if (!k->rules.len)
		return true;
	add(&text, "table ip %s {\n", k->table);
	bytes_append(&text, k->rules.data, k->rules.len);
	add(&text, "}\n");
	ret = load(&text);
	free(text.data);
	if (ret)
		forward(k);
	return ret;
}

static void end(void *arg)
{
	const struct keeping *k = arg;
	struct netlink nl = { 0 };
	uint32_t space;
	Gw__NsNet *net;
	bool left = true;

	if (k->rules.len)
		(void)net_tool_run((const char *const[]){ "nft", "delete", "table", "ip", k->table, NULL }, -1, -1);
	/* The ends of pairs go a moment after the namespace. */
	for (unsigned tries = 0; left && tries < RELEASE_TRIES && netlink_open(&nl, NETLINK_ROUTE, -1, NULL) == 0; tries++) {
		left = false;
		for (size_t i = 0; (net = ns_net_of(k->msg, i, &space)); i++)
			for (size_t n = 0; n < net->n_peers; n++)
				left |= net->peers[n]->bridge[0] && !net_bridge_release(&nl, net->peers[n]->bridge);
		netlink_close(&nl);
		if (left)
			nanosleep(&(struct timespec){ .tv_nsec = RELEASE_STEP_MS * 1000000 }, NULL);
	}
}

/* --- in the worker --- */

/* Those whose port nobody has here; asked in the host's network namespace. */
static void choose(const Gw__Namespaces *msg)
{
	cleanup_close int back = ns_open(0, NS_NET), host = ns_open_hosts(NS_NET);
	uint32_t space;
	Gw__NsNet *net;

	if (host >= 0)
		published_look(host, msg);
	if (back < 0 || host < 0 || ns_enter(host, NS_NET) < 0)
		return;
	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		for (size_t n = 0; n < net->n_published; n++) {
			cleanup_close int fd = net->published[n]->present ? -1 : reserve(net->published[n]);

			net->published[n]->reserved = fd >= 0;
		}
	if (ns_enter(back, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
}

static void tell(const Gw__NsPublished *p)
{
	if (p->present)
		return;
	if (p->reserved)
		notes_add("port %u/%s of its host leads to it there, as long as it is there; that of the host that it has left does not.", p->port, protocol_name(p));
	else
		notes_add("port %u/%s led to it at the host that it has left; somebody has that port where it is now.", p->port, protocol_name(p));
}

/* The chains' bodies. Ports are led on from outside, and from the host itself. */
static void write_rules(const Gw__Namespaces *msg, struct keeping *k)
{
	ProtobufCBinaryData ports = { 0 }, sources = { 0 };
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++) {
		for (size_t n = 0; n < net->n_published; n++) {
			tell(net->published[n]);
			if (net->published[n]->reserved)
				add_port(&ports, net->published[n]);
		}
		for (size_t n = 0; n < net->n_peers; n++)
			if (net->peers[n]->masqueraded && net->peers[n]->made)
				add_masquerade(&sources, net->peers[n]);
	}
	if (ports.len) {
		add(&k->rules, "chain prerouting {\ntype nat hook prerouting priority dstnat; policy accept;\n");
		bytes_append(&k->rules, ports.data, ports.len);
		add(&k->rules, "}\nchain output {\ntype nat hook output priority -100; policy accept;\n");
		bytes_append(&k->rules, ports.data, ports.len);
		add(&k->rules, "}\n");
		add(&sources, "ip saddr 127.0.0.0/8 ct status dnat masquerade\n");
	}
	if (sources.len) {
		add(&k->rules, "chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n");
		bytes_append(&k->rules, sources.data, sources.len);
		add(&k->rules, "}\n");
	}
	free(ports.data);
	free(sources.data);
}

static bool leads_to_bridge(const Gw__Namespaces *msg)
{
	uint32_t space;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &space)); i++)
		for (size_t n = 0; n < net->n_peers; n++)
			if (net->peers[n]->bridge[0])
				return true;
	return false;
}

int published_make(const Gw__Namespaces *msg, struct err *e)
{
	static const struct host_keeper keeper = { begin, end };
	static struct keeping k;
	int ret;

	if (!leads_to_bridge(msg))
		return 0;
	k = (struct keeping){ .msg = msg };
	choose(msg);
	write_rules(msg, &k);
	ret = host_keeper_start(&keeper, &k, (const int[HOST_KEEPER_FDS]){ -1, -1 }, e);
	if (ret == 0)
		notes_add("the destination does not take the rules for its published ports and masquerading (nft): they are not there.");
	return MIN(ret, 0);
}
