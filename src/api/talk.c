// SPDX-License-Identifier: GPL-2.0-or-later
/* talk.c - conversations with godwitd; see talk.h */
#include "api/talk.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define LINE_BYTES_MAX (16u << 20)

static int channel = -1;

void talk_use(int fd)
{
	channel = fd;
}

void talk_close(struct talk *talk)
{
	close_fdp(&talk->fd);
	freep(&talk->buffer);
	talk->have = talk->size = 0;
}

static int hand_over(int end, int connection, struct err *e)
{
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (char[]){ 'T' }, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(c), (int[]){ end, connection }, 2 * sizeof(int));
	while (sendmsg(channel, &m, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return err_sys(e, -errno, "godwitd cannot be asked");
	return 0;
}

int talk_send(const struct talk *talk, json_t *line, struct err *e)
{
	cleanup_free char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0, done = 0;

	json_decref(line);
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	text[len++] = '\n';
	while (done < len) {
		ssize_t n = send(talk->fd, text + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "sending to godwitd");
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int talk_open(struct talk *talk, int connection, json_t *request, struct err *e)
{
	int ends[2];
	int r;

	*talk = (struct talk){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		json_decref(request);
		return err_sys(e, -errno, "socketpair");
	}
	talk->fd = ends[0];
	r = hand_over(ends[1], connection, e);
	close(ends[1]);
	if (r == 0)
		return talk_send(talk, request, e);
	json_decref(request);
	return r;
}

static int take_line(struct talk *talk, json_t **ret, struct err *e)
{
	char *end = talk->have ? memchr(talk->buffer, '\n', talk->have) : NULL;
	size_t len = end ? (size_t)(end - talk->buffer) : 0;
	json_t *line;

	if (!end)
		return 0;
	line = json_loadb(talk->buffer, len, 0, NULL);
	memmove(talk->buffer, end + 1, talk->have - len - 1);
	talk->have -= len + 1;
	if (!json_is_object(line)) {
		json_decref(line);
		return err_set(e, -EPROTO, "godwitd answered something that is no JSON object");
	}
	*ret = line;
	return 1;
}

int talk_next(struct talk *talk, json_t **ret, struct err *e)
{
	for (;;) {
		int r = take_line(talk, ret, e);
		ssize_t n;

		if (r)
			return MIN(r, 0);
		if (talk->have == talk->size) {
			size_t size = talk->size ? talk->size * 2 : 4096;
			char *grown = size <= LINE_BYTES_MAX ? realloc(talk->buffer, size) : NULL;

			if (!grown)
				return err_set(e, -ENOMEM, "godwitd's answer is too long");
			talk->buffer = grown;
			talk->size = size;
		}
		n = recv(talk->fd, talk->buffer + talk->have, talk->size - talk->have, 0);
		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "reading from godwitd");
		if (!n)
			return err_set(e, -ECONNRESET, "godwitd ended the conversation without an answer: its log says why");
		talk->have += n > 0 ? (size_t)n : 0;
	}
}
