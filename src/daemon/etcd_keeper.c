// SPDX-License-Identifier: GPL-2.0-or-later
/* etcd_keeper.c - see etcd_keeper.h */
#include "daemon/etcd_keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/auto_failover.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/owner.h"
#include "daemon/protect_journal.h"
#include "home/door.h"
#include "migrate/registry.h"

#define TICK_MS 1000
#define BUSY_MS 200         /* a failover is under way */
#define COPIES_LIST_S 1     /* between two lists, when copies are kept that may be needed */
#define GONE_RECALLED 30    /* of an earlier run of this host: others have time to see that it is lost */
#define LOST_LOOK_S 3
#define LIST_MIN_S 2        /* between two lists; the more nodes, the longer: what they ask the store together shall not grow with their square */
#define LIST_NODES_A_S 20
#define GONE_TICKS 3        /* a unit that has left is taken over by then */
#define COMPLAIN_NS 60000000000ull

/* A unit with a record that says that it is here. */
struct entered {
	char unit[MEMBERSHIP_UNIT_MAX];
	uint64_t moves, fence;
	unsigned gone; /* ticks since it was seen here */
	bool recalled; /* it has not been, yet */
};

struct keeper {
	struct membership *store;
	const char *name;
	int fd;
	unsigned lease_s;
	struct entered *v;
	size_t n;
	bool down;                 /* etcd has not answered in this tick */
	bool recalled;             /* what an earlier godwitd has entered is in v */
	uint64_t keep_ns, list_ns; /* when they are due */
	uint64_t complained_ns, conflict_ns;
	bool entered;              /* by this process */
	struct membership_node *nodes; /* of the last list */
	size_t n_nodes;
	struct auto_failover *failover;
	uint64_t sync_ns, lost_ns;
};

static volatile sig_atomic_t ends;

static void on_end(int number)
{
	(void)number;
	ends = 1;
}

/* Not more often than once a minute. */
static bool is_time(uint64_t *last_ns)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (*last_ns && now - *last_ns < COMPLAIN_NS)
		return false;
	*last_ns = now;
	return true;
}

static void complain(struct keeper *k, const struct err *e)
{
	if (e->code == -EEXIST && is_time(&k->conflict_ns))
		log_error("event=owner-conflict error=\"%s\"", e->message);
	else if (e->code != -EEXIST && is_time(&k->complained_ns))
		log_warning("event=etcd-failed error=\"%s\"", e->message);
}

/* --- records --- */

static struct entered *find(struct keeper *k, const char *unit)
{
	for (size_t i = 0; i < k->n; i++)
		if (!strcmp(k->v[i].unit, unit))
			return &k->v[i];
	return NULL;
}

static struct entered *add(struct keeper *k, const char *unit)
{
	struct entered *grown = reallocarray(k->v, k->n + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	k->v = grown;
	grown += k->n++;
	*grown = (struct entered){ 0 };
	snprintf(grown->unit, sizeof(grown->unit), "%s", unit);
	return grown;
}

static void note(struct keeper *k, const struct membership_record *record)
{
	struct entered *entered = find(k, record->unit);

	if (!entered)
		entered = add(k, record->unit);
	if (!entered)
		return;
	entered->moves = record->moves;
	entered->fence = record->fence;
}

static int recall(const struct membership_record *record, void *arg)
{
	struct keeper *k = arg;

	if (strcmp(record->owner, k->name) != 0)
		return 0;
	note(k, record);
	if (find(k, record->unit))
		find(k, record->unit)->recalled = true;
	return 0;
}

/* The record is not what was believed: what is it? 0: record->fence is right now; 1: it says already what it is to say. */
static int look_again(struct keeper *k, struct membership_record *record, struct err *e)
{
	struct membership_record there;
	int r = membership_owner(k->store, record->unit, &there, e);

	if (r == -ENOENT) {
		record->fence = 0;
		return 0;
	}
	if (r < 0)
		return r;
	if (strcmp(there.owner, k->name) != 0 && there.moves >= record->moves)
		return err_set(e, -EEXIST, "unit %s is here after %llu moves, and its record says that it is on %s after %llu (number %llu): one of the two is an old copy", record->unit,
			       (unsigned long long)record->moves, there.owner, (unsigned long long)there.moves, (unsigned long long)there.fence);
	record->fence = there.fence;
	return !strcmp(there.owner, k->name) && there.moves == record->moves;
}

static int take_over(struct keeper *k, const struct registry_entry *entry, uint64_t fence, struct err *e)
{
	struct membership_record record = { .moves = entry->moves, .fence = fence };
	int r;

	snprintf(record.unit, sizeof(record.unit), "%s", entry->unit);
	snprintf(record.owner, sizeof(record.owner), "%s", k->name);
	r = membership_own(k->store, &record, e);
	if (r == -ESTALE) {
		r = look_again(k, &record, e);
		if (r == 0)
			r = membership_own(k->store, &record, e);
	}
	if (r >= 0) {
		note(k, &record);
		log_info("event=owned unit=%s moves=%llu fence=%llu", record.unit, (unsigned long long)record.moves, (unsigned long long)record.fence);
	}
	return MIN(r, 0);
}

static int see(const struct registry_entry *entry, void *arg)
{
	struct keeper *k = arg;
	struct entered *entered = find(k, entry->unit);
	struct err e = ERR_INIT;

	if (entered) {
		entered->gone = 0;
		entered->recalled = false;
	}
	if (k->down || (entered && entered->moves == entry->moves))
		return 0;
	if (take_over(k, entry, entered ? entered->fence : 0, &e) == 0 || e.code == -ESTALE) /* again in a second */
		return 0;
	complain(k, &e);
	k->down = e.code != -EEXIST;
	return 0;
}

static void keep_one(const char *key, void *arg)
{
	struct keeper *k = arg;
	char name[MEMBERSHIP_UNIT_MAX];
	struct entered *entered;

	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(key), key);
	entered = find(k, name);
	if (entered)
		entered->gone = 0;
}

/* Those that are not here and whose records stay: they are being restored, or have been killed here and are to be elsewhere. */
static void keep_records(struct keeper *k)
{
	for (size_t i = 0; i < k->n; i++)
		if (auto_failover_is_taking(k->failover, k->v[i].unit))
			k->v[i].gone = 0;
	protect_list_lost(keep_one, k);
}

static void forget_gone(struct keeper *k)
{
	for (size_t i = 0; i < k->n && !k->down;) {
		struct err e = ERR_INIT;

		if (k->v[i].gone < (k->v[i].recalled ? GONE_RECALLED : GONE_TICKS)) {
			i++;
			continue;
		}
		if (membership_disown(k->store, k->v[i].unit, k->v[i].fence, &e) < 0 && e.code != -ESTALE) { /* stale: who has it now was faster */
			k->down = true;
			complain(k, &e);
			return;
		}
		k->v[i] = k->v[--k->n];
	}
}

static int sync_records(struct keeper *k, struct err *e)
{
	int r = 0;

	if (!k->recalled) { /* also when etcd was away: who knows what has become of it */
		k->n = 0;
		r = membership_records(k->store, recall, k, e);
	}
	if (r < 0)
		return r;
	k->recalled = true;
	k->down = false;
	for (size_t i = 0; i < k->n; i++)
		k->v[i].gone++;
	r = registry_list(see, k, e);
	keep_records(k);
	forget_gone(k);
	k->recalled = !k->down;
	return MIN(r, 0);
}

/* --- nodes --- */

/* In a file without a name: a message has not enough room for thousands. */
static int send_nodes(int to, const struct membership_node *nodes, size_t n, struct err *e)
{
	cleanup_close int fd = memfd_create("godwit-nodes", MFD_CLOEXEC);
	ssize_t len = (ssize_t)(n * sizeof(*nodes));

	if (fd < 0 || write(fd, nodes, (size_t)len) != len)
		return err_sys(e, -ENOMEM, "a list of %zu nodes", n);
	return door_send(to, "", 1, &fd, 1, e);
}

static int tell_nodes(struct keeper *k, struct err *e)
{
	struct membership_node *nodes = NULL;
	size_t n = 0;
	int r = membership_list(k->store, &nodes, &n, e);

	if (r < 0)
		return r;
	free(k->nodes);
	k->nodes = nodes;
	k->n_nodes = n;
	k->list_ns = clock_ns(CLOCK_MONOTONIC) + ((auto_failover_has_copies(k->failover) ? COPIES_LIST_S : LIST_MIN_S) + n / LIST_NODES_A_S) * 1000000000ull;
	return n ? send_nodes(k->fd, nodes, n, e) : 0;
}

/* --- the lease --- */

/* What was protected here must be dead before this node is entered again; and others are to know that it is. */
static void begin_anew(struct keeper *k)
{
	fence_kill_all("its lease in etcd could not be renewed");
	fence_next_epoch();
	membership_say_run(k->store, keep_run());
	log_warning("event=lease-lost run=%s", keep_run());
}

static int keep_lease(struct keeper *k, struct err *e)
{
	uint64_t asked_ns;
	int r = -ENOKEY;

	if (fence_is_over()) {
		begin_anew(k);
		membership_leave(k->store, NULL); /* it may live still: entering it is what tells the others */
		k->entered = false;
	}
	asked_ns = clock_ns(CLOCK_BOOTTIME);
	if (k->entered)
		r = membership_renew(k->store, e);
	if (k->entered && r == -ENOKEY) { /* before its time: somebody has revoked it, or this host stood still as a whole */
		fence_lose();
		begin_anew(k);
		asked_ns = clock_ns(CLOCK_BOOTTIME);
	}
	if (r == -ENOKEY)
		r = membership_keep(k->store, e);
	if (r < 0)
		return r;
	k->entered = true;
	fence_renew(asked_ns, k->lease_s);
	k->keep_ns = clock_ns(CLOCK_MONOTONIC) + k->lease_s * 1000000000ull / 3;
	return 0;
}

struct lost {
	struct keeper *k;
	int code;
	struct err *e;
};

/* Killed here, and others' by now, or nobody's? */
static void look_at_lost(const char *key, void *arg)
{
	struct lost *l = arg;
	char name[MEMBERSHIP_UNIT_MAX];
	struct membership_record there;
	int r;

	if (l->code < 0)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(key), key);
	r = membership_owner(l->k->store, name, &there, l->e);
	if (r < 0 && r != -ENOENT) {
		l->code = r;
		return;
	}
	if (r == 0 && !strcmp(there.owner, l->k->name) && protect_lost_age_s(key) < FENCE_LOST_S)
		return;
	if (r == 0 && !strcmp(there.owner, l->k->name))
		log_error("event=lost unit=%s text=\"nobody has restored it\"", name);
	protect_forget_lost(key);
}

static int sync_lost(struct keeper *k, struct err *e)
{
	struct lost l = { k, 0, e };

	k->lost_ns = clock_ns(CLOCK_MONOTONIC) + LOST_LOOK_S * 1000000000ull;
	protect_list_lost(look_at_lost, &l);
	return l.code;
}

static void note_taken(const struct membership_record *record, void *arg)
{
	note(arg, record);
}

static void tick(struct keeper *k)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	struct err e = ERR_INIT;
	int r = 0;

	if (now >= k->keep_ns)
		r = keep_lease(k, &e);
	if (r == 0 && now >= k->list_ns)
		r = tell_nodes(k, &e);
	if (r == 0)
		r = auto_failover_tick(k->failover, k->store, k->nodes, k->n_nodes, note_taken, k, &e);
	if (r == 0 && now >= k->lost_ns)
		r = sync_lost(k, &e);
	if (r == 0 && now >= k->sync_ns) {
		k->sync_ns = now + TICK_MS * 1000000ull - BUSY_MS * 500000ull;
		r = sync_records(k, &e);
	}
	if (fence_is_over()) /* as godwit-watch does */
		fence_kill_all("its lease in etcd could not be renewed");
	if (r == 0)
		return;
	k->recalled = false;
	complain(k, &e);
}

static bool is_entered(const char *unit, void *arg)
{
	return find(arg, unit) != NULL;
}

/* Until the next tick. */
static void serve(struct keeper *k, struct pollfd p[2])
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + (auto_failover_is_busy(k->failover) ? BUSY_MS : TICK_MS) * 1000000ull, now;

	while (!ends && !(p[0].revents & (POLLHUP | POLLERR)) && (now = clock_ns(CLOCK_MONOTONIC)) < until) {
		if (poll(p, 2, (int)((until - now) / 1000000) + 1) > 0 && p[1].revents)
			owner_serve(p[1].fd, k->store, k->name, is_entered, k);
	}
}

static void __attribute__((noreturn)) run(const struct config *config, const struct membership_node *self, int fd)
{
	static struct keeper k;
	struct pollfd p[2] = { { fd, 0, 0 }, { -1, POLLIN, 0 } };
	struct err e = ERR_INIT;

	prctl(PR_SET_NAME, "godwit-etcd");
	signal(SIGTERM, on_end);
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	k = (struct keeper){ .name = config->name, .fd = fd, .lease_s = config->etcd.lease_s };
	p[1].fd = owner_open(&e);
	if (p[1].fd < 0 || membership_open_etcd(&k.store, &config->etcd, self, &e) < 0 || !(k.failover = auto_failover_new(config, &e))) {
		log_error("event=etcd-failed error=\"%s\"", e.message);
		_exit(1);
	}
	membership_say_run(k.store, keep_run());
	while (!ends && !(p[0].revents & (POLLHUP | POLLERR))) {
		tick(&k);
		serve(&k, p);
	}
	/* What is protected runs on until its time is over, or the next godwitd renews it; it must not be restored elsewhere meanwhile. */
	if (!fence_has_units())
		membership_leave(k.store, NULL);
	_exit(0);
}

/* Ends with who asks. */
static void __attribute__((noreturn)) start_when_asked(const struct config *config, const struct sockaddr_in *self, int fd)
{
	char word;

	prctl(PR_SET_NAME, "godwit-etcd");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	while (recv(fd, &word, 1, 0) == 1) {
		struct err e = ERR_INIT;
		int keeper = etcd_keeper_start(config, self, &e);

		if (keeper < 0)
			log_error("event=etcd-failed error=\"%s\"", e.message);
		door_send(fd, &word, 1, &keeper, keeper >= 0, NULL);
		close_fdp(&keeper);
	}
	_exit(0);
}

int etcd_starter(const struct config *config, const struct sockaddr_in *self, struct err *e)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	pid = fork();
	if (pid == 0) {
		dup2(pair[1], 3); /* nothing else of godwit-cluster's is held open: not its port */
		close_range(4, ~0u, 0);
		start_when_asked(config, self, 3);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return err_sys(e, -errno, "fork");
	}
	return pair[0];
}

int etcd_keeper_start(const struct config *config, const struct sockaddr_in *self, struct err *e)
{
	struct membership_node node = { .port = ntohs(self->sin_port) };
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	snprintf(node.name, sizeof(node.name), "%s", config->name);
	memcpy(node.address, &self->sin_addr, sizeof(node.address));
	pid = fork();
	if (pid == 0) {
		dup2(pair[1], 3);
		close_range(4, ~0u, 0);
		run(config, &node, 3);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return err_sys(e, -errno, "fork");
	}
	return pair[0];
}
