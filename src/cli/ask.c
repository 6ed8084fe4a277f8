// SPDX-License-Identifier: GPL-2.0-or-later
/* ask.c - questions to godwitd over its unix socket */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

const char *socket_path = "/run/godwit/godwitd.sock";

int ask_open(struct ask *ask, json_t *request, struct err *e)
{
	return ask_open_at(ask, socket_path, request, e);
}

static int fail(const char *code, const char *message, bool as_json)
{
	if (as_json) {
		json_t *o = json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message);

		show_json(o);
		json_decref(o);
	} else {
		complain("%s", message);
	}
	return strcmp(code, "bad-request") ? EXIT_FAILED : EXIT_USAGE;
}

int ask_result(json_t *request, bool as_json, json_t **ret_result)
{
	cleanup_ask struct ask ask;
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int status;

	if (ask_open(&ask, request, &e) < 0)
		return fail("no-daemon", e.message, as_json);
	if (ask_next(&ask, true, &line, &e) < 0)
		return fail("no-answer", e.message, as_json);
	if (!strcmp(text_of(line, "event"), "result")) {
		*ret_result = json_incref(json_object_get(line, "result"));
		status = *ret_result ? EXIT_OK : fail("no-answer", "godwitd's answer has no result", as_json);
	} else {
		const json_t *error = json_object_get(line, "error");

		status = fail(text_of(error, "code"), text_of(error, "message"), as_json);
	}
	json_decref(line);
	return status;
}

int ask_and_show(json_t *request, bool as_json, void (*show)(const json_t *result))
{
	json_t *result = NULL;
	int status = ask_result(request, as_json, &result);

	if (status)
		return status;
	if (as_json)
		show_json(result);
	else
		show(result);
	json_decref(result);
	return EXIT_OK;
}
