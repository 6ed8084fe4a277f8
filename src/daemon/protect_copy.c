// SPDX-License-Identifier: GPL-2.0-or-later
/* protect_copy.c - one copy of a unit, from the image to the nodes that keep it; see protect.h */
#include <errno.h>
#include <limits.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/keep.h"
#include "daemon/move.h"
#include "daemon/protect.h"

#define COPY_MS 60000 /* for one image */
#define ASK_MS 1000
#define TELL_MS 3000

/* --- which nodes --- */

static bool may_keep(const struct cluster_node *node, const struct protection *p)
{
	bool named = !p->n_to;

	for (size_t i = 0; i < p->n_to; i++)
		named |= !strcmp(node->name, p->to[i]);
	return named && node->reachable && (!node->state || node->state == NODE_OK || node->state == NODE_BUSY);
}

size_t protect_candidates(const struct daemon *d, const struct protection *p)
{
	cleanup_free struct cluster_node *nodes = NULL;
	size_t n = 0, found = 0;

	if (node_list_heard(d, &nodes, &n, NULL) < 0)
		return 0;
	for (size_t i = 1; i < n; i++)
		found += may_keep(&nodes[i], p);
	return found;
}

/* By rendezvous hashing, so that the copies of many units are on all nodes alike, and stay where they are when a node comes or goes. */
static uint64_t weight(const char *key, const char *node)
{
	char text[KEEP_UNIT_MAX + HELLO_NAME_MAX + 2];

	snprintf(text, sizeof(text), "%s %s", node, key);
	return gossip_id(text);
}

struct candidate {
	const struct cluster_node *node;
	bool has, tried;
	uint64_t weight;
};

/* The next one to try; NULL: there is none. Those that have a copy come first: what they have is replaced, and nothing old is left. */
static struct candidate *next_candidate(struct candidate *v, size_t n)
{
	struct candidate *best = NULL;

	for (size_t i = 0; i < n; i++)
		if (!v[i].tried && (!best || v[i].has > best->has || (v[i].has == best->has && v[i].weight > best->weight)))
			best = &v[i];
	if (best)
		best->tried = true;
	return best;
}

/* --- the image --- */

static void image_path(const struct daemon *d, const char *key, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, STATE_DIRECTORY "/%s.protected/%s.img", d->config.name, key);
}

/* What the unit's copies have, as the writer of the next one needs it; without it that one is whole. */
static void index_path(const struct daemon *d, const char *key, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, STATE_DIRECTORY "/%s.protected/%s.chain", d->config.name, key);
}

static void begin_anew(const struct daemon *d, struct protect_journal *j)
{
	char path[PATH_MAX];

	index_path(d, j->key, path);
	unlink(path);
	j->base = 0;
}

/* As keepers name it: what comes after it names it so. */
static json_t *order_image(const struct daemon *d, const struct registry_entry *entry, const struct protect_journal *j, const char *path)
{
	char chain[PATH_MAX], name[KEEP_UNIT_MAX + 32];

	index_path(d, j->key, chain);
	snprintf(name, sizeof(name), "%s.%llu.img", j->key, (unsigned long long)j->seq);
	return json_pack("{s:s, s:b, s:b, s:s, s:s, s:i, s:s, s:b, s:s, s:s}", "verb", "checkpoint", "copy", 1, "incremental", 1, "chain", chain, "name", name, "pid", (int)entry->pid, "path", path, "keep_running", 1, "files", fsfile_policy_name(entry->protection.files), "tcp",
			 tcp_outside_policy_name(entry->protection.tcp));
}

/* What stands in the way, in one line. */
static int read_failure(const json_t *line, struct err *e)
{
	const json_t *error = json_object_get(line, "error"), *refusal = json_array_get(json_object_get(error, "refusals"), 0);
	const char *message = json_string_value(json_object_get(error, "message")), *thing = json_string_value(json_object_get(refusal, "thing")),
		   *cause = json_string_value(json_object_get(refusal, "cause"));

	if (thing && cause)
		return err_set(e, -EPERM, "no image could be made: %s: %s", thing, cause);
	return err_set(e, -EIO, "no image could be made: %s", message ? message : "godwitd did not say why");
}

static int take_image(const struct daemon *d, const struct registry_entry *entry, const char *path, struct protect_journal *j, struct err *e)
{
	json_t *line = NULL;
	int r = move_order(d, order_image(d, entry, j, path), COPY_MS, &line, e);
	const json_t *result = json_object_get(line, "result");

	if (r < 0)
		return r;
	if (result) {
		j->freeze_us = (unsigned)json_integer_value(json_object_get(result, "freeze_us"));
		j->bytes = (uint64_t)json_integer_value(json_object_get(result, "file_bytes"));
		if (!json_is_true(json_object_get(result, "incremental")))
			j->base = j->seq;
	} else {
		r = read_failure(line, e);
	}
	json_decref(line);
	return r;
}

/* --- words to keepers --- */

static struct keep_question question_of(const struct daemon *d, const struct protect_journal *j, enum keep_word word)
{
	struct keep_question q = { .word = word, .moves = j->moves, .seq = j->seq, .base = j->base };

	memcpy(q.unit, j->key, sizeof(q.unit));
	snprintf(q.owner, sizeof(q.owner), "%s", d->config.name);
	snprintf(q.run, sizeof(q.run), "%s", keep_run());
	return q;
}

static void note_fenced(struct protect_journal *j, const struct keep_answer *answer, const char *node)
{
	j->stage = PROTECT_FENCED;
	snprintf(j->to, sizeof(j->to), "%s", *answer->to ? answer->to : node);
	log_error("event=fenced unit=%s owner=%s said-by=%s", j->key, j->to, node);
}

bool protect_ask(const struct daemon *d, struct protect_journal *j)
{
	struct keep_question q = question_of(d, j, KEEP_ASK);

	for (size_t i = 0; i < j->n_keepers; i++) {
		struct protect_keeper *k = &j->keepers[i];
		struct keep_answer answer = { 0 };
		struct sockaddr_in address;
		struct err e = ERR_INIT;

		if (!k->current && !k->seq)
			continue;
		k->answers = node_address(d, k->name, &address) && keep_ask(d, &address, &q, ASK_MS, &answer, &e) == 0;
		if (k->answers && answer.verdict == KEEP_FENCED)
			note_fenced(j, &answer, k->name);
		keep_answer_free(&answer);
		if (j->stage == PROTECT_FENCED)
			return false;
	}
	return true;
}

bool protect_tell(const struct daemon *d, struct protect_journal *j)
{
	struct keep_question q = question_of(d, j, j->stage == PROTECT_LEFT ? KEEP_MOVED : KEEP_ENDED);
	bool all = true;

	begin_anew(d, j);
	snprintf(q.to, sizeof(q.to), "%s", j->stage == PROTECT_LEFT ? j->to : "");
	for (size_t i = 0; i < j->n_keepers; i++) {
		struct protect_keeper *k = &j->keepers[i];
		struct keep_answer answer = { 0 };
		struct sockaddr_in address;
		struct err e = ERR_INIT;

		if (!k->told)
			k->told = !node_address(d, k->name, &address) ? false : keep_ask(d, &address, &q, TELL_MS, &answer, &e) == 0 && answer.verdict != KEEP_NO;
		keep_answer_free(&answer);
		all &= k->told;
	}
	return all;
}

/* --- a copy --- */

/* Sends it to one node; true: it has it. */
static bool send_to(const struct daemon *d, struct protect_journal *j, const struct cluster_node *node, const char *path)
{
	struct keep_question q = question_of(d, j, KEEP_STORE);
	struct protect_keeper *k = protect_journal_keeper(j, node->name, true);
	struct keep_answer answer = { 0 };
	struct err e = ERR_INIT;
	bool has;

	if (!k)
		return false;
	k->answers = keep_send(d, &node->address, &q, path, &answer, &e) == 0;
	has = k->answers && answer.verdict == KEEP_YES;
	if (has)
		k->seq = j->seq;
	k->current = has;
	if (k->answers && answer.verdict == KEEP_FENCED)
		note_fenced(j, &answer, node->name);
	else if (!has)
		snprintf(j->error, sizeof(j->error), "%s: %.300s", node->name, k->answers ? answer.why : e.message);
	keep_answer_free(&answer);
	return has;
}

static void send_all(const struct daemon *d, const struct protection *p, struct protect_journal *j, const char *path)
{
	cleanup_free struct cluster_node *nodes = NULL;
	cleanup_free struct candidate *v = NULL;
	struct candidate *c;
	size_t n = 0, n_candidates = 0;
	struct err e = ERR_INIT;

	if (node_list_heard(d, &nodes, &n, &e) < 0 || !(v = calloc(n + 1, sizeof(*v)))) {
		snprintf(j->error, sizeof(j->error), "%.300s", *e.message ? e.message : "no memory");
		return;
	}
	for (size_t i = 1; i < n; i++) {
		const struct protect_keeper *k = protect_journal_keeper(j, nodes[i].name, false);

		if (may_keep(&nodes[i], p))
			v[n_candidates++] = (struct candidate){ &nodes[i], k && k->seq, false, weight(j->key, nodes[i].name) };
	}
	for (size_t i = 0; i < j->n_keepers; i++)
		j->keepers[i].current = false;
	j->have = 0;
	while (j->have < p->copies && j->stage == PROTECT_RUNS && (c = next_candidate(v, n_candidates)))
		j->have += send_to(d, j, c->node, path);
	if (j->have < p->copies && !j->error[0])
		snprintf(j->error, sizeof(j->error), "%zu nodes could keep a copy, and %u are to", n_candidates, p->copies);
}

/* Those that have an old one, and none of the new: they need not keep it. */
static void drop_old(const struct daemon *d, struct protect_journal *j)
{
	struct keep_question q = question_of(d, j, KEEP_DROP);

	for (size_t i = 0; i < j->n_keepers; i++) {
		struct protect_keeper *k = &j->keepers[i];
		struct keep_answer answer = { 0 };
		struct sockaddr_in address;

		if (k->current || !k->seq || !node_address(d, k->name, &address))
			continue;
		if (keep_ask(d, &address, &q, ASK_MS, &answer, NULL) == 0 && answer.verdict != KEEP_NO)
			k->seq = 0;
		keep_answer_free(&answer);
	}
}

/* Whether as many nodes as there are to be have the copy before this one, all of its chain. */
static bool may_add(const struct protection *p, const struct protect_journal *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_keepers; i++)
		n += j->keepers[i].current && j->keepers[i].seq == j->seq;
	return j->base && n >= p->copies;
}

/* One image, to all. */
static void copy_once(const struct daemon *d, const struct registry_entry *entry, struct protect_journal *j, const char *path, struct err *e)
{
	j->error[0] = 0;
	j->seq = MAX(j->seq + 1, clock_ns(CLOCK_REALTIME) / 1000000);
	take_image(d, entry, path, j, e);
	if (e->code)
		snprintf(j->error, sizeof(j->error), "%.390s", e->message);
	else
		send_all(d, &entry->protection, j, path);
	unlink(path);
}

void protect_copy(const struct daemon *d, const struct registry_entry *entry, struct protect_journal *j)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	char path[PATH_MAX], last_error[sizeof(j->error)];
	struct err e = ERR_INIT;

	memcpy(last_error, j->error, sizeof(last_error));
	image_path(d, j->key, path);
	*strrchr(path, '/') = 0;
	if (!may_add(&entry->protection, j))
		begin_anew(d, j);
	if (registry_make_directory(path, 0700, &e) == 0) {
		image_path(d, j->key, path);
		copy_once(d, entry, j, path, &e);
		/* A node is new, or has lost what it had: all get a whole one, at once. */
		if (!e.code && j->have < entry->protection.copies && j->base != j->seq && j->stage == PROTECT_RUNS) {
			log_info("event=copy-whole unit=%s why=\"%s\"", j->key, j->error);
			begin_anew(d, j);
			copy_once(d, entry, j, path, &e);
		}
	} else {
		snprintf(j->error, sizeof(j->error), "%.390s", e.message);
	}
	if (e.code || j->have < entry->protection.copies || j->stage != PROTECT_RUNS)
		begin_anew(d, j);
	j->copies = entry->protection.copies;
	j->took_ms = (unsigned)((clock_ns(CLOCK_MONOTONIC) - began) / 1000000);
	if (!e.code && j->have >= j->copies) {
		j->complete_ms = j->seq;
		j->made++;
		drop_old(d, j);
	} else if (j->stage == PROTECT_RUNS) {
		j->failed++;
		if (strcmp(last_error, j->error) != 0) /* once */
			log_warning("event=copy-failed unit=%s have=%u of=%u error=\"%s\"", j->key, j->have, j->copies, j->error);
	}
}
