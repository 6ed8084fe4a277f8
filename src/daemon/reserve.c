// SPDX-License-Identifier: GPL-2.0-or-later
/* reserve.c - see reserve.h */
#include "daemon/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/node_state.h"
#include "wire/conn.h"

#define CONNECT_MS 500
#define ANSWER_MS 1000
#define SEEN_S 2 /* after its arrival a unit is contained in the figures, which are of the last second */
#define MEM_MIB_MAX 1e9
#define MEMBER_MAX 1e12

struct reservation {
	uint64_t unit, from; /* hashes of their names; unit 0: free */
	uint64_t at_ms;
	double run, mem_mib;
};

struct reserve_table {
	pthread_mutex_t lock; /* who dies with it leaves one entry at most, which ages out */
	struct reservation v[RESERVE_MAX];
};

static uint64_t now_ms(void)
{
	return clock_ns(CLOCK_BOOTTIME) / 1000000;
}

int reserve_init(struct reserve_table **ret, struct err *e)
{
	struct reserve_table *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t attr;

	if (t == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&t->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	*ret = t;
	return 0;
}

static void take(struct reserve_table *t)
{
	if (pthread_mutex_lock(&t->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&t->lock);
}

static bool is_live(const struct reservation *r, uint64_t now)
{
	return r->unit && now < r->at_ms + RESERVE_MS;
}

static void add_all(const struct reserve_table *t, struct policy_node *self)
{
	uint64_t now = now_ms();

	for (size_t i = 0; i < RESERVE_MAX; i++)
		if (is_live(&t->v[i], now))
			policy_sent(self, t->v[i].run, t->v[i].mem_mib);
}

/* What has been here for a while is contained in the figures. */
static int drop_arrived(const struct registry_entry *entry, void *arg)
{
	struct reserve_table *t = arg;
	uint64_t unit = gossip_id(entry->unit);

	for (size_t i = 0; i < RESERVE_MAX && entry->since + SEEN_S <= time(NULL); i++)
		if (t->v[i].unit == unit && !entry->local)
			t->v[i].unit = 0;
	return 0;
}

void reserve_add(struct reserve_table *t, struct policy_node *self)
{
	take(t);
	registry_list(drop_arrived, t, NULL);
	add_all(t, self);
	pthread_mutex_unlock(&t->lock);
}

void reserve_over(struct reserve_table *t, const char *unit_name, bool arrived)
{
	uint64_t unit = gossip_id(unit_name);

	if (!*unit_name)
		return;
	take(t);
	for (size_t i = 0; i < RESERVE_MAX; i++) {
		if (t->v[i].unit != unit)
			continue;
		if (arrived)
			t->v[i].at_ms = MIN(t->v[i].at_ms, now_ms() + SEEN_S * 1000 - RESERVE_MS);
		else
			t->v[i].unit = 0;
	}
	pthread_mutex_unlock(&t->lock);
}

/* A free entry, or that of the unit; NULL: none. */
static struct reservation *find_entry(struct reserve_table *t, uint64_t unit)
{
	struct reservation *found = NULL;
	uint64_t now = now_ms();

	for (size_t i = 0; i < RESERVE_MAX; i++) {
		if (is_live(&t->v[i], now) && t->v[i].unit == unit)
			return &t->v[i];
		if (!is_live(&t->v[i], now) && !found)
			found = &t->v[i];
	}
	if (found)
		found->unit = 0;
	return found;
}

static int refuse(const struct policy_node *self, const struct policy_unit *unit, double here, struct err *e)
{
	double run = self->load.v[LOAD_RUN] + self->sent_run, mem = self->load.v[LOAD_MEM] - self->sent_mib;

	if (!policy_takes(&policy_default, self, unit->mem_mib))
		return err_set(e, -EBUSY, "%.0f MiB are free there of %.0f, and the unit needs %.0f", MAX(mem, 0), self->load.v[LOAD_MAXMEM], unit->mem_mib);
	return err_set(e, -EBUSY, "it would be %.2f times slower than alone there, and is %.2f times where it is", policy_slowness(&self->load, run + unit->run), here);
}

static int decide(struct reserve_table *t, struct policy_node *self, const char *from, const char *name, const struct policy_unit *unit, enum policy_reason reason, double here,
		  struct err *e)
{
	uint64_t id = gossip_id(name), sender = gossip_id(from);
	struct reservation *r = find_entry(t, id);

	if (!r)
		return err_set(e, -EBUSY, "%d units are on their way there already", RESERVE_MAX);
	if (r->unit && r->from != sender)
		return err_set(e, -EBUSY, "another node is about to send that unit there");
	r->unit = 0; /* asked for anew by the same one */
	add_all(t, self);
	if (!policy_accept(&policy_default, self, unit, reason, here))
		return refuse(self, unit, here, e);
	*r = (struct reservation){ id, sender, now_ms(), unit->run, unit->mem_mib };
	return 0;
}

int reserve_decide(const struct daemon *d, const char *from, const char *unit_name, const struct policy_unit *unit, enum policy_reason reason, double here, struct err *e)
{
	struct policy_node self = { .id = gossip_id(d->config.name), .state = node_state(d->shared) };
	int r;

	if (self.state != NODE_OK)
		return err_set(e, -EBUSY, "%s", *node_state_why(d->shared) ? node_state_why(d->shared) : "it is busy");
	cluster_view_load(d->view, d->config.speed, &self.load);
	take(d->reserved);
	registry_list(drop_arrived, d->reserved, NULL);
	r = decide(d->reserved, &self, from, unit_name, unit, reason, here, e);
	pthread_mutex_unlock(&d->reserved->lock);
	return r;
}

/* --- over the network --- */

static bool plausible(double x, double max)
{
	return isfinite(x) && x >= 0 && x <= max;
}

int reserve_decode(const void *data, size_t len, Gw__Reserve **ret, struct err *e)
{
	Gw__Reserve *q = gw__reserve__unpack(NULL, len, data);
	size_t n = q ? strlen(q->unit) : 0;
	bool good = q && n > 0 && n < sizeof(((struct registry_entry *)0)->unit) && plausible(q->cpu_s, MEMBER_MAX) && plausible(q->run, MEMBER_MAX) &&
		    plausible(q->mem_mib, MEM_MIB_MAX) && plausible(q->here, MEMBER_MAX) && q->reason > POLICY_STAYS && q->reason <= POLICY_EVICTED;

	for (size_t i = 0; i < n && good; i++)
		good = q->unit[i] > ' ' && q->unit[i] <= '~';
	if (good) {
		*ret = q;
		return 0;
	}
	if (q)
		gw__reserve__free_unpacked(q, NULL);
	return err_set(e, -EPROTO, "a reservation that is none");
}

/* Runs in the worker. */
static int serve(const struct daemon *d, int fd, const char *from)
{
	Gw__ReserveAnswer answer = GW__RESERVE_ANSWER__INIT;
	cleanup_frame struct frame frame = { 0 };
	uint8_t packed[ERR_MESSAGE_MAX + 64];
	struct policy_unit unit;
	struct err e = ERR_INIT;
	Gw__Reserve *q = NULL;
	int r = frame_recv_expect(fd, RESERVE_FRAME, &frame, FRAME_HELLO_MAX, ANSWER_MS, &e);

	prctl(PR_SET_NAME, "godwit-table");
	if (r >= 0)
		r = reserve_decode(frame.payload, frame.len, &q, &e);
	if (r < 0) {
		frame_send_error(fd, r, e.message, NULL);
		drain(fd);
		return 1;
	}
	unit = (struct policy_unit){ .cpu_s = q->cpu_s, .run = q->run, .mem_mib = q->mem_mib, .since_move_s = HUGE_VAL };
	answer.granted = reserve_decide(d, from, q->unit, &unit, (enum policy_reason)q->reason, q->here, &e) == 0;
	answer.why = e.message;
	log_debug("event=reservation unit=%s from=%s granted=%d why=\"%s\"", q->unit, from, answer.granted, e.message);
	frame_send(fd, RESERVE_FRAME, packed, gw__reserve_answer__pack(&answer, packed), NULL);
	gw__reserve__free_unpacked(q, NULL);
	drain(fd);
	return 0;
}

int reserve_serve(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e)
{
	return worker_answer(d, fd, hello, serve, e);
}

static int read_answer(int fd, struct err *e)
{
	cleanup_frame struct frame frame = { 0 };
	Gw__ReserveAnswer *answer;
	int r = frame_recv_expect(fd, RESERVE_FRAME, &frame, FRAME_HELLO_MAX, ANSWER_MS, e);

	if (r < 0)
		return r;
	answer = gw__reserve_answer__unpack(NULL, frame.len, frame.payload);
	if (!answer)
		return err_set(e, -EPROTO, "an answer to a reservation that is none");
	r = answer->granted ? 0 : err_set(e, -EBUSY, "%.*s", RESERVE_WHY_MAX, answer->why);
	gw__reserve_answer__free_unpacked(answer, NULL);
	return r;
}

int reserve_ask(const struct daemon *d, const struct sockaddr_in *address, const char *unit_name, const struct policy_unit *unit, enum policy_reason reason, double here,
		struct err *e)
{
	cleanup_close int fd = conn_connect(address, CONNECT_MS, e);
	Gw__Reserve q = GW__RESERVE__INIT;
	uint8_t packed[1024];
	int r;

	if (fd < 0)
		return fd;
	q.unit = (char *)(uintptr_t)unit_name;
	q.cpu_s = unit->cpu_s;
	q.run = unit->run;
	q.mem_mib = unit->mem_mib;
	q.here = MIN(here, MEMBER_MAX);
	q.reason = reason;
	r = hello_ask(fd, ROLE_RESERVE, d->config.name, e);
	if (r >= 0)
		r = frame_send(fd, RESERVE_FRAME, packed, gw__reserve__pack(&q, packed), e);
	return r < 0 ? r : read_answer(fd, e);
}
