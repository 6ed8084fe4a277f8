// SPDX-License-Identifier: GPL-2.0-or-later
/* http.c - the paths of the API; see http.h */
#include "api/http.h"

#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "api/events.h"
#include "api/moves.h"
#include "api/talk.h"
#include "base/log.h"
#include "base/util.h"
#include "version.h"

#define GROUPS_MAX 65536 /* NGROUPS_MAX of Linux */
#define IDLE_S 30u
#define STACK_BYTES (256u << 10)
#define BUFFER_BYTES (16u << 10) /* of a connection: its headers must fit */
#define EVENT_BLOCK_BYTES (8u << 10)
#define SEGMENTS_MAX 4u
#define SEGMENT_MAX 320u
#define ROOT_ROOM 8u /* connections beyond which only root is served */

/* Who is connected. */
struct guest {
	int fd;
	uid_t uid;
	struct viewer viewer;
};

struct exchange {
	struct MHD_Connection *connection;
	const struct guest *guest;
	size_t n;                 /* segments of the path behind /v1 */
	char segment[SEGMENTS_MAX][SEGMENT_MAX];
	json_t *body;             /* an object, or NULL: there was none */
	struct listener *listener; /* or NULL: he is sent no events */
	size_t len;
	bool too_long;
	char text[BODY_BYTES_MAX];
};

static struct http_setup setup;
static struct MHD_Daemon *server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uid_t uid;
	unsigned n;
} users[CONNECTIONS_MAX + 1];
static unsigned n_connections;

/* --- who is connected --- */

static bool is_member(int fd, gid_t first)
{
	cleanup_free gid_t *groups = malloc(GROUPS_MAX * sizeof(*groups));
	socklen_t len = GROUPS_MAX * sizeof(*groups);

	if (!setup.has_group)
		return false;
	if (first == setup.group)
		return true;
	if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(*groups); i++)
		if (groups[i] == setup.group)
			return true;
	return false;
}

/* One more (by 1) or less (by -1) of that user; false: no more of him. */
static bool count(uid_t uid, int by)
{
	size_t i, place = ARRAY_SIZE(users);
	bool fits;

	pthread_mutex_lock(&lock);
	for (i = 0; i < ARRAY_SIZE(users); i++)
		if (users[i].n && users[i].uid == uid)
			place = i;
	for (i = 0; i < ARRAY_SIZE(users) && place == ARRAY_SIZE(users); i++)
		if (!users[i].n)
			place = i;
	fits = place < ARRAY_SIZE(users) && (by < 0 || !uid || (users[place].n < CONNECTIONS_EACH_MAX && n_connections + ROOT_ROOM < CONNECTIONS_MAX));
	if (fits) {
		users[place].uid = uid;
		users[place].n += (unsigned)by;
		n_connections += (unsigned)by;
	}
	pthread_mutex_unlock(&lock);
	return fits;
}

static void greet(struct MHD_Connection *connection, void **context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	cleanup_free struct guest *guest = malloc(sizeof(*guest));
	struct ucred who;

	if (!guest || !info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &who, &(socklen_t){ sizeof(who) }) < 0 || !count(who.uid, 1)) {
		if (info)
			(void)shutdown(info->connect_fd, SHUT_RDWR);
		return;
	}
	*guest = (struct guest){ info->connect_fd, who.uid, { who.uid, who.uid == 0 || is_member(info->connect_fd, who.gid) } };
	*context = take_ptr(guest);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what)
{
	struct guest *guest = *context;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		greet(connection, context);
	} else if (guest) {
		count(guest->uid, -1);
		free(guest);
		*context = NULL;
	}
}

/* --- answers --- */

static enum MHD_Result answer(struct exchange *x, unsigned status, json_t *o)
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
	MHD_add_response_header(response, "Content-Type", "application/json");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	r = MHD_queue_response(x->connection, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result complain(struct exchange *x, unsigned status, const char *code, const char *message, const char *way_out)
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

/* Puts a request (takes the reference) that godwitd answers with one line, or with the last of some, which is in *ret. false: there is none, which has been answered with *said. */
static bool hear(struct exchange *x, json_t *request, json_t **ret, enum MHD_Result *said)
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

/* --- paths --- */

static enum MHD_Result get_version(struct exchange *x)
{
	return answer(x, 200, json_pack("{s:s, s:s}", "version", GODWIT_VERSION, "api", "v1"));
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
	MHD_add_response_header(response, "Content-Type", "text/event-stream");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	r = MHD_queue_response(x->connection, 200, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result get_connections(struct exchange *x)
{
	return ask(x, json_pack("{s:s}", "verb", "connections"));
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

static enum MHD_Result route(struct exchange *x, const char *url, const char *method)
{
	bool known = false;

	if (!split(x, url))
		return complain(x, 404, "not-found", "there is no such path", "paths begin with /v1/; docs/openapi.json lists them");
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
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

static enum MHD_Result serve(struct exchange *x, const char *url, const char *method)
{
	if (x->too_long)
		return complain(x, 413, "too-long", "the body is longer than 4096 bytes", "no request needs as much: leave out what is not needed");
	if (x->len) {
		x->body = json_loadb(x->text, x->len, JSON_REJECT_DUPLICATES, NULL);
		if (!json_is_object(x->body))
			return complain(x, 400, "bad-request", "the body is no JSON object", "send one object, in UTF-8");
	}
	return route(x, url, method);
}

/* libmicrohttpd calls it when the headers are there, for each piece of the body, and when all is. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method, const char *version, const char *piece, size_t *len, void **context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct exchange *x = *context;

	if (!info || !info->socket_context)
		return MHD_NO;
	if (!x) {
		*context = x = calloc(1, sizeof(*x));
		if (!x)
			return MHD_NO;
		x->connection = connection;
		x->guest = info->socket_context;
		return MHD_YES;
	}
	if (!*len)
		return serve(x, url, method);
	x->too_long = x->too_long || *len > sizeof(x->text) - x->len;
	if (!x->too_long) {
		memcpy(x->text + x->len, piece, *len);
		x->len += *len;
	}
	*len = 0;
	return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode why)
{
	struct exchange *x = *context;

	if (x) {
		json_decref(x->body);
		events_leave(x->listener);
	}
	free(x);
	*context = NULL;
}

int http_start(const struct http_setup *given, struct err *e)
{
	setup = *given;
	server = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, on_request, NULL, MHD_OPTION_LISTEN_SOCKET,
				  setup.listen_fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)BUFFER_BYTES,
				  MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
	return server ? 0 : err_set(e, -EIO, "libmicrohttpd does not start");
}

void http_quiesce(void)
{
	int fd = MHD_quiesce_daemon(server);

	events_end();
	close_fdp(&fd);
}
