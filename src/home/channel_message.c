/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * channel_message.c - relayed sockets whose messages have boundaries: SOCK_DGRAM, SOCK_SEQPACKET
 *
 * Theory of operation: DATA with count 1 is a piece of a message of which more follows. What is to be written lies in the channel's buffer as messages, each behind a head; one
 * that is not whole yet is written when it is. An empty message is one of no bytes. On a SOCK_SEQPACKET socket the end looks the same, but that the kernel shows
 * no credentials of it (SO_PASSCRED). A datagram socket has no end; that its peer has gone is told to who sends.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "home/channel_internal.h"

#define SEND_ROOM (4 << 20)

struct message_head {
	uint32_t len;
	uint32_t more; /* it is not whole yet */
};

static bool has_poll(int fd, short event)
{
	struct pollfd p = { fd, event, 0 };

	return poll(&p, 1, 0) > 0 && (p.revents & event);
}

/* Whether nothing at all comes, as opposed to an empty message. */
static bool is_end(int fd)
{
	union {
		struct cmsghdr align;
		char space[256];
	} control;
	struct msghdr m = { .msg_control = &control, .msg_controllen = sizeof(control) };
	int on = 1, was = 0;
	socklen_t len = sizeof(was);
	bool shown;

	if (!has_poll(fd, POLLRDHUP))
		return false;
	getsockopt(fd, SOL_SOCKET, SO_PASSCRED, &was, &len);
	setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	shown = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT) >= 0 && m.msg_controllen > 0;
	setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &was, sizeof(was));
	return !shown;
}

static void send_pieces(struct channel *ch, const uint8_t *data, size_t len, struct session *s)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;
	size_t done = 0;

	m.kind = GW__HOME_KIND__HOME_DATA;
	m.channel = ch->id;
	do {
		size_t piece = MIN(len - done, (size_t)CHANNEL_DATA_MAX);

		m.data = (ProtobufCBinaryData){ piece, (uint8_t *)(uintptr_t)data + done };
		done += piece;
		m.count = done < len;
		session_send(s, &m);
	} while (done < len);
	ch->in_flight += len;
}

bool channel_read_message(struct channel *ch, struct session *s)
{
	ssize_t n = recv(ch->fd, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	cleanup_free uint8_t *data = NULL;

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		if (ch->type == SOCK_DGRAM && has_poll(ch->fd, POLLRDHUP)) /* the unit has shut it down, and nothing comes any more */
			ch->end_sent = true;
		return false;
	}
	if (n < 0 && ch->type == SOCK_DGRAM) /* ECONNRESET, once */
		return false;
	if (n < 0 || (n == 0 && ch->type == SOCK_SEQPACKET && is_end(ch->fd))) {
		channel_end_reading(ch, s);
		return false;
	}
	data = malloc((size_t)n + 1);
	if (!data)
		abort();
	n = recv(ch->fd, data, (size_t)n, MSG_DONTWAIT);
	if (n < 0)
		return false;
	send_pieces(ch, data, (size_t)n, s);
	return true;
}

void channel_keep_message(struct channel *ch, const uint8_t *data, size_t len, bool more)
{
	struct message_head head = { 0 };
	size_t at = ch->done, last = SIZE_MAX;
	uint8_t *grown = realloc(ch->buffer, ch->have + sizeof(head) + len + 1);

	if (!grown)
		abort();
	ch->buffer = grown;
	for (; at < ch->have; at += sizeof(head) + head.len) {
		memcpy(&head, grown + at, sizeof(head));
		last = at;
	}
	if (last == SIZE_MAX || !head.more) {
		last = ch->have;
		head.len = 0;
		ch->have += sizeof(head);
	}
	head.len += (uint32_t)len;
	head.more = more;
	memcpy(grown + last, &head, sizeof(head));
	memcpy(grown + ch->have, data, len);
	ch->have += len;
}

bool channel_has_whole(const struct channel *ch)
{
	struct message_head head;

	if (ch->done >= ch->have)
		return false;
	memcpy(&head, ch->buffer + ch->done, sizeof(head));
	return !head.more;
}

ssize_t channel_write_message(struct channel *ch)
{
	struct message_head head;
	static const int room = SEND_ROOM;
	ssize_t n;

	if (!channel_has_whole(ch))
		return -EAGAIN;
	memcpy(&head, ch->buffer + ch->done, sizeof(head));
	n = channel_send(ch, ch->buffer + ch->done + sizeof(head), head.len);
	if (n < 0 && (errno == EMSGSIZE || errno == ENOBUFS)) {
		setsockopt(ch->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
		n = channel_send(ch, ch->buffer + ch->done + sizeof(head), head.len);
	}
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	ch->done += sizeof(head) + head.len;
	return (ssize_t)head.len;
}
