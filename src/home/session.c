/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* session.c - numbered messages across connections; see session.h */
#include "home/session.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/util.h"
#include "wire/hello.h"

#define INFO_BYTES 128u
#define SIGNAL_MAX 64u
#define STATUS_MAX 0xffffu

/* One message that the other side has not handled yet. */
struct session_kept {
	struct session_kept *next;
	uint64_t seq;
	Gw__HomeMessage *message;
};

int home_message_decode(const void *data, size_t len, Gw__HomeMessage **ret, struct err *e)
{
	Gw__HomeMessage *m = gw__home_message__unpack(NULL, len, data);
	bool ok;

	if (!m)
		return err_set(e, -EPROTO, "%zu bytes that are no home message", len);
	ok = m->kind <= GW__HOME_KIND__HOME_OPEN && m->channel < CHANNELS_MAX && m->data.len <= CHANNEL_DATA_MAX && m->count <= CHANNEL_COUNT_MAX && m->signal <= SIGNAL_MAX && (!m->info.len || m->info.len == INFO_BYTES) && m->status <= STATUS_MAX &&
	     (!m->host[0] || hello_name_valid(m->host)) && (!m->address.len || m->address.len == sizeof(struct sockaddr_in)) &&
	     (!m->mig_id.len || m->mig_id.len == HELLO_MIG_ID_BYTES);
	if ((m->kind == GW__HOME_KIND__HOME_SIGNAL || m->kind == GW__HOME_KIND__HOME_STOPPED) && !m->signal)
		ok = false;
	if (m->kind == GW__HOME_KIND__HOME_MOVED && (!m->address.len || !m->mig_id.len))
		ok = false;
	if (m->kind == GW__HOME_KIND__HOME_OPEN && (m->data.len < 2 || m->data.data[0] != '/' || memchr(m->data.data, 0, m->data.len)))
		ok = false;
	if (!ok) {
		gw__home_message__free_unpacked(m, NULL);
		return err_set(e, -EPROTO, "a home message with a value out of range");
	}
	*ret = m;
	return 0;
}

static void put_out(struct session *s, Gw__HomeMessage *m)
{
	size_t len, need;

	m->ack = s->handled;
	s->ack_due = false;
	len = gw__home_message__get_packed_size(m);
	if (s->out_done == s->out_len)
		s->out_done = s->out_len = 0;
	need = s->out_len + FRAME_HEADER_BYTES + len;
	if (need > s->out_size) {
		s->out_size = need * 2;
		s->out = realloc(s->out, s->out_size);
		if (!s->out)
			abort();
	}
	frame_header_encode(s->out + s->out_len, FRAME_HOME, 0, (uint32_t)len);
	gw__home_message__pack(m, s->out + s->out_len + FRAME_HEADER_BYTES);
	s->out_len = need;
}

static void put_plain(struct session *s, Gw__HomeKind kind)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = kind;
	put_out(s, &m);
}

void session_detach(struct session *s)
{
	close_fdp(&s->fd);
	frame_reader_free(&s->reader);
	s->reader = (struct frame_reader){ 0 };
	s->out_len = s->out_done = 0;
	s->resumed = false;
	s->ack_due = false;
}

void session_attach(struct session *s, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	session_detach(s);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	s->fd = fd;
	put_plain(s, GW__HOME_KIND__HOME_RESUME);
}

void session_send(struct session *s, Gw__HomeMessage *message)
{
	struct session_kept *k = calloc(1, sizeof(*k));
	size_t len;
	uint8_t *packed;

	message->seq = ++s->seq;
	len = gw__home_message__get_packed_size(message);
	packed = malloc(len);
	if (!k || !packed)
		abort();
	gw__home_message__pack(message, packed);
	k->seq = message->seq;
	k->message = gw__home_message__unpack(NULL, len, packed);
	free(packed);
	if (!k->message)
		abort();
	if (s->last)
		s->last->next = k;
	else
		s->first = k;
	s->last = k;
	if (s->resumed)
		put_out(s, message);
}

static void drop_until(struct session *s, uint64_t handled)
{
	while (s->first && s->first->seq <= handled) {
		struct session_kept *k = s->first;

		s->first = k->next;
		if (!s->first)
			s->last = NULL;
		gw__home_message__free_unpacked(k->message, NULL);
		free(k);
	}
}

void session_renew(struct session *s, uint64_t handled)
{
	session_detach(s);
	drop_until(s, handled);
	s->seq = s->handled = 0;
	for (struct session_kept *k = s->first; k; k = k->next)
		k->seq = k->message->seq = ++s->seq;
}

static void take(struct session *s, const Gw__HomeMessage *m, void (*handle)(void *arg, const Gw__HomeMessage *m), void *arg)
{
	drop_until(s, m->ack);
	if (m->kind == GW__HOME_KIND__HOME_RESUME) {
		s->resumed = true;
		for (struct session_kept *k = s->first; k; k = k->next)
			put_out(s, k->message);
		return;
	}
	if (m->kind == GW__HOME_KIND__HOME_ACK || m->seq != s->handled + 1 || s->deaf)
		return; /* one that has been handled before the connection broke */
	s->handled++;
	s->ack_due = true;
	handle(arg, m);
}

int session_input(struct session *s, void (*handle)(void *arg, const Gw__HomeMessage *m), void *arg, struct err *e)
{
	int fd = s->fd;

	while (s->fd == fd && fd >= 0) {
		cleanup_frame struct frame f = { 0 };
		Gw__HomeMessage *m;
		int ret = frame_reader_step(&s->reader, s->fd, HOME_MESSAGE_MAX, &f, e);

		if (ret <= 0)
			return ret;
		if (f.type == FRAME_ERROR)
			return frame_error_decode(&f, e);
		if (f.type != FRAME_HOME)
			return err_set(e, -EPROTO, "frame type %u instead of a home message", f.type);
		ret = home_message_decode(f.payload, f.len, &m, e);
		if (ret < 0)
			return ret;
		if (!s->resumed && m->kind != GW__HOME_KIND__HOME_RESUME)
			ret = err_set(e, -EPROTO, "a home connection that does not begin with RESUME");
		else
			take(s, m, handle, arg);
		gw__home_message__free_unpacked(m, NULL);
		if (ret < 0)
			return ret;
	}
	return 0;
}

bool session_wants_out(const struct session *s)
{
	return s->fd >= 0 && (s->out_done < s->out_len || s->ack_due);
}

int session_output(struct session *s, struct err *e)
{
	if (s->fd >= 0 && s->ack_due && s->resumed)
		put_plain(s, GW__HOME_KIND__HOME_ACK);
	while (s->fd >= 0 && s->out_done < s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_done, s->out_len - s->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0)
			return err_sys(e, -errno, "sending to the other side of a home link");
		s->out_done += (size_t)n;
	}
	return 0;
}

bool session_settled(const struct session *s)
{
	return !s->first;
}

void session_confirm(struct session *s, uint64_t handled)
{
	drop_until(s, handled);
}

void session_each_kept(const struct session *s, void (*fn)(void *arg, const Gw__HomeMessage *m), void *arg)
{
	for (const struct session_kept *k = s->first; k; k = k->next)
		fn(arg, k->message);
}

void session_free(struct session *s)
{
	session_detach(s);
	drop_until(s, UINT64_MAX);
	free(s->out);
	*s = SESSION_INIT;
}
