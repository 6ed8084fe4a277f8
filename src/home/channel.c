/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* channel.c - relaying descriptors; see channel.h */
#include "home/channel_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/util.h"

#define FINISH_TRIES 64

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* The same pipe with flags of its own; what cannot be opened again is used as it is. */
static int own_description(unsigned kind, int fd)
{
	int access = (kind & CHANNEL_READS) && (kind & CHANNEL_WRITES) ? O_RDWR : kind & CHANNEL_READS ? O_RDONLY : O_WRONLY;
	char path[64];
	int own;

	if (kind & CHANNEL_OWN)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	if (kind & (CHANNEL_SOCKET | CHANNEL_OWN))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return own < 0 ? fd : own;
}

/* Descriptors cannot be relayed: whoever sends some is told (EPERM) that they were not received. */
static void forbid_rights(struct channel *ch, bool home)
{
	static const int no;
	socklen_t len = sizeof(ch->rights);

	getsockopt(ch->fd, SOL_SOCKET, SO_PASSRIGHTS, &ch->rights, &len);
	setsockopt(ch->fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no));
	if (home)
		ch->original = fcntl(ch->fd, F_DUPFD_CLOEXEC, 0);
}

static int socket_type(unsigned kind, int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return kind & CHANNEL_SOCKET && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 ? type : 0;
}

int channels_add(struct channels *c, uint32_t id, unsigned kind, int fd, struct err *e)
{
	struct channel *grown = realloc(c->v, (c->n + 1) * sizeof(*grown));
	int own;

	if (grown)
		c->v = grown;
	if (!grown || c->n >= CHANNELS_MAX) {
		close(fd);
		return err_sys(e, ENOMEM, "relays");
	}
	own = own_description(kind, fd);
	c->v[c->n++] = (struct channel){ .id = id, .kind = kind, .fd = own, .original = -1, .type = socket_type(kind, own) };
	if (kind & CHANNEL_SOCKET)
		forbid_rights(&c->v[c->n - 1], kind & CHANNEL_HOME);
	else if (own != fd && kind & CHANNEL_HOME)
		c->v[c->n - 1].original = fd;
	else if (own != fd)
		close(fd);
	return 0;
}

void channel_tell(struct session *s, const struct channel *ch, Gw__HomeKind kind, const void *data, size_t len)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = kind;
	m.channel = ch->id;
	if (kind == GW__HOME_KIND__HOME_DATA)
		m.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)data };
	m.count = kind == GW__HOME_KIND__HOME_TAKEN ? (uint32_t)len : 0;
	session_send(s, &m);
}

static bool may_read(const struct channel *ch)
{
	return (ch->kind & CHANNEL_READS) && !ch->paused && !ch->end_sent && !ch->broken && ch->in_flight < CHANNEL_DATA_MAX;
}

static void close_when_done(struct channel *ch)
{
	bool reads = (ch->kind & CHANNEL_READS) && !ch->end_sent && !ch->broken, writes = (ch->kind & CHANNEL_WRITES) && !ch->ending;

	if (reads || writes || ch->done < ch->have)
		return;
	close_fdp(&ch->fd);
	/* The unit may not know yet that there are no writers any more. */
	if (!(ch->kind & CHANNEL_READS) || ch->broken)
		close_fdp(&ch->original);
}

/* The reader here is gone: what has come is thrown away, and the other side's writer is told. */
static void give_up_writing(struct channel *ch, struct session *s)
{
	ch->have = ch->done = 0;
	if (!ch->ending)
		channel_tell(s, ch, GW__HOME_KIND__HOME_BROKEN, NULL, 0);
	ch->ending = true;
	ch->broken |= ch->type == SOCK_DGRAM; /* its peer was for both */
	close_when_done(ch);
}

static bool peer_has_closed(const struct channel *ch)
{
	struct pollfd p = { ch->fd, 0, 0 };

	return (ch->kind & CHANNEL_SOCKET) && poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

void channel_end_reading(struct channel *ch, struct session *s)
{
	ch->end_sent = true;
	/* A peer that has closed took both directions with it: who sees the end of file must not find that it can still write. */
	if ((ch->kind & CHANNEL_WRITES) && !ch->ending && peer_has_closed(ch))
		give_up_writing(ch, s);
	if (ch->kind & CHANNEL_TERMINAL) {
		ch->ending = true;
		ch->have = ch->done = 0;
	}
	channel_tell(s, ch, GW__HOME_KIND__HOME_END, NULL, 0);
	close_when_done(ch);
}

/* Returns whether anything was read. */
static bool read_some(struct channel *ch, struct session *s)
{
	static uint8_t data[CHANNEL_DATA_MAX];
	size_t room = CHANNEL_DATA_MAX - ch->in_flight, skip;
	ssize_t n;

	if (channel_has_messages(ch))
		return channel_read_message(ch, s);
	n = ch->kind & CHANNEL_SOCKET ? recv(ch->fd, data, room, MSG_DONTWAIT) : read(ch->fd, data, room);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* also EIO of a terminal that is gone */
		channel_end_reading(ch, s);
		return false;
	}
	skip = MIN(ch->skip, (size_t)n);
	ch->skip -= skip;
	if (skip == (size_t)n)
		return true;
	if (ch->seen)
		ch->seen(ch->arg, data + skip, (size_t)n - skip);
	ch->in_flight += (size_t)n - skip;
	channel_tell(s, ch, GW__HOME_KIND__HOME_DATA, data + skip, (size_t)n - skip);
	return true;
}

static void end_writing(struct channel *ch)
{
	if (ch->fd >= 0 && (ch->kind & CHANNEL_SOCKET))
		shutdown(ch->fd, SHUT_WR);
	close_when_done(ch);
}

/*
 * The other side's reader is gone: a writer here gets EPIPE from now on. What it had written before is thrown away, as it is in the
 * buffers of a connection whose end has closed; left unread, it would turn the EPIPE into ECONNRESET when the socket is closed.
 */
static void end_reading_here(struct channel *ch)
{
	char lost[4096];

	ch->broken = true;
	ch->ending |= ch->type == SOCK_DGRAM;
	if (ch->fd >= 0 && (ch->kind & CHANNEL_SOCKET) && ch->type != SOCK_DGRAM) {
		shutdown(ch->fd, SHUT_RD);
		while (recv(ch->fd, lost, sizeof(lost), MSG_DONTWAIT) > 0)
			;
	}
	close_when_done(ch);
}

/* A message of the unit is not one of root's. */
ssize_t channel_send(const struct channel *ch, const void *data, size_t len)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(ch->sender))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (ch->sender[0]) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control.space);
		control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(ch->sender)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS };
		memcpy(CMSG_DATA(&control.align), ch->sender, sizeof(ch->sender)); /* struct ucred */
	}
	return sendmsg(ch->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Returns the bytes written, -EAGAIN when there is no room. */
static ssize_t write_once(struct channel *ch)
{
	ssize_t n;

	if (channel_has_messages(ch))
		return channel_write_message(ch);
	n = ch->kind & CHANNEL_SOCKET ? channel_send(ch, ch->buffer + ch->done, ch->have - ch->done) : write(ch->fd, ch->buffer + ch->done, ch->have - ch->done);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	ch->done += (size_t)n;
	return n;
}

static void write_some(struct channel *ch, struct session *s)
{
	size_t written = 0;

	while (ch->done < ch->have) {
		ssize_t n = write_once(ch);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			give_up_writing(ch, s);
			return;
		}
		written += (size_t)n;
	}
	if (written)
		channel_tell(s, ch, GW__HOME_KIND__HOME_TAKEN, NULL, written);
	if (ch->done == ch->have) {
		ch->done = ch->have = 0;
		if (ch->ending)
			end_writing(ch);
	}
}

void channels_poll(const struct channels *c, struct pollfd *p)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct channel *ch = &c->v[i];
		bool writes = channel_has_messages(ch) ? channel_has_whole(ch) : ch->done < ch->have, waits = (ch->kind & CHANNEL_WRITES) && !ch->ending;

		/* An error is reported though nothing is asked for: only where it is wanted, or the loop would spin. */
		p[i] = (struct pollfd){ writes || may_read(ch) || waits ? ch->fd : -1, (short)((may_read(ch) ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0 };
	}
}

void channels_step(struct channels *c, const struct pollfd *p, struct session *s)
{
	for (size_t i = 0; i < c->n; i++) {
		struct channel *ch = &c->v[i];

		if (ch->fd < 0 || !p[i].revents || p[i].fd != ch->fd)
			continue;
		if ((p[i].revents & POLLHUP) && (ch->kind & CHANNEL_TERMINAL) && !(ch->kind & CHANNEL_MASTER)) {
			channel_end_reading(ch, s);
			continue;
		}
		if (may_read(ch) && (p[i].revents & (POLLIN | POLLHUP | POLLERR)))
			read_some(ch, s);
		if (ch->fd >= 0 && ch->done < ch->have)
			write_some(ch, s);
		else if (ch->fd >= 0 && ch->type != SOCK_DGRAM && (p[i].revents & (ch->kind & CHANNEL_SOCKET ? POLLERR | POLLHUP : POLLERR)) && (ch->kind & CHANNEL_WRITES) && !ch->ending)
			give_up_writing(ch, s);
	}
}

static void append(struct channel *ch, const uint8_t *data, size_t len, struct session *s)
{
	uint8_t *grown = realloc(ch->buffer, ch->have + len + 1);

	if (!grown)
		abort();
	ch->buffer = grown;
	memcpy(ch->buffer + ch->have, data, len);
	ch->have += len;
	write_some(ch, s);
}

void channel_put(struct channel *ch, uint8_t byte, struct session *s)
{
	if (ch->fd >= 0 && !ch->ending)
		append(ch, &byte, 1, s);
}

static void take_data(struct channel *ch, const Gw__HomeMessage *m, struct session *s)
{
	if (ch->fd < 0 || ch->ending) { /* nobody reads it any more, which the other side is about to learn */
		channel_tell(s, ch, GW__HOME_KIND__HOME_TAKEN, NULL, m->data.len);
		return;
	}
	if (channel_has_messages(ch)) {
		channel_keep_message(ch, m->data.data, m->data.len, m->count);
		write_some(ch, s);
		return;
	}
	append(ch, m->data.data, m->data.len, s);
}

struct channel *channels_find(const struct channels *c, uint32_t id)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->v[i].id == id)
			return &c->v[i];
	return NULL;
}

bool channel_is_over(const struct channel *ch)
{
	return ch->fd < 0 && ch->ending && (ch->end_sent || ch->broken) && !ch->in_flight && ch->done == ch->have;
}

static void free_channel(struct channel *ch)
{
	close_fdp(&ch->fd);
	close_fdp(&ch->original);
	free(ch->buffer);
}

void channels_forget(struct channels *c, uint32_t id)
{
	struct channel *ch = channels_find(c, id);

	if (!ch)
		return;
	free_channel(ch);
	*ch = c->v[--c->n];
}

void channel_say(const struct channel *ch, Gw__HomeKind kind, struct session *s)
{
	channel_tell(s, ch, kind, NULL, 0);
}

void channels_handle(struct channels *c, const Gw__HomeMessage *m, struct session *s)
{
	struct channel *ch = channels_find(c, m->channel);

	if (!ch)
		return;
	switch (m->kind) {
	case GW__HOME_KIND__HOME_DATA:
		take_data(ch, m, s);
		break;
	case GW__HOME_KIND__HOME_TAKEN:
		ch->in_flight -= MIN(ch->in_flight, (size_t)m->count);
		break;
	case GW__HOME_KIND__HOME_END:
		ch->ending = true;
		if (ch->kind & CHANNEL_MASTER)
			close_fdp(&ch->fd);
		else if (ch->done == ch->have)
			end_writing(ch);
		break;
	case GW__HOME_KIND__HOME_BROKEN:
		end_reading_here(ch);
		break;
	default:
		break;
	}
}

void channels_empty(struct channels *c, struct session *s)
{
	for (size_t i = 0; i < c->n; i++) {
		struct channel *ch = &c->v[i];
		int size = ch->fd >= 0 && ch->done < ch->have ? fcntl(ch->fd, F_GETPIPE_SZ) : -1;
		const int room = 8 * (int)CHANNEL_DATA_MAX;

		if (ch->kind & CHANNEL_SOCKET && ch->fd >= 0 && ch->done < ch->have) {
			setsockopt(ch->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
			write_some(ch, s);
		}
		if (size > 0)
			fcntl(ch->fd, F_SETPIPE_SZ, size + 2 * (int)CHANNEL_DATA_MAX);
		if (size > 0)
			write_some(ch, s);
	}
}

bool channels_finish(struct channels *c, struct session *s)
{
	static struct pollfd p[CHANNELS_MAX];
	bool again = true;

	for (int tries = 0; again && tries < FINISH_TRIES; tries++) {
		again = false;
		channels_poll(c, p);
		poll(p, c->n, 0);
		for (size_t i = 0; i < c->n; i++) {
			if (!(p[i].revents & (POLLHUP | POLLERR)))
				p[i].revents = 0;
			again |= p[i].revents != 0;
		}
		channels_step(c, p, s);
	}
	for (size_t i = 0; i < c->n; i++) {
		struct pollfd now = { c->v[i].fd, 0, 0 };

		if (poll(&now, 1, 0) > 0 && now.revents & (POLLHUP | POLLERR))
			return false;
	}
	return true;
}

void channel_allow_rights(const struct channel *ch)
{
	if (ch->kind & CHANNEL_SOCKET && ch->original >= 0)
		setsockopt(ch->original, SOL_SOCKET, SO_PASSRIGHTS, &ch->rights, sizeof(ch->rights));
}

void channels_close(struct channels *c)
{
	for (size_t i = 0; i < c->n; i++)
		free_channel(&c->v[i]);
	free(c->v);
	*c = (struct channels){ 0 };
}

bool channels_drain(struct channels *c, struct session *s)
{
	bool empty = true;

	for (size_t i = 0; i < c->n; i++) {
		struct channel *ch = &c->v[i];

		while (ch->fd >= 0 && may_read(ch) && read_some(ch, s))
			;
		if (ch->fd >= 0 && (ch->kind & CHANNEL_READS) && !ch->end_sent && !ch->broken && ch->in_flight >= CHANNEL_DATA_MAX)
			empty = false;
	}
	return empty;
}

bool channels_flushed(const struct channels *c)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->v[i].fd >= 0 && c->v[i].done < c->v[i].have)
			return false;
	return true;
}
