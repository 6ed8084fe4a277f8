// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * move.c - one move: a conversation that goes on until it has ended
 *
 * godwitd says progress while it lasts, and at its end a result or an error. Hanging up cancels. Only the end of the connection without either leaves it open what has become of the unit.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "client/client.h"

struct godwit_move {
	struct ask ask;
	json_t *said;      /* the last progress, or the result: it has the texts */
	int ended;         /* 1: moved; negative: not */
	struct godwit_error error;
	struct godwit_progress progress;
	struct godwit_result result;
	const void *const *refusals;
};

/* KEY=VALUE into the request. */
static int set_option(json_t *request, const char *option, struct godwit_error *e)
{
	static const char *const keys[] = { "strategy", "files", "tcp", "reason", "timeout_ms" };
	const char *value = strchr(option, '=');
	char *end;
	long ms;

	for (size_t i = 0; value && i < ARRAY_SIZE(keys); i++) {
		if (strlen(keys[i]) != (size_t)(value - option) || strncmp(keys[i], option, strlen(keys[i])) != 0)
			continue;
		if (strcmp(keys[i], "timeout_ms") != 0)
			return json_object_set_new(request, keys[i], json_string(value + 1)) < 0 ? fail(e, -EINVAL, "bad-request", "an option is not UTF-8") : 0;
		errno = 0;
		ms = strtol(value + 1, &end, 10);
		if (errno || *end || !value[1] || ms < 0)
			return fail(e, -EINVAL, "bad-request", "timeout_ms must be a number");
		json_object_set_new(request, "timeout_ms", json_integer(ms));
		return 0;
	}
	return fail(e, -EINVAL, "bad-request", "an option is KEY=VALUE, and KEY strategy, files, tcp, reason or timeout_ms");
}

EXPORT int godwit_move_begin(struct godwit *g, const char *unit, const char *host, const char *const *options, struct godwit_move **ret, struct godwit_error *e)
{
	json_t *request = json_pack("{s:s, s:s}", "verb", "migrate", "host", host);
	int r = request ? name_unit(request, unit, e) : fail(e, -EINVAL, "bad-request", "the host's name is not UTF-8");
	struct err err = ERR_INIT;
	struct godwit_move *move;

	for (; r == 0 && options && *options; options++)
		r = set_option(request, *options, e);
	move = r == 0 ? calloc(1, sizeof(*move)) : NULL;
	if (!move) {
		json_decref(request);
		return r < 0 ? r : fail(e, -ENOMEM, "failed", "no memory");
	}
	move->ask.fd = -1;
	move->progress.phase = "";
	r = ask_open_at(&move->ask, g->socket, request, &err);
	if (r < 0) {
		godwit_move_free(move);
		return fail(e, r, "no-daemon", err.message);
	}
	*ret = move;
	return 0;
}

static void hear_progress(struct godwit_move *move, const json_t *line)
{
	move->progress = (struct godwit_progress){ .phase = answer_text(line, "phase"), .pages_total = number_of(line, "pages_total", 0),
						   .pages_sent = number_of(line, "pages_sent", 0), .bytes_sent = number_of(line, "bytes_sent", 0) };
}

static void hear_result(struct godwit_move *move, const json_t *r)
{
	const json_t *total = json_object_get(r, "total_ms");

	move->progress.phase = ""; /* of a line that is gone */
	move->result = (struct godwit_result){
		.unit = answer_text(r, "unit"), .from = answer_text(r, "from"), .to = answer_text(r, "to"), .strategy = answer_text(r, "strategy"), .pid = (int)number_of(r, "pid", 0),
		.freeze_us = number_of(r, "freeze_us", 0), .total_ms = json_number_value(total), .bytes_sent = number_of(r, "bytes_sent", 0),
	};
	move->ended = 1;
}

static void hear_error(struct godwit_move *move, const json_t *error)
{
	json_t *refusals = json_object_get(error, "refusals");

	move->progress.phase = "";
	move->ended = fail_as(&move->error, error);
	if (json_array_size(refusals))
		move->refusals = refusals_list(refusals);
}

/* Takes the reference. A later version's event is passed over. */
static void hear(struct godwit_move *move, json_t *line)
{
	const char *event = answer_text(line, "event");
	bool is_progress = !strcmp(event, "progress"), is_result = !strcmp(event, "result");

	if (!is_progress && !is_result && strcmp(event, "error") != 0) {
		json_decref(line);
		return;
	}
	json_decref(move->said);
	move->said = line;
	if (is_progress)
		hear_progress(move, line);
	else if (is_result)
		hear_result(move, json_object_get(line, "result"));
	else
		hear_error(move, json_object_get(line, "error"));
}

/* Takes what has come. */
static void take(struct godwit_move *move)
{
	json_t *line = NULL;
	int r = 1;

	while (!move->ended && (r = ask_next(&move->ask, false, &line, NULL)) > 0)
		hear(move, line);
	if (r < 0)
		move->ended = fail(&move->error, r, "in-doubt", "godwitd ended the conversation without an answer: the list of units says where it is, when all nodes answer");
}

EXPORT int godwit_move_wait(struct godwit_move *move, int timeout_ms, struct godwit_error *e)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), until = timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)timeout_ms * 1000000;
	struct pollfd p = { .fd = move->ask.fd, .events = POLLIN };

	for (;; now = clock_ns(CLOCK_MONOTONIC)) {
		take(move);
		if (move->ended < 0 && e)
			*e = move->error;
		if (move->ended || now >= until)
			return move->ended;
		poll(&p, 1, timeout_ms < 0 ? -1 : (int)MIN((until - now + 999999) / 1000000, (uint64_t)INT_MAX));
	}
}

EXPORT int godwit_move_fd(const struct godwit_move *move)
{
	return move->ask.fd;
}

/* One send of a short line: it does not disturb who reads meanwhile. That godwitd has ended the conversation is for godwit_move_wait to say. */
EXPORT int godwit_move_cancel(struct godwit_move *move, struct godwit_error *e)
{
	struct err err = ERR_INIT;
	int r = ask_send(&move->ask, json_pack("{s:s}", "verb", "cancel"), &err);

	return r < 0 && r != -EPIPE ? fail(e, r, "failed", err.message) : 0;
}

EXPORT const struct godwit_progress *godwit_move_progress(const struct godwit_move *move)
{
	return &move->progress;
}

EXPORT const struct godwit_result *godwit_move_result(const struct godwit_move *move)
{
	return move->ended > 0 ? &move->result : NULL;
}

EXPORT const struct godwit_refusal *const *godwit_move_refusals(const struct godwit_move *move)
{
	static const struct godwit_refusal *const none[] = { NULL };

	return move->refusals ? (const struct godwit_refusal *const *)move->refusals : none;
}

EXPORT void godwit_move_free(struct godwit_move *move)
{
	if (!move)
		return;
	ask_close(&move->ask);
	json_decref(move->said);
	godwit_free(move->refusals);
	free(move);
}
