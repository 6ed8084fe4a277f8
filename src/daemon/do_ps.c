// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_ps.c - the units of the cluster, or of this node alone, and the migrations under way here
 *
 * A node knows the units that are on it, and those that have left it and are waited for there. For all of the cluster every node that is reachable is asked at once; what those
 * say that do not answer in time is missing, and they are named.
 */
#include <fcntl.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/order_all.h"
#include "daemon/protect.h"
#include "daemon/ps_merge.h"
#include "daemon/reply.h"
#include "home/where.h"
#include "image/process.h"
#include "migrate/registry.h"

#define ANSWER_MS 1500

struct listing {
	const struct daemon *d;
	json_t *units;
};

/* Reads a small file of /proc; zero bytes become spaces. Returns the length. */
static size_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n, i;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, size - 1) : 0;
	n = MAX(n, 0);
	for (i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ')
			text[i] = ' ';
	while (n > 0 && text[n - 1] == ' ')
		n--;
	text[n] = 0;
	return (size_t)n;
}

static const char *state_word(const struct daemon *d, pid_t pid)
{
	char text[1024];
	const char *p;
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++)
		if (d->workers[i].pid && d->workers[i].kind == WORKER_SOURCE && d->workers[i].moving == pid && d->workers[i].peer[0]) /* to a file it goes without leaving */
			return "leaving";
	read_proc(pid, "stat", text, sizeof(text));
	p = strrchr(text, ')');
	if (!p || !p[1])
		return "gone";
	switch (p[2]) {
	case 'R':
		return "running";
	case 'S':
		return "sleeping";
	case 'D':
		return "waiting";
	case 'T':
	case 't':
		return "stopped";
	default:
		return "idle";
	}
}

/* With the user id of `pid`, the unit's or its stub's. */
static void append(json_t *units, pid_t pid, json_t *unit)
{
	uid_t uid;

	if (pid && process_read_owner(pid, &uid) == 0)
		json_object_set_new(unit, "uid", json_integer(uid));
	json_array_append_new(units, unit);
}

static int add_unit(const struct registry_entry *entry, void *arg)
{
	struct listing *l = arg;
	char home[HELLO_NAME_MAX + 1], command[512];
	json_t *unit;

	snprintf(home, sizeof(home), "%.*s", (int)strcspn(entry->unit, ":"), entry->unit);
	if (!read_proc(entry->pid, "cmdline", command, sizeof(command)))
		read_proc(entry->pid, "comm", command, sizeof(command));
	unit = json_pack("{s:o, s:i, s:s, s:o, s:o, s:o, s:i, s:I, s:s, s:o, s:I, s:o}", "unit", reply_text(entry->unit), "pid",
						  (int)entry->pid, "on", l->d->config.name, "command", reply_text(command), "home", reply_text(home), "from",
						  reply_text(entry->from), "moves", (int)entry->moves, "since", (json_int_t)entry->since,
						  "state", state_word(l->d, entry->pid), "strategy", reply_text(entry->strategy),
						  "freeze_us", (json_int_t)entry->freeze_us, "reason", reply_text(entry->reason));
	protect_describe(entry, unit);
	append(l->units, entry->pid, unit);
	return 0;
}

/* A unit whose home is here, and which has left. Its number is its stub's; 0: nobody waits for it. */
static int add_away(const char *unit, void *arg)
{
	struct listing *l = arg;
	struct door_where w;

	if (where_ask(unit, &w, NULL) < 0 || !strcmp(w.host, l->d->config.name))
		return 0;
	append(l->units, w.pid, json_pack("{s:o, s:i, s:i, s:o, s:o, s:s, s:s}", "unit", reply_text(unit), "pid", (int)w.pid, "stub", (int)w.pid, "on", reply_text(w.host), "command",
						  reply_text(w.command), "home", l->d->config.name, "state", w.stopped ? "stopped" : "away"));
	return 0;
}

static json_t *migrations(const struct daemon *d)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++) {
		const struct worker *w = &d->workers[i];

		if (!w->pid || (w->kind != WORKER_SOURCE && w->kind != WORKER_DEST) || __atomic_load_n(&d->done[i], __ATOMIC_ACQUIRE))
			continue;
		json_array_append_new(list, json_pack("{s:s, s:o, s:i, s:i}", "direction", w->kind == WORKER_SOURCE ? "leaving" : "arriving",
						      "peer", reply_text(w->peer), "pid", (int)w->moving, "worker", (int)w->pid));
	}
	return list;
}

/* Why a node's units are missing. */
static void note_silent(json_t *silent, const struct cluster_node *node, const char *why)
{
	json_array_append_new(silent, json_pack("{s:s, s:o}", "node", node->name, "error", reply_text(why)));
}

static void take_answer(json_t *units, json_t *silent, struct order_answer *answer)
{
	json_t *list = NULL;

	if (answer->result && ps_units_check(json_object_get(answer->result, "units"), &list, &answer->error) == 0)
		ps_merge(units, list);
	else
		note_silent(silent, answer->node, answer->error.message);
	json_decref(list);
}

static int ask_others(const struct daemon *d, json_t *units, json_t *silent, struct err *e)
{
	cleanup_free struct cluster_node *nodes = NULL;
	struct order_answer *answers = NULL;
	json_t *order = json_pack("{s:s, s:b}", "verb", "ps", "here", 1);
	size_t n = 0, n_asked = 0;
	int r = node_list_bridged(d, &nodes, &n, e);

	for (size_t i = 1; r == 0 && i < n; i++) {
		if (nodes[i].reachable)
			nodes[n_asked++] = nodes[i];
		else
			note_silent(silent, &nodes[i], "it is unreachable");
	}
	if (r == 0)
		r = order_all(d, nodes, n_asked, order, ANSWER_MS, &answers, e);
	json_decref(order);
	for (size_t i = 0; r == 0 && i < n_asked; i++)
		take_answer(units, silent, &answers[i]);
	order_answers_free(answers, r == 0 ? n_asked : 0);
	return r;
}

static int list_here(const struct daemon *d, json_t *units, struct err *e)
{
	struct listing l = { d, units };
	char prefix[HELLO_NAME_MAX + 2];
	int r;

	snprintf(prefix, sizeof(prefix), "%s:", d->config.name);
	door_list(prefix, add_away, &l);
	r = registry_list(add_unit, &l, e);
	return MIN(r, 0);
}

int do_ps(const struct daemon *d, const struct request *request, int fd)
{
	json_t *here = json_array(), *units = json_object(), *silent = json_array();
	struct err e = ERR_INIT;
	int r = list_here(d, here, &e);

	ps_merge(units, here);
	if (r == 0 && !request->here)
		r = ask_others(d, units, silent, &e);
	json_decref(here);
	if (r < 0) {
		json_decref(units);
		json_decref(silent);
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	reply_result(fd, json_pack("{s:s, s:o, s:o, s:o}", "node", d->config.name, "units", ps_list(units, &request->caller), "silent", silent, "migrations",
			    request->caller.limited ? json_array() : migrations(d)));
	json_decref(units);
	return 0;
}
