// SPDX-License-Identifier: GPL-2.0-or-later
/* auto_failover.c - see auto_failover.h */
#include "daemon/auto_failover.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/keep_store.h"

#define SLOTS_MAX 256
#define RESTORES_MAX 8
#define ASK_MS 1000
#define OTHERS_NS 3000000000ull
#define FAILED_NS 30000000000ull
#define OVER_NS 5000000000ull
#define MOVING_NS 30000000000ull /* more than peer_timeout_ms, after which a destination knows */

enum stage { STAGE_FREE, STAGE_NEW, STAGE_ASKED, STAGE_OTHERS, STAGE_MINE, STAGE_RESTORING, STAGE_FAILED, STAGE_OVER };

struct slot {
	enum stage stage;
	struct keep_record copy;
	struct membership_record record; /* as it was when it was looked at, or taken */
	char lost[GOSSIP_NAME_MAX + 1];  /* whose it was */
	uint64_t lost_revision;          /* of that node's entry; 0: none */
	bool ready;                      /* its record has been looked at, and may be taken */
	uint64_t since_ns;
	pid_t child;
};

/* What the child that asks has found: for each slot. Shared with it. */
enum found { FOUND_NOTHING, FOUND_MINE, FOUND_OTHERS, FOUND_OVER };

struct auto_failover {
	struct daemon *d; /* with nothing but its configuration */
	struct slot v[SLOTS_MAX];
	uint8_t *found;
	pid_t asker;
	size_t n_copies;
};

struct auto_failover *auto_failover_new(const struct config *config, struct err *e)
{
	struct auto_failover *a = calloc(1, sizeof(*a));
	struct daemon *d = calloc(1, sizeof(*d));
	uint8_t *found = mmap(NULL, SLOTS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (!a || !d || found == MAP_FAILED) {
		free(a);
		free(d);
		err_sys(e, -ENOMEM, "failover");
		return NULL;
	}
	d->config = *config;
	a->d = d;
	a->found = found;
	return a;
}

bool auto_failover_has_copies(const struct auto_failover *a)
{
	return a->n_copies > 0;
}

static void move_to(struct slot *s, enum stage stage)
{
	s->stage = stage;
	s->since_ns = clock_ns(CLOCK_MONOTONIC);
}

static const struct membership_node *find_node(const struct membership_node *nodes, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(nodes[i].name, name))
			return &nodes[i];
	return NULL;
}

/* --- what is here --- */

struct looking {
	struct auto_failover *a;
	const struct membership_node *nodes;
	size_t n;
	size_t n_copies;
};

/* The host has been booted since, or is not there: what ran on it when that copy came does not. */
static bool is_lost(const struct membership_node *node, const struct keep_record *copy, const char *owner)
{
	return !node || (*copy->run && *node->run && !strcmp(copy->owner, owner) && strcmp(copy->run, node->run) != 0);
}

static int see(const struct keep_record *copy, void *arg)
{
	struct looking *l = arg;
	struct slot *free_one = NULL, *s = NULL;

	if (!copy->has_copy || (copy->state != KEEP_COPY && copy->state != KEEP_SEALED))
		return 0;
	l->n_copies++;
	if (!strcmp(copy->owner, l->a->d->config.name) || !is_lost(find_node(l->nodes, l->n, copy->owner), copy, copy->owner))
		return 0;
	for (size_t i = 0; i < SLOTS_MAX && !s; i++) {
		if (l->a->v[i].stage == STAGE_FREE && !free_one)
			free_one = &l->a->v[i];
		if (l->a->v[i].stage != STAGE_FREE && !strcmp(l->a->v[i].copy.unit, copy->unit))
			s = &l->a->v[i];
	}
	if (!s && free_one) {
		s = free_one;
		*s = (struct slot){ 0 };
		move_to(s, STAGE_NEW);
		log_info("event=owner-lost unit=%s owner=%s moves=%llu seq=%llu", copy->unit, copy->owner, (unsigned long long)copy->moves, (unsigned long long)copy->seq);
	}
	if (s && (s->stage == STAGE_NEW || s->stage == STAGE_OTHERS))
		s->copy = *copy;
	return 0;
}

/* --- children --- */

static bool has_name(const struct keep_record *r, const char *key)
{
	size_t len = keep_name_length(key);

	return !strcmp(r->unit, key) || (r->state == KEEP_RUNS && !strchr(r->unit, '@') && strlen(r->unit) == len && !strncmp(r->unit, key, len));
}

struct gathering {
	struct keep_told *v;
	size_t n, size;
	const char *node;
};

static int gather(const struct keep_record *r, void *arg)
{
	struct gathering *g = arg;

	if (g->n == g->size) {
		size_t size = g->size ? 2 * g->size : 64;
		struct keep_told *grown = reallocarray(g->v, size, sizeof(*grown));

		if (!grown)
			return 1;
		g->v = grown;
		g->size = size;
	}
	g->v[g->n++] = (struct keep_told){ .node = g->node, .record = *r };
	return 0;
}

static uint8_t judge(const struct auto_failover *a, const struct slot *s, const struct gathering *all)
{
	cleanup_free struct keep_told *told = calloc(all->n + 1, sizeof(*told));
	const char *dead[] = { s->lost }, *why;
	size_t n = 0;
	int chosen;

	for (size_t i = 0; told && i < all->n; i++)
		if (has_name(&all->v[i].record, s->copy.unit))
			told[n++] = all->v[i];
	chosen = told ? keep_choose(told, n, dead, 1, &why) : -1;
	if (chosen < 0 || (size_t)chosen >= n)
		return FOUND_OVER;
	return strcmp(told[chosen].node, a->d->config.name) ? FOUND_OTHERS : FOUND_MINE;
}

/* Runs in a child. A node that does not answer has nothing to say: the store decides. */
static void ask_all(const struct auto_failover *a, const struct membership_node *nodes, size_t n)
{
	struct gathering g = { .node = a->d->config.name };

	keep_store_list(gather, &g, NULL);
	for (size_t i = 0; i < n; i++) {
		struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(nodes[i].port) };
		struct keep_question q = { .word = KEEP_LIST };
		struct keep_answer answer = { 0 };

		if (!strcmp(nodes[i].name, a->d->config.name))
			continue;
		memcpy(&address.sin_addr, nodes[i].address, sizeof(nodes[i].address));
		g.node = nodes[i].name;
		if (keep_ask(a->d, &address, &q, ASK_MS, &answer, NULL) == 0)
			for (size_t k = 0; k < answer.n_entries; k++)
				gather(&answer.entries[k], &g);
		keep_answer_free(&answer);
	}
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (a->v[i].stage == STAGE_ASKED)
			a->found[i] = judge(a, &a->v[i], &g);
}

/* Runs in a child. */
static int restore(const struct auto_failover *a, const struct slot *s)
{
	struct keep_question q = { .word = KEEP_SEAL, .moves = s->record.moves - 1, .again = true };
	struct keep_answer answer = { .verdict = KEEP_NO };
	struct keep_record record;

	memcpy(q.unit, s->copy.unit, sizeof(q.unit));
	snprintf(q.owner, sizeof(q.owner), "%s", s->lost);
	snprintf(q.to, sizeof(q.to), "%s", a->d->config.name);
	keep_obey(a->d, &q, &answer);
	if (answer.verdict != KEEP_YES) {
		log_error("event=failover-failed unit=%s error=\"%s\"", s->copy.unit, answer.why);
		return 1;
	}
	q.word = KEEP_TAKE;
	q.seq = keep_store_read(q.unit, &record, NULL) == 0 ? record.seq : 0; /* one may have come that was on its way */
	keep_take(a->d, &q, &answer);
	return answer.verdict == KEEP_YES && answer.pid > 0 ? 0 : 1;
}

/* A child that ends with this process. */
static pid_t start(const char *name)
{
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_NAME, name);
		signal(SIGTERM, SIG_DFL);
		log_set_context("side=failover");
	}
	return child;
}

/* --- steps --- */

static void step_asked(struct auto_failover *a)
{
	int status;

	if (!a->asker || waitpid(a->asker, &status, WNOHANG) == 0)
		return;
	a->asker = 0;
	for (size_t i = 0; i < SLOTS_MAX; i++) {
		if (a->v[i].stage != STAGE_ASKED)
			continue;
		log_debug("event=asked unit=%s found=%d", a->v[i].copy.unit, a->found[i]);
		move_to(&a->v[i], a->found[i] == FOUND_MINE ? STAGE_MINE : a->found[i] == FOUND_OVER ? STAGE_OVER : STAGE_OTHERS);
	}
}

static void step_new(struct auto_failover *a, const struct membership_node *nodes, size_t n)
{
	bool any = false;

	for (size_t i = 0; i < SLOTS_MAX && !a->asker; i++) {
		bool new_one = a->v[i].stage == STAGE_NEW && a->v[i].ready;

		any |= new_one;
		if (new_one)
			move_to(&a->v[i], STAGE_ASKED);
		a->found[i] = FOUND_NOTHING;
	}
	if (!any)
		return;
	a->asker = start("godwit-etcd");
	if (a->asker == 0) {
		ask_all(a, nodes, n);
		_exit(0);
	}
	if (a->asker < 0)
		a->asker = 0;
}

/* Whether the record names a lost owner, and the copy is one from which the unit may go on. Fills in whose it was. */
static bool may_take(struct slot *s, const struct membership_node *nodes, size_t n, const struct membership_record *record)
{
	const struct membership_node *owner = find_node(nodes, n, record->owner);

	if (!is_lost(owner, &s->copy, record->owner) || s->copy.moves > record->moves)
		return false;
	if (record->to[0] && find_node(nodes, n, record->to) && clock_ns(CLOCK_MONOTONIC) - s->since_ns < MOVING_NS && s->stage == STAGE_NEW)
		return false;
	s->record = *record;
	snprintf(s->lost, sizeof(s->lost), "%s", record->owner);
	s->lost_revision = owner ? owner->revision : 0;
	return true;
}

struct matching {
	struct auto_failover *a;
	const struct membership_node *nodes;
	size_t n;
	bool known[SLOTS_MAX];
};

static bool is_looking(const struct slot *s)
{
	return s->stage == STAGE_NEW || s->stage == STAGE_OTHERS || s->stage == STAGE_MINE;
}

static int match(const struct membership_record *record, void *arg)
{
	struct matching *m = arg;

	for (size_t i = 0; i < SLOTS_MAX; i++) {
		struct slot *s = &m->a->v[i];
		size_t len = keep_name_length(s->copy.unit);

		if (!is_looking(s) || strlen(record->unit) != len || strncmp(record->unit, s->copy.unit, len) != 0)
			continue;
		s->ready = may_take(s, m->nodes, m->n, record);
		m->known[i] = s->ready || (record->to[0] && s->stage == STAGE_NEW && is_lost(find_node(m->nodes, m->n, record->owner), &s->copy, record->owner));
	}
	return 0;
}

/* Looks at the records again. Without one, or with one that names a node that lives, there is nothing to restore. */
static int look_at_records(struct auto_failover *a, struct membership *store, const struct membership_node *nodes, size_t n, struct err *e)
{
	struct matching m = { .a = a, .nodes = nodes, .n = n };
	int r = membership_records(store, match, &m, e);

	for (size_t i = 0; r >= 0 && i < SLOTS_MAX; i++) {
		struct slot *s = &a->v[i];

		if (is_looking(s) && !m.known[i])
			move_to(s, STAGE_OVER);
	}
	return MIN(r, 0);
}

static unsigned count(const struct auto_failover *a, enum stage stage)
{
	unsigned n = 0;

	for (size_t i = 0; i < SLOTS_MAX; i++)
		n += a->v[i].stage == stage;
	return n;
}

/* 0 or 1: whether it is this node's now. */
static int take(struct auto_failover *a, struct membership *store, struct slot *s, struct err *e)
{
	struct membership_record record = s->record;
	int r;

	snprintf(record.owner, sizeof(record.owner), "%s", a->d->config.name);
	record.to[0] = 0;
	record.moves++;
	r = membership_take(store, &record, s->lost, s->lost_revision, e);
	if (r == -ESTALE) {
		log_info("event=failover-elsewhere unit=%s", s->copy.unit);
		move_to(s, STAGE_OVER);
		return 0;
	}
	if (r < 0)
		return r;
	log_info("event=taken unit=%s of=%s moves=%llu fence=%llu", record.unit, s->lost, (unsigned long long)record.moves, (unsigned long long)record.fence);
	s->record = record;
	return 1;
}

static void begin_restore(struct auto_failover *a, struct slot *s)
{
	move_to(s, STAGE_RESTORING);
	s->child = start("godwit-keep");
	if (s->child == 0)
		_exit(restore(a, s));
	if (s->child < 0)
		move_to(s, STAGE_FAILED);
}

/* Others may have it. */
static void give_back(struct membership *store, struct slot *s)
{
	struct membership_record record = s->record;
	struct err e = ERR_INIT;

	snprintf(record.owner, sizeof(record.owner), "%s", s->lost);
	if (membership_own(store, &record, &e) < 0)
		log_error("event=etcd-failed unit=%s error=\"%s\"", record.unit, e.message);
	move_to(s, STAGE_FAILED);
}

static void step_restoring(struct membership *store, struct slot *s)
{
	int status;

	if (waitpid(s->child, &status, WNOHANG) == 0)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		move_to(s, STAGE_OVER);
	else
		give_back(store, s);
}

static int step(struct auto_failover *a, struct membership *store, struct slot *s, void (*taken)(const struct membership_record *record, void *arg), void *arg, struct err *e)
{
	uint64_t age_ns = clock_ns(CLOCK_MONOTONIC) - s->since_ns;
	int r;

	switch (s->stage) {
	case STAGE_OTHERS:
		if (age_ns > OTHERS_NS)
			move_to(s, STAGE_MINE);
		return 0;
	case STAGE_MINE:
		if (count(a, STAGE_RESTORING) >= RESTORES_MAX)
			return 0;
		r = take(a, store, s, e);
		if (r > 0) {
			taken(&s->record, arg);
			begin_restore(a, s);
		}
		return MIN(r, 0);
	case STAGE_RESTORING:
		step_restoring(store, s);
		return 0;
	case STAGE_FAILED:
	case STAGE_OVER:
		if (age_ns > (s->stage == STAGE_OVER ? OVER_NS : FAILED_NS))
			s->stage = STAGE_FREE;
		return 0;
	default:
		return 0;
	}
}

int auto_failover_tick(struct auto_failover *a, struct membership *store, const struct membership_node *nodes, size_t n, void (*taken)(const struct membership_record *record, void *arg), void *arg,
		       struct err *e)
{
	struct looking l = { .a = a, .nodes = nodes, .n = n };
	int r = 0;

	if (fence_holds() && n) /* who may not have protected units takes none */
		keep_store_list(see, &l, NULL);
	a->n_copies = l.n_copies;
	step_asked(a);
	if (count(a, STAGE_NEW) + count(a, STAGE_OTHERS) + count(a, STAGE_MINE))
		r = look_at_records(a, store, nodes, n, e);
	if (r == 0 && fence_holds())
		step_new(a, nodes, n);
	for (size_t i = 0; r == 0 && i < SLOTS_MAX; i++)
		if (a->v[i].stage != STAGE_FREE && (a->v[i].stage != STAGE_MINE || fence_holds()))
			r = step(a, store, &a->v[i], taken, arg, e);
	return r;
}

bool auto_failover_is_busy(const struct auto_failover *a)
{
	return a->asker || count(a, STAGE_NEW) + count(a, STAGE_MINE) + count(a, STAGE_RESTORING);
}

bool auto_failover_is_taking(const struct auto_failover *a, const char *unit)
{
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (a->v[i].stage == STAGE_RESTORING && !strcmp(a->v[i].record.unit, unit))
			return true;
	return false;
}
