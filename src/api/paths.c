// SPDX-License-Identifier: GPL-2.0-or-later
/* paths.c - what there is below /v1: docs/api.md */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/events.h"
#include "api/exchange.h"
#include "api/page.h"
#include "api/talk.h"
#include "base/util.h"
#include "version.h"

#define EVENT_BLOCK_BYTES (8u << 10)

static enum MHD_Result ask(struct exchange *x, json_t *request)
{
	enum MHD_Result r = MHD_NO;
	json_t *result;

	return hear(x, request, &result, &r) ? answer(x, 200, result) : r;
}

/* Of a list in the answer to a request, the one whose `key` is what the path says. */
static enum MHD_Result pick(struct exchange *x, json_t *request, const char *list, const char *key, const char *code)
{
	enum MHD_Result r = MHD_NO;
	json_t *result, *one, *found = NULL;
	char message[SEGMENT_MAX + 80];
	size_t i;

	if (!hear(x, request, &result, &r))
		return r;
	json_array_foreach(json_object_get(result, list), i, one) {
		const char *name = json_string_value(json_object_get(one, key));

		if (name && !strcmp(name, x->segment[1]))
			found = one;
	}
	if (found) {
		r = answer(x, 200, json_incref(found));
	} else {
		snprintf(message, sizeof(message), "among the %s that you may see there is no %s", list, x->segment[1]);
		r = complain(x, 404, code, message, list[0] == 'n' ? "GET /v1/nodes lists them" : "GET /v1/units lists them; a process that Godwit has never moved, and does not watch, is not one of them");
	}
	json_decref(result);
	return r;
}

static enum MHD_Result get_version(struct exchange *x)
{
	return answer(x, 200, json_pack("{s:s, s:s}", "version", GODWIT_VERSION, "api", "v1"));
}

/* A file of the dashboard. */
static enum MHD_Result send_page(struct exchange *x, const struct page *page)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(page->len, (void *)(uintptr_t)page->data, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result r;

	if (!response)
		return MHD_NO;
	answer_add_headers(response, page->type);
	MHD_add_response_header(response, "Content-Security-Policy", PAGE_POLICY);
	MHD_add_response_header(response, "Cross-Origin-Opener-Policy", "same-origin");
	r = MHD_queue_response(x->connection, 200, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result get_nodes(struct exchange *x)
{
	return ask(x, json_pack("{s:s}", "verb", "nodes"));
}

static enum MHD_Result get_units(struct exchange *x)
{
	return ask(x, json_pack("{s:s}", "verb", "ps"));
}

static enum MHD_Result get_node(struct exchange *x)
{
	return pick(x, json_pack("{s:s}", "verb", "nodes"), "nodes", "name", "unknown-node");
}

static enum MHD_Result get_unit(struct exchange *x)
{
	return pick(x, json_pack("{s:s}", "verb", "ps"), "units", "unit", "unknown-unit");
}

static ssize_t read_events(void *arg, uint64_t at, char *buffer, size_t max)
{
	const struct exchange *x = arg;
	ssize_t n = events_read(x->listener, buffer, max);

	return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
}

/* Who may not see anything is told so before the events begin. */
static enum MHD_Result get_events(struct exchange *x)
{
	struct MHD_Response *response;
	enum MHD_Result r = MHD_NO;
	json_t *result;

	if (!hear(x, json_pack("{s:s}", "verb", "nodes"), &result, &r))
		return r;
	json_decref(result);
	x->listener = events_join(x->guest->fd, &x->guest->viewer, MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Last-Event-ID"));
	if (!x->listener)
		return complain(x, 429, "limit", "no more listeners can be served now", "try again");
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, EVENT_BLOCK_BYTES, read_events, x, NULL);
	if (!response)
		return MHD_NO;
	answer_add_headers(response, "text/event-stream");
	r = MHD_queue_response(x->connection, 200, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result get_connections(struct exchange *x)
{
	return ask(x, json_pack("{s:s}", "verb", "connections"));
}

static enum MHD_Result get_history(struct exchange *x)
{
	const char *unit = MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, "unit"), *last = MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, "last");
	json_t *request = json_pack("{s:s}", "verb", "history");

	if (unit)
		json_object_set_new(request, "unit", json_string(unit));
	if (last && (strlen(last) > 4 || last[strspn(last, "0123456789")] || !*last)) {
		json_decref(request);
		return complain(x, 400, "bad-request", "\"last\" is no number from 0 to 1024", "leave it out for the last 32");
	}
	if (last)
		json_object_set_new(request, "last", json_integer(strtol(last, NULL, 10)));
	return ask(x, request);
}

static enum MHD_Result get_balance(struct exchange *x)
{
	return ask(x, json_pack("{s:s, s:s}", "verb", "balance", "action", "status"));
}

static enum MHD_Result put_balance(struct exchange *x)
{
	const json_t *on = json_object_get(x->body, "on");

	if (!json_is_boolean(on) || json_object_size(x->body) != 1)
		return complain(x, 400, "bad-request", "the body must be an object with \"on\" and nothing else", "send {\"on\": true} or {\"on\": false}");
	return ask(x, json_pack("{s:s, s:s}", "verb", "balance", "action", json_is_true(on) ? "on" : "off"));
}

static enum MHD_Result explain(struct exchange *x)
{
	return ask(x, json_pack("{s:s, s:s, s:s}", "verb", "balance", "action", "explain", "unit", x->segment[1]));
}

static enum MHD_Result undrain(struct exchange *x)
{
	return ask(x, json_pack("{s:s, s:s}", "verb", "undrain", "host", x->segment[1]));
}

static enum MHD_Result start(struct exchange *x, json_t *request)
{
	struct err e = ERR_INIT;
	json_t *made = NULL;
	int r = moves_start(x->guest->fd, &x->guest->viewer, request, &made, &e);

	if (r == -EBUSY)
		return complain(x, 429, "limit", e.message, "wait until some have ended");
	return r < 0 ? complain(x, 502, "no-answer", e.message, "try again; if it goes on, godwitd's log says why") : answer(x, 202, made);
}

/* NULL: the body has a member that is not among those that are known, which is answered. */
static json_t *request_of(struct exchange *x, const char *verb, const char *const *known, enum MHD_Result *ret)
{
	json_t *o = json_pack("{s:s}", "verb", verb), *value;
	char message[160];
	const char *key;

	json_object_foreach(x->body, key, value) {
		size_t i = 0;

		while (known[i] && strcmp(known[i], key) != 0)
			i++;
		if (known[i]) {
			json_object_set(o, key, value);
			continue;
		}
		snprintf(message, sizeof(message), "unknown member \"%.80s\"", key);
		*ret = complain(x, 400, "bad-request", message, "leave it out; docs/openapi.json has those that are known");
		json_decref(o);
		return NULL;
	}
	return o;
}

static enum MHD_Result post_migration(struct exchange *x)
{
	static const char *const known[] = { "unit", "host", "strategy", "files", "tcp", "timeout_ms", "reason", NULL };
	enum MHD_Result r = MHD_NO;
	json_t *request;

	if (!json_is_string(json_object_get(x->body, "unit")) || !json_is_string(json_object_get(x->body, "host")))
		return complain(x, 400, "bad-request", "a migration needs \"unit\" and \"host\"", "send {\"unit\": \"HOME:PID\", \"host\": \"NODE\"}");
	request = request_of(x, "migrate", known, &r);
	return request ? start(x, request) : r;
}

static enum MHD_Result drain(struct exchange *x)
{
	static const char *const known[] = { "parallel", "timeout_ms", NULL };
	enum MHD_Result r = MHD_NO;
	json_t *request = request_of(x, "drain", known, &r);

	if (!request)
		return r;
	json_object_set_new(request, "host", json_string(x->segment[1]));
	return start(x, request);
}

static enum MHD_Result get_migrations(struct exchange *x)
{
	return answer(x, 200, json_pack("{s:o}", "migrations", moves_list(&x->guest->viewer)));
}

static enum MHD_Result no_migration(struct exchange *x)
{
	return complain(x, 404, "not-found", "there is no migration of that number that you may see", "GET /v1/migrations lists those that there are");
}

static enum MHD_Result get_migration(struct exchange *x)
{
	json_t *o = moves_get(&x->guest->viewer, x->segment[1]);

	return o ? answer(x, 200, o) : no_migration(x);
}

static enum MHD_Result delete_migration(struct exchange *x)
{
	struct err e = ERR_INIT;
	int r = moves_cancel(&x->guest->viewer, x->segment[1], &e);

	if (r == -ENOENT)
		return no_migration(x);
	if (r < 0)
		return complain(x, 409, "has-ended", e.message, "its state says how; migrate the unit again to move it back");
	return answer(x, 202, moves_get(&x->guest->viewer, x->segment[1]));
}

static const struct {
	const char *method;
	const char *path[SEGMENTS_MAX]; /* "*": any */
	enum MHD_Result (*serve)(struct exchange *x);
} paths[] = {
	{ "GET", { "version" }, get_version },
	{ "GET", { "events" }, get_events },
	{ "GET", { "nodes" }, get_nodes },
	{ "GET", { "nodes", "*" }, get_node },
	{ "POST", { "nodes", "*", "drain" }, drain },
	{ "DELETE", { "nodes", "*", "drain" }, undrain },
	{ "GET", { "units" }, get_units },
	{ "GET", { "units", "*" }, get_unit },
	{ "GET", { "units", "*", "explain" }, explain },
	{ "GET", { "migrations" }, get_migrations },
	{ "POST", { "migrations" }, post_migration },
	{ "GET", { "migrations", "*" }, get_migration },
	{ "DELETE", { "migrations", "*" }, delete_migration },
	{ "GET", { "history" }, get_history },
	{ "GET", { "connections" }, get_connections },
	{ "GET", { "balance" }, get_balance },
	{ "PUT", { "balance" }, put_balance },
};

/* "/v1/a/b" into its segments; false: it is no path of this version, or too long. */
static bool split(struct exchange *x, const char *url)
{
	if (strncmp(url, "/v1/", 4) != 0)
		return false;
	for (url += 4; *url; url += *url == '/') {
		size_t len = strcspn(url, "/");

		if (!len || len >= SEGMENT_MAX || x->n == SEGMENTS_MAX || (url[len] && !url[len + 1]))
			return false;
		memcpy(x->segment[x->n], url, len);
		x->segment[x->n++][len] = 0;
		url += len;
	}
	return x->n > 0;
}

static bool matches(const struct exchange *x, const char *const path[SEGMENTS_MAX])
{
	for (size_t i = 0; i < SEGMENTS_MAX; i++) {
		if (i >= x->n)
			return !path[i];
		if (!path[i] || (strcmp(path[i], "*") != 0 && strcmp(path[i], x->segment[i]) != 0))
			return false;
	}
	return true;
}

enum MHD_Result route(struct exchange *x, const char *url, const char *method)
{
	const struct page *page = page_find(url);
	bool known = page != NULL;

	if (page && !strcmp(method, "GET"))
		return send_page(x, page);
	if (!strcmp(url, "/metrics"))
		return metrics(x, method);
	if (!page && !split(x, url))
		return complain(x, 404, "not-found", "there is no such path", "paths begin with /v1/, but for GET /metrics; docs/openapi.json lists them");
	for (size_t i = 0; !page && i < ARRAY_SIZE(paths); i++) {
		if (!matches(x, paths[i].path))
			continue;
		known = true;
		if (!strcmp(paths[i].method, method))
			return paths[i].serve(x);
	}
	if (known)
		return complain(x, 405, "method", "this path has no such method", "docs/openapi.json lists those that it has");
	return complain(x, 404, "not-found", "there is no such path", "docs/openapi.json lists those that there are");
}
