// SPDX-License-Identifier: LGPL-2.1-or-later
/* question.c - one question to godwitd, and what can be wrong with it */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "client/client.h"

#define SOCKET_DEFAULT "/run/godwit/godwitd.sock"

int fail(struct godwit_error *e, int number, const char *code, const char *message)
{
	number = number > 0 ? -number : number ? number : -EIO;
	if (e) {
		e->number = number;
		snprintf(e->code, sizeof(e->code), "%s", code);
		snprintf(e->message, sizeof(e->message), "%s", message);
	}
	return number;
}

/* What is no number of an error is none: it comes from another process. */
int fail_as(struct godwit_error *e, const json_t *error)
{
	int64_t number = number_of(error, "errno", EIO);
	const char *code = answer_text(error, "code"), *message = answer_text(error, "message");

	return fail(e, number > 0 && number < 4096 ? (int)number : EIO, *code ? code : "failed", *message ? message : "godwitd does not say why");
}

int64_t number_of(const json_t *o, const char *key, int64_t other)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? json_integer_value(v) : other;
}

int name_unit(json_t *request, const char *unit, struct godwit_error *e)
{
	char *end;
	long pid;

	if (!strchr(unit, ':')) {
		errno = 0;
		pid = strtol(unit, &end, 10);
		if (errno || *end || pid < 1 || pid > INT_MAX || *unit < '0' || *unit > '9')
			return fail(e, -EINVAL, "bad-request", "a unit is HOME:PID, or the number of a process of this host");
		json_object_set_new(request, "pid", json_integer(pid));
		return 0;
	}
	return json_object_set_new(request, "unit", json_string(unit)) < 0 ? fail(e, -EINVAL, "bad-request", "the unit's name is not UTF-8") : 0;
}

int question(const struct godwit *g, json_t *request, json_t **ret, struct godwit_error *e)
{
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err err = ERR_INIT;
	json_t *line = NULL, *result;
	int r = ask_open_at(&ask, g->socket, request, &err);

	if (r < 0)
		return fail(e, r, "no-daemon", err.message);
	r = ask_next(&ask, true, &line, &err);
	if (r < 0)
		return fail(e, r, "no-answer", err.message);
	result = json_object_get(line, "result");
	if (strcmp(answer_text(line, "event"), "result") != 0)
		r = fail_as(e, json_object_get(line, "error"));
	else if (!json_is_object(result))
		r = fail(e, -EPROTO, "no-answer", "godwitd's answer has no result");
	else
		*ret = json_incref(result);
	json_decref(line);
	return r < 0 ? r : 0;
}

EXPORT int godwit_open(const char *socket, struct godwit **ret, struct godwit_error *e)
{
	struct godwit *g;

	if (!socket)
		socket = secure_getenv("GODWIT_SOCKET");
	if (!socket || !*socket)
		socket = SOCKET_DEFAULT;
	if (strlen(socket) >= 108) /* sun_path */
		return fail(e, -ENAMETOOLONG, "bad-request", "the path of the socket is too long");
	g = calloc(1, sizeof(*g));
	if (g)
		g->socket = strdup(socket);
	if (!g || !g->socket) {
		free(g);
		return fail(e, -ENOMEM, "failed", "no memory");
	}
	*ret = g;
	return 0;
}

EXPORT void godwit_close(struct godwit *g)
{
	if (g)
		free(g->socket);
	free(g);
}
