// SPDX-License-Identifier: GPL-2.0-or-later
/* cluster_loop.c - see cluster_loop.h */
#include "daemon/cluster_loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/util.h"
#include "cluster/gossip_packet.h"
#include "cluster/measure.h"
#include "cluster/members.h"
#include "cluster/membership.h"
#include "cluster/require.h"
#include "daemon/etcd_keeper.h"
#include "home/door.h"
#include "migrate/registry.h"
#include "wire/conn.h"

#define SAMPLE_MS (GOSSIP_PERIOD_MS / MEASURE_SAMPLES)
#define BATCH_MAX 64          /* datagrams between two looks at the clock */
#define QUESTIONS_MAX 4       /* for facts, at a time */
#define CALM_PERIODS 5        /* BUSY stays for so long after its figures have gone */
#define SEED_PERIODS 10       /* a cluster that has fallen apart comes together again over the seeds */
#define SMALL_CLUSTER 64      /* up to so many nodes each news is published at once, */
#define PUBLISH_MS 250        /* else not more often than this, */
#define LARGE_CLUSTER 1024    /* and from so many on */
#define PUBLISH_LARGE_MS 2000 /* than this: it takes time for each of them */
#define ETCD_AGAIN_MS 1000
#define COMPLAIN_MS 60000     /* about what strangers send */

struct loop {
	const struct config *config;
	struct cluster_view *view;
	struct node_shared *shared;
	int udp_fd, wake_fd;
	int etcd_fd;                  /* of godwit-etcd; -1: there is none */
	int starter_fd;               /* of who starts it, since this process may start nothing */
	uint64_t etcd_ms;             /* when it is started anew */
	struct gossip gossip;
	struct members members;
	struct measure measure;
	struct rng rng;
	struct require busy;
	struct gossip_facts facts;
	struct load load;
	unsigned busy_periods;        /* that BUSY lasts still */
	unsigned periods;
	uint64_t sample_ms, period_ms; /* when they are due */
	uint64_t published_ms, complained_ms;
	bool changed;                 /* since the last time that it was published */
};

static volatile sig_atomic_t ends;

static void on_end(int number)
{
	(void)number;
	ends = 1;
}

int cluster_open_udp(const struct config *config, struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char text[CONN_ADDRESS_TEXT];

	conn_address_text(&config->listen, text);
	if (fd < 0)
		return err_sys(e, -errno, "UDP %s: socket", text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)); /* the godwit-cluster of a godwitd that has just ended says goodbye still */
	if (bind(fd, (const struct sockaddr *)&config->listen, sizeof(config->listen)) < 0)
		return err_sys(e, -errno, "UDP %s", text);
	return take_fd(&fd);
}

/* --- addresses --- */

static void map_address(const struct sockaddr_in *address, uint8_t ret[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(ret, prefix, sizeof(prefix));
	memcpy(ret + 12, &address->sin_addr, 4);
}

/* False: it is none of IPv4. */
static bool unmap_address(const uint8_t address[16], uint16_t port, struct sockaddr_in *ret)
{
	struct sockaddr_in any = { 0 };
	uint8_t mapped[16];

	memcpy(&any.sin_addr, address + 12, 4);
	map_address(&any, mapped);
	if (memcmp(mapped, address, sizeof(mapped)) != 0 || !port)
		return false;
	*ret = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = any.sin_addr, .sin_port = htons(port) };
	return true;
}

/* Where others reach this node; none when only they know it. */
static bool own_address(const struct config *config, struct sockaddr_in *ret)
{
	const struct config_node *listed = config_find(config, config->name);

	*ret = config->listen;
	if (listed)
		*ret = listed->address;
	return listed || config->listen.sin_addr.s_addr != htonl(INADDR_ANY);
}

/* --- sending --- */

static const uint8_t *key_of(const struct loop *l)
{
	return l->config->has_key ? l->config->key : NULL;
}

static void send_packet(const struct loop *l, const struct gossip_packet *p, const struct sockaddr_in *to)
{
	uint8_t bytes[GOSSIP_PACKET_BYTES];

	if (gossip_packet_encode(p, key_of(l), bytes, NULL) == 0)
		(void)!sendto(l->udp_fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof(*to));
}

static void tell(const struct loop *l, enum gossip_kind kind, struct member *const *to, size_t n)
{
	struct gossip_packet p = { .kind = kind };
	struct sockaddr_in address;

	if (n)
		gossip_tell(&l->gossip, cluster_now_ms(), &p.message);
	for (size_t i = 0; i < n; i++)
		if (unmap_address(to[i]->address, to[i]->port, &address))
			send_packet(l, &p, &address);
}

static void tell_urgent(struct loop *l)
{
	struct member *to[GOSSIP_FANOUT];

	tell(l, GOSSIP_NEWS, to, members_choose(&l->members, &l->rng, to, GOSSIP_FANOUT));
}

static void ask_unknown(struct loop *l)
{
	struct member *to[QUESTIONS_MAX];

	tell(l, GOSSIP_QUESTION, to, members_unknown(&l->members, &l->gossip, cluster_now_ms(), to, QUESTIONS_MAX));
}

static void probe_seeds(struct loop *l)
{
	struct gossip_packet p = { .kind = GOSSIP_PROBE };
	size_t n = l->config->n_seeds, only = n ? (size_t)rng_below(&l->rng, n) : 0;

	if (!n || (l->members.n && l->periods % SEED_PERIODS))
		return;
	gossip_tell(&l->gossip, cluster_now_ms(), &p.message);
	for (size_t i = 0; i < n; i++)
		if (!l->members.n || i == only)
			send_packet(l, &p, &l->config->seeds[i]);
}

/* --- what this node says of itself --- */

static enum node_state own_state(struct loop *l)
{
	const struct require_node self = { .name = l->config->name, .labels = l->config->labels, .load = &l->load };

	if (l->config->busy[0] && require_match(&l->busy, &self))
		l->busy_periods = CALM_PERIODS;
	node_state_set_busy(l->shared, l->busy_periods > 0);
	return node_state(l->shared);
}

/* Takes what was measured, and the state that is wished for, into this node's own entry; a change of state goes out at once. */
static void say(struct loop *l, enum node_state state)
{
	l->gossip.entries[0].units = (uint16_t)MIN(registry_count(), (unsigned)UINT16_MAX);
	l->changed = true;
	if (!gossip_measured(&l->gossip, &l->load, state, cluster_now_ms()))
		return;
	log_info("event=state state=%s", state == NODE_GONE ? "gone" : node_state_name(state));
	tell_urgent(l);
}

static void period(struct loop *l)
{
	struct member *to[1 + MEMBERS_DOUBTED];
	uint64_t now = cluster_now_ms();

	measure_take(&l->measure, clock_ns(CLOCK_BOOTTIME), &l->load);
	l->busy_periods -= l->busy_periods > 0;
	say(l, own_state(l));
	members_expire(&l->members, now);
	tell(l, GOSSIP_PROBE, to, members_probe(&l->members, &l->gossip, &l->rng, now, to));
	probe_seeds(l);
	ask_unknown(l);
	l->periods++;
}

/* --- receiving --- */

static void complain(struct loop *l, const struct sockaddr_in *from, const char *text)
{
	uint64_t now = cluster_now_ms();
	char address[CONN_ADDRESS_TEXT];

	if (l->complained_ms && now - l->complained_ms < COMPLAIN_MS)
		return;
	l->complained_ms = now;
	conn_address_text(from, address);
	log_warning("event=gossip-refused peer=%s error=\"%s\"", address, text);
}

/* Without a key: what the nodes of the configuration say of each other, from their addresses. */
static bool believe(const struct loop *l, struct gossip_packet *p, const uint8_t from[16])
{
	const struct member *sender = members_find(&l->members, p->kind == GOSSIP_FACTS ? p->facts.id : p->message.entries[0].id);
	struct gossip_message *m = &p->message;
	size_t kept = 0;

	if (l->config->has_key)
		return true;
	if (!sender || !sender->fixed || memcmp(sender->address, from, sizeof(sender->address)) != 0)
		return false;
	for (size_t i = 0; p->kind != GOSSIP_FACTS && i < m->n; i++) {
		const struct member *member = members_find(&l->members, m->entries[i].id);

		if (m->entries[i].id == l->facts.id || (member && member->fixed))
			m->entries[kept++] = m->entries[i];
	}
	m->n = kept;
	return true;
}

static void take_news(struct loop *l, struct gossip_packet *p, const struct sockaddr_in *from)
{
	struct gossip_packet answer = { .kind = p->kind == GOSSIP_PROBE ? GOSSIP_ANSWER : GOSSIP_FACTS, .facts = l->facts };
	uint8_t address[16];
	bool urgent;

	if (p->message.entries[0].id == l->facts.id) {
		if (p->message.entries[0].version != l->gossip.entries[0].version) /* else it is a seed of ours that is ourselves */
			complain(l, from, "another node has this one's name: names must differ");
		return;
	}
	map_address(from, address);
	members_heard(&l->members, &l->gossip, &p->message, address, ntohs(from->sin_port), cluster_now_ms());
	urgent = gossip_merge(&l->gossip, &p->message, cluster_now_ms());
	l->changed = true;
	if (p->kind == GOSSIP_PROBE)
		gossip_tell(&l->gossip, cluster_now_ms(), &answer.message);
	if (p->kind == GOSSIP_PROBE || p->kind == GOSSIP_QUESTION)
		send_packet(l, &answer, from);
	if (urgent)
		tell_urgent(l);
	if (l->members.n <= SMALL_CLUSTER) /* else once a period */
		ask_unknown(l);
}

static void take_facts(struct loop *l, const struct gossip_facts *facts)
{
	if (hello_name_valid(facts->name) && config_labels_valid(facts->labels) && members_facts(&l->members, &l->gossip, facts))
		l->changed = true;
}

static bool receive_one(struct loop *l)
{
	uint8_t bytes[GOSSIP_PACKET_BYTES + 1], address[16];
	struct sockaddr_in from = { 0 };
	socklen_t from_len = sizeof(from);
	ssize_t n = recvfrom(l->udp_fd, bytes, sizeof(bytes), MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
	struct gossip_packet p;
	struct err e = ERR_INIT;

	if (n < 0)
		return errno != EAGAIN;
	map_address(&from, address);
	if (gossip_packet_decode(bytes, (size_t)n, key_of(l), &p, &e) < 0)
		complain(l, &from, e.message);
	else if (!believe(l, &p, address))
		complain(l, &from, "not from a node of the configuration, and this cluster has no key");
	else if (p.kind == GOSSIP_FACTS)
		take_facts(l, &p.facts);
	else
		take_news(l, &p, &from);
	return true;
}

/* --- publishing --- */

static void fill_node(const struct gossip_facts *facts, const struct gossip_entry *entry, struct cluster_node *ret)
{
	*ret = (struct cluster_node){ .id = facts->id };
	memcpy(ret->name, facts->name, sizeof(ret->name));
	memcpy(ret->labels, facts->labels, sizeof(ret->labels));
	memcpy(ret->kernel, facts->kernel, sizeof(ret->kernel));
	if (!entry)
		return;
	ret->state = entry->state;
	ret->measured_ms = entry->measured_ms;
	ret->units = entry->units;
	ret->load = entry->load;
}

static uint64_t publish_ms(size_t n)
{
	return n <= SMALL_CLUSTER ? 0 : n <= LARGE_CLUSTER ? PUBLISH_MS : PUBLISH_LARGE_MS;
}

static void publish(struct loop *l)
{
	struct cluster_table *table = cluster_view_draft(l->view);
	uint64_t now = cluster_now_ms();

	if (!l->changed || now - l->published_ms < publish_ms(l->members.n))
		return;
	fill_node(&l->facts, &l->gossip.entries[0], &table->nodes[0]);
	own_address(l->config, &table->nodes[0].address);
	table->nodes[0].reachable = true;
	table->n = 1;
	for (size_t i = 0; i < l->members.n && table->n < CLUSTER_NODES_MAX; i++) {
		const struct member *member = &l->members.v[i];
		const struct gossip_entry *entry = gossip_find(&l->gossip, member->id);
		struct cluster_node *node = &table->nodes[table->n];

		fill_node(&member->facts, entry, node);
		node->id = member->id;
		if (!member->facts.name[0] || !unmap_address(member->address, member->port, &node->address))
			continue; /* it has not said its name yet */
		node->reachable = entry && member_reachable(member) && entry->state != NODE_GONE && gossip_age_ms(entry, now) < GOSSIP_FORGET_MS;
		table->n++;
	}
	cluster_view_publish(l->view);
	l->published_ms = now;
	l->changed = false;
}

/* --- the process --- */

static void fix(struct loop *l, const struct membership_node *node)
{
	struct sockaddr_in address = { 0 };
	uint8_t mapped[16];

	memcpy(&address.sin_addr, node->address, sizeof(node->address));
	map_address(&address, mapped);
	if (!members_fix(&l->members, node->name, mapped, node->port, cluster_now_ms()))
		log_error("event=node-dropped node=%s error=\"more than %d nodes\"", node->name, CLUSTER_NODES_MAX);
}

/* The nodes of the configuration. */
static int fix_listed(struct loop *l, struct err *e)
{
	size_t n = l->config->n_nodes;
	cleanup_free struct membership_node *listed = calloc(n + 1, sizeof(*listed)), *nodes = NULL;
	struct membership *m = NULL;
	int r;

	for (size_t i = 0; listed && i < n; i++) {
		listed[i].port = ntohs(l->config->nodes[i].address.sin_port);
		memcpy(listed[i].name, l->config->nodes[i].name, sizeof(listed[i].name));
		memcpy(listed[i].address, &l->config->nodes[i].address.sin_addr, sizeof(listed[i].address));
	}
	if (!listed)
		return err_sys(e, -ENOMEM, "%zu nodes", n);
	r = membership_open_static(&m, listed, n, e);
	if (r == 0)
		r = membership_list(m, &nodes, &n, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		fix(l, &nodes[i]);
	membership_close(m);
	return r;
}

static bool is_among(const struct membership_node *nodes, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (gossip_id(nodes[i].name) == id)
			return true;
	return false;
}

/* Those that etcd lists, instead of those that it listed before. */
static void take_list(struct loop *l, const struct membership_node *nodes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fix(l, &nodes[i]);
	for (size_t i = 0; i < l->members.n; i++) {
		const struct member *member = &l->members.v[i];

		if (member->fixed && !config_find(l->config, member->facts.name) && !is_among(nodes, n, member->id))
			members_unfix(&l->members, member->id);
	}
	l->changed = true;
}

static void read_etcd(struct loop *l)
{
	const size_t room = MEMBERSHIP_NODES_MAX * sizeof(struct membership_node);
	cleanup_free struct membership_node *nodes = NULL;
	int list = -1;
	char word;
	size_t n_fds = 0;
	ssize_t len = door_receive(l->etcd_fd, &word, 1, &list, 1, &n_fds, NULL);

	if (n_fds) {
		ssize_t bytes;

		nodes = malloc(room);
		bytes = nodes ? pread(list, nodes, room, 0) : -1;
		close(list);
		if (bytes >= 0)
			take_list(l, nodes, (size_t)bytes / sizeof(nodes[0]));
	}
	if (len > 0 || len == -EINTR)
		return;
	close_fdp(&l->etcd_fd);
	l->etcd_ms = cluster_now_ms() + ETCD_AGAIN_MS;
}

static void start_etcd(struct loop *l)
{
	char word = 0;
	size_t n_fds = 0;

	if (l->starter_fd < 0 || l->etcd_fd >= 0 || cluster_now_ms() < l->etcd_ms)
		return;
	l->etcd_ms = cluster_now_ms() + ETCD_AGAIN_MS;
	if (send(l->starter_fd, &word, 1, MSG_NOSIGNAL) == 1 && door_receive(l->starter_fd, &word, 1, &l->etcd_fd, 1, &n_fds, NULL) > 0)
		return;
	log_error("event=etcd-failed error=\"who starts godwit-etcd has died\"");
	ends = 1; /* godwitd starts another one of us */
}

static int start(struct loop *l, const struct cluster_setup *setup, struct err *e)
{
	const struct config *config = setup->config;
	struct gossip_entry self = { .version = clock_ns(CLOCK_REALTIME) / 1000000, .state = NODE_OK, .measured_ms = cluster_now_ms() };
	struct sockaddr_in address;
	struct utsname name;
	int r;

	*l = (struct loop){ .config = config, .view = setup->view, .shared = setup->shared, .udp_fd = setup->udp_fd, .wake_fd = setup->wake_fd, .etcd_fd = -1, .starter_fd = -1 };
	uname(&name);
	l->facts.id = gossip_id(config->name);
	snprintf(l->facts.name, sizeof(l->facts.name), "%s", config->name);
	snprintf(l->facts.labels, sizeof(l->facts.labels), "%s", config->labels);
	snprintf(l->facts.kernel, sizeof(l->facts.kernel), "%s", name.release);
	self.id = l->facts.id;
	self.facts = gossip_facts_hash(&l->facts);
	if (own_address(config, &address))
		map_address(&address, self.address);
	self.port = ntohs(address.sin_port);
	if (getrandom(&l->rng.state, sizeof(l->rng.state), 0) < 0)
		l->rng.state = self.version ^ self.id;
	r = gossip_init(&l->gossip, &self, CLUSTER_NODES_MAX, e);
	if (r == 0)
		r = members_init(&l->members, self.id, CLUSTER_NODES_MAX - 1, e);
	if (r == 0)
		r = require_parse(&l->busy, config->busy, e);
	if (r == 0)
		r = fix_listed(l, e);
	measure_init(&l->measure, config->speed, NULL);
	if (r == 0 && config->etcd.n_servers) {
		own_address(config, &address);
		r = l->starter_fd = etcd_starter(config, &address, e);
	}
	return r < 0 ? r : confine((const int[]){ SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_alarm }, 5, e); /* alarm(2): getutxent(3) */
}

/* The first time everybody is probed at once, so that the table is whole after a moment: a burst that a small cluster can bear. */
static void greet(struct loop *l)
{
	struct member *to[SMALL_CLUSTER];
	size_t n = members_choose(&l->members, &l->rng, to, SMALL_CLUSTER);

	for (size_t i = 0; i < n; i++)
		to[i]->probed_ms = cluster_now_ms();
	tell(l, GOSSIP_PROBE, to, n);
}

static void loop_once(struct loop *l)
{
	struct pollfd p[3] = { { l->udp_fd, POLLIN, 0 }, { l->wake_fd, POLLIN, 0 }, { l->etcd_fd, POLLIN, 0 } };
	uint64_t now = cluster_now_ms(), due = MIN(l->sample_ms, l->period_ms), word;

	if (poll(p, 3, due > now ? (int)(due - now) : 0) < 0)
		p[0].revents = p[1].revents = p[2].revents = 0;
	for (int i = 0; p[0].revents && i < BATCH_MAX && receive_one(l); i++)
		;
	if (p[1].revents && read(l->wake_fd, &word, sizeof(word)) == sizeof(word))
		say(l, own_state(l));
	if (p[2].revents)
		read_etcd(l);
	start_etcd(l);
	now = cluster_now_ms();
	if (now >= l->sample_ms) {
		measure_sample(&l->measure);
		l->sample_ms = now + SAMPLE_MS;
	}
	if (now >= l->period_ms) {
		period(l);
		l->period_ms = now + GOSSIP_PERIOD_MS;
		l->sample_ms = now + SAMPLE_MS;
	}
	publish(l);
}

void cluster_loop(const struct cluster_setup *setup)
{
	static struct loop l;
	struct err e = ERR_INIT;

	prctl(PR_SET_NAME, "godwit-cluster");
	signal(SIGTERM, on_end);
	signal(SIGCHLD, SIG_IGN); /* godwit-etcd: its end is seen otherwise */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (start(&l, setup, &e) < 0) {
		log_error("event=cluster-failed error=\"%s\"", e.message);
		_exit(1);
	}
	measure_take(&l.measure, clock_ns(CLOCK_BOOTTIME), &l.load);
	say(&l, own_state(&l));
	publish(&l);
	greet(&l);
	l.period_ms = cluster_now_ms() + GOSSIP_PERIOD_MS;
	l.sample_ms = cluster_now_ms() + SAMPLE_MS;
	while (!ends && getppid() == setup->daemon) /* which may be the first process of a container */
		loop_once(&l);
	say(&l, NODE_GONE);
	_exit(0);
}
