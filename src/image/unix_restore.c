/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_restore.c - making unix sockets anew; see unix_restore.h */
#include "image/unix_restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/file_look.h"
#include "image/peer_cred.h"
#include "image/ns_other.h"
#include "image/place.h"
#include "image/socket_options.h"
#include "image/relay.h"
#include "image/unix_name.h"
#include "image/unix_pair.h"
#include "image/unix_queue.h"

#define SEND_BUFFER (UNIX_QUEUE_BYTES_MAX * 2)

static Gw__FdUnix *unix_of(const Gw__FdTable *t, size_t i)
{
	return t->descs[i]->kind == GW__FD_KIND__FD_UNIX ? t->descs[i]->unix_socket : NULL;
}

static bool is_pair(const Gw__FdUnix *u)
{
	return u->type != SOCK_DGRAM && u->state == GW__FD_UNIX_STATE__UNIX_CONNECTED;
}

/* Whether i is the one of all sockets with this name that the file (or the abstract name) is given to. */
static bool owns_name(const Gw__FdTable *t, size_t i)
{
	const Gw__FdUnix *u = unix_of(t, i);

	if (!u->name.len || (unix_name_is_path(&u->name) && !u->has_file))
		return false;
	if (u->state != GW__FD_UNIX_STATE__UNIX_CONNECTED && u->state != GW__FD_UNIX_STATE__UNIX_GONE)
		return true;
	for (size_t j = 0; j < t->n_descs; j++) {
		const Gw__FdUnix *o = unix_of(t, j);
		bool better;

		if (!o || j == i || !unix_name_equal(&o->name, &u->name) || (unix_name_is_path(&o->name) && (!o->has_file || strcmp(o->root, u->root))))
			continue;
		better = o->state != GW__FD_UNIX_STATE__UNIX_CONNECTED && o->state != GW__FD_UNIX_STATE__UNIX_GONE;
		if (better || j < i)
			return false;
	}
	return true;
}

static bool some_socket_has(const Gw__FdTable *t, const ProtobufCBinaryData *name)
{
	for (size_t i = 0; i < t->n_descs; i++)
		if (unix_of(t, i) && unix_name_equal(&unix_of(t, i)->name, name))
			return true;
	return false;
}

/* Connected ends; the other one of a connection that is gone is kept in others until its queue is filled. */
static int open_pair(const Gw__FdTable *t, size_t i, struct fd_restore *r, struct err *e)
{
	const Gw__FdUnix *u = unix_of(t, i);
	bool gone = u->state == GW__FD_UNIX_STATE__UNIX_GONE;
	size_t peer = gone ? i : u->peer - 1;
	const Gw__FdUnix *other = unix_of(t, peer);
	struct unix_end ends[2] = { { &u->name, owns_name(t, i), i, u->peer_cred }, { &u->peer_name, false, t->n_descs + i, NULL } };
	int fds[2] = { -1, -1 }, result;

	if (!other)
		return err_set(e, -EPROTO, "unix socket: its peer is none");
	if (fd_relays_find_socket(r->originals, u)) {
		r->fds[i] = fcntl(fd_relays_find_socket(r->originals, u)->fd, F_DUPFD_CLOEXEC, 0);
		return r->fds[i] < 0 ? err_sys(e, -errno, "a unix socket of the unit at home") : 0;
	}
	if (!gone && r->fds[peer] >= 0)
		return err_set(e, -EPROTO, "unix socket: its peer is connected already");
	if (gone)
		ends[1].owner = !some_socket_has(t, &u->peer_name) && !unix_name_is_path(&u->peer_name);
	else
		ends[1] = (struct unix_end){ &other->name, owns_name(t, peer), peer, other->peer_cred };
	result = unix_make_pair(r, u->type, ends, fds, e);
	r->fds[i] = fds[0];
	if (gone)
		r->others[i] = fds[1];
	else
		r->fds[peer] = fds[1];
	return result;
}

/* A datagram socket whose peer has no name can have got it by socketpair(2) only. */
static bool is_unnamed_dgram_pair(const Gw__FdTable *t, const Gw__FdUnix *u)
{
	return u->type == SOCK_DGRAM && u->state == GW__FD_UNIX_STATE__UNIX_CONNECTED && u->peer && unix_of(t, u->peer - 1) &&
		!unix_of(t, u->peer - 1)->name.len && unix_of(t, u->peer - 1) != u;
}

static int open_dgram_pair(const Gw__FdTable *t, size_t i, struct fd_restore *r, struct err *e)
{
	const Gw__FdUnix *u = unix_of(t, i), *peer = unix_of(t, u->peer - 1);
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fds[2], result;

	if (r->fds[u->peer - 1] >= 0)
		return err_set(e, -EOPNOTSUPP, "unix datagram socket: several are connected to one without a name");
	result = unix_socketpair_as(SOCK_DGRAM, u->peer_cred, fds, e);
	if (result < 0)
		return result;
	r->fds[i] = fds[0];
	r->fds[u->peer - 1] = fds[1];
	if (peer->state != GW__FD_UNIX_STATE__UNIX_CONNECTED || peer->peer != i + 1)
		if (connect(fds[1], &none, sizeof(none)) < 0)
			return err_sys(e, -errno, "unix datagram socket: disconnecting");
	return unix_name_end(r, fds[0], &u->name, owns_name(t, i), i, e);
}

static int open_single(const Gw__FdTable *t, size_t i, struct fd_restore *r, struct err *e)
{
	const Gw__FdUnix *u = unix_of(t, i);
	int fd = socket(AF_UNIX, (int)u->type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(e, -errno, "unix socket");
	r->fds[i] = fd;
	if (u->has_file)
		return unix_place_check(u, r->fds, r->n, e);
	/* Abstract names are taken in the freeze: from then on others can send. */
	return unix_name_is_path(&u->name) ? unix_name_end(r, fd, &u->name, false, i, e) : 0;
}

/* A socket belongs to the network namespace that it is made in. */
static int in_its_net(const Gw__FdTable *t, size_t i, struct fd_restore *r, int (*open)(const Gw__FdTable *t, size_t i, struct fd_restore *r, struct err *e), struct err *e)
{
	int back = ns_others_visit(NS_NET, unix_of(t, i)->space), ret;

	if (back < 0)
		return err_sys(e, back, "unix socket: its network namespace");
	ret = open(t, i, r, e);
	ns_others_return(NS_NET, back);
	return ret;
}

int unix_open(const Gw__FdTable *t, size_t from, struct fd_restore *r, struct err *e)
{
	int result = 0;

	/* Pairs first: they may need a name for a moment that another has later. */
	for (size_t i = from; i < t->n_descs && result == 0; i++) {
		const Gw__FdUnix *u = unix_of(t, i);

		if (!u || r->fds[i] >= 0)
			continue;
		if (is_pair(u) || u->state == GW__FD_UNIX_STATE__UNIX_GONE)
			result = in_its_net(t, i, r, open_pair, e);
		else if (is_unnamed_dgram_pair(t, u))
			result = in_its_net(t, i, r, open_dgram_pair, e);
	}
	for (size_t i = from; i < t->n_descs && result == 0; i++)
		if (unix_of(t, i) && r->fds[i] < 0)
			result = in_its_net(t, i, r, open_single, e);
	for (size_t i = from; i < t->n_descs && result == 0; i++)
		if (unix_of(t, i))
			result = socket_options_set(r->fds[i], unix_of(t, i)->options, unix_of(t, i)->n_options, OPTIONS_EARLY, e);
	return result;
}

/* --- in the freeze --- */

struct filling {
	const Gw__FdTable *t;
	const struct fd_env *env;
	struct fd_restore *r;
	struct err *e;
};

static bool is_bound(int fd)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);

	return getsockname(fd, (void *)&a, &len) == 0 && len > offsetof(struct sockaddr_un, sun_path);
}

static int bind_one(struct filling *f, size_t i)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	char *aside = NULL;
	int result;

	if (!u->name.len || !owns_name(f->t, i) || is_bound(f->r->fds[i]))
		return 0;
	result = unix_place_bind(u, f->r->fds[i], &aside, f->e);
	if (aside)
		fd_append(&f->r->aside, &f->r->n_aside, aside);
	return result;
}

static int connect_to(struct filling *f, int fd, size_t to)
{
	const Gw__FdUnix *u = unix_of(f->t, to);

	if (unix_name_is_path(&u->name) && !u->has_file)
		return unix_den_connect(&f->r->den, fd, to, f->e);
	return unix_place_connect(u, fd, f->e);
}

/* The number here of the process whose credentials a message carries; 0: none. */
static pid_t sender_pid(const struct filling *f, const Gw__FdUnixMessage *m)
{
	if (!m->cred)
		return 0;
	if (!m->cred->process || m->cred->process > f->env->n_pids)
		return 0;
	return f->env->pids[m->cred->process - 1];
}

static void widen(int fd)
{
	int size = SEND_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
}

static int socket_like(const Gw__FdUnix *u, int type)
{
	int back = ns_others_visit(NS_NET, u->space), fd, code;

	if (back < 0) {
		errno = -back;
		return -1;
	}
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	code = errno;
	ns_others_return(NS_NET, back);
	errno = code;
	return fd;
}

/* A client that has gone: it connects, says what it has said, and goes. */
static int gone_client(struct filling *f, size_t listener, const Gw__FdUnixWaiting *w, int *ret_fd)
{
	cleanup_close int fd = socket_like(unix_of(f->t, listener), (int)unix_of(f->t, listener)->type);
	bool taken = w && some_socket_has(f->t, &w->name);
	int result = 0;

	if (fd < 0)
		return err_sys(f->e, -errno, "unix socket");
	/* A name that somebody has by now cannot be given to the dead. */
	if (w && w->name.len && !(taken && !unix_name_is_path(&w->name)))
		result = unix_name_end(f->r, fd, &w->name, false, 2 * f->t->n_descs + 1, f->e);
	if (result == 0)
		result = connect_to(f, fd, listener);
	if (result == 0)
		*ret_fd = take_fd(&fd);
	return result;
}

/* The jth connection of the accept queue. */
static int fill_connection(struct filling *f, size_t i, size_t j)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	const Gw__FdUnixWaiting *w = j < u->n_waiting ? u->waiting[j] : NULL;
	cleanup_close int gone = -1;
	int fd = u->accept_queue[j] ? f->r->fds[u->accept_queue[j] - 1] : -1, result;
	struct peer_cred_own own;

	peer_cred_enter(w ? w->cred : NULL, &own);
	result = fd >= 0 ? connect_to(f, fd, i) : gone_client(f, i, w, &gone);
	peer_cred_leave(&own);

	if (fd >= 0 && w && w->n_queue)
		widen(fd);
	for (size_t k = 0; w && k < w->n_queue && result == 0; k++)
		result = unix_queue_send(fd >= 0 ? fd : gone, w->queue[k], NULL, f->r->fds, sender_pid(f, w->queue[k]), f->e);
	return result;
}

static int fill_listener(struct filling *f, size_t i)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	int fd = f->r->fds[i], result = 0;
	uint32_t room = MAX(u->backlog, (uint32_t)u->n_accept_queue);

	if (u->state != GW__FD_UNIX_STATE__UNIX_LISTENING)
		return 0;
	if (unix_listen_as(fd, (int)room, u->peer_cred) < 0)
		return err_sys(f->e, -errno, "unix socket: listen");
	for (size_t j = 0; j < u->n_accept_queue && result == 0; j++)
		result = fill_connection(f, i, j);
	if (result == 0 && room != u->backlog && unix_listen_as(fd, (int)u->backlog, u->peer_cred) < 0)
		return err_sys(f->e, -errno, "unix socket: listen");
	return result;
}

/* Datagram sockets whose connection was not made with them. */
static bool must_connect(const Gw__FdTable *t, size_t i)
{
	const Gw__FdUnix *u = unix_of(t, i);

	return u && u->type == SOCK_DGRAM && u->state == GW__FD_UNIX_STATE__UNIX_CONNECTED && !is_unnamed_dgram_pair(t, u);
}

/*
 * Once a datagram socket is connected, only its peer can be connected to it: whoever is to be connected to another comes before that
 * one. There can be no circles of more than two.
 */
static int connect_dgrams(struct filling *f)
{
	cleanup_free uint32_t *before = fd_alloc(f->t->n_descs * sizeof(*before));
	cleanup_free uint8_t *done = fd_alloc(f->t->n_descs);
	bool again = true;
	int result = 0;

	for (size_t i = 0; i < f->t->n_descs; i++)
		if (must_connect(f->t, i) && unix_of(f->t, unix_of(f->t, i)->peer - 1)->peer != i + 1)
			before[unix_of(f->t, i)->peer - 1]++;
	while (again && result == 0) {
		again = false;
		for (size_t i = 0; i < f->t->n_descs && result == 0; i++) {
			size_t peer;

			if (done[i] || before[i] || !must_connect(f->t, i))
				continue;
			peer = unix_of(f->t, i)->peer - 1;
			result = connect_to(f, f->r->fds[i], peer);
			done[i] = 1;
			again = true;
			if (before[peer] && unix_of(f->t, peer)->peer != i + 1)
				before[peer]--;
		}
	}
	for (size_t i = 0; i < f->t->n_descs && result == 0; i++)
		if (must_connect(f->t, i) && !done[i])
			result = err_set(f->e, -EPROTO, "unix datagram sockets: connected in a circle");
	return result;
}

/* Which description of a datagram socket has this name; -1: none. */
static int find_sender(const Gw__FdTable *t, const ProtobufCBinaryData *name)
{
	for (size_t i = 0; name->len && i < t->n_descs; i++)
		if (unix_of(t, i) && unix_of(t, i)->type == SOCK_DGRAM && unix_name_equal(&unix_of(t, i)->name, name))
			return (int)i;
	return -1;
}

/* Sends a datagram to i by name. */
static int send_by_name(struct filling *f, size_t i, int via, const Gw__FdUnixMessage *m)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	bool in_den = unix_name_is_path(&u->name) && !u->has_file;
	uint8_t path[sizeof(struct sockaddr_un)];
	ProtobufCBinaryData name = u->name;
	pid_t pid = sender_pid(f, m);
	int result = in_den ? unix_den_enter(&f->r->den, f->e) : place_enter(u->root);

	if (result < 0)
		return in_den ? result : err_sys(f->e, result, "the root of the unit");
	if (in_den)
		unix_den_address(i, path, &name);
	else if (unix_name_is_path(&u->name))
		result = unix_place_address(u, path, &name, f->e);
	if (result == 0)
		result = unix_queue_send(via, m, &name, f->r->fds, pid, f->e);
	if (in_den)
		unix_den_leave(&f->r->den);
	else
		place_leave();
	return result;
}

/* A socket of the moment with the name of a sender that the unit does not have. */
static int stand_in(struct filling *f, size_t i, const ProtobufCBinaryData *name, int *ret_fd)
{
	cleanup_close int fd = socket_like(unix_of(f->t, i), SOCK_DGRAM);
	int result;

	if (fd < 0)
		return err_sys(f->e, -errno, "unix socket");
	result = unix_name_end(f->r, fd, name, false, 2 * f->t->n_descs, f->e);
	if (result == 0)
		*ret_fd = take_fd(&fd);
	return result;
}

static int fill_dgram(struct filling *f, size_t i, const Gw__FdUnixMessage *m)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	int sender = find_sender(f->t, &m->sender), pair = f->r->others[i], result = 0;
	pid_t pid = sender_pid(f, m);
	cleanup_close int stranger = -1;

	if (pair < 0 && u->state == GW__FD_UNIX_STATE__UNIX_CONNECTED && is_unnamed_dgram_pair(f->t, unix_of(f->t, u->peer - 1)) &&
	    unix_of(f->t, u->peer - 1)->peer == i + 1)
		pair = f->r->fds[u->peer - 1];
	if (!u->name.len && pair < 0) {
		/* Somebody is connected to it still, or nobody can reach it. */
		for (size_t j = 0; j < f->t->n_descs && pair < 0; j++)
			if (unix_of(f->t, j) && is_unnamed_dgram_pair(f->t, unix_of(f->t, j)) && unix_of(f->t, j)->peer == i + 1)
				pair = f->r->fds[j];
		if (pair < 0)
			return err_set(f->e, -EOPNOTSUPP, "unix datagram socket: messages of a sender that has been connected elsewhere");
	}
	if (pair >= 0 && (sender < 0 || f->r->fds[sender] == pair || !u->name.len))
		return unix_queue_send(pair, m, NULL, f->r->fds, pid, f->e);
	if (sender >= 0)
		return send_by_name(f, i, f->r->fds[sender], m);
	result = stand_in(f, i, &m->sender, &stranger);
	return result < 0 ? result : send_by_name(f, i, stranger, m);
}

static int fill_queue(struct filling *f, size_t i)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	int result = 0, via = f->r->others[i] >= 0 ? f->r->others[i] : u->peer && is_pair(u) ? f->r->fds[u->peer - 1] : -1;

	if (!u->n_queue)
		return 0;
	if (fd_relays_find_socket(f->r->originals, u))
		return err_set(f->e, -EAGAIN, "unix socket: the program has not read all that has been relayed to it");
	if (u->type != SOCK_DGRAM && via < 0)
		return err_set(f->e, -EPROTO, "unix socket: a queue without a sender");
	if (via >= 0)
		widen(via);
	for (size_t j = 0; j < u->n_queue && result == 0; j++) {
		const Gw__FdUnixMessage *m = u->queue[j];

		if (u->type == SOCK_DGRAM)
			result = fill_dgram(f, i, m);
		else
			result = unix_queue_send(via, m, NULL, f->r->fds, sender_pid(f, m), f->e);
	}
	return result;
}

/* The other end of a connection that is gone goes; with something unread it leaves ECONNRESET behind. */
static int end_connection(struct filling *f, size_t i)
{
	const Gw__FdUnix *u = unix_of(f->t, i);

	if (f->r->others[i] < 0)
		return 0;
	if (u->relay)
		return fd_relays_add(&f->r->relays, &f->r->n_relays, &(struct fd_relay){ .id = u->relay_id, .kind = RELAY_SOCKET, .fd = take_fd(&f->r->others[i]) },
				     f->e);
	if (u->reset && send(f->r->fds[i], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return err_sys(f->e, -errno, "unix socket: its reset");
	close_fdp(&f->r->others[i]);
	return 0;
}

static int finish(struct filling *f, size_t i)
{
	const Gw__FdUnix *u = unix_of(f->t, i);
	uint32_t how = u->shut_down;
	int fd = f->r->fds[i];

	if (fd_relays_find_socket(f->r->originals, u))
		return 0;
	if (how && (u->relay || u->state != GW__FD_UNIX_STATE__UNIX_GONE) && shutdown(fd, how == 1 ? SHUT_RD : how == 2 ? SHUT_WR : SHUT_RDWR) < 0 &&
	    errno != ENOTCONN)
		return err_sys(f->e, -errno, "unix socket: shutdown");
	return socket_options_set(fd, u->options, u->n_options, OPTIONS_LATE, f->e);
}

static int run_stages(struct filling *f, int (*const *stages)(struct filling *, size_t), size_t n, size_t *ret_desc)
{
	for (size_t s = 0; s < n; s++)
		for (size_t i = 0; i < f->t->n_descs; i++) {
			int result = unix_of(f->t, i) ? stages[s](f, i) : 0;

			*ret_desc = i;
			if (result < 0)
				return result;
		}
	return 0;
}

int unix_fill(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *r, size_t *ret_desc, struct err *e)
{
	static int (*const first[])(struct filling *, size_t) = { bind_one, fill_listener, fill_queue };
	static int (*const last[])(struct filling *, size_t) = { end_connection, finish };
	struct filling f = { t, env, r, e };
	int result = run_stages(&f, first, ARRAY_SIZE(first), ret_desc);

	if (result == 0)
		result = connect_dgrams(&f);
	if (result == 0)
		result = run_stages(&f, last, ARRAY_SIZE(last), ret_desc);
	unix_den_clear(&r->den);
	return result;
}
