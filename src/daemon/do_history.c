// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_history.c - the moves that have ended, and those under way, of the cluster or of this node alone
 *
 * Each node knows those that began on it. As in do_ps.c all that are reachable are asked at once, and who does not answer in time is named.
 */
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/history.h"
#include "daemon/history_json.h"
#include "daemon/order_all.h"
#include "daemon/reply.h"

#define ANSWER_MS 1500

struct listing {
	const struct daemon *d;
	const char *unit; /* "": all */
	json_t *moves, *running, *silent;
};

static bool is_wanted(const struct listing *l, const char *unit)
{
	return !l->unit[0] || !strcmp(l->unit, unit);
}

static int add_ended(const struct history_move *move, void *arg)
{
	struct listing *l = arg;

	if (is_wanted(l, move->report.unit))
		json_array_append_new(l->moves, history_json(move, l->d->config.name, false));
	return 0;
}

static int add_running(const struct history_move *move, void *arg)
{
	struct listing *l = arg;

	if (is_wanted(l, move->report.unit))
		json_array_append_new(l->running, history_json(move, l->d->config.name, true));
	return 0;
}

static void note_silent(json_t *silent, const struct cluster_node *node, const char *why)
{
	json_array_append_new(silent, json_pack("{s:s, s:o}", "node", node->name, "error", reply_text(why)));
}

static void take_list(json_t *to, const json_t *said, const char *unit)
{
	json_t *v;
	size_t i;

	json_array_foreach(said, i, v)
		if (!unit[0] || !strcmp(json_string_value(json_object_get(v, "unit")), unit))
			json_array_append(to, v);
}

static void take_answer(struct listing *l, struct order_answer *answer)
{
	json_t *moves = NULL, *running = NULL;

	if (answer->result && history_check(json_object_get(answer->result, "moves"), &moves, &answer->error) == 0 &&
	    history_check(json_object_get(answer->result, "running"), &running, &answer->error) == 0) {
		take_list(l->moves, moves, l->unit);
		take_list(l->running, running, l->unit);
	} else {
		note_silent(l->silent, answer->node, answer->error.message);
	}
	json_decref(moves);
	json_decref(running);
}

static json_t *order_of(const struct request *request)
{
	json_t *o = json_pack("{s:s, s:b, s:i}", "verb", "history", "here", 1, "last", (int)request->last);

	if (request->unit[0])
		json_object_set_new(o, "unit", json_string(request->unit));
	return o;
}

static int ask_others(struct listing *l, const struct request *request, struct err *e)
{
	cleanup_free struct cluster_node *nodes = NULL;
	struct order_answer *answers = NULL;
	json_t *order = order_of(request);
	size_t n = 0, n_asked = 0;
	int r = node_list_heard(l->d, &nodes, &n, e);

	for (size_t i = 1; r == 0 && i < n; i++) {
		if (nodes[i].reachable)
			nodes[n_asked++] = nodes[i];
		else
			note_silent(l->silent, &nodes[i], "it is unreachable");
	}
	if (r == 0)
		r = order_all(l->d, nodes, n_asked, order, ANSWER_MS, &answers, e);
	json_decref(order);
	for (size_t i = 0; r == 0 && i < n_asked; i++)
		take_answer(l, &answers[i]);
	order_answers_free(answers, r == 0 ? n_asked : 0);
	return r;
}

/* For a limited caller only what is his own. */
static json_t *shown(json_t *list, const struct caller *caller, size_t max)
{
	json_t *seen = json_array(), *sorted, *v;
	size_t i;

	json_array_foreach(list, i, v) {
		const json_t *uid = json_object_get(v, "uid");

		if (!caller->limited || (uid && json_integer_value(uid) == (json_int_t)caller->uid))
			json_array_append(seen, v);
	}
	sorted = history_sorted(seen, max);
	json_decref(seen);
	json_decref(list);
	return sorted;
}

/* A number means a process of this host. */
static void name_unit(const struct daemon *d, struct request *request)
{
	struct registry_entry entry;
	pid_t pid = request->pid;

	if (!pid)
		return;
	request_name_unit(d, request);
	if (request->unit[0])
		return;
	if (registry_lookup(pid, &entry, NULL) == 0)
		snprintf(request->unit, sizeof(request->unit), "%s", entry.unit);
	else
		snprintf(request->unit, sizeof(request->unit), "%s:%d", d->config.name, (int)pid);
}

int do_history(const struct daemon *d, const struct request *given, int fd)
{
	struct request request = *given;
	struct listing l = { .d = d, .unit = request.unit, .moves = json_array(), .running = json_array(), .silent = json_array() };
	struct err e = ERR_INIT;
	int r = 0;

	name_unit(d, &request);
	history_list_ended(d->history, add_ended, &l);
	history_list_running(d->history, add_running, &l);
	if (!request.here)
		r = ask_others(&l, &request, &e);
	l.moves = shown(l.moves, &request.caller, request.last);
	l.running = shown(l.running, &request.caller, HISTORY_LIST_MAX);
	if (r == 0)
		reply_result(fd, json_pack("{s:s, s:s, s:O, s:O, s:O}", "node", d->config.name, "unit", request.unit, "moves", l.moves, "running", l.running, "silent", l.silent));
	else
		reply_error(fd, "failed", &e, NULL, NULL);
	json_decref(l.moves);
	json_decref(l.running);
	json_decref(l.silent);
	return r < 0;
}
