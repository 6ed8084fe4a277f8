// SPDX-License-Identifier: GPL-2.0-or-later
/* front.c - see front.h */
#include "ask/front.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/browser.h"
#include "base/util.h"

#define RELAY_BYTES 16384u

static bool send_all(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		len -= (size_t)n;
	}
	return true;
}

void front_answer(int fd, const char *status, const char *json)
{
	char head[400];

	snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n"
				     "Content-Length: %zu\r\n\r\n", status, strlen(json));
	if (send_all(fd, head, strlen(head)))
		send_all(fd, json, strlen(json));
}

void front_refuse(int fd, const char *status, const char *code, const char *text)
{
	json_t *o = json_pack("{s:{s:s, s:s, s:s, s:[]}}", "error", "code", code, "message", text, "way_out", "", "refusals");
	cleanup_free char *body = json_dumps(o, JSON_COMPACT);

	json_decref(o);
	if (body)
		front_answer(fd, status, body);
}

bool front_hear(int fd, struct front_request *ret)
{
	size_t have = 0, head_len = 0;
	struct err e = ERR_INIT;
	bool known = false;

	do {
		ssize_t n = recv(fd, ret->text + have, sizeof(ret->text) - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		have += (size_t)n;
		if (!head_len)
			head_len = http_head_length(ret->text, MIN(have, (size_t)HTTP_HEAD_MAX));
		if (known || (!head_len && have < HTTP_HEAD_MAX))
			continue;
		if (http_head_parse(ret->text, head_len, &ret->head, &e) < 0) {
			front_refuse(fd, "400 Bad Request", "bad-request", e.message);
			return false;
		}
		known = true;
	} while (!known || have < head_len + ret->head.body_len);
	ret->body = ret->text + head_len;
	ret->is_page = !strcmp(ret->head.method, "GET") && (!strcmp(ret->head.target, "/") || !strncmp(ret->head.target, "/dashboard/", 11));
	return true;
}

static const char *or_null(const char *text)
{
	return *text ? text : NULL;
}

bool front_is_ours(int fd, const struct front_request *request, bool over_tls)
{
	const struct http_head *head = &request->head;

	if (head->host[0] && browser_is_ours(over_tls, head->host, or_null(head->origin), or_null(head->fetch_site), request->is_page))
		return true;
	front_refuse(fd, "403 Forbidden", "not-ours", over_tls ? "a page that is not of this server has made a browser ask" :
								  "a page that is not of this server has made a browser ask, or it is called by a name that is not localhost");
	return false;
}

const char *front_token(const struct front_request *request)
{
	static const char bearer[] = "Bearer ";
	size_t len = strlen(bearer);

	return strncmp(request->head.authorization, bearer, len) != 0 ? "" : request->head.authorization + len;
}

void front_pass(int fd, int api, const struct front_request *request)
{
	char buffer[RELAY_BYTES];

	if (!send_all(api, buffer, http_head_write(&request->head, buffer, sizeof(buffer))) || !send_all(api, request->body, request->head.body_len))
		return;
	for (;;) {
		struct pollfd p[2] = { { api, POLLIN, 0 }, { fd, POLLRDHUP, 0 } };
		ssize_t n;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return;
		n = recv(api, buffer, sizeof(buffer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || !send_all(fd, buffer, (size_t)n))
			return;
	}
}
