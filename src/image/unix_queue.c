/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_queue.c - receive queues of unix sockets; see unix_queue.h */
#include "image/unix_queue.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/socket_options.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#define OVERFLOW_ID 65534u
#define FIRST_BUFFER 65536u

union control {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(UNIX_RIGHTS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + 256];
};

/* One look into a queue. */
struct peeked {
	ssize_t n;             /* bytes; of a message all of them */
	struct sockaddr_un sender;
	socklen_t sender_len;
	bool any;              /* a message, as opposed to the end of the connection */
	bool has_cred;
	struct ucred cred;
	int fds[UNIX_RIGHTS_MAX];
	size_t n_fds;
};

static void drop_fds(struct peeked *p)
{
	while (p->n_fds)
		close(p->fds[--p->n_fds]);
}

static void take_control(struct msghdr *m, struct peeked *p)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			p->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(p->fds, CMSG_DATA(c), p->n_fds * sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&p->cred, CMSG_DATA(c), sizeof(p->cred));
			p->any = true;
			/* What the kernel shows for a message that carries none. */
			p->has_cred = p->cred.pid != 0 || p->cred.uid != OVERFLOW_ID || p->cred.gid != OVERFLOW_ID;
		}
	}
}

/* Peeks at what lies `offset` bytes into the queue. Returns 0, -EAGAIN at its end, -EMSGSIZE or what the kernel says. */
static int peek(int fd, size_t offset, void *data, size_t len, struct peeked *p)
{
	union control control;
	struct iovec iov = { data, len };
	struct msghdr m = { .msg_name = &p->sender, .msg_namelen = sizeof(p->sender), .msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control) };
	int off = (int)offset;

	p->n_fds = 0;
	p->any = p->has_cred = false;
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)) < 0)
		return -errno;
	p->n = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	if (p->n < 0)
		return -errno;
	p->sender_len = m.msg_namelen;
	take_control(&m, p);
	if (m.msg_flags & MSG_CTRUNC) {
		drop_fds(p);
		return -EMSGSIZE;
	}
	return 0;
}

static Gw__FdUnixMessage *new_message(const void *data, size_t len, const struct peeked *p)
{
	Gw__FdUnixMessage *m = fd_alloc(sizeof(*m));

	gw__fd_unix_message__init(m);
	m->data.data = fd_alloc(len);
	m->data.len = len;
	memcpy(m->data.data, data, len);
	if (p->sender_len > sizeof(p->sender.sun_family)) {
		m->sender.data = fd_alloc(p->sender_len);
		m->sender.len = p->sender_len;
		memcpy(m->sender.data, &p->sender, p->sender_len);
	}
	if (p->has_cred) {
		m->cred = fd_alloc(sizeof(*m->cred));
		gw__fd_unix_cred__init(m->cred);
		m->cred->pid = p->cred.pid;
		m->cred->uid = p->cred.uid;
		m->cred->gid = p->cred.gid;
	}
	return m;
}

static void give_fds(Gw__FdUnixMessage *m, struct peeked *p)
{
	if (!p->n_fds)
		return;
	m->descs = fd_alloc(p->n_fds * sizeof(*m->descs));
	m->n_descs = p->n_fds;
	for (size_t i = 0; i < p->n_fds; i++)
		m->descs[i] = (uint32_t)p->fds[i];
	p->n_fds = 0;
}

/*
 * Bytes with descriptors may follow bytes without: a read that begins before them goes on to their end. How many bytes of the read at
 * `offset`, which was of n bytes and gave descriptors, come before the piece that has them: by halving.
 */
static int bytes_before_fds(int fd, size_t offset, void *data, size_t n, size_t *ret_before)
{
	size_t without = 0, with = n;

	while (with - without > 1) {
		size_t middle = without + (with - without) / 2;
		struct peeked p;
		int r = peek(fd, offset, data, middle, &p);

		if (r < 0)
			return r;
		if (p.n_fds)
			with = middle;
		else
			without = middle;
		drop_fds(&p);
	}
	*ret_before = without;
	return 0;
}

static int read_stream(int fd, Gw__FdUnixMessage ***v, size_t *n)
{
	cleanup_free uint8_t *data = NULL, *scratch = NULL;
	size_t offset = 0;
	int waiting = 0;

	if (ioctl(fd, FIONREAD, &waiting) < 0)
		return -errno;
	if (waiting <= 0)
		return 0;
	data = fd_alloc((size_t)waiting);
	while (offset < (size_t)waiting) {
		struct peeked p = { 0 }, plain = { 0 };
		size_t before = 0;
		int r = peek(fd, offset, data, (size_t)waiting - offset, &p);

		if (r < 0)
			return r;
		if (p.n == 0)
			return -EMSGSIZE;
		if (p.n_fds) {
			if (!scratch)
				scratch = fd_alloc((size_t)waiting);
			r = bytes_before_fds(fd, offset, scratch, (size_t)p.n, &before);
			if (r < 0) {
				drop_fds(&p);
				return r;
			}
		}
		p.sender_len = 0;
		if (before) {
			plain.has_cred = p.has_cred;
			plain.cred = p.cred;
			fd_append(v, n, new_message(data, before, &plain));
		}
		fd_append(v, n, new_message(data + before, (size_t)p.n - before, &p));
		give_fds((*v)[*n - 1], &p);
		offset += (size_t)p.n;
	}
	return 0;
}

/*
 * An empty message moves no offset: it is passed once it has been peeked at. At the head it shows without an offset, whoever has
 * peeked at it before.
 */
static void read_empty_head(int fd, Gw__FdUnixMessage ***v, size_t *n)
{
	struct peeked p = { 0 };
	char byte;

	if (peek(fd, (size_t)-1, &byte, 1, &p) < 0)
		return;
	if (p.n == 0 && p.any) {
		fd_append(v, n, new_message(&byte, 0, &p));
		give_fds((*v)[*n - 1], &p);
	}
	drop_fds(&p);
}

static int read_messages(int fd, Gw__FdUnixMessage ***v, size_t *n)
{
	size_t room = FIRST_BUFFER, offset = 0;
	cleanup_free uint8_t *data = fd_alloc(room);

	read_empty_head(fd, v, n);
	for (;;) {
		struct peeked p = { 0 };
		int r = peek(fd, offset, data, room, &p);

		if (r == -EAGAIN)
			break;
		if (r < 0)
			return r;
		if ((size_t)p.n > room) {
			drop_fds(&p);
			free(data);
			room = (size_t)p.n;
			data = fd_alloc(room);
			continue;
		}
		/* With SO_PASSCRED every message shows credentials, the end of a connection does not. */
		if (!p.any && !p.n && !p.n_fds)
			break;
		fd_append(v, n, new_message(data, (size_t)p.n, &p));
		give_fds((*v)[*n - 1], &p);
		offset += (size_t)p.n;
		if (*n > UNIX_QUEUE_MESSAGES_MAX || offset > UNIX_QUEUE_BYTES_MAX)
			return -EMSGSIZE;
	}
	return 0;
}

int unix_queue_read(int held, uint32_t type, bool running, Gw__FdUnixMessage ***ret, size_t *ret_n)
{
	int on = 1, off = 0, passcred = socket_get_int(held, SOL_SOCKET, SO_PASSCRED), peek_off = socket_get_int(held, SOL_SOCKET, SO_PEEK_OFF);
	int passpidfd = socket_get_int(held, SOL_SOCKET, SO_PASSPIDFD), r;
	bool credless = passcred != 1 && !running;
	struct pollfd p = { .fd = held, .events = POLLIN | POLLPRI };
	Gw__FdUnixMessage **v = NULL;
	size_t n = 0;

	*ret = NULL;
	*ret_n = 0;
	if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLIN | POLLPRI)))
		return 0;
	if (p.revents & POLLPRI)
		return -ENODATA;
	/* A program that receives meanwhile would get credentials that it has not asked for, perhaps in the place of descriptors. */
	if (credless && setsockopt(held, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		return -errno;
	if (passpidfd == 1 && !running)
		setsockopt(held, SOL_SOCKET, SO_PASSPIDFD, &off, sizeof(off));
	if (type == SOCK_STREAM)
		r = read_stream(held, &v, &n);
	else
		r = read_messages(held, &v, &n);
	setsockopt(held, SOL_SOCKET, SO_PEEK_OFF, &peek_off, sizeof(peek_off));
	if (credless)
		setsockopt(held, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
	if (passpidfd == 1 && !running)
		setsockopt(held, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on));
	if (r < 0) {
		unix_queue_free(v, n, true);
		return r;
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

void unix_queue_free(Gw__FdUnixMessage **v, size_t n, bool close_fds)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; close_fds && j < v[i]->n_descs; j++)
			close((int)v[i]->descs[j]);
		gw__fd_unix_message__free_unpacked(v[i], NULL);
	}
	free(v);
}

int unix_queue_validate(Gw__FdUnixMessage *const *v, size_t n, uint32_t type, size_t n_descs, struct err *e)
{
	uint64_t sum = 0;

	if (n > UNIX_QUEUE_MESSAGES_MAX)
		return err_set(e, -EPROTO, "unix socket: %zu messages", n);
	for (size_t i = 0; i < n; i++) {
		sum += v[i]->data.len;
		if ((type == SOCK_STREAM && !v[i]->data.len) || sum > UNIX_QUEUE_BYTES_MAX || v[i]->n_descs > UNIX_RIGHTS_MAX)
			return err_set(e, -EPROTO, "unix socket: message %zu of %zu bytes", i, v[i]->data.len);
		if (v[i]->sender.len && (v[i]->sender.len <= sizeof(sa_family_t) || v[i]->sender.len > sizeof(struct sockaddr_un) ||
		    ((const struct sockaddr_un *)(const void *)v[i]->sender.data)->sun_family != AF_UNIX))
			return err_set(e, -EPROTO, "unix socket: the sender's name of message %zu", i);
		for (size_t j = 0; j < v[i]->n_descs; j++)
			if (v[i]->descs[j] >= n_descs)
				return err_set(e, -EPROTO, "unix socket: description %u in flight", v[i]->descs[j]);
	}
	return 0;
}

int unix_queue_send(int via, const Gw__FdUnixMessage *m, const ProtobufCBinaryData *name, const int *fds, pid_t pid, struct err *e)
{
	union control control = { 0 };
	struct sockaddr_un to = { 0 };
	struct iovec iov = { m->data.data, m->data.len };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	size_t len = 0;

	if (name) {
		memcpy(&to, name->data, MIN(name->len, sizeof(to)));
		message.msg_name = &to;
		message.msg_namelen = (socklen_t)MIN(name->len, sizeof(to));
	}
	if (m->n_descs) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(m->n_descs * sizeof(int));
		for (size_t i = 0; i < m->n_descs; i++)
			((int *)(void *)CMSG_DATA(c))[i] = fds[m->descs[i]];
		len += CMSG_SPACE(m->n_descs * sizeof(int));
		c = CMSG_NXTHDR(&message, c);
	}
	if (m->cred && pid) {
		struct ucred cred = { pid, m->cred->uid, m->cred->gid };

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_CREDENTIALS;
		c->cmsg_len = CMSG_LEN(sizeof(cred));
		memcpy(CMSG_DATA(c), &cred, sizeof(cred));
		len += CMSG_SPACE(sizeof(cred));
	}
	message.msg_controllen = len;
	if (!len)
		message.msg_control = NULL;
	for (size_t done = 0; done < m->data.len || !m->data.len;) {
		ssize_t n = sendmsg(via, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 || (n == 0 && m->data.len))
			return err_sys(e, n < 0 ? -errno : -EIO, "unix socket: filling its queue");
		if (!m->data.len)
			break;
		/* A stream takes a part: the descriptors went with that. */
		done += (size_t)n;
		iov.iov_base = m->data.data + done;
		iov.iov_len = m->data.len - done;
		message.msg_control = NULL;
		message.msg_controllen = 0;
	}
	return 0;
}
