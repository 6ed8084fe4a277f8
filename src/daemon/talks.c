// SPDX-License-Identifier: GPL-2.0-or-later
/* talks.c - see talks.h */
#include "daemon/talks.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>

#include "base/util.h"
#include "kern/netlink.h"
#include "net/redirect.h"
#include "net/tidy.h"

#define SOCKETS_MAX 65536
#define FLOWS_MAX 65536
#define PEERS_MAX 16          /* nodes that one unit is seen to talk to, in one sample */
#define TCP_ESTABLISHED_STATE 1
#define TCP_CLOSE_WAIT_STATE 8
#define SHARE 0.5             /* of the latest sample in what is said */
#define NOTHING_MIB_S 0.001

struct flow_node {
	struct redirect_flow flow;
	uint64_t node;
};

struct peer_bytes {
	uint64_t node, bytes;
};

struct sample {
	const struct units *units;
	struct talks_socket *sockets; /* of the units, by inode; bytes: as they are now, those without a connection 0 */
	size_t n, room;
	struct flow_node *flows;
	size_t n_flows, room_flows;
	struct cluster_node *nodes;
	size_t n_nodes;
	uint64_t self;
	const struct talks *before;
	struct peer_bytes (*peers)[PEERS_MAX]; /* of each unit */
};

/* `array`: the address of a pointer. It becomes a longer one, when it is full; false: no memory, or as many as are looked at. */
static bool has_room(void *array, size_t n, size_t *room, size_t size, size_t max)
{
	size_t more = *room ? 2 * *room : 64;
	void *grown;

	if (n < *room)
		return true;
	memcpy(&grown, array, sizeof(grown));
	grown = n < max ? reallocarray(grown, more, size) : NULL;
	if (!grown)
		return false;
	memcpy(array, &grown, sizeof(grown));
	*room = more;
	return true;
}

static void read_sockets(struct sample *s, pid_t pid, size_t unit)
{
	char path[64], text[64];
	cleanup_closedir DIR *dir = NULL;
	struct dirent *item;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (item = readdir(dir))) {
		ssize_t n = isdigit((unsigned char)*item->d_name) ? readlinkat(dirfd(dir), item->d_name, text, sizeof(text) - 1) : 0;
		unsigned inode;

		text[MAX(n, 0)] = 0;
		if (sscanf(text, "socket:[%u]", &inode) != 1)
			continue;
		if (!has_room(&s->sockets, s->n, &s->room, sizeof(*s->sockets), SOCKETS_MAX))
			return;
		s->sockets[s->n++] = (struct talks_socket){ 0, inode, (uint32_t)unit };
	}
}

static int by_inode(const void *a, const void *b)
{
	uint32_t x = ((const struct talks_socket *)a)->inode, y = ((const struct talks_socket *)b)->inode;

	return x < y ? -1 : x > y;
}

static struct talks_socket *find_socket(struct talks_socket *v, size_t n, uint32_t inode)
{
	struct talks_socket key = { .inode = inode };

	return n ? bsearch(&key, v, n, sizeof(key), by_inode) : NULL;
}

static void sort_sockets(struct sample *s)
{
	size_t kept = 0;

	if (s->n)
		qsort(s->sockets, s->n, sizeof(*s->sockets), by_inode);
	for (size_t i = 0; i < s->n; i++) /* a socket may have many descriptors */
		if (!kept || s->sockets[kept - 1].inode != s->sockets[i].inode)
			s->sockets[kept++] = s->sockets[i];
	s->n = kept;
}

/* --- where the other end is --- */

static int add_flow(const struct redirect_item *item, void *arg)
{
	struct sample *s = arg;

	if (!item->other[0] || item->listener || !has_room(&s->flows, s->n_flows, &s->room_flows, sizeof(*s->flows), FLOWS_MAX))
		return 0;
	s->flows[s->n_flows++] = (struct flow_node){ item->flow, gossip_id(item->other) };
	return 0;
}

static int by_flow(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct redirect_flow));
}

static void read_flows(struct sample *s)
{
	struct redirect *r = NULL;

	if (redirect_find(&r, NULL) >= 0 && r)
		redirect_list(r, add_flow, s, NULL);
	redirect_close(&r);
	if (s->n_flows)
		qsort(s->flows, s->n_flows, sizeof(*s->flows), by_flow);
}

static void map_address(uint8_t ret[16], uint8_t family, const uint32_t from[4])
{
	memset(ret, 0, 16);
	if (family == AF_INET6) {
		memcpy(ret, from, 16);
		return;
	}
	ret[10] = ret[11] = 0xff;
	memcpy(ret + 12, from, 4);
}

/* 0: outside of the cluster. */
static uint64_t node_of(const struct sample *s, const struct inet_diag_msg *d)
{
	struct flow_node key = { .flow = { .protocol = IPPROTO_TCP, .own_port = d->id.idiag_sport, .peer_port = d->id.idiag_dport } };
	const struct flow_node *found;
	const uint8_t *v4 = key.flow.peer + 12;

	map_address(key.flow.own, d->idiag_family, d->id.idiag_src);
	map_address(key.flow.peer, d->idiag_family, d->id.idiag_dst);
	found = s->n_flows ? bsearch(&key, s->flows, s->n_flows, sizeof(key), by_flow) : NULL;
	if (found)
		return found->node;
	if (!memcmp(key.flow.own, key.flow.peer, 16))
		return s->self;
	for (size_t i = 0; i < s->n_nodes && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)key.flow.peer); i++)
		if (!memcmp(v4, &s->nodes[i].address.sin_addr, 4))
			return s->nodes[i].id;
	return 0;
}

static void count(struct peer_bytes peers[PEERS_MAX], uint64_t node, uint64_t bytes)
{
	size_t i = 0;

	while (i < PEERS_MAX - 1 && peers[i].node && peers[i].node != node)
		i++;
	peers[i].node = node;
	peers[i].bytes += bytes;
}

static int on_socket(const struct nlmsghdr *m, void *arg)
{
	struct sample *s = arg;
	const struct inet_diag_msg *d = mnl_nlmsg_get_payload(m);
	const struct nlattr *attributes[INET_DIAG_INFO + 1];
	struct talks_socket *socket, *old;
	struct tcp_info info = { 0 };
	uint64_t node;

	if (mnl_nlmsg_get_payload_len(m) < sizeof(*d) || !(socket = find_socket(s->sockets, s->n, d->idiag_inode)))
		return 0;
	netlink_attributes(m, sizeof(*d), attributes, INET_DIAG_INFO);
	if (!attributes[INET_DIAG_INFO])
		return 0;
	memcpy(&info, mnl_attr_get_payload(attributes[INET_DIAG_INFO]), MIN((size_t)mnl_attr_get_payload_len(attributes[INET_DIAG_INFO]), sizeof(info)));
	socket->bytes = info.tcpi_bytes_acked + info.tcpi_bytes_received + 1;
	old = find_socket(s->before->before, s->before->n_before, socket->inode);
	node = old && old->bytes && socket->bytes > old->bytes ? node_of(s, d) : 0;
	if (node)
		count(s->peers[socket->unit], node, socket->bytes - old->bytes);
	return 0;
}

static void read_counters(struct sample *s)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	struct netlink nl;

	if (netlink_open(&nl, NETLINK_SOCK_DIAG, -1, NULL) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		char buf[512];
		struct nlmsghdr *m = netlink_begin(buf, SOCK_DIAG_BY_FAMILY, 0, sizeof(struct inet_diag_req_v2));
		struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(m);

		q->sdiag_family = families[i];
		q->sdiag_protocol = IPPROTO_TCP;
		q->idiag_ext = 1 << (INET_DIAG_INFO - 1);
		q->idiag_states = 1u << TCP_ESTABLISHED_STATE | 1u << TCP_CLOSE_WAIT_STATE;
		netlink_dump(&nl, m, on_socket, s);
	}
	netlink_close(&nl);
}

/* --- what is said of it --- */

static struct talks_of *entry_of(struct talks_shared *shared, const struct unit_info *unit)
{
	for (size_t i = 0; i < TALKS_UNITS; i++)
		if (shared->v[i].pid == unit->entry.pid && shared->v[i].start_ticks == unit->entry.start_ticks)
			return &shared->v[i];
	return NULL;
}

static int by_rate(const void *a, const void *b)
{
	double x = ((const struct policy_talk *)a)->mib_s, y = ((const struct policy_talk *)b)->mib_s;

	return x > y ? -1 : x < y;
}

/* The rates before, faded, with those of this sample. */
static void say(struct talks_shared *shared, const struct unit_info *unit, const struct peer_bytes peers[PEERS_MAX], double dt_s, double now_s)
{
	struct talks_of *entry = entry_of(shared, unit), fresh = { .pid = unit->entry.pid, .start_ticks = unit->entry.start_ticks, .since_s = now_s - dt_s };
	struct policy_talk all[POLICY_TALKS_MAX + PEERS_MAX];
	size_t n = 0;

	for (size_t i = 0; entry && i < entry->n; i++)
		all[n++] = (struct policy_talk){ entry->talks[i].id, entry->talks[i].mib_s * (1 - SHARE) };
	for (size_t i = 0; i < PEERS_MAX && peers[i].node; i++) {
		double mib_s = (double)peers[i].bytes / dt_s / (1 << 20);
		size_t k = 0;

		while (k < n && all[k].id != peers[i].node)
			k++;
		if (k == n)
			all[n++] = (struct policy_talk){ peers[i].node, entry ? 0 : mib_s * (1 - SHARE) };
		all[k].mib_s += mib_s * SHARE;
	}
	if (n)
		qsort(all, n, sizeof(all[0]), by_rate);
	while (fresh.n < MIN(n, (size_t)POLICY_TALKS_MAX) && all[fresh.n].mib_s > NOTHING_MIB_S)
		fresh.talks[fresh.n] = all[fresh.n], fresh.n++;
	if (!entry && !fresh.n)
		return;
	if (entry)
		fresh.since_s = entry->n ? entry->since_s : fresh.since_s;
	else
		entry = &shared->v[shared->next++ % TALKS_UNITS];
	*entry = fresh;
}

static void keep_counters(struct talks *t, struct sample *s, double now_s)
{
	free(t->before);
	t->before = s->sockets;
	t->n_before = s->n;
	t->at_s = now_s;
}

void talks_sample(struct talks *t, struct talks_shared *shared, const struct daemon *d, const struct units *units)
{
	double now_s = (double)clock_ns(CLOCK_BOOTTIME) / 1e9, dt_s = now_s - t->at_s;
	struct sample s = { .units = units, .before = t, .self = gossip_id(d->config.name) };

	if (!units->n || (t->at_s > 0 && dt_s < TALKS_S))
		return;
	s.peers = calloc(units->n, sizeof(*s.peers));
	if (!s.peers || node_list(d, &s.nodes, &s.n_nodes, NULL) < 0) {
		free(s.peers);
		return;
	}
	for (size_t i = 0; i < units->n_procs; i++)
		read_sockets(&s, units->procs[i].pid, units->procs[i].unit);
	sort_sockets(&s);
	if (s.n) {
		read_flows(&s);
		read_counters(&s);
	}
	for (size_t i = 0; i < units->n && t->at_s > 0; i++)
		say(shared, &units->v[i], s.peers[i], dt_s, now_s);
	keep_counters(t, &s, now_s);
	free(s.flows);
	free(s.nodes);
	free(s.peers);
}

void talks_add(const struct talks_shared *shared, const struct unit_info *unit, struct policy_unit *ret)
{
	double now_s = (double)clock_ns(CLOCK_BOOTTIME) / 1e9;

	for (size_t i = 0; i < TALKS_UNITS; i++) {
		struct talks_of one = shared->v[i];

		if (one.pid != unit->entry.pid || one.start_ticks != unit->entry.start_ticks)
			continue;
		ret->n_talks = MIN(one.n, (size_t)POLICY_TALKS_MAX);
		memcpy(ret->talks, one.talks, sizeof(ret->talks));
		ret->talk_s = MAX(now_s - one.since_s, 0);
		return;
	}
}
