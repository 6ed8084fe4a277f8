// SPDX-License-Identifier: GPL-2.0-or-later
/* http.c - connections and requests, until it is known what they ask for (paths.c); see http.h */
#include "api/http.h"

#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "api/events.h"
#include "api/exchange.h"
#include "api/moves.h"
#include "api/page.h"
#include "base/browser.h"
#include "base/log.h"
#include "base/util.h"

#define GROUPS_MAX 65536 /* NGROUPS_MAX of Linux */
#define IDLE_S 30u
#define STACK_BYTES (256u << 10)
#define BUFFER_BYTES (16u << 10) /* of a connection: its headers must fit */
#define ROOT_ROOM 8u /* connections beyond which only root is served */

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

static const char *header(const struct exchange *x, const char *name)
{
	return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

static enum MHD_Result serve(struct exchange *x, const char *url, const char *method)
{
	if (!browser_is_ours(false, header(x, "Host"), header(x, "Origin"), header(x, "Sec-Fetch-Site"), !strcmp(method, "GET") && page_find(url)))
		return complain(x, 403, "not-ours", "a page that is not of this server has made a browser ask, or the server is called by a name that is not localhost",
				"open http://localhost/ with the port that leads here");
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
