// SPDX-License-Identifier: GPL-2.0-or-later
/* move.c - see move.h */
#include "daemon/move.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "daemon/reply.h"

static int connect_self(const struct daemon *d, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", d->socket_path); /* main.c has seen that it fits */
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_sys(e, -errno, "%s", d->socket_path);
	return take_fd(&fd);
}

int move_begin(struct move *m, const struct daemon *d, const struct unit_info *unit, const char *to, const char *reason, struct err *e)
{
	json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:b}", "verb", "migrate", "pid", (int)unit->entry.pid, "host", to, "reason", reason, "here", 1);
	cleanup_free char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
	size_t len = line ? strlen(line) : 0;
	int fd = connect_self(d, e);

	json_decref(o);
	if (fd < 0)
		return fd;
	*m = (struct move){ .fd = fd, .pid = unit->entry.pid, .start_ticks = unit->entry.start_ticks, .node = gossip_id(to), .begun_ns = clock_ns(CLOCK_MONOTONIC),
			    .text = malloc(MOVE_LINE_MAX) };
	snprintf(m->unit, sizeof(m->unit), "%s", unit->entry.unit);
	snprintf(m->to, sizeof(m->to), "%s", to);
	if (line)
		line[len] = '\n'; /* over the 0: the length is known */
	if (line && m->text && reply_bytes(fd, line, len + 1, -1) == 0)
		return 0;
	move_free(m);
	return err_set(e, -EPIPE, "asking for the move of unit %.200s", unit->entry.unit);
}

static json_t *lost(const char *why)
{
	return json_pack("{s:s, s:{s:s, s:i, s:s, s:[]}}", "event", "error", "error", "code", "in-doubt", "errno", ECONNRESET, "message", why, "refusals");
}

/* Takes a whole line out of the text. */
static json_t *take_line(struct move *m)
{
	char *end = m->have ? memchr(m->text, '\n', m->have) : NULL;
	json_t *line;
	size_t len;

	if (!end)
		return m->have == MOVE_LINE_MAX ? lost("godwitd's worker said too much") : NULL;
	len = (size_t)(end - m->text);
	line = json_loadb(m->text, len, 0, NULL);
	m->have -= len + 1;
	memmove(m->text, end + 1, m->have);
	return line ? line : lost("godwitd's worker said what is no JSON");
}

static void note_progress(struct move *m, const json_t *line)
{
	const char *phase = json_string_value(json_object_get(line, "phase"));

	snprintf(m->phase, sizeof(m->phase), "%s", phase ? phase : "");
	m->bytes_sent = (uint64_t)json_integer_value(json_object_get(line, "bytes_sent"));
}

int move_read(struct move *m, json_t **ret)
{
	for (;;) {
		ssize_t n = recv(m->fd, m->text + m->have, MOVE_LINE_MAX - m->have, MSG_DONTWAIT);
		bool ended = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
		json_t *line;

		m->have += (size_t)MAX(n, 0);
		while ((line = take_line(m))) {
			const char *event = json_string_value(json_object_get(line, "event"));

			if (event && (!strcmp(event, "result") || !strcmp(event, "error"))) {
				move_free(m);
				*ret = line;
				return 1;
			}
			note_progress(m, line);
			json_decref(line);
		}
		if (ended) {
			move_free(m);
			*ret = lost("godwitd's worker ended without an answer");
			return 1;
		}
		if (n < 0)
			return 0;
	}
}

int move_order(const struct daemon *d, json_t *order, int timeout_ms, json_t **ret, struct err *e)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000, now;
	cleanup_free char *line = order ? json_dumps(order, JSON_COMPACT) : NULL;
	size_t len = line ? strlen(line) : 0;
	struct move m = { .fd = connect_self(d, e), .text = malloc(MOVE_LINE_MAX) };
	int r = m.fd < 0 ? e->code : 0;

	json_decref(order);
	if (line)
		line[len] = '\n'; /* as above */
	if (r == 0 && (!line || !m.text || reply_bytes(m.fd, line, len + 1, -1) < 0))
		r = err_set(e, -EPIPE, "asking godwitd");
	while (r == 0 && (now = clock_ns(CLOCK_MONOTONIC)) < until) {
		struct pollfd p = { m.fd, POLLIN, 0 };

		if (poll(&p, 1, (int)((until - now) / 1000000) + 1) > 0 && (r = move_read(&m, ret)) > 0)
			return 0;
	}
	move_free(&m);
	return r < 0 ? r : err_set(e, -ETIMEDOUT, "godwitd did not answer within %d ms", timeout_ms);
}

void move_free(struct move *m)
{
	close_fdp(&m->fd);
	freep(&m->text);
	m->have = 0;
}
