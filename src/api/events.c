// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * events.c - see events.h
 *
 * One lock for all feeds. moves.c calls with its own lock held, so that one is never taken under this one. An event's id is FEED-NUMBER, and FEED is of this process and this feed: an id of another one is
 * that of somebody who has missed everything.
 */
#include "api/events.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "api/talk.h"
#include "ask/answer.h"
#include "base/util.h"

#define FEEDS_MAX 64u
#define STACK_BYTES (256u << 10)
#define ROUND_MS 1000u   /* between two looks, */
#define ROUND_MOVING_MS 250u /* ... while something moves, and */
#define ROUND_SHARE 10u  /* ... so many times as long as a look takes */
#define LOOK_MS 1000u    /* whether a listener is still there */
#define ENDED_MAX 16u    /* records of moves that are asked for in a look: more in that time are not told */
#define NAME_BYTES 40u

struct event {
	uint64_t number; /* 0: none */
	const char *type;
	char *data;
};

struct feed {
	bool used, all, asking; /* asking: it has its thread */
	bool known;             /* nodes and units have been heard once */
	uid_t uid;
	char name[NAME_BYTES];
	uint64_t last;
	json_t *nodes, *units;  /* by name */
	json_t *silent, *under_way;
	json_t *ended;          /* the last moves that have, by trace_id */
	struct event kept[EVENTS_KEPT];
	struct listener *listeners;
};

struct listener {
	struct listener *next;
	struct feed *feed;
	struct viewer viewer;
	int connection;
	bool wants_all;         /* a snapshot comes first */
	uint64_t heard;
	char *text;             /* what he is being sent */
	size_t at, len;
};

static struct feed feeds[FEEDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t happened = PTHREAD_COND_INITIALIZER;
static bool over;

/* With the lock; takes the reference. */
static void push(struct feed *f, const char *type, json_t *data)
{
	struct event *event = &f->kept[++f->last % EVENTS_KEPT];

	free(event->data);
	*event = (struct event){ f->last, type, data ? json_dumps(data, JSON_COMPACT) : NULL };
	json_decref(data);
	pthread_cond_broadcast(&happened);
}

static void set(json_t **where, json_t *value)
{
	json_decref(*where);
	*where = value;
}

/* --- what has changed --- */

/* States that come and go all the time. */
static bool is_passing(const char *state)
{
	static const char *const words[] = { "running", "sleeping", "waiting", "idle" };

	for (size_t i = 0; state && i < ARRAY_SIZE(words); i++)
		if (!strcmp(words[i], state))
			return true;
	return false;
}

/* Equal but for one member. */
static bool same_but(const json_t *a, const json_t *b, const char *but)
{
	const char *key;
	json_t *value;

	if (json_object_size(a) != json_object_size(b))
		return false;
	json_object_foreach((json_t *)(uintptr_t)a, key, value)
		if (strcmp(key, but) != 0 && !json_equal(value, json_object_get(b, key)))
			return false;
	return true;
}

static bool unit_same(const json_t *was, const json_t *is)
{
	bool pass = is_passing(answer_text(was, "state")) && is_passing(answer_text(is, "state"));

	return pass ? same_but(was, is, "state") : json_equal(was, is);
}

static void compare_nodes(struct feed *f, json_t *now)
{
	const char *name;
	json_t *node;

	json_object_foreach(now, name, node) {
		const json_t *was = json_object_get(f->nodes, name);

		if (!was || !same_but(was, node, "age_ms"))
			push(f, "node", json_incref(node));
	}
	json_object_foreach(f->nodes, name, node)
		if (!json_object_get(now, name))
			push(f, "node-gone", json_pack("{s:s}", "name", name));
}

/* Units of nodes that have not answered are as they were: they are put into `now`. */
static void compare_units(struct feed *f, json_t *now, const json_t *silent)
{
	const char *name;
	json_t *unit;

	json_object_foreach(now, name, unit) {
		const json_t *was = json_object_get(f->units, name);

		if (!was)
			push(f, "unit-appeared", json_incref(unit));
		else if (strcmp(answer_text(was, "on"), answer_text(unit, "on")) != 0)
			push(f, "unit-moved", json_pack("{s:s, s:s, s:s, s:O}", "unit", name, "from", answer_text(was, "on"), "to", answer_text(unit, "on"), "now", unit));
		else if (!unit_same(was, unit))
			push(f, "unit-changed", json_incref(unit));
	}
	json_object_foreach(f->units, name, unit) {
		if (json_object_get(now, name))
			continue;
		if (answer_is_silent(silent, answer_text(unit, "on")))
			json_object_set(now, name, unit);
		else
			push(f, "unit-ended", json_pack("{s:s, s:s}", "unit", name, "on", answer_text(unit, "on")));
	}
}

static json_t *list_of(const json_t *answer, const char *key)
{
	json_t *list = json_object_get(answer, key);

	return json_is_array(list) ? json_incref(list) : json_array();
}

/* A record may be completed after the move has ended for its user. */
static void compare_ended(struct feed *f, json_t *now)
{
	const char *id;
	json_t *move;

	json_object_foreach(now, id, move)
		if (!json_equal(move, json_object_get(f->ended, id)))
			push(f, "move", json_incref(move));
}

/* With the lock. */
static void take(struct feed *f, const json_t *nodes, const json_t *units, const json_t *history)
{
	json_t *nodes_now = answer_by_name(json_object_get(nodes, "nodes"), "name"), *units_now = answer_by_name(json_object_get(units, "units"), "unit");
	json_t *silent = list_of(units, "silent"), *under_way = list_of(history, "running");
	json_t *ended = answer_by_name(json_object_get(history, "moves"), "trace_id");

	if (f->known) {
		compare_nodes(f, nodes_now);
		compare_units(f, units_now, silent);
		if (!json_equal(under_way, f->under_way))
			push(f, "under-way", json_pack("{s:O}", "moves", under_way));
		compare_ended(f, ended);
	}
	set(&f->nodes, nodes_now);
	set(&f->units, units_now);
	set(&f->silent, silent);
	set(&f->under_way, under_way);
	set(&f->ended, ended);
	f->known = true;
	pthread_cond_broadcast(&happened);
}

/* --- a feed's thread --- */

/* What godwitd says to a request (takes the reference), as to any of those who listen. NULL: nothing, or there is nobody. */
static json_t *ask_godwitd(const struct feed *f, json_t *request)
{
	cleanup_ask struct ask talk = { .fd = -1 };
	struct err e = ERR_INIT;
	json_t *line = NULL, *result = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&lock);
	if (f->listeners && !over)
		r = talk_open(&talk, f->listeners->connection, json_incref(request), &e);
	pthread_mutex_unlock(&lock);
	json_decref(request);
	if (r >= 0 && ask_next(&talk, true, &line, &e) > 0)
		result = json_incref(json_object_get(line, "result"));
	json_decref(line);
	return result;
}

/* Waits on `happened` for at most so long; with the lock. */
static void wait_ms(unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(&happened, &lock, &until);
}

static void *attend(void *arg)
{
	struct feed *f = arg;
	bool goes_on;

	do {
		uint64_t began = clock_ns(CLOCK_MONOTONIC), took, next;
		json_t *nodes = ask_godwitd(f, json_pack("{s:s}", "verb", "nodes")), *units = ask_godwitd(f, json_pack("{s:s}", "verb", "ps"));
		json_t *history = ask_godwitd(f, json_pack("{s:s, s:i}", "verb", "history", "last", (int)ENDED_MAX));

		took = clock_ns(CLOCK_MONOTONIC) - began;
		pthread_mutex_lock(&lock);
		if (nodes && units && history)
			take(f, nodes, units, history);
		next = began + took + MAX((json_array_size(f->under_way) ? ROUND_MOVING_MS : ROUND_MS) * 1000000ull, ROUND_SHARE * took);
		while (f->listeners && !over && clock_ns(CLOCK_MONOTONIC) < next)
			wait_ms((unsigned)((next - clock_ns(CLOCK_MONOTONIC)) / 1000000 + 1));
		goes_on = f->asking = f->listeners && !over;
		pthread_mutex_unlock(&lock);
		json_decref(nodes);
		json_decref(units);
		json_decref(history);
	} while (goes_on);
	return NULL;
}

static bool start_asking(struct feed *f)
{
	pthread_attr_t attributes;
	pthread_t thread;

	if (f->asking)
		return true;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	f->asking = pthread_create(&thread, &attributes, attend, f) == 0;
	pthread_attr_destroy(&attributes);
	return f->asking;
}

/* --- listeners --- */

static void empty(struct feed *f)
{
	for (size_t i = 0; i < EVENTS_KEPT; i++)
		free(f->kept[i].data);
	json_decref(f->nodes);
	json_decref(f->units);
	json_decref(f->silent);
	json_decref(f->under_way);
	json_decref(f->ended);
	*f = (struct feed){ 0 };
}

/* Theirs, or one that nobody listens to. There are as many as there can be connections. */
static struct feed *find_feed(const struct viewer *viewer)
{
	static unsigned serial;
	struct feed *best = NULL;

	for (size_t i = 0; i < FEEDS_MAX; i++) {
		struct feed *f = &feeds[i];

		if (f->used && f->all == viewer->all && (f->all || f->uid == viewer->uid))
			return f;
		if (!f->listeners && !f->asking && (!best || (best->used && !f->used)))
			best = f;
	}
	if (!best)
		return NULL;
	empty(best);
	best->used = true;
	best->all = viewer->all;
	best->uid = viewer->uid;
	snprintf(best->name, sizeof(best->name), "%" PRIx64 ".%u", clock_ns(CLOCK_REALTIME), ++serial);
	return best;
}

static uint64_t oldest(const struct feed *f)
{
	return f->last >= EVENTS_KEPT ? f->last - EVENTS_KEPT + 1 : 1;
}

/* What he has heard of, by the id of the last event. */
static void set_heard(struct listener *l, const char *last_id)
{
	const struct feed *f = l->feed;
	size_t len = strlen(f->name);
	uint64_t number = 0;
	char *end;

	l->wants_all = true;
	if (!last_id || strncmp(last_id, f->name, len) != 0 || last_id[len] != '-' || last_id[len + 1] < '0' || last_id[len + 1] > '9')
		return;
	number = strtoull(last_id + len + 1, &end, 10);
	if (*end || number > f->last)
		return;
	l->heard = number;
	l->wants_all = false;
}

struct listener *events_join(int connection, const struct viewer *viewer, const char *last_id)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	pthread_mutex_lock(&lock);
	l->viewer = *viewer;
	l->connection = connection;
	l->feed = over ? NULL : find_feed(viewer);
	if (!l->feed || !start_asking(l->feed)) {
		pthread_mutex_unlock(&lock);
		free(l);
		return NULL;
	}
	set_heard(l, last_id);
	l->next = l->feed->listeners;
	l->feed->listeners = l;
	pthread_mutex_unlock(&lock);
	return l;
}

void events_leave(struct listener *l)
{
	struct listener **at;

	if (!l)
		return;
	pthread_mutex_lock(&lock);
	at = &l->feed->listeners;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	pthread_cond_broadcast(&happened);
	pthread_mutex_unlock(&lock);
	free(l->text);
	free(l);
}

static json_t *values_of(json_t *by)
{
	json_t *list = json_array(), *value;
	const char *key;

	json_object_foreach(by, key, value)
		json_array_append(list, value);
	return list;
}

static void set_text(struct listener *l, uint64_t number, const char *type, const char *data)
{
	int n = data ? asprintf(&l->text, "id: %s-%" PRIu64 "\nevent: %s\ndata: %s\n\n", l->feed->name, number, type, data) : -1;

	if (n < 0)
		l->text = NULL; /* no memory: it is as if he had missed it */
	l->len = n < 0 ? 0 : (size_t)n;
	l->heard = number;
	l->wants_all = n < 0;
}

/* Its number is that of before the migrations were listed: what comes twice then does no harm, each event says all of a thing. With the lock, which is given up meanwhile. */
static void make_snapshot(struct listener *l)
{
	struct feed *f = l->feed;
	uint64_t number = f->last;
	json_t *moves, *all;
	char *data;

	pthread_mutex_unlock(&lock);
	moves = moves_list(&l->viewer);
	pthread_mutex_lock(&lock);
	all = json_pack("{s:o, s:o, s:O, s:O, s:o, s:o}", "nodes", values_of(f->nodes), "units", values_of(f->units), "silent", f->silent, "under_way", f->under_way, "history", values_of(f->ended), "migrations", moves);
	data = all ? json_dumps(all, JSON_COMPACT) : NULL;
	json_decref(all);
	set_text(l, number, "snapshot", data);
	free(data);
}

/* Whether he has ended the connection: he has nothing more to say. */
static bool is_gone(const struct listener *l)
{
	struct pollfd p = { l->connection, POLLRDHUP, 0 };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* Something to send in l->text; false: it is over. With the lock. */
static bool get_text(struct listener *l)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + EVENTS_KEEP_ALIVE_MS * 1000000ull;
	struct feed *f = l->feed;

	while (!over && !l->text) {
		const struct event *event = &f->kept[(l->heard + 1) % EVENTS_KEPT];

		l->wants_all = l->wants_all || l->heard + 1 < oldest(f);
		if (l->wants_all && f->known) {
			make_snapshot(l);
		} else if (!l->wants_all && l->heard < f->last) {
			set_text(l, l->heard + 1, event->type, event->data);
		} else if (clock_ns(CLOCK_MONOTONIC) >= until) {
			l->text = strdup(": still here\n\n");
			l->len = l->text ? strlen(l->text) : 0;
		} else {
			wait_ms(LOOK_MS);
			if (is_gone(l))
				return false;
		}
	}
	return !over;
}

ssize_t events_read(struct listener *l, char *buffer, size_t max)
{
	ssize_t n = -1;

	pthread_mutex_lock(&lock);
	if (get_text(l)) {
		n = (ssize_t)MIN(max, l->len - l->at);
		memcpy(buffer, l->text + l->at, (size_t)n);
		l->at += (size_t)n;
		if (l->at == l->len) {
			freep(&l->text);
			l->at = l->len = 0;
		}
	}
	pthread_mutex_unlock(&lock);
	return n;
}

void events_tell_move(uid_t uid, const json_t *move)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < FEEDS_MAX; i++)
		if (feeds[i].used && (feeds[i].all || feeds[i].uid == uid))
			push(&feeds[i], "migration", json_deep_copy(move));
	pthread_mutex_unlock(&lock);
}

void events_end(void)
{
	pthread_mutex_lock(&lock);
	over = true;
	pthread_cond_broadcast(&happened);
	pthread_mutex_unlock(&lock);
}
