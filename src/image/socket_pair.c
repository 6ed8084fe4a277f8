/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_pair.c - socketpair(2); see socket_pair.h */
#include "image/socket_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/unix_diag.h"

bool socket_pair_is_one(int fd)
{
	struct sockaddr_un a = { 0 };
	socklen_t len = sizeof(a);
	int listening = 0;
	socklen_t listening_len = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_len) < 0 || listening)
		return false;
	if (getsockname(fd, (void *)&a, &len) < 0 || a.sun_family != AF_UNIX || len > sizeof(a.sun_family))
		return false;
	len = sizeof(a);
	return getpeername(fd, (void *)&a, &len) == 0 && len <= sizeof(a.sun_family);
}

static void forget_queue(Gw__FdSocket *s)
{
	for (size_t i = 0; i < s->n_queue; i++)
		free(s->queue[i].data);
	free(s->queue);
	s->queue = NULL;
	s->n_queue = 0;
}

/* Peeks at what comes next, up to len bytes. Returns its length, -ENODATA at the end, -EMSGSIZE for what cannot be carried. */
static ssize_t peek(int fd, uint8_t *data, size_t len)
{
	struct iovec iov = { data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0)
		return errno == EAGAIN ? -ENODATA : -errno;
	/* Without room for control data, MSG_CTRUNC tells that there is some: descriptors or credentials. */
	return m.msg_flags & MSG_CTRUNC || (size_t)n > len ? -EMSGSIZE : n;
}

static void append(Gw__FdSocket *s, const uint8_t *data, size_t len)
{
	ProtobufCBinaryData *grown = realloc(s->queue, (s->n_queue + 1) * sizeof(*grown));

	if (!grown)
		abort();
	s->queue = grown;
	s->queue[s->n_queue].data = fd_alloc(len);
	s->queue[s->n_queue].len = len;
	memcpy(s->queue[s->n_queue++].data, data, len);
}

static ssize_t capture_queue(const struct fd_look *look, Gw__FdSocket *s)
{
	cleanup_free uint8_t *data = NULL;
	int off = 0, room = 0;
	socklen_t room_len = sizeof(room);
	ssize_t n;

	if (s->type == SOCK_STREAM) {
		if (ioctl(look->held, FIONREAD, &room) < 0 || room == 0)
			return 0;
		data = fd_alloc((size_t)room);
		n = peek(look->held, data, (size_t)room);
		if (n != room)
			return n < 0 && n != -ENODATA ? n : -EMSGSIZE;
		append(s, data, (size_t)n);
		return 0;
	}
	/* A message is never larger than the sender's buffer; the process is frozen, so that nobody sees the peek offset. */
	if (getsockopt(look->held, SOL_SOCKET, SO_SNDBUF, &room, &room_len) < 0 || setsockopt(look->held, SOL_SOCKET, SO_PEEK_OFF,
	    &off, sizeof(off)) < 0)
		return -errno;
	data = fd_alloc((size_t)room * 2);
	while ((n = peek(look->held, data, (size_t)room * 2)) > 0)
		append(s, data, (size_t)n);
	off = -1;
	setsockopt(look->held, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off));
	/* n is 0 for an empty message (or the end), on which the offset does not move. */
	return n == -ENODATA || (n == 0 && s->type == SOCK_SEQPACKET) ? 0 : n == 0 ? -EMSGSIZE : n;
}

int socket_pair_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, uint64_t *ret_peer_ino, struct refusals *refusals,
	struct err *e)
{
	struct unix_diag_info diag = { 0 };
	Gw__FdSocket *s = d->socket;
	struct stat st;
	ssize_t n;

	if (!s) {
		s = d->socket = socket_new(look->held);
		socket_capture_options(look->held, s);
	}
	if (fstat(look->held, &st) < 0 || !unix_diag_look(st.st_ino, &diag))
		return socket_refuse_connected(look, s, refusals);
	s->shut_down = diag.shut_down;
	*ret_peer_ino = diag.peer_ino;
	if (!frozen)
		return 0;
	forget_queue(s);
	n = capture_queue(look, s);
	if (n == -EMSGSIZE) {
		refusals_add(refusals, "fd.socket.unix.inflight",
			"its queue holds descriptors or credentials in flight, or empty messages, which cannot move",
			"try again when the program has read them", "fd %d (socketpair)", look->fd);
		return FD_REFUSED;
	}
	return n < 0 ? err_sys(e, (int)n, "fd %d: reading its queue", look->fd) : 0;
}

int socket_pair_validate(const Gw__FdTable *t, size_t index, struct err *e)
{
	const Gw__FdSocket *s = t->descs[index]->socket, *peer;
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n_queue; i++) {
		sum += s->queue[i].len;
		if (!s->queue[i].len || sum > SOCKET_QUEUE_MAX)
			return err_set(e, -EPROTO, "socketpair: message %zu of %zu bytes", i, s->queue[i].len);
	}
	if (s->shut_down > 3)
		return err_set(e, -EPROTO, "socketpair: shutdown %u", s->shut_down);
	if (!s->peer)
		return 0;
	peer = s->peer <= t->n_descs && t->descs[s->peer - 1]->kind == GW__FD_KIND__FD_SOCKETPAIR ? t->descs[s->peer - 1]->socket : NULL;
	if (!peer || peer == s || peer->peer != index + 1 || peer->type != s->type)
		return err_set(e, -EPROTO, "socketpair: its ends do not belong together");
	return 0;
}

int socket_pair_set_options(const Gw__FdDesc *d, int fd, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < d->socket->n_options && r == 0; i++)
		r = socket_set_option(fd, d->socket->options[i], e);
	return r;
}

int socket_pair_open(const Gw__FdDesc *d, int ret_fds[2], struct err *e)
{
	int fds[2];

	if (socketpair(AF_UNIX, (int)d->socket->type | SOCK_CLOEXEC, 0, fds) < 0)
		return err_sys(e, -errno, "socketpair");
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	return 0;
}

int socket_pair_fill(const Gw__FdDesc *d, int peer, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	int r = 0;

	for (size_t i = 0; i < s->n_queue && r == 0; i++) {
		size_t done = 0;

		while (done < s->queue[i].len && r == 0) {
			ssize_t n = send(peer, s->queue[i].data + done, s->queue[i].len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n <= 0)
				r = err_sys(e, n < 0 ? -errno : -EIO, "socketpair: filling its queue");
			else
				done += (size_t)n;
		}
	}
	return r;
}

int socket_pair_shut_down(const Gw__FdDesc *d, int fd, struct err *e)
{
	uint32_t how = d->socket->shut_down;

	if (how && shutdown(fd, how == 1 ? SHUT_RD : how == 2 ? SHUT_WR : SHUT_RDWR) < 0 && errno != ENOTCONN)
		return err_sys(e, -errno, "socketpair: shutdown");
	return 0;
}
