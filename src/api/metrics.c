// SPDX-License-Identifier: GPL-2.0-or-later
/* metrics.c - GET /metrics, where Prometheus looks for it: beside the versions of the API, in a format that has one of its own; see exchange.h */
#include <string.h>

#include "api/exchange.h"

enum MHD_Result metrics(struct exchange *x, const char *method)
{
	enum MHD_Result r = MHD_NO;
	struct MHD_Response *response;
	const char *text;
	json_t *result;

	if (strcmp(method, "GET") != 0)
		return complain(x, 405, "method", "this path has no such method", "GET it");
	if (!hear(x, json_pack("{s:s}", "verb", "metrics"), &result, &r))
		return r;
	text = json_string_value(json_object_get(result, "text"));
	response = text ? MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY) : NULL;
	json_decref(result);
	if (!response)
		return MHD_NO;
	answer_add_headers(response, "text/plain; version=0.0.4; charset=utf-8");
	r = MHD_queue_response(x->connection, 200, response);
	MHD_destroy_response(response);
	return r;
}
