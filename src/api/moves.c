// SPDX-License-Identifier: GPL-2.0-or-later
/* moves.c - migrations that somebody has started over the API; see moves.h */
#include "api/moves.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "api/events.h"
#include "api/talk.h"
#include "base/util.h"

#define STACK_BYTES (128u << 10)
#define TELL_MS 200u     /* between two that only say how far it is */
#define PHASES_MAX 64u /* of one move, in its history */

/* state: running until godwitd has said how it ended; then what it said, "moved" if it has moved. */
struct entry {
	unsigned long long id; /* 0: free */
	uid_t uid;
	bool running;
	struct ask talk;
	json_t *request;       /* without its verb */
	json_t *progress, *result, *error;
	json_t *phases;        /* {"phase", "at_ms"}: what godwitd has said, when it first said it */
	uint64_t began_ms, ended_ms, told_ms;
	const char *state;
};

static struct entry entries[MOVES_MAX];
static unsigned long long last_id;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void set(json_t **where, json_t *value)
{
	json_decref(*where);
	*where = json_incref(value);
}

static bool may_see(const struct viewer *viewer, const struct entry *entry)
{
	return entry->id && (viewer->all || viewer->uid == entry->uid);
}

/* With the lock. */
static json_t *describe(const struct entry *entry)
{
	char id[24];
	json_t *o, *copy;

	snprintf(id, sizeof(id), "%llu", entry->id);
	o = json_pack("{s:s, s:s, s:I, s:I, s:O, s:O}", "id", id, "state", entry->state, "uid", (json_int_t)entry->uid, "began_ms", (json_int_t)entry->began_ms, "request", entry->request, "phases",
		      entry->phases);
	if (entry->ended_ms)
		json_object_set_new(o, "ended_ms", json_integer((json_int_t)entry->ended_ms));
	if (entry->progress)
		json_object_set(o, "progress", entry->progress);
	if (entry->result)
		json_object_set(o, "result", entry->result);
	if (entry->error)
		json_object_set(o, "error", entry->error);
	copy = json_deep_copy(o); /* jansson's counts of shared objects are atomic, their contents are not */
	json_decref(o);
	return copy;
}

/* To those who listen to events. With the lock. */
static void tell(struct entry *entry)
{
	json_t *o = describe(entry);

	entry->told_ms = now_ms();
	events_tell_move(entry->uid, o);
	json_decref(o);
}

/* Whether it is in another phase than before. */
static bool note_phase(struct entry *entry, const json_t *line)
{
	const char *phase = json_string_value(json_object_get(line, "phase"));
	size_t n = json_array_size(entry->phases);
	const char *last = n ? json_string_value(json_object_get(json_array_get(entry->phases, n - 1), "phase")) : "";

	if (!phase || !*phase || n >= PHASES_MAX || (last && !strcmp(phase, last)))
		return false;
	return json_array_append_new(entry->phases, json_pack("{s:s, s:I}", "phase", phase, "at_ms", (json_int_t)(now_ms() - entry->began_ms))) == 0;
}

/* true: that was the last line. With the lock. */
static bool take(struct entry *entry, json_t *line)
{
	const char *event = json_string_value(json_object_get(line, "event"));
	const char *code = json_string_value(json_object_get(json_object_get(line, "error"), "code"));
	bool another;

	if (event && !strcmp(event, "progress")) {
		json_object_del(line, "event");
		another = note_phase(entry, line);
		set(&entry->progress, line);
		if (another || now_ms() - entry->told_ms >= TELL_MS)
			tell(entry);
		return false;
	}
	set(&entry->result, json_object_get(line, "result"));
	set(&entry->error, json_object_get(line, "error"));
	entry->state = event && !strcmp(event, "result") ? "moved" : code && !strcmp(code, "refused") ? "refused" : code && !strcmp(code, "cancelled") ? "cancelled" :
		       code && !strcmp(code, "in-doubt") ? "in-doubt" : "failed";
	return true;
}

static void lose(struct entry *entry, const struct err *e)
{
	json_t *error = json_pack("{s:s, s:s}", "code", "no-answer", "message", e->message);

	set(&entry->error, error);
	json_decref(error);
	entry->state = "failed";
}

static void *listen_to(void *arg)
{
	struct entry *entry = arg;
	bool done = false;

	while (!done) {
		struct err e = ERR_INIT;
		json_t *line = NULL;
		int r = ask_next(&entry->talk, true, &line, &e);

		pthread_mutex_lock(&lock);
		if (r < 0)
			lose(entry, &e);
		done = r < 0 || take(entry, line);
		if (done) {
			ask_close(&entry->talk);
			entry->ended_ms = now_ms();
			entry->running = false;
			tell(entry);
		}
		json_decref(line);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* A free place, or that of what ended longest ago. NULL: all are under way, or too many of this user's. With the lock. */
static struct entry *find_place(uid_t uid)
{
	struct entry *best = NULL;
	unsigned theirs = 0;

	for (size_t i = 0; i < MOVES_MAX; i++) {
		struct entry *entry = &entries[i];

		theirs += entry->id && entry->running && entry->uid == uid;
		if (!entry->running && (!best || entry->id < best->id))
			best = entry;
	}
	return theirs < MOVES_EACH_MAX ? best : NULL;
}

static void clear(struct entry *entry)
{
	json_decref(entry->request);
	json_decref(entry->progress);
	json_decref(entry->result);
	json_decref(entry->error);
	json_decref(entry->phases);
	*entry = (struct entry){ .talk = { .fd = -1 } };
}

/* With the lock. */
static int begin(struct entry *entry, int connection, json_t *request, struct err *e)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int r = talk_open(&entry->talk, connection, json_incref(request), e);

	if (r < 0)
		return r;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	entry->running = true;
	r = -pthread_create(&thread, &attributes, listen_to, entry);
	pthread_attr_destroy(&attributes);
	return r ? err_sys(e, r, "a thread") : 0;
}

int moves_start(int connection, const struct viewer *viewer, json_t *request, json_t **ret, struct err *e)
{
	struct entry *entry;
	int r = 0;

	pthread_mutex_lock(&lock);
	entry = find_place(viewer->uid);
	if (!entry) {
		r = err_set(e, -EBUSY, "too many migrations are under way: at most %u of one user, %u altogether", MOVES_EACH_MAX, MOVES_MAX);
	} else {
		clear(entry);
		entry->id = ++last_id;
		entry->uid = viewer->uid;
		entry->began_ms = now_ms();
		entry->state = "running";
		entry->phases = json_array();
		entry->request = json_deep_copy(request);
		json_object_del(entry->request, "verb");
		r = begin(entry, connection, request, e);
		if (r == 0) {
			*ret = describe(entry);
			tell(entry);
		}
		if (r < 0) {
			ask_close(&entry->talk);
			clear(entry);
		}
	}
	pthread_mutex_unlock(&lock);
	json_decref(request);
	return r;
}

static struct entry *find(const struct viewer *viewer, const char *id)
{
	char *end;
	unsigned long long number = strtoull(id, &end, 10);

	for (size_t i = 0; i < MOVES_MAX && number && !*end; i++)
		if (entries[i].id == number && may_see(viewer, &entries[i]))
			return &entries[i];
	return NULL;
}

json_t *moves_get(const struct viewer *viewer, const char *id)
{
	struct entry *entry;
	json_t *ret;

	pthread_mutex_lock(&lock);
	entry = find(viewer, id);
	ret = entry ? describe(entry) : NULL;
	pthread_mutex_unlock(&lock);
	return ret;
}

static int by_id(const void *a, const void *b)
{
	const struct entry *const *x = a, *const *y = b;

	return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

json_t *moves_list(const struct viewer *viewer)
{
	const struct entry *seen[MOVES_MAX];
	json_t *list = json_array();
	size_t n = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MOVES_MAX; i++)
		if (may_see(viewer, &entries[i]))
			seen[n++] = &entries[i];
	qsort(seen, n, sizeof(*seen), by_id);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, describe(seen[i]));
	pthread_mutex_unlock(&lock);
	return list;
}

int moves_cancel(const struct viewer *viewer, const char *id, struct err *e)
{
	struct entry *entry;
	int r = 0;

	pthread_mutex_lock(&lock);
	entry = find(viewer, id);
	if (!entry)
		r = err_set(e, -ENOENT, "there is no migration %.40s", id);
	else if (!entry->running)
		r = err_set(e, -EALREADY, "migration %s has ended already: %s", id, entry->state);
	else
		r = ask_send(&entry->talk, json_pack("{s:s}", "verb", "cancel"), e);
	pthread_mutex_unlock(&lock);
	return r;
}

unsigned moves_running(void)
{
	unsigned n = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MOVES_MAX; i++)
		n += entries[i].running;
	pthread_mutex_unlock(&lock);
	return n;
}
