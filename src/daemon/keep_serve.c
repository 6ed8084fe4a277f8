// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * keep_serve.c - a node that keeps copies answers; see keep.h
 *
 * Theory of operation: every question is judged by keep_rules.h under the store's lock, and what comes of it is on the disk before it is answered. A copy is judged twice: before its bytes are taken, and, since
 * that takes long, when they are there; then it has been read as a whole, too, and the first one of a unit has been offered to this node's own godwitd, which has refused or not as it would when the
 * unit arrived. Restoring (TAKE) is what `godwit restore` does. Whoever does it holds a lock of its own, so that a record that says TAKING and is nobody's is known as what was left by one that died.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/keep_store.h"
#include "daemon/node_state.h"
#include "migrate/checkpoint.h"
#include "migrate/image_read.h"
#include "wire/archive_chain.h"

#define QUESTION_MS 5000
#define DATA_MS 30000
#define DOUBT_MS 30000
#define DOUBT_PAUSE_US 100000
#define TAKING_OLD_S 10 /* who restored it died, and so has by now what it left */

/* --- units that are here --- */

struct looking {
	const char *key;
	struct registry_entry found;
};

static int match(const struct registry_entry *entry, void *arg)
{
	struct looking *l = arg;
	char key[KEEP_UNIT_MAX];

	keep_key(entry, key);
	if (!entry->protection.every_ms || strcmp(key, l->key) != 0)
		return 0;
	l->found = *entry;
	return 1;
}

/* Whether the unit runs here; its number, 0: it does not. */
static pid_t find_here(const char *key, uint64_t *ret_moves)
{
	struct looking l = { .key = key };

	registry_list(match, &l, NULL);
	*ret_moves = l.found.moves;
	return l.found.pid;
}

/* --- answering --- */

static void say(struct keep_answer *a, enum keep_verdict verdict, const char *why)
{
	a->verdict = verdict;
	snprintf(a->why, sizeof(a->why), "%.*s", KEEP_WHY_MAX - 1, why);
	for (char *p = a->why; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

static void say_fenced(struct keep_answer *a, const struct keep_record *r, enum keep_verdict verdict)
{
	static const char *const why[KEEP_VERDICTS] = { [KEEP_YES] = "", [KEEP_NO] = "it does not have the image that this one was made after", [KEEP_STALE] = "what is known there is newer", [KEEP_FENCED] = "the unit is another node's by now" };

	say(a, verdict, why[verdict]);
	snprintf(a->to, sizeof(a->to), "%s", verdict == KEEP_FENCED ? (*r->to ? r->to : r->owner) : "");
}

/* A unit that runs here with more moves has been restored, or come, here. */
static bool is_here(const struct daemon *d, const struct keep_question *q, struct keep_answer *a)
{
	uint64_t moves;

	if (!find_here(q->unit, &moves) || moves <= q->moves)
		return false;
	say(a, KEEP_FENCED, "the unit runs here");
	snprintf(a->to, sizeof(a->to), "%s", d->config.name);
	return true;
}

static void fail(struct keep_answer *a, const struct err *e)
{
	say(a, KEEP_NO, e->message);
}

/* What was left by one that died while it restored. */
static void settle_taking(struct keep_record *r)
{
	char path[PATH_MAX], key[KEEP_UNIT_MAX + 8];
	cleanup_close int fd = -1;
	uint64_t moves;

	if (r->state != KEEP_TAKING || keep_store_age_s(r->unit) < TAKING_OLD_S)
		return;
	snprintf(key, sizeof(key), "%s", r->unit);
	keep_store_part_path(key, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return;
	keep_taken(r, find_here(r->unit, &moves) > 0);
	log_warning("event=taking-settled unit=%s runs=%d", r->unit, r->state == KEEP_TAKEN);
	keep_store_write(r, NULL);
	unlink(path);
}

static bool is_same_record(const struct keep_record *a, const struct keep_record *b)
{
	return a->state == b->state && a->moves == b->moves && a->seq == b->seq && a->bytes == b->bytes && a->has_copy == b->has_copy && !strcmp(a->unit, b->unit) &&
		!strcmp(a->owner, b->owner) && !strcmp(a->to, b->to) && !strcmp(a->run, b->run);
}

/* Reads, judges and writes; *record is what there is now. */
static void judge(const struct daemon *d, const struct keep_question *q, bool write, struct keep_record *record, struct keep_answer *a)
{
	struct err e = ERR_INIT;
	cleanup_close int lock = keep_store_lock(&e);
	struct keep_record fresh;
	enum keep_verdict verdict;

	if (lock < 0 || keep_store_read(q->unit, record, &e) < 0) {
		fail(a, &e);
		return;
	}
	settle_taking(record);
	if (q->word != KEEP_TAKE && (q->word != KEEP_MOVED || strcmp(q->to, d->config.name) != 0) && is_here(d, q, a))
		return;
	fresh = *record;
	verdict = keep_judge(&fresh, q, d->config.name);
	say_fenced(a, record, verdict);
	if (verdict != KEEP_YES)
		return;
	if (write && !is_same_record(&fresh, record) && keep_store_write(&fresh, &e) < 0) {
		fail(a, &e);
		return;
	}
	*record = fresh;
}

/* --- a new copy --- */

static int take_data(int fd, int file, uint64_t bytes, struct err *e)
{
	while (bytes) {
		cleanup_frame struct frame f = { 0 };
		int r = frame_recv_expect(fd, KEEP_DATA_FRAME, &f, KEEP_DATA_BYTES_MAX, DATA_MS, e);

		if (r < 0)
			return r;
		if (!f.len || f.len > bytes)
			return err_set(e, -EPROTO, "more of an image than was said, or nothing");
		errno = 0;
		if (write(file, f.payload, f.len) != (ssize_t)f.len)
			return err_sys(e, errno ? -errno : -ENOSPC, "writing a copy");
		bytes -= f.len;
	}
	return 0;
}

/* What it needs is here, of its own chain, and is not removed as long as it is kept. */
static int check_chain(struct archive_reader *archive, const struct keep_question *q, struct err *e)
{
	struct keep_record before = { .seq = q->seq - 1, .base = q->base };
	bool of_chain, adds = q->base && q->base != q->seq;
	uint32_t n;
	const struct archive_link *links = archive_links(archive, &n, &of_chain);

	memcpy(before.unit, q->unit, sizeof(before.unit));
	if (adds != (n > 0))
		return err_set(e, -EBADMSG, "it needs other images than was said");
	for (uint32_t i = 0; i < n; i++)
		if (!keep_store_of_chain(&before, links[i].name))
			return err_set(e, -EBADMSG, "it needs an image that is not of its chain");
	return archive_check_links(archive, false, e);
}

/* The images before it were looked at when they came: they are compared with their digests when somebody restores it. */
static int look_at(const char *path, const struct keep_question *q, struct err *e)
{
	struct archive_reader *archive = NULL;
	struct image_facts facts = { 0 };
	size_t len = keep_name_length(q->unit);
	int r = archive_open(path, -1, NULL, &archive, e);

	if (r == 0) {
		archive_leave_pages(archive);
		r = image_facts_read(archive, &facts, e);
	}
	if (r == 0)
		r = check_chain(archive, q, e);
	if (r == 0 && (strlen(facts.head->unit) != len || strncmp(facts.head->unit, q->unit, len) != 0))
		r = err_set(e, -EBADMSG, "it is an image of another unit");
	image_facts_free(&facts);
	archive_close(archive);
	return r;
}

static struct sockaddr_in own_address(const struct daemon *d)
{
	struct sockaddr_in address = d->config.listen;

	if (address.sin_addr.s_addr == htonl(INADDR_ANY))
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

/* Whether this node would take the unit as it is in that file. */
static int would_take(const struct daemon *d, const char *path, const struct keep_question *q, struct err *e)
{
	char name[KEEP_UNIT_MAX];
	struct image_restore order = { .path = path, .self_name = d->config.name, .dest_name = d->config.name, .dest = own_address(d), .accept_changed = true, .unit = name,
				       .reason = "a copy is kept", .moves = (unsigned)q->moves, .ask_only = true };
	struct image_restored got;
	struct refusals refusals = { 0 };
	int r;

	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(q->unit), q->unit);
	r = migrate_restore(&order, &got, &refusals, e);
	if (refusals.n)
		r = err_set(e, -EPERM, "it could not restore it: %s: %s", refusals.v[0].thing, refusals.v[0].cause);
	refusals_free(&refusals);
	return r == -ECANCELED ? 0 : r;
}

static int receive(const struct daemon *d, int fd, const struct keep_question *q, const struct keep_record *before, struct err *e)
{
	bool known = before->state == KEEP_COPY && before->moves == q->moves;
	struct keep_record record = { .seq = q->seq };
	char path[PATH_MAX];
	cleanup_close int file = -1;
	int r;

	memcpy(record.unit, q->unit, sizeof(record.unit));
	file = keep_store_begin(q->unit, q->bytes + (q->base && q->base != q->seq ? before->bytes : 0), d->config.protect_mib, e);
	if (file < 0)
		return file;
	{
		struct keep_answer go_on = { .verdict = KEEP_YES };
		size_t len = 0;
		cleanup_free void *packed = keep_answer_encode(&go_on, &len);

		r = packed ? frame_send(fd, KEEP_ANSWER_FRAME, packed, len, e) : err_sys(e, -ENOMEM, "an answer");
	}
	keep_store_part_path(q->unit, path);
	if (r == 0)
		r = take_data(fd, file, q->bytes, e);
	if (r == 0)
		r = look_at(path, q, e);
	if (r == 0 && !known) {
		struct err why = ERR_INIT;

		r = would_take(d, path, q, &why);
		if (r < 0)
			err_set(e, r, "%s", why.message);
	}
	if (r == 0)
		r = keep_store_name(file, &record, e);
	return r;
}

static int read_locked(const char *unit, struct keep_record *ret, struct err *e)
{
	cleanup_close int lock = keep_store_lock(e);

	return lock < 0 ? lock : keep_store_read(unit, ret, e);
}

/* What has come of a copy that is not kept; not what has been kept under its number meanwhile. */
static void remove_refused(const struct keep_question *q, struct keep_record *record)
{
	cleanup_close int lock = keep_store_lock(NULL);
	struct keep_record now;
	char path[PATH_MAX];

	if (lock < 0)
		return;
	keep_store_part_path(q->unit, path);
	unlink(path);
	memcpy(record->unit, q->unit, sizeof(record->unit));
	record->seq = q->seq;
	keep_store_image_path(record, path);
	if (keep_store_read(q->unit, &now, NULL) < 0 || now.seq != q->seq) /* nothing needs it: what is newer was made after one that is kept */
		unlink(path);
}

static void store(const struct daemon *d, int fd, const struct keep_question *q, struct keep_answer *a)
{
	struct keep_record record = { 0 };
	struct err e = ERR_INIT;

	if (!d->config.keeps || *node_state_why(d->shared)) {
		say(a, KEEP_NO, d->config.keeps ? node_state_why(d->shared) : "its configuration says that it keeps no copies");
		return;
	}
	if (fence_why_not()) {
		say(a, KEEP_NO, fence_why_not());
		return;
	}
	judge(d, q, false, &record, a);
	if (a->verdict != KEEP_YES)
		return;
	if (read_locked(q->unit, &record, &e) < 0 || receive(d, fd, q, &record, &e) < 0)
		fail(a, &e);
	else
		judge(d, q, true, &record, a);
	if (a->verdict != KEEP_YES)
		remove_refused(q, &record);
}

/* --- a list --- */

struct listing {
	const struct daemon *d;
	struct keep_answer *a;
	const char *owner;
};

static struct keep_record *add_entry(struct keep_answer *a)
{
	struct keep_record *grown = a->n_entries < KEEP_ENTRIES_MAX ? reallocarray(a->entries, a->n_entries + 1, sizeof(*grown)) : NULL;

	if (!grown)
		return NULL;
	a->entries = grown;
	grown += a->n_entries++;
	*grown = (struct keep_record){ 0 };
	return grown;
}

static int add_record(const struct keep_record *record, void *arg)
{
	struct listing *l = arg;
	struct keep_record *entry = add_entry(l->a);

	if (!entry)
		return 1;
	*entry = *record;
	settle_taking(entry);
	return 0;
}

static int add_unit(const struct registry_entry *unit, void *arg)
{
	struct listing *l = arg;
	struct keep_record *entry = add_entry(l->a);

	if (!entry)
		return 1;
	entry->state = KEEP_RUNS;
	entry->moves = unit->moves;
	snprintf(entry->owner, sizeof(entry->owner), "%s", l->d->config.name);
	snprintf(entry->run, sizeof(entry->run), "%s", keep_run());
	if (unit->protection.every_ms)
		keep_key(unit, entry->unit);
	else
		snprintf(entry->unit, sizeof(entry->unit), "%s", unit->unit);
	return 0;
}

static void list(const struct daemon *d, struct keep_answer *a)
{
	struct listing l = { .d = d, .a = a };
	struct err e = ERR_INIT;
	cleanup_close int lock = keep_store_lock(&e);

	if (lock < 0 || keep_store_list(add_record, &l, &e) < 0 || registry_list(add_unit, &l, &e) < 0)
		fail(a, &e);
	else
		say(a, KEEP_YES, "");
}

/* --- restoring --- */

/* Nobody has said whether it runs: that is seen. */
static pid_t wait_doubt(const char *key)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + DOUBT_MS * 1000000ull, moves;
	pid_t pid;

	while (!(pid = find_here(key, &moves)) && clock_ns(CLOCK_MONOTONIC) < until)
		usleep(DOUBT_PAUSE_US);
	return pid;
}

static pid_t restore(const struct daemon *d, const struct keep_record *record, struct err *e)
{
	char name[KEEP_UNIT_MAX], path[PATH_MAX], reason[REGISTRY_REASON_MAX];
	struct image_restore order = { .path = path, .self_name = d->config.name, .dest_name = d->config.name, .dest = own_address(d), .accept_changed = true, .unit = name, .reason = reason,
				       .moves = (unsigned)record->moves };
	struct image_restored got = { 0 };
	struct refusals refusals = { 0 };
	uint64_t moves;
	pid_t pid = find_here(record->unit, &moves);
	int r;

	if (pid)
		return pid;
	keep_store_image_path(record, path);
	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(record->unit), record->unit);
	snprintf(reason, sizeof(reason), "failover: %s has failed", record->owner);
	r = migrate_restore(&order, &got, &refusals, e);
	if (refusals.n)
		err_set(e, -EPERM, "%s: %s", refusals.v[0].thing, refusals.v[0].cause);
	refusals_free(&refusals);
	if (r < 0 && got.in_doubt)
		return wait_doubt(record->unit);
	if (r < 0)
		return 0;
	pid = find_here(record->unit, &moves);
	return pid ? pid : got.pid;
}

void keep_take(const struct daemon *d, const struct keep_question *q, struct keep_answer *a)
{
	struct keep_record record = { 0 };
	char path[PATH_MAX];
	struct err e = ERR_INIT, none = ERR_INIT;
	cleanup_close int held = -1, lock = -1;

	keep_store_part_path(q->unit, path);
	held = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (held < 0 || flock(held, LOCK_EX | LOCK_NB) < 0) {
		say(a, KEEP_STALE, "it is being restored, or a copy of it comes, at this moment");
		return;
	}
	judge(d, q, true, &record, a);
	if (a->verdict != KEEP_YES)
		return;
	log_info("event=restoring unit=%s of=%s moves=%llu seq=%llu", record.unit, record.owner, (unsigned long long)record.moves, (unsigned long long)record.seq);
	a->pid = restore(d, &record, &e);
	if (!a->pid)
		fail(a, &e);
	lock = keep_store_lock(&none);
	if (lock < 0) /* it runs, and that is written all the same */
		log_error("event=record-not-locked unit=%s error=\"%s\"", record.unit, none.message);
	keep_taken(&record, a->pid > 0);
	if (keep_store_write(&record, &none) < 0)
		log_error("event=record-failed unit=%s error=\"%s\"", record.unit, none.message);
	unlink(path);
	if (a->pid)
		log_info("event=failover unit=%s from=%s pid=%d copy_age_ms=%lld", record.unit, record.owner, (int)a->pid, (long long)(clock_ns(CLOCK_REALTIME) / 1000000) - (long long)record.seq);
	else
		log_error("event=failover-failed unit=%s from=%s error=\"%s\"", record.unit, record.owner, e.message);
}

/* --- the connection --- */

static void obey(const struct daemon *d, int fd, const struct keep_question *q, struct keep_answer *a)
{
	struct keep_record record;

	switch (q->word) {
	case KEEP_LIST:
		list(d, a);
		return;
	case KEEP_STORE:
		store(d, fd, q, a);
		return;
	case KEEP_TAKE:
		keep_take(d, q, a);
		return;
	default:
		judge(d, q, true, &record, a);
	}
}

void keep_obey(const struct daemon *d, const struct keep_question *q, struct keep_answer *answer)
{
	struct keep_record record;

	judge(d, q, true, &record, answer);
}

/* Runs in the worker. */
static int serve(const struct daemon *d, int fd, const char *from)
{
	struct keep_answer answer = { .verdict = KEEP_NO };
	cleanup_frame struct frame f = { 0 };
	cleanup_free void *packed = NULL;
	struct keep_question q;
	struct err e = ERR_INIT;
	size_t len = 0;
	int r = frame_recv_expect(fd, KEEP_FRAME, &f, KEEP_QUESTION_BYTES_MAX, QUESTION_MS, &e);

	prctl(PR_SET_NAME, "godwit-keep");
	log_set_context("side=keep from=%s", from);
	if (r == 0)
		r = keep_question_decode(f.payload, f.len, &q, &e);
	if (r == 0 && (q.word == KEEP_STORE || q.word == KEEP_ENDED || q.word == KEEP_MOVED || q.word == KEEP_ASK || q.word == KEEP_DROP) && strcmp(q.owner, from) != 0)
		r = err_set(&e, -EPERM, "only the node where a unit runs says what becomes of its copies");
	if (r < 0) {
		log_warning("event=keep-refused error=\"%s\"", e.message);
		frame_send_error(fd, r, e.message, NULL);
		drain(fd);
		return 1;
	}
	obey(d, fd, &q, &answer);
	snprintf(answer.run, sizeof(answer.run), "%s", keep_run());
	if (answer.verdict != KEEP_YES)
		log_info("event=keep-answer word=%d unit=%s verdict=%d why=\"%s\"", (int)q.word, q.unit, (int)answer.verdict, answer.why);
	packed = keep_answer_encode(&answer, &len);
	if (packed)
		frame_send(fd, KEEP_ANSWER_FRAME, packed, len, NULL);
	keep_answer_free(&answer);
	drain(fd);
	return 0;
}

int keep_serve(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e)
{
	return worker_answer(d, fd, hello, serve, e);
}
