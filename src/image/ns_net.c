/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_net.c - what a unit has set up in a network namespace of its own; see ns_net.h
 *
 * Devices and lists by rtnetlink (ns_link.h, ns_list.h), settings below /proc/sys/net, and rules of filters as text by the tools that made them, which are run in the worker's
 * network namespace, which is the unit's. The source reads all of it while the unit runs; that nothing has changed since is what notifications say in the freeze.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_bridge.h"
#include "image/ns_conntrack.h"
#include "image/ns_link.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/ns_net_refuse.h"
#include "image/ns_publish.h"
#include "image/ns_tool.h"
#include "image/tun_helper.h"
#include "kern/nsfs.h"

#define SETTING_MAX 256
#define SETTINGS_MAX 65536u
#define PEERS_MAX 1024u
#define DEPTH_MAX 8

enum { TEXT_SETS, TEXT_NFTABLES, TEXT_IPTABLES, TEXT_IP6TABLES, TEXTS }; /* sets before the rules that use them */

static const struct {
	const char *save[8], *restore[8];
	bool (*used)(void); /* whether there is anything, as the kernel says it: who has made it may have brought the tool along */
} tools[TEXTS] = {
	[TEXT_SETS] = { { "ipset", "save" }, { "ipset", "restore" }, net_has_sets },
	[TEXT_NFTABLES] = { { "nft", "list", "ruleset" }, { "nft", "-f", "-" }, net_has_tables },
	[TEXT_IPTABLES] = { { "iptables-legacy-save", "-c" }, { "iptables-legacy-restore", "-c" }, net_has_iptables },
	[TEXT_IP6TABLES] = { { "ip6tables-legacy-save", "-c" }, { "ip6tables-legacy-restore", "-c" }, net_has_ip6tables },
};

/* One worker has one unit. */
static struct netlink host; /* the host's */
static struct watch {
	struct netlink changes, filters; /* that hear of changes of one namespace */
} *watches;
static size_t n_watches;
static bool attached; /* destination: ends are ports of the host's bridges */

Gw__NsNet *ns_net_of(const Gw__Namespaces *msg, size_t i, uint32_t *ret_number)
{
	*ret_number = 0;
	if (i < msg->n_nets)
		return msg->nets[i];
	i -= msg->n_nets;
	for (size_t k = 0; k < msg->n_others; k++)
		if (msg->others[k]->net && i-- == 0) {
			*ret_number = (uint32_t)k + 1;
			return msg->others[k]->net;
		}
	return NULL;
}

/* In each one: what is to be done with it. Ends with the first failure. */
static int in_each(const Gw__Namespaces *msg, int (*what)(Gw__NsNet *net, void *arg, struct err *e), void *arg, struct err *e)
{
	uint32_t number;
	Gw__NsNet *net;
	int ret = 0;

	for (size_t i = 0; ret == 0 && (net = ns_net_of(msg, i, &number)); i++) {
		cleanup_close int back = number ? ns_open(0, NS_NET) : -1;

		if (number && (back < 0 || ns_enter(ns_others_fd(number), NS_NET) < 0))
			return err_sys(e, errno, "a network namespace of the unit");
		ret = what(net, arg, e);
		if (number && ns_enter(back, NS_NET) < 0)
			abort(); /* all else would be done in the wrong one */
	}
	return ret;
}

/* --- settings --- */

static bool is_setting(const char *name)
{
	return strncmp(name, "net/", 4) == 0 && !strstr(name, "/../") && !strstr(name, "/./") && strlen(name) < SETTING_MAX;
}

static int add_setting(Gw__NsNet *msg, const char *name, const char *value)
{
	Gw__NsSetting **grown = realloc(msg->settings, (msg->n_settings + 1) * sizeof(*grown)), *s;

	if (!grown)
		return -ENOMEM;
	msg->settings = grown;
	grown[msg->n_settings++] = s = must_alloc(sizeof(*s));
	gw__ns_setting__init(s);
	string_set(&s->name, name);
	string_set(&s->value, value);
	return 0;
}

/* One that can be written; those that take effect when they are (flush and the like) show nothing and are left out. */
static int read_one(Gw__NsNet *msg, int dir, const char *name, const char *path)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char value[SETTING_MAX];
	ssize_t n = fd < 0 ? -1 : read(fd, value, sizeof(value) - 1);

	if (n <= 0 || n == (ssize_t)sizeof(value) - 1)
		return 0;
	while (n && value[n - 1] == '\n')
		n--;
	value[n] = 0;
	return n ? add_setting(msg, path, value) : 0;
}

/* Takes over dir. */
static int read_directory(Gw__NsNet *msg, int dir, const char *path, unsigned depth)
{
	cleanup_closedir DIR *d = dir < 0 ? NULL : fdopendir(dir);
	int ret = 0;

	for (struct dirent *entry; d && ret == 0 && (entry = readdir(d));) {
		char inner[SETTING_MAX];
		struct stat st;

		if (entry->d_name[0] == '.' || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name) >= (int)sizeof(inner))
			continue;
		if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
			ret = read_directory(msg, openat(dirfd(d), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), inner, depth + 1);
		else if (S_ISREG(st.st_mode) && (st.st_mode & 0222) && (st.st_mode & 0444))
			ret = read_one(msg, dirfd(d), entry->d_name, inner);
	}
	return ret;
}

/* Settings of a network are mostly what they were made as; some cannot be set to what they show, and are left as they are. */
static void write_one(const Gw__NsSetting *s)
{
	char path[300], now[300];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/sys/%s", s->name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, now, sizeof(now) - 1);
	while (n > 0 && now[n - 1] == '\n')
		n--;
	if (fd < 0 || ((size_t)n == strlen(s->value) && !memcmp(now, s->value, (size_t)n)))
		return;
	(void)!pwrite(fd, s->value, strlen(s->value), 0);
}

/* Forwarding changes settings of all devices, and those for all devices change those of each; the last may make addresses, for which the others matter. */
#define PASSES 4u
static unsigned pass_of(const char *name)
{
	return strstr(name, "forward") ? 0 : strstr(name, "/addr_gen_mode") ? 3 : strstr(name, "/all/") ? 1 : 2;
}

static void write_settings(const Gw__NsNet *net)
{
	for (unsigned pass = 0; pass < PASSES; pass++)
		for (size_t i = 0; i < net->n_settings; i++)
			if (pass_of(net->settings[i]->name) == pass)
				write_one(net->settings[i]);
}

static void write_for_all(const Gw__NsNet *net, const char *name, char *value)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < net->n_settings; i++) {
		Gw__NsSetting s = *net->settings[i];
		size_t whole = strlen(s.name);

		s.value = value;
		if (strncmp(s.name, "net/ipv6/conf/", 14) == 0 && whole > len && !strcmp(s.name + whole - len, name))
			write_one(&s);
	}
}

/*
 * Until write_settings: devices get no addresses by themselves when they are switched on, and nobody is asked whether others have those that they get: the other host has,
 * until the unit runs here.
 */
static void hold_addresses(const Gw__NsNet *net)
{
	write_for_all(net, "/addr_gen_mode", (char[]){ "1" });
	write_for_all(net, "/accept_dad", (char[]){ "0" });
}

/* --- tools --- */

/* Parts of rules that iptables has made by means of nf_tables, and for which nft has no words: it lists them, but does not take them back, or leaves them out. */
static bool has_foreign_parts(const ProtobufCBinaryData *rules)
{
	static const char *const marks[] = { "xt match ", "xt target ", "# xt_" };

	for (size_t i = 0; i < ARRAY_SIZE(marks) && rules->len; i++)
		if (memmem(rules->data, rules->len, marks[i], strlen(marks[i])))
			return true;
	return false;
}

static int capture_texts(Gw__NsNet *net, struct refusals *r, struct err *e)
{
	for (size_t i = 0; i < TEXTS; i++) {
		struct err why = ERR_INIT;
		int ret = tools[i].used() ? net_tool_save(tools[i].save, &net->texts[i], &why) : 0;

		if (ret == -ENOENT)
			refusals_add(r, "ns.net.filter", "its rules cannot be read without that tool", "install it on both hosts", "network namespace (%s)", tools[i].save[0]);
		else if (ret < 0)
			return err_set(e, ret, "%s", why.message);
	}
	if (has_foreign_parts(&net->texts[TEXT_NFTABLES]))
		refusals_add(r, "ns.net.filter", "some use extensions of iptables for which nft(8) has no words", "use rules of nft, or iptables-legacy", "network namespace (rules of iptables)");
	return 0;
}

static int restore_texts(const Gw__NsNet *net, struct refusals *r, struct err *e)
{
	for (size_t i = 0; i < TEXTS; i++) {
		cleanup_close int fd = -1;
		const ProtobufCBinaryData *d = &net->texts[i];
		int status;

		if (!d->len)
			continue;
		fd = net_tool_file(e);
		if (fd < 0)
			return fd;
		if (pwrite(fd, d->data, d->len, 0) != (ssize_t)d->len)
			return err_sys(e, errno, "/tmp");
		status = net_tool_run(tools[i].restore, 0, fd);
		if (status)
			refusals_add(r, "ns.net.filter", status == -ENOENT ? "the destination has no such tool" : "the destination's tool or kernel does not take its rules",
				     "install the same version on both hosts", "network namespace (rules that %s saved)", tools[i].save[0]);
	}
	return 0;
}

/* --- changes --- */

static int listen_to(struct netlink *nl, int protocol, const int *groups, size_t n, struct err *e)
{
	int ret = netlink_open(nl, protocol, -1, e);

	for (size_t i = 0; i < n && ret == 0; i++)
		if (mnl_socket_setsockopt(nl->socket, NETLINK_ADD_MEMBERSHIP, (void *)(uintptr_t)&groups[i], sizeof(groups[i])) < 0)
			ret = err_sys(e, errno, "hearing of changes of a network");
	return ret;
}

static int watch(struct watch *w, struct err *e)
{
	static const int groups[] = { RTNLGRP_LINK,	   RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE,
				      RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE,	RTNLGRP_IPV6_RULE,  RTNLGRP_NEXTHOP };
	static const int filters[] = { NFNLGRP_NFTABLES };
	int ret = listen_to(&w->changes, NETLINK_ROUTE, groups, ARRAY_SIZE(groups), e);

	return ret < 0 ? ret : listen_to(&w->filters, NETLINK_NETFILTER, filters, ARRAY_SIZE(filters), e);
}

static bool has_heard(const struct netlink *nl)
{
	char byte;

	return nl->socket && (recv(mnl_socket_get_fd(nl->socket), &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno == ENOBUFS);
}

void ns_nets_leave(void)
{
	netlink_close(&host);
	for (size_t i = 0; i < n_watches; i++) {
		netlink_close(&watches[i].changes);
		netlink_close(&watches[i].filters);
	}
	free(watches);
	watches = NULL;
	n_watches = 0;
}

/* --- source --- */

/* What one capture works with. */
struct capturing {
	const Gw__Namespaces *msg;
	int outside;
	struct refusals *r;
};

static int begin_watch(struct err *e)
{
	struct watch *grown = realloc(watches, (n_watches + 1) * sizeof(*grown));

	if (!grown)
		abort();
	watches = grown;
	grown[n_watches] = (struct watch){ 0 };
	return watch(&grown[n_watches++], e);
}

static int capture_net(Gw__NsNet *net, void *arg, struct err *e)
{
	const struct capturing *c = arg;
	struct netlink nl = { 0 };
	int ret;

	net->lists = must_alloc(NET_LISTS * sizeof(*net->lists));
	net->n_lists = NET_LISTS;
	net->texts = must_alloc(TEXTS * sizeof(*net->texts));
	net->n_texts = TEXTS;
	ret = begin_watch(e);
	if (ret == 0)
		ret = netlink_open(&nl, NETLINK_ROUTE, -1, e);
	for (int i = 0; i < NET_LISTS && ret == 0; i++)
		ret = net_list_capture(&nl, (enum net_list)i, &net->lists[i], e);
	if (ret == 0)
		ret = net_links_capture(&nl, c->outside, c->msg, net, c->r, e);
	netlink_close(&nl);
	if (ret == 0)
		ret = read_directory(net, open("/proc/sys/net", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "net", 0);
	if (ret == 0)
		ret = conntrack_capture(&net->connections, e);
	if (ret == 0 && net->connections.len && (!c->msg->n_nets || net != c->msg->nets[0]))
		refusals_add(c->r, "ns.net.conntrack", "tracked connections move with the first process's network namespace only", "try again when they are over", "a network namespace of the unit");
	if (ret == 0)
		ret = ns_net_refuse(c->r, e);
	return ret < 0 ? ret : capture_texts(net, c->r, e);
}

int ns_nets_capture(Gw__Namespaces *msg, struct refusals *r, struct err *e)
{
	cleanup_close int outside = ns_open_hosts(NS_NET);
	uint32_t number;
	int ret;

	if (!ns_net_of(msg, 0, &number))
		return 0;
	ret = netlink_open(&host, NETLINK_ROUTE, outside, e);
	if (ret == 0)
		ret = in_each(msg, capture_net, &(struct capturing){ msg, outside, r }, e);
	if (ret == 0 && !r->n)
		published_capture(outside, msg);
	return ret;
}

static int look_again(Gw__NsNet *net, void *arg, struct err *e)
{
	const Gw__Namespaces *msg = arg;
	int ret = conntrack_capture(&net->connections, e);

	return ret == 0 && net->connections.len && (!msg->n_nets || net != msg->nets[0]) ? err_set(e, -EAGAIN, "connections are tracked in a network namespace of the unit") : ret;
}

static void peers_pass(const Gw__Namespaces *msg, bool pass)
{
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &number)); i++)
		net_peers_pass(&host, net, pass);
}

int ns_nets_freeze(Gw__Namespaces *msg, struct err *e)
{
	for (size_t i = 0; i < n_watches; i++)
		if (has_heard(&watches[i].changes) || has_heard(&watches[i].filters))
			return err_set(e, -EAGAIN, "the network of the unit has changed since the offer");
	peers_pass(msg, false);
	return in_each(msg, look_again, msg, e);
}

void ns_nets_thaw(const Gw__Namespaces *msg)
{
	peers_pass(msg, true);
}

void ns_nets_gone(const Gw__Namespaces *msg)
{
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &number)); i++)
		net_peers_part(&host, net);
}

/* --- destination --- */

int ns_net_validate(const Gw__NsNet *net, struct err *e)
{
	if (net->n_pairs > PEERS_MAX)
		return err_set(e, -EBADMSG, "network: %zu pairs", net->n_pairs);
	if (net->n_lists != NET_LISTS || net->n_texts != TEXTS || net->n_settings > SETTINGS_MAX || net->n_peers > PEERS_MAX)
		return err_set(e, -EBADMSG, "network: %zu lists, %zu settings, %zu ends", net->n_lists, net->n_settings, net->n_peers);
	if (!conntrack_is_valid(&net->connections))
		return err_set(e, -EBADMSG, "network: tracked connections");
	for (int i = 0; i < NET_LISTS; i++)
		if (!net_list_is_valid((enum net_list)i, &net->lists[i]))
			return err_set(e, -EBADMSG, "network: list %d", i);
	for (size_t i = 0; i < net->n_settings; i++)
		if (!is_setting(net->settings[i]->name) || strlen(net->settings[i]->value) >= SETTING_MAX)
			return err_set(e, -EBADMSG, "a setting that there is not");
	for (size_t i = 0; i < net->n_peers; i++)
		if (!net_is_name(net->peers[i]->name) || (net->peers[i]->bridge[0] && !net_is_name(net->peers[i]->bridge)))
			return err_set(e, -EBADMSG, "network: name of end %zu", i);
	for (size_t i = 0; i < net->n_peers; i++)
		if (net_bridge_validate(net->peers[i], e) < 0)
			return -EBADMSG;
	if (tun_helpers_validate(net, e) < 0 || published_validate(net, e) < 0)
		return -EBADMSG;
	return 0;
}

/* What one restoring works with. */
struct restoring {
	const Gw__Namespaces *msg;
	int outside;
	struct refusals *r;
};

static int number_spaces(Gw__NsNet *net, void *arg, struct err *e)
{
	struct netlink nl = { 0 };
	int ret = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	if (ret == 0)
		net_pairs_number(&nl, net);
	netlink_close(&nl);
	return ret;
}

static int make_links(Gw__NsNet *net, void *arg, struct err *e)
{
	const struct restoring *c = arg;
	struct netlink nl = { 0 };
	int ret = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	if (ret == 0)
		ret = net_links_make(&nl, &host, c->outside, c->msg, net, c->r, e);
	netlink_close(&nl);
	return ret;
}

/* Some settings are reset when a device is switched on, so that they are written before it and after. */
static int switch_on(Gw__NsNet *net, void *arg, struct err *e)
{
	struct netlink nl = { 0 };
	int ret = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	write_settings(net);
	hold_addresses(net);
	if (ret == 0)
		ret = net_links_up(&nl, net, e);
	netlink_close(&nl);
	return ret;
}

/* Some settings make addresses, so that these are compared once more. */
static int fill_lists(Gw__NsNet *net, void *arg, struct err *e)
{
	static const enum net_list after[] = { NET_ADDRESSES, NET_NEXTHOPS, NET_RULES, NET_ROUTES, NET_NEIGHBOURS, NET_FORWARDING, NET_LABELS };
	ProtobufCBinaryData settled = { 0 };
	struct netlink nl = { 0 };
	int ret = netlink_open(&nl, NETLINK_ROUTE, -1, e);

	net_settled_addresses(&net->lists[NET_ADDRESSES], &settled);
	if (ret == 0)
		ret = net_list_restore(&nl, NET_ADDRESSES, &settled, e);
	write_settings(net);
	for (size_t i = 0; i < ARRAY_SIZE(after) && ret == 0; i++)
		ret = net_list_restore(&nl, after[i], &net->lists[after[i]], e);
	net_links_settle(&nl, net);
	free(settled.data);
	netlink_close(&nl);
	if (ret == 0)
		ret = restore_texts(net, ((const struct restoring *)arg)->r, e);
	/* Once before the freeze, to see whether they are taken here. */
	return ret < 0 || ((const struct restoring *)arg)->r->n ? ret : conntrack_restore(&net->connections, e);
}

/* Step by step, since devices of one may be the other ends of another's. */
int ns_nets_restore(const Gw__Namespaces *msg, struct refusals *r, struct err *e)
{
	cleanup_close int outside = ns_open_hosts(NS_NET);
	struct restoring c = { msg, outside, r };
	uint32_t number;
	int ret;

	if (!ns_net_of(msg, 0, &number))
		return 0;
	ret = netlink_open(&host, NETLINK_ROUTE, outside, e);
	if (ret == 0)
		ret = in_each(msg, number_spaces, NULL, e);
	if (ret == 0)
		ret = in_each(msg, make_links, &c, e);
	if (ret == 0 && !r->n)
		ret = in_each(msg, switch_on, &c, e);
	return ret < 0 || r->n ? ret : in_each(msg, fill_lists, &c, e);
}

int ns_nets_attach(const Gw__Namespaces *msg, const ProtobufCBinaryData *connections, struct err *e)
{
	int ret = msg->n_nets ? conntrack_restore(connections, e) : 0;
	uint32_t number;
	Gw__NsNet *net;

	attached = true;
	for (size_t i = 0; ret == 0 && (net = ns_net_of(msg, i, &number)); i++)
		ret = net_peers_attach(&host, net, e);
	return ret;
}

void ns_nets_undo(const Gw__Namespaces *msg)
{
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; attached && (net = ns_net_of(msg, i, &number)); i++)
		net_peers_detach(&host, net);
	if (host.socket)
		net_bridges_undo(&host);
}

static int announce(Gw__NsNet *net, void *arg, struct err *e)
{
	ns_net_announce(net);
	return 0;
}

void ns_nets_announce(const Gw__Namespaces *msg)
{
	in_each(msg, announce, NULL, NULL);
}
