// SPDX-License-Identifier: GPL-2.0-or-later
/* answer.c - answers in JSON, godwitd's or our own; see exchange.h */
#include <string.h>

#include "api/exchange.h"
#include "api/talk.h"
#include "base/util.h"

void answer_add_headers(struct MHD_Response *response, const char *type)
{
	static const char *const always[][2] = {
		{ "Cache-Control", "no-store" },
		{ "X-Content-Type-Options", "nosniff" },
		{ "Referrer-Policy", "no-referrer" },
		{ "Cross-Origin-Resource-Policy", "same-origin" },
	};

	MHD_add_response_header(response, "Content-Type", type);
	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		MHD_add_response_header(response, always[i][0], always[i][1]);
}

enum MHD_Result answer(struct exchange *x, unsigned status, json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	struct MHD_Response *response;
	enum MHD_Result r;

	json_decref(o);
	if (!text)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response)
		return MHD_NO;
	answer_add_headers(response, "application/json");
	r = MHD_queue_response(x->connection, status, response);
	MHD_destroy_response(response);
	return r;
}

enum MHD_Result complain(struct exchange *x, unsigned status, const char *code, const char *message, const char *way_out)
{
	return answer(x, status, json_pack("{s:{s:s, s:s, s:s, s:[]}}", "error", "code", code, "message", message, "way_out", way_out, "refusals"));
}

/* What godwitd calls an error, as HTTP does. */
static unsigned status_of(const char *code)
{
	static const struct {
		const char *code;
		unsigned status;
	} known[] = { { "bad-request", 400 }, { "permission", 403 }, { "namespace", 403 }, { "unknown-host", 404 }, { "unknown-unit", 404 }, { "not-here", 404 }, { "unknown-node", 404 }, { "busy", 409 },
		      { "here-already", 409 }, { "refused", 409 }, { "limit", 429 }, { "no-answer", 502 } };

	for (size_t i = 0; code && i < ARRAY_SIZE(known); i++)
		if (!strcmp(code, known[i].code))
			return known[i].status;
	return 500;
}

/* godwitd's messages say the way out themselves; of refusals each has one. */
static enum MHD_Result pass_error(struct exchange *x, const json_t *error)
{
	const char *code = json_string_value(json_object_get(error, "code")), *message = json_string_value(json_object_get(error, "message"));
	json_t *refusals = json_object_get(error, "refusals");
	const char *way_out = json_string_value(json_object_get(json_array_get(refusals, 0), "way_out"));

	return answer(x, status_of(code), json_pack("{s:{s:s, s:s, s:s, s:O?}}", "error", "code", code ? code : "failed", "message", message ? message : "", "way_out", way_out ? way_out : "", "refusals",
						    refusals));
}

bool hear(struct exchange *x, json_t *request, json_t **ret, enum MHD_Result *said)
{
	cleanup_ask struct ask talk;
	struct err e = ERR_INIT;
	json_t *line = NULL;
	const char *event;
	int code = talk_open(&talk, x->guest->fd, request, &e);

	do {
		json_decref(line);
		line = NULL;
		if (code >= 0)
			code = ask_next(&talk, true, &line, &e);
		if (code < 0) {
			*said = complain(x, 502, "no-answer", e.message, "try again; if it goes on, godwitd's log says why");
			return false;
		}
		event = json_string_value(json_object_get(line, "event"));
	} while (event && strcmp(event, "result") != 0 && strcmp(event, "error") != 0);
	*ret = event && !strcmp(event, "result") ? json_incref(json_object_get(line, "result")) : NULL;
	if (!*ret)
		*said = pass_error(x, json_object_get(line, "error"));
	json_decref(line);
	return *ret != NULL;
}
