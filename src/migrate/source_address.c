/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source_address.c - see source_address.h */
#include "migrate/source_address.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/nsfs.h"
#include "migrate/source.h"
#include "net/owned_users.h"
#include "wire/hello.h"

#define DELIVER_MS 1000
#define DELIVER_STEP_MS 10

void source_address_look(struct source *s)
{
	static int host = -1; /* of all attempts of this worker: the first one begins outside */

	if (host < 0)
		host = ns_open(0, NS_NET);
	s->addresses.host = host;
}

static int add(struct source *s, struct netlink *nl, uint32_t process, const struct owned *o, struct err *e)
{
	struct source_addresses *a = &s->addresses;
	uint32_t device;
	int ret = 0;

	for (size_t i = 0; i < o->n && ret == 0; i++) {
		if (a->n == OWNED_MAX)
			return err_set(e, -E2BIG, "more than %u addresses of the processes of one unit", OWNED_MAX);
		a->v[a->n] = o->v[i];
		a->process[a->n] = process;
		ret = address_device(nl, &o->v[i], &device, a->hardware[a->n], e);
		a->n++;
	}
	return ret;
}

static int find(struct source *s, struct err *e)
{
	struct netlink nl;
	int ret = netlink_open(&nl, NETLINK_ROUTE, s->addresses.host, e);

	s->addresses.n = 0;
	for (size_t i = 0; i < s->unit.nprocs && ret == 0; i++) {
		struct owned o;

		if (owned_find(s->unit.procs[i].pid, &o) == 0 && !o.coming)
			ret = add(s, &nl, (uint32_t)i, &o, e);
	}
	netlink_close(&nl);
	return ret;
}

/* --- who else uses them --- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void source_each_socket(pid_t pid, void (*each)(pid_t pid, uint32_t inode, void *arg), void *arg)
{
	char path[64];
	cleanup_closedir DIR *d = NULL;
	struct dirent *item;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && (item = readdir(d))) {
		char text[64];
		ssize_t n = isdigit((unsigned char)item->d_name[0]) ? readlinkat(dirfd(d), item->d_name, text, sizeof(text) - 1) : -1;
		unsigned inode;

		text[MAX(n, 0)] = 0;
		if (n > 0 && sscanf(text, "socket:[%u]", &inode) == 1)
			each(pid, inode, arg);
	}
}

struct others {
	struct source *s;
	uint32_t *inodes; /* ascending, without those of the unit, which are 0 in `of` */
	pid_t *of;        /* who has it; 0: nobody has been found */
	size_t n;
	bool inside;
};

static void on_socket(pid_t pid, uint32_t inode, void *arg)
{
	struct others *o = arg;
	uint32_t *at = o->n ? bsearch(&inode, o->inodes, o->n, sizeof(*o->inodes), compare) : NULL;

	if (at && o->of[at - o->inodes] >= 0)
		o->of[at - o->inodes] = o->inside ? -1 : pid;
}

static bool is_inside(const struct source *s, pid_t pid)
{
	for (size_t i = 0; i < s->unit.nprocs; i++)
		if (s->unit.procs[i].pid == pid)
			return true;
	return false;
}

/* -1: a process of the unit. */
static void find_owners(struct others *o)
{
	cleanup_closedir DIR *d = NULL;
	struct dirent *item;
	size_t left = 0;

	o->inside = true;
	for (size_t i = 0; i < o->s->unit.nprocs; i++)
		source_each_socket(o->s->unit.procs[i].pid, on_socket, o);
	for (size_t i = 0; i < o->n; i++)
		left += !o->of[i];
	o->inside = false;
	d = left ? opendir("/proc") : NULL;
	while (d && (item = readdir(d))) {
		pid_t pid = isdigit((unsigned char)item->d_name[0]) ? atoi(item->d_name) : 0;

		if (pid && !is_inside(o->s, pid))
			source_each_socket(pid, on_socket, o);
	}
}

static void name_of(pid_t pid, char text[32])
{
	char path[64];
	cleanup_fclose FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(text, 32, f))
		snprintf(text, 32, "?");
	text[strcspn(text, "\n")] = 0;
}

static void refuse_users(struct source *s, const struct owned_user *users, size_t n)
{
	struct others o = { .s = s, .inodes = malloc((n + 1) * sizeof(*o.inodes)), .of = calloc(n + 1, sizeof(*o.of)) };

	for (size_t i = 0; i < n && o.inodes && o.of; i++)
		if (users[i].inode)
			o.inodes[o.n++] = users[i].inode;
	if (o.n) {
		qsort(o.inodes, o.n, sizeof(*o.inodes), compare);
		find_owners(&o);
	}
	for (size_t i = 0; i < n && o.n; i++) {
		uint32_t *at = users[i].inode ? bsearch(&users[i].inode, o.inodes, o.n, sizeof(*o.inodes), compare) : NULL;
		char flow[REDIRECT_FLOW_TEXT], cause[256], name[32];
		pid_t pid = at ? o.of[at - o.inodes] : 0;

		if (pid <= 0)
			continue;
		name_of(pid, name);
		snprintf(cause, sizeof(cause), "the address belongs to the unit and would leave this host with it, and process %d (%s), which stays, uses it", (int)pid, name);
		refusals_add(s->refusals, "net.address.used", cause, "end that one, or have it use an address of this host", "%s", redirect_flow_text(&users[i].flow, flow));
		refusals_blame(s->refusals, s->refusals->n - 1, pid);
	}
	free(o.inodes);
	free(o.of);
}

/* The first connection that has been closed and not delivered; NULL: none. */
static const struct owned_user *undelivered(const struct owned_user *users, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (users[i].undelivered)
			return &users[i];
	return NULL;
}

static const char still_to_say[] = "it has been closed by the unit, and what was said last has not been acknowledged: its address cannot leave this host before";

/* The sockets that have the addresses, once those that have been closed have delivered everything; or do not, for a while. */
static int list_users(struct source *s, struct owned_user **ret_users, size_t *ret_n, struct err *e)
{
	struct source_addresses *a = &s->addresses;
	struct owned_user *users = NULL;
	size_t n = 0;
	int ret = owned_users(a->host, a->v, a->n, &users, &n, e);

	for (unsigned waited = 0; ret == 0 && undelivered(users, n) && waited < DELIVER_MS; waited += DELIVER_STEP_MS) {
		poll(NULL, 0, DELIVER_STEP_MS);
		free(users);
		users = NULL;
		ret = owned_users(a->host, a->v, a->n, &users, &n, e);
	}
	if (ret == 0) {
		*ret_users = users;
		*ret_n = n;
	}
	return ret;
}

static int check_users(struct source *s, struct err *e)
{
	struct owned_user *users = NULL;
	size_t n = 0;
	char text[REDIRECT_FLOW_TEXT];
	int ret = list_users(s, &users, &n, e);

	if (ret == 0 && undelivered(users, n))
		refusals_add(s->refusals, "net.address.undelivered", still_to_say, "try again when the peer can be reached, or the connection has been given up", "connection %s",
			     redirect_flow_text(&undelivered(users, n)->flow, text));
	if (ret == 0)
		refuse_users(s, users, n);
	free(users);
	return ret;
}

/* --- steps --- */

int source_address_begin(struct source *s, struct err *e)
{
	char text[ADDRESS_TEXT];
	int ret = find(s, e);

	if (ret < 0 || !s->addresses.n)
		return ret;
	if (!(hello_common_features(s->peer) & FEATURE_ADDRESSES))
		refusals_add(s->refusals, "net.address", "godwitd there is of a version that cannot take addresses of units", "install the same version of Godwit there", "address %s",
			     address_text(&s->addresses.v[0], text));
	return check_users(s, e);
}

int source_address_redirect(struct source *s, struct err *e)
{
	uint8_t v[OWNED_MAX][16];

	for (size_t i = 0; i < s->addresses.n; i++)
		memcpy(v[i], s->addresses.v[i].address, sizeof(v[i]));
	return s->net.r ? redirect_set_owned(s->net.r, v, s->addresses.n, e) : 0;
}

void source_address_offer(struct source *s, Gw__Offer *o)
{
	const struct source_addresses *a = &s->addresses;

	if (!a->n)
		return;
	o->addresses = must_alloc(a->n * sizeof(*o->addresses));
	o->n_addresses = a->n;
	for (size_t i = 0; i < a->n; i++) {
		char text[ADDRESS_TEXT];
		Gw__NetAddress *m = o->addresses[i] = must_alloc(sizeof(*m));

		gw__net_address__init(m);
		m->process = a->process[i];
		m->address = strdup(address_text_whole(&a->v[i], text));
		bytes_set(&m->hardware, a->hardware[i], sizeof(a->hardware[i]));
	}
}

void source_address_offered(Gw__Offer *o)
{
	for (size_t i = 0; i < o->n_addresses; i++)
		gw__net_address__free_unpacked(o->addresses[i], NULL);
	free(o->addresses);
	o->addresses = NULL;
	o->n_addresses = 0;
}

/* By another attempt, if at all. */
static int not_yet(const struct owned_user *u, struct err *e)
{
	char text[REDIRECT_FLOW_TEXT];

	return u ? err_set(e, -EAGAIN, "%s: %s", redirect_flow_text(&u->flow, text), still_to_say) : 0;
}

int source_address_hold(struct source *s, struct err *e)
{
	struct source_addresses *a = &s->addresses;
	int ret;

	if (!a->n)
		return 0;
	source_address_free(s);
	ret = list_users(s, &a->users, &a->n_users, e);
	return ret == 0 ? not_yet(undelivered(a->users, a->n_users), e) : ret;
}

/* Whether the unit has all the connections still that there were. */
static bool has_all(struct source *s)
{
	const struct source_addresses *a = &s->addresses;
	struct net_flows now;
	bool all = net_flows_of(s->unit.fds.msg, NULL, &now, NULL) == 0;

	for (size_t i = 0; i < a->n_users && all; i++)
		all = !net_flow_is_connection(&a->users[i].flow) || !a->users[i].inode || net_flows_has(&now, &a->users[i].flow);
	net_flows_free(&now);
	return all;
}

int source_address_check(struct source *s, struct err *e)
{
	struct source_addresses *a = &s->addresses;
	struct owned_user *users = NULL;
	size_t n = 0;
	int ret;

	/* Listing all sockets of the host takes a millisecond or more. */
	if (!a->n || has_all(s))
		return 0;
	ret = owned_users(a->host, a->v, a->n, &users, &n, e);
	if (ret == 0)
		ret = not_yet(undelivered(users, n), e);
	free(users);
	return ret;
}

void source_address_free(struct source *s)
{
	free(s->addresses.users);
	s->addresses.users = NULL;
	s->addresses.n_users = 0;
}

void source_address_release(struct source *s)
{
	struct source_addresses *a = &s->addresses;

	for (size_t i = 0; i < a->n; i++)
		if (!i || a->process[i] != a->process[i - 1])
			owned_release(s->unit.procs[a->process[i]].pid, a->host);
	a->n = 0;
}
