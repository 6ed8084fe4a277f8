// SPDX-License-Identifier: GPL-2.0-or-later
/* owner.c - see owner.h */
#include "daemon/owner.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "home/door.h"
#include "migrate/registry.h"

#define DOOR_NAME "etcd"
#define OPEN_TRIES 200
#define OPEN_PAUSE_US 10000
#define CLAIM_TRIES 4
#define QUESTION_MS 1000

/* --- workers --- */

/* godwit-etcd may just be starting, or have many to answer. */
static int open_door(int tries, struct err *e)
{
	for (int i = 0;; i++) {
		int fd = door_connect(DOOR_NAME, NULL);

		if (fd >= 0)
			return fd;
		if (i >= tries)
			return err_set(e, -ENOTCONN, "godwit-etcd does not run: godwitd's log says why");
		usleep(OPEN_PAUSE_US);
	}
}

static int say(const struct owner_question *q, int tries, struct err *e)
{
	cleanup_close int fd = open_door(tries, e);

	if (fd < 0)
		return fd;
	return send(fd, q, sizeof(*q), MSG_NOSIGNAL) == sizeof(*q) ? take_fd(&fd) : err_sys(e, -EPIPE, "godwit-etcd");
}

static int ask(const struct config *config, const struct owner_question *q, struct owner_answer *ret, struct err *e)
{
	cleanup_close int fd = say(q, OPEN_TRIES, e);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int patience_ms = (int)(2 * CLAIM_TRIES * MAX(config->etcd.n_servers, (size_t)1) * MEMBERSHIP_TIMEOUT_MS);

	if (fd < 0)
		return fd;
	if (poll(&p, 1, patience_ms) <= 0 || recv(fd, ret, sizeof(*ret), MSG_DONTWAIT) != sizeof(*ret))
		return err_set(e, -ENOTCONN, "godwit-etcd does not answer");
	ret->why[sizeof(ret->why) - 1] = 0;
	return ret->code ? err_set(e, ret->code, "%s", ret->why) : 0;
}

static int refuse(const struct owner_question *q, struct refusals *refusals, struct err *e)
{
	char cause[ERR_MESSAGE_MAX];

	snprintf(cause, sizeof(cause), "%s", e->message);
	if (e->code == -EEXIST)
		refusals_add(refusals, "owner.other", cause, "end this copy, or, if it is the right one, remove the record", "unit %s", q->unit);
	else
		refusals_add(refusals, "owner.unknown", cause, "with etcd in the configuration a unit moves only when its record says so: try again when etcd answers", "unit %s", q->unit);
	*e = ERR_INIT;
	return err_set(e, -EPERM, "unit %s: %s", q->unit, cause);
}

static void fill(struct owner_question *q, enum owner_word word, const char *unit, unsigned moves, const char *to)
{
	*q = (struct owner_question){ .word = (uint8_t)word, .moves = moves };
	snprintf(q->unit, sizeof(q->unit), "%s", unit);
	snprintf(q->to, sizeof(q->to), "%s", to);
}

int owner_claim_take(struct owner_claim *c, const char *unit, unsigned moves, const char *to, struct refusals *refusals, struct err *e)
{
	struct owner_answer answer;

	if (!c->config->etcd.n_servers || c->held)
		return 0;
	fill(&c->question, OWNER_CLAIM, unit, moves, to);
	if (ask(c->config, &c->question, &answer, e) < 0)
		return refuse(&c->question, refusals, e);
	c->held = true;
	c->question.fence = answer.fence;
	c->question.made = answer.made;
	return 0;
}

void owner_claim_end(struct owner_claim *c, bool moved)
{
	int fd;

	if (!c->held)
		return;
	c->held = false;
	c->question.word = (uint8_t)(moved ? OWNER_MOVED : OWNER_BACK);
	fd = say(&c->question, 0, NULL); /* the unit waits: what is not said now the destination finds out */
	if (fd >= 0)
		close(fd);
}

int owner_ask(const struct config *config, pid_t pid, struct refusals *refusals, struct err *e)
{
	struct registry_entry entry = { 0 };
	struct owner_question q;
	struct owner_answer answer;

	if (!config->etcd.n_servers)
		return 0;
	if (registry_lookup(pid, &entry, NULL) < 0)
		snprintf(entry.unit, sizeof(entry.unit), "%s:%d", config->name, (int)pid);
	fill(&q, OWNER_ASK, entry.unit, entry.moves, "");
	return ask(config, &q, &answer, e) < 0 ? refuse(&q, refusals, e) : 0;
}

/* --- godwit-etcd --- */

int owner_open(struct err *e)
{
	return door_open(DOOR_NAME, e);
}

/* The number that the record has, if the unit may be moved from here. */
static int look(struct membership *store, const char *name, const struct owner_question *q, struct owner_answer *ret, struct err *e)
{
	struct membership_record there;
	int r = membership_owner(store, q->unit, &there, e);

	ret->made = r == -ENOENT;
	ret->fence = r == 0 ? there.fence : 0;
	if (r == -ENOENT)
		return 0;
	if (r == 0 && strcmp(there.owner, name) != 0 && there.moves >= q->moves)
		return err_set(e, -EEXIST, "it is here after %llu moves, and its record in etcd says that it is %s's after %llu%s%s (number %llu)", (unsigned long long)q->moves, there.owner,
			       (unsigned long long)there.moves, there.to[0] ? ", which moves it to " : "", there.to, (unsigned long long)there.fence);
	return r;
}

static void make_record(const struct owner_question *q, const char *owner, const char *to, uint64_t moves, uint64_t fence, struct membership_record *ret)
{
	*ret = (struct membership_record){ .moves = moves, .fence = fence };
	snprintf(ret->unit, sizeof(ret->unit), "%s", q->unit);
	snprintf(ret->owner, sizeof(ret->owner), "%s", owner);
	snprintf(ret->to, sizeof(ret->to), "%s", to);
}

static int claim(struct membership *store, const char *name, const struct owner_question *q, struct owner_answer *ret, struct err *e)
{
	struct membership_record record;
	int r = -ESTALE;

	for (int i = 0; i < CLAIM_TRIES && r == -ESTALE; i++) { /* who was faster may have been this node's own, which keeps the record right */
		*e = ERR_INIT;
		r = look(store, name, q, ret, e);
		if (r < 0 || q->word == OWNER_ASK)
			return r;
		make_record(q, name, q->to, q->moves, ret->fence, &record);
		r = membership_own(store, &record, e);
		ret->fence = record.fence;
	}
	if (r == 0)
		log_info("event=claimed unit=%s to=%s moves=%llu fence=%llu", q->unit, q->to, (unsigned long long)q->moves, (unsigned long long)record.fence);
	return r;
}

/* A record that has another number by now is its owner's: the destination's, or whoever's this node could not claim it from. */
static void settle(struct membership *store, const char *name, const struct owner_question *q, bool known)
{
	bool moved = q->word == OWNER_MOVED;
	struct membership_record record;
	struct err e = ERR_INIT;
	int r;

	if (!moved && q->made && !known) {
		r = membership_disown(store, q->unit, q->fence, &e);
	} else {
		make_record(q, moved ? q->to : name, "", q->moves + moved, q->fence, &record);
		r = membership_own(store, &record, &e);
	}
	if (r < 0 && r != -ESTALE)
		log_warning("event=etcd-failed unit=%s error=\"%s\"", q->unit, e.message);
}

void owner_serve(int door, struct membership *store, const char *name, bool (*known)(const char *unit, void *arg), void *arg)
{
	cleanup_close int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct owner_answer answer = { 0 };
	struct owner_question q;
	struct err e = ERR_INIT;

	if (fd < 0 || poll(&p, 1, QUESTION_MS) <= 0 || recv(fd, &q, sizeof(q), MSG_DONTWAIT) != sizeof(q))
		return;
	q.unit[sizeof(q.unit) - 1] = q.to[sizeof(q.to) - 1] = 0;
	if (q.word == OWNER_MOVED || q.word == OWNER_BACK) {
		settle(store, name, &q, known(q.unit, arg));
		return;
	}
	answer.code = claim(store, name, &q, &answer, &e);
	snprintf(answer.why, sizeof(answer.why), "%s", e.message);
	(void)!send(fd, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
}
