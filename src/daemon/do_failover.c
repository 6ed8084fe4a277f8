// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_failover.c - godwit failover: what was protected on nodes that have failed is restored elsewhere, once (docs/protect.md)
 *
 * Theory of operation: somebody has said that these nodes are dead. All others must answer: one that does not may run what would be restored, or be restoring it, and has to be named as dead, too, or to be
 * reached. Of what they tell (LIST) keep_rules.h chooses for each unit who restores it; that is sealed at every node that knows of the unit, in the order of their names, and only then is it taken (TAKE). A node that
 * could not is noted, and another one chosen, with another seal. Two who do this at the same time meet at the first node that both seal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/keep.h"
#include "daemon/reply.h"
#include "wire/conn.h"

#define LIST_MS 3000
#define SEAL_MS 3000
#define TAKE_MS 180000
#define DEAD_MS 1500 /* so long is waited for a sign of life */
#define SEALS_MAX 8
#define UNITS_AT_ONCE 8
#define LINE_MAX_BYTES 2048

/* A node, and what it has told. */
struct told_node {
	const struct cluster_node *node;
	bool dead, answers;
	struct keep_answer answer;
	struct err error;
};

struct failover {
	const struct daemon *d;
	const struct request *request;
	int fd;
	struct told_node *nodes;
	size_t n;
	const char *dead[REQUEST_NODES_MAX];
	json_t *restored, *left;
	int pipe;            /* in a unit's child: to its parent */
	FILE *lines;         /* the other end */
	unsigned children;
};

static bool is_dead(const struct request *request, const char *name)
{
	for (size_t i = 0; i < request->n_nodes; i++)
		if (!strcmp(request->nodes[i], name))
			return true;
	return false;
}

static struct keep_question list_question(void)
{
	return (struct keep_question){ .word = KEEP_LIST };
}

static void ask_one(const struct failover *f, struct told_node *t)
{
	struct keep_question q = list_question();

	t->dead = is_dead(f->request, t->node->name);
	t->answers = keep_ask(f->d, &t->node->address, &q, t->dead ? DEAD_MS : LIST_MS, &t->answer, &t->error) == 0;
}

/* A node that was booted since it sent a copy has lost what ran there, though it answers. */
static bool was_booted(const struct told_node *t, const struct keep_record *r)
{
	return t->answers && *r->run && *t->answer.run && strcmp(t->answer.run, r->run) != 0;
}

static struct told_node *find_node(const struct failover *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->nodes[i].node->name, name))
			return &f->nodes[i];
	return NULL;
}

/* Whether something that is kept was made by that node as it runs now. */
static bool lives(const struct failover *f, const struct told_node *t)
{
	for (size_t i = 0; t->answers && i < f->n; i++)
		for (size_t k = 0; k < f->nodes[i].answer.n_entries; k++) {
			const struct keep_record *r = &f->nodes[i].answer.entries[k];

			if (r->state == KEEP_COPY && !strcmp(r->owner, t->node->name) && !was_booted(t, r))
				return true;
		}
	return false;
}

/* All nodes that are not dead have to answer; of those that are said to be and do, everything must have been lost. */
static int check_answers(const struct failover *f, struct err *e)
{
	for (size_t i = 0; i < f->request->n_nodes; i++) {
		const struct told_node *t = find_node(f, f->request->nodes[i]);

		if (!t)
			return err_set(e, -ENOENT, "no node %s is known here: `godwit nodes` lists those that are", f->request->nodes[i]);
		if (t == &f->nodes[0])
			return err_set(e, -EINVAL, "%s is this node, which lives", t->node->name);
		if (lives(f, t))
			return err_set(e, -EBUSY, "%s answers: it is not dead, and what is protected there runs there (`godwit drain %s` moves it away)", t->node->name, t->node->name);
	}
	for (size_t i = 0; i < f->n; i++) {
		const struct told_node *t = &f->nodes[i];

		if (!t->dead && !t->answers)
			return err_set(e, -EHOSTUNREACH, "%s does not answer (%.200s), and could run what would be restored: reach it, or, if it is dead as well, name it, too", t->node->name, t->error.message);
	}
	return 0;
}

/* --- one unit --- */

struct unit_told {
	const char *key;
	struct keep_told *v;
	size_t n;
};

static bool same_unit(const struct keep_record *r, const char *key)
{
	size_t len = keep_name_length(key);

	if (!strcmp(r->unit, key))
		return true;
	return r->state == KEEP_RUNS && !strchr(r->unit, '@') && strlen(r->unit) == len && !strncmp(r->unit, key, len);
}

/* What all that answer say of it. */
static int gather(const struct failover *f, const char *key, struct unit_told *ret, struct err *e)
{
	size_t room = 0;

	*ret = (struct unit_told){ .key = key };
	for (size_t i = 0; i < f->n; i++)
		room += f->nodes[i].answers ? f->nodes[i].answer.n_entries : 0;
	ret->v = calloc(room + 1, sizeof(*ret->v));
	if (!ret->v)
		return err_sys(e, -ENOMEM, "copies");
	for (size_t i = 0; i < f->n; i++) {
		const struct told_node *t = &f->nodes[i];

		for (size_t k = 0; t->answers && k < t->answer.n_entries; k++) {
			const struct keep_record *r = &t->answer.entries[k];

			if (same_unit(r, key))
				ret->v[ret->n++] = (struct keep_told){ .node = t->node->name, .record = *r };
		}
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct keep_told *)a)->node, ((const struct keep_told *)b)->node);
}

/* At every node that knows of it. -EBUSY: another one is restoring it. */
static int seal(const struct failover *f, const struct unit_told *u, const struct keep_question *q, struct err *e)
{
	for (size_t i = 0; i < u->n; i++) {
		const struct told_node *t = find_node(f, u->v[i].node);
		struct keep_answer answer = { 0 };
		int r;

		if (u->v[i].record.state == KEEP_RUNS || (i && !strcmp(u->v[i].node, u->v[i - 1].node)) || t->dead)
			continue;
		r = keep_ask(f->d, &t->node->address, q, SEAL_MS, &answer, e);
		if (r == 0 && answer.verdict != KEEP_YES)
			r = err_set(e, -EBUSY, "%s says: %s%s%s", t->node->name, answer.why, *answer.to ? ": " : "", answer.to);
		keep_answer_free(&answer);
		if (r < 0)
			return r;
	}
	return 0;
}

static int restore(const struct failover *f, const struct unit_told *u, int chosen, bool again, pid_t *ret_pid, bool *ret_failed, struct err *e)
{
	const struct keep_record *r = &u->v[chosen].record;
	const struct told_node *t = find_node(f, u->v[chosen].node);
	struct keep_question q = { .word = KEEP_SEAL, .moves = r->moves, .seq = r->seq, .again = again };
	struct keep_answer answer = { 0 };
	int code;

	for (size_t i = 0; i < u->n; i++)
		if (u->v[i].record.state != KEEP_RUNS)
			q.moves = MAX(q.moves, u->v[i].record.moves);
	/* Who was to restore it, or has, and is dead, must find that somebody came after him. */
	q.moves += r->state == KEEP_SEALED && is_dead(f->request, r->to);
	memcpy(q.unit, u->key, sizeof(q.unit));
	memcpy(q.owner, r->owner, sizeof(q.owner));
	snprintf(q.to, sizeof(q.to), "%s", t->node->name);
	if (seal(f, u, &q, e) < 0)
		return e->code;
	q.word = KEEP_TAKE;
	code = keep_ask(f->d, &t->node->address, &q, TAKE_MS, &answer, e);
	if (code == 0 && answer.verdict == KEEP_YES)
		*ret_pid = answer.pid;
	else if (code == 0)
		code = err_set(e, -EIO, "%s: %s", t->node->name, answer.why);
	*ret_failed = answer.verdict == KEEP_NO;
	keep_answer_free(&answer);
	return code;
}

/* From a unit's child to its parent: one line, which a pipe takes as a whole. */
static void tell_parent(const struct failover *f, json_t *line)
{
	cleanup_free char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(line);
	if (!text || len >= LINE_MAX_BYTES)
		return;
	text[len] = '\n'; /* over the 0: the length is known */
	(void)!write(f->pipe, text, len + 1);
}

static void note_left(const struct failover *f, const char *key, const char *why)
{
	char name[KEEP_UNIT_MAX];

	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(key), key);
	log_warning("event=not-restored unit=%s text=\"%s\"", name, why);
	tell_parent(f, json_pack("{s:s, s:o}", "unit", name, "why", reply_text(why)));
}

static void note_restored(const struct failover *f, const struct keep_told *t, pid_t pid)
{
	char name[KEEP_UNIT_MAX];
	json_int_t now_ms = (json_int_t)(clock_ns(CLOCK_REALTIME) / 1000000);

	snprintf(name, sizeof(name), "%.*s", (int)keep_name_length(t->record.unit), t->record.unit);
	tell_parent(f, json_pack("{s:s, s:s, s:i, s:s, s:I}", "unit", name, "node", t->node, "pid", (int)pid, "from", t->record.owner, "age_ms", now_ms - (json_int_t)t->record.seq));
}

/* Whether what is known of a unit concerns those that are dead: it ran there, or was to be restored there. */
static bool concerns(const struct failover *f, const struct keep_record *r)
{
	if (r->state == KEEP_COPY)
		return is_dead(f->request, r->owner);
	return r->state == KEEP_SEALED && (is_dead(f->request, r->owner) || is_dead(f->request, r->to));
}

/* It has been restored before, or is elsewhere: there is nothing to say. */
static bool is_running(const struct unit_told *u)
{
	for (size_t i = 0; i < u->n; i++)
		if (u->v[i].record.state == KEEP_RUNS)
			return true;
	return false;
}

static void fail_over(const struct failover *f, struct unit_told *u)
{
	const char *why = NULL;
	struct err e = ERR_INIT;
	int chosen = -1;
	bool again = false;

	if (u->n)
		qsort(u->v, u->n, sizeof(*u->v), by_name);
	for (size_t i = 0; i < u->n; i++) {
		struct keep_record *r = &u->v[i].record;
		const struct told_node *here = find_node(f, u->v[i].node);

		u->v[i].failed |= (r->state == KEEP_TAKEN || r->state == KEEP_TAKING) && here->dead;
		again |= r->state == KEEP_SEALED && is_dead(f->request, r->to);
	}
	for (int tries = 0; tries < SEALS_MAX && (chosen = keep_choose(u->v, u->n, f->dead, f->request->n_nodes, &why)) >= 0; tries++) {
		bool failed = false;
		pid_t pid = 0;

		e = ERR_INIT;
		if (restore(f, u, chosen, again, &pid, &failed, &e) == 0) {
			note_restored(f, &u->v[chosen], pid);
			return;
		}
		if (!failed)
			break; /* another one is about it, or nobody knows */
		log_warning("event=restore-failed unit=%s node=%s error=\"%s\"", u->key, u->v[chosen].node, e.message);
		u->v[chosen].failed = again = true;
	}
	if (chosen < 0 && !e.code && is_running(u))
		return;
	note_left(f, u->key, e.code ? e.message : why ? why : "it could not be restored anywhere");
}

static bool is_first(const struct failover *f, size_t node, size_t entry)
{
	const char *key = f->nodes[node].answer.entries[entry].unit;

	for (size_t i = 0; i <= node; i++)
		for (size_t k = 0; f->nodes[i].answers && k < (i == node ? entry : f->nodes[i].answer.n_entries); k++)
			if (!strcmp(f->nodes[i].answer.entries[k].unit, key) && concerns(f, &f->nodes[i].answer.entries[k]))
				return false;
	return true;
}

/* What a child has told, or the end of one. */
static void collect(struct failover *f)
{
	char text[LINE_MAX_BYTES + 2];
	json_t *line;

	if (!fgets(text, sizeof(text), f->lines))
		return;
	if (text[0] == '\n') {
		f->children--;
		return;
	}
	line = json_loads(text, 0, NULL);
	if (!line)
		return;
	if (json_object_get(line, "why")) {
		json_array_append_new(f->left, line);
		return;
	}
	json_array_append(f->restored, line);
	reply_line(f->fd, json_pack("{s:s, s:o}", "event", "unit", "unit", line));
}

/* Each by a process of its own, since one waits for the other side most of the time. */
static void start_unit(struct failover *f, struct unit_told *u)
{
	pid_t child = fork();

	if (child == 0) {
		fail_over(f, u);
		(void)!write(f->pipe, "\n", 1);
		_exit(0);
	}
	if (child > 0)
		f->children++;
	else
		fail_over(f, u);
}

static int all_units(struct failover *f, struct err *e)
{
	for (size_t i = 0; i < f->n; i++)
		for (size_t k = 0; f->nodes[i].answers && k < f->nodes[i].answer.n_entries; k++) {
			struct unit_told u;

			if (!concerns(f, &f->nodes[i].answer.entries[k]) || !is_first(f, i, k))
				continue;
			if (gather(f, f->nodes[i].answer.entries[k].unit, &u, e) < 0)
				return e->code;
			while (f->children >= UNITS_AT_ONCE)
				collect(f);
			start_unit(f, &u);
			free(u.v);
		}
	while (f->children)
		collect(f);
	return 0;
}

static int run(struct failover *f, struct err *e)
{
	int ends[2];
	cleanup_free struct cluster_node *nodes = NULL;
	int r = node_list(f->d, &nodes, &f->n, e);

	if (r == 0 && !(f->nodes = calloc(f->n + 1, sizeof(*f->nodes))))
		r = err_sys(e, -ENOMEM, "nodes");
	for (size_t i = 0; r == 0 && i < f->n; i++) {
		f->nodes[i].node = &nodes[i];
		if (i == 0 && nodes[0].address.sin_addr.s_addr == htonl(INADDR_ANY))
			nodes[0].address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		ask_one(f, &f->nodes[i]);
	}
	if (r == 0)
		r = check_answers(f, e);
	if (r == 0 && (pipe2(ends, O_CLOEXEC) < 0 || !(f->lines = fdopen(ends[0], "r"))))
		r = err_sys(e, -errno, "a pipe");
	if (r == 0) {
		f->pipe = ends[1];
		r = all_units(f, e);
	}
	for (size_t i = 0; f->nodes && i < f->n; i++)
		keep_answer_free(&f->nodes[i].answer);
	free(f->nodes);
	return r;
}

int do_failover(const struct daemon *d, const struct request *request, int fd)
{
	struct failover f = { .d = d, .request = request, .fd = fd, .restored = json_array(), .left = json_array() };
	struct err e = ERR_INIT;
	json_t *result;

	log_set_context("side=failover");
	if (d->config.etcd.n_servers) {
		json_decref(f.restored);
		json_decref(f.left);
		err_set(&e, -EINVAL, "with etcd nobody need say it: what was protected on a node is restored as soon as the node's lease has run out (%u s)", d->config.etcd.lease_s);
		reply_error(fd, "bad-request", &e, NULL, NULL);
		return 1;
	}
	for (size_t i = 0; i < request->n_nodes; i++)
		f.dead[i] = request->nodes[i];
	if (run(&f, &e) < 0) {
		log_error("event=failover-refused error=\"%s\"", e.message);
		json_decref(f.left);
		reply_error(fd, "failed", &e, NULL, json_pack("{s:o}", "restored", f.restored));
		return 1;
	}
	result = json_pack("{s:o, s:o}", "restored", f.restored, "left", f.left);
	reply_result(fd, result);
	return 0;
}
