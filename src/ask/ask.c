// SPDX-License-Identifier: LGPL-2.1-or-later
/* ask.c - a conversation with godwitd; see ask.h */
#include "ask/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define LINE_BYTES_MAX (16u << 20)

void ask_close(struct ask *ask)
{
	close_fdp(&ask->fd);
	freep(&ask->buffer);
	ask->have = ask->size = 0;
}

int ask_send(struct ask *ask, json_t *line, struct err *e)
{
	cleanup_free char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0, done = 0;

	json_decref(line);
	if (!text)
		return err_set(e, -EINVAL, "the arguments are not valid UTF-8 text");
	text[len++] = '\n';
	while (done < len) {
		ssize_t n = send(ask->fd, text + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "sending to godwitd");
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int take_line(struct ask *ask, json_t **ret, struct err *e)
{
	char *end = ask->have ? memchr(ask->buffer, '\n', ask->have) : NULL;
	json_error_t where;
	json_t *line;
	size_t len;

	if (!end)
		return 0;
	len = (size_t)(end - ask->buffer);
	line = json_loadb(ask->buffer, len, 0, &where);
	memmove(ask->buffer, end + 1, ask->have - len - 1);
	ask->have -= len + 1;
	if (!line || json_typeof(line) != JSON_OBJECT) {
		json_decref(line);
		return err_set(e, -EPROTO, "godwitd answered something that is no JSON object: %.100s", where.text);
	}
	*ret = line;
	return 1;
}

int ask_next(struct ask *ask, bool wait, json_t **ret, struct err *e)
{
	for (;;) {
		int r = take_line(ask, ret, e);
		ssize_t n;

		if (r)
			return r;
		if (ask->have == ask->size) {
			size_t size = ask->size ? ask->size * 2 : 4096;
			char *grown = size <= LINE_BYTES_MAX ? realloc(ask->buffer, size) : NULL;

			if (!grown)
				return err_set(e, -ENOMEM, "godwitd's answer is too long");
			ask->buffer = grown;
			ask->size = size;
		}
		n = recv(ask->fd, ask->buffer + ask->have, ask->size - ask->have, wait ? 0 : MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "reading from godwitd");
		if (!n)
			return err_set(e, -ECONNRESET, "godwitd ended the conversation without an answer: its log says why");
		ask->have += n > 0 ? (size_t)n : 0;
	}
}
