/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_restore.c - making unix sockets anew; see unix_restore.h
 *
 * A connected pair is a socketpair(2) whose ends are bound afterwards. That does not do for abstract names, which can be bound once
 * only, while all the sockets that a listener has accepted have its name: such an end is accepted from a listener of that name that
 * lives for a moment, before the unit's own gets the name.
 */
#include "image/unix_restore.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file_look.h"
#include "image/peer_cred.h"
#include "image/socket_options.h"
#include "image/relay.h"
#include "image/unix_name.h"
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

		if (!o || j == i || !unix_name_equal(&o->name, &u->name) || (unix_name_is_path(&o->name) && !o->has_file))
			continue;
		better = o->state != GW__FD_UNIX_STATE__UNIX_CONNECTED && o->state != GW__FD_UNIX_STATE__UNIX_GONE;
		if (better || j < i)
			return false;
	}
	return true;
}

/* One end of a pair that is to be made. */
struct end {
	const ProtobufCBinaryData *name;
	bool owner; /* of the file, or of the abstract name */
	size_t tag; /* its description, or any other number of its own */
	const Gw__FdUnixCred *cred; /* what it says of the other end */
};

static int listen_as(int fd, int backlog, const Gw__FdUnixCred *cred)
{
	struct peer_cred_own own;
	int ret;

	peer_cred_enter(cred, &own);
	ret = listen(fd, backlog) < 0 ? -errno : 0;
	peer_cred_leave(&own);
	return ret;
}

/* Two connected ends, the first of which has the abstract name without holding it. */
static int accept_pair(uint32_t type, const struct end *first, const struct end *second, int ret_fds[2], struct err *e)
{
	const ProtobufCBinaryData *name = first->name;
	struct peer_cred_own own;
	int ret;

	cleanup_close int listener = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0);
	cleanup_close int accepted = -1;
	struct ucred cred = { 0 };
	socklen_t cred_len = sizeof(cred);
	struct sockaddr_un a;
	unsigned int len = unix_name_address(name, &a);
	char text[200];

	unix_name_describe(name, text, sizeof(text));
	if (listener < 0 || client < 0)
		return err_sys(e, -errno, "unix socket");
	if (bind(listener, (void *)&a, len) < 0 && errno == EADDRINUSE)
		return err_set(e, -EADDRINUSE, "unix socket %s: another process on this host has the name; stop it first", text);
	ret = listen_as(listener, 1, second->cred);
	peer_cred_enter(first->cred, &own);
	ret = ret == 0 && connect(client, (void *)&a, len) < 0 ? -errno : ret;
	peer_cred_leave(&own);
	if (ret < 0)
		return err_sys(e, ret, "unix socket: connecting to %s", text);
	accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (accepted < 0)
		return err_sys(e, -errno, "unix socket: accepting at %s", text);
	if (getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) < 0 || cred.pid != getpid())
		return err_set(e, -EAGAIN, "unix socket %s: somebody else has connected to it", text);
	ret_fds[0] = take_fd(&accepted);
	ret_fds[1] = take_fd(&client);
	return 0;
}

/* Gives an end the name that it has without a file, if it has one. Abstract ones: only when it is to hold the name. */
static int name_end(struct fd_restore *r, int fd, const ProtobufCBinaryData *name, bool owner, size_t tag, struct err *e)
{
	struct sockaddr_un a;
	unsigned int len;

	if (!name->len || (owner && unix_name_is_path(name)))
		return 0;
	if (unix_name_is_path(name))
		return unix_den_bind(&r->den, fd, name, tag, e);
	len = unix_name_address(name, &a);
	if (bind(fd, (void *)&a, len) < 0)
		return err_sys(e, -errno, "unix socket: binding to the abstract name %.100s", a.sun_path + 1);
	return 0;
}

static bool must_accept(const struct end *x)
{
	return x->name->len && !unix_name_is_path(x->name) && !x->owner;
}

/*
 * A socketpair(2) as a process made it that is no more: its number and ids are what SO_PEERCRED shows. Somebody with that number makes it,
 * in this process's table of descriptors, and ends. -1: the number is taken; then the pair is this process's.
 */
static int pair_of_the_dead(const Gw__FdUnixCred *cred, uint32_t type, int ret_fds[2])
{
	pid_t number = cred->pid, child;
	struct clone_args args = { .flags = CLONE_FILES, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1 };
	int *fds = mmap(NULL, 2 * sizeof(*fds), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status = -1;

	if (fds == MAP_FAILED)
		return -1;
	child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (child == 0)
		_exit(syscall(SYS_setgroups, cred->n_groups, cred->groups) < 0 || syscall(SYS_setresgid, cred->gid, cred->gid, cred->gid) < 0 ||
			syscall(SYS_setresuid, cred->uid, cred->uid, cred->uid) < 0 ||
			socketpair(AF_UNIX, (int)type | SOCK_CLOEXEC, 0, fds) < 0);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	munmap(fds, 2 * sizeof(*fds));
	return child > 0 && status == 0 ? 0 : -1;
}

/* What a process of before made is made by somebody with its number, if that is free, else by this one with its ids. */
static int make_socketpair(uint32_t type, const Gw__FdUnixCred *cred, int ret_fds[2], struct err *e)
{
	struct peer_cred_own own;
	int ret;

	if (cred && !cred->process && cred->pid > 1 && pair_of_the_dead(cred, type, ret_fds) == 0)
		return 0;
	peer_cred_enter(cred, &own);
	ret = socketpair(AF_UNIX, (int)type | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
	peer_cred_leave(&own);
	return ret < 0 ? err_sys(e, ret, "socketpair") : 0;
}

/* A pair whose first end was accepted from a listener with a path: that of whoever listened and that of whoever connected differ. */
static int accept_in_den(struct fd_restore *r, uint32_t type, const struct end *first, const struct end *second, int ret_fds[2], struct err *e)
{
	cleanup_close int listener = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0);
	struct peer_cred_own own;
	int ret = listener < 0 || client < 0 ? err_sys(e, -errno, "unix socket") : unix_den_bind(&r->den, listener, first->name, first->tag, e);

	if (ret == 0 && listen_as(listener, 1, second->cred) < 0)
		ret = err_sys(e, -errno, "unix socket: listen");
	if (ret < 0)
		return ret;
	peer_cred_enter(first->cred, &own);
	ret = unix_den_connect(&r->den, client, first->tag, e);
	peer_cred_leave(&own);
	if (ret < 0)
		return ret;
	ret_fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (ret_fds[0] < 0)
		return err_sys(e, -errno, "unix socket: accepting");
	ret_fds[1] = take_fd(&client);
	return 0;
}

static bool is_from_den(const struct end *x)
{
	return x->name->len && unix_name_is_path(x->name) && !x->owner;
}

static int make_pair(struct fd_restore *r, uint32_t type, const struct end ends[2], int ret_fds[2], struct err *e)
{
	int first = must_accept(&ends[0]) ? 0 : 1, fds[2] = { -1, -1 }, result;
	bool in_den = false;

	if (type != SOCK_DGRAM && !must_accept(&ends[first]) && ends[0].cred && ends[1].cred && !peer_cred_equal(ends[0].cred, ends[1].cred)) {
		in_den = is_from_den(&ends[0]) || is_from_den(&ends[1]);
		first = is_from_den(&ends[0]) ? 0 : 1;
	}
	if (in_den || (type != SOCK_DGRAM && must_accept(&ends[first]))) {
		result = in_den ? accept_in_den(r, type, &ends[first], &ends[!first], fds, e) : accept_pair(type, &ends[first], &ends[!first], fds, e);
		if (result < 0)
			return result;
		ret_fds[first] = fds[0];
		ret_fds[!first] = fds[1];
		return name_end(r, fds[1], ends[!first].name, ends[!first].owner, ends[!first].tag, e);
	}
	result = make_socketpair(type, ends[0].cred ? ends[0].cred : ends[1].cred, ret_fds, e);
	if (result == 0)
		result = name_end(r, ret_fds[0], ends[0].name, ends[0].owner, ends[0].tag, e);
	return result < 0 ? result : name_end(r, ret_fds[1], ends[1].name, ends[1].owner, ends[1].tag, e);
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
	struct end ends[2] = { { &u->name, owns_name(t, i), i, u->peer_cred }, { &u->peer_name, false, t->n_descs + i, NULL } };
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
		ends[1] = (struct end){ &other->name, owns_name(t, peer), peer, other->peer_cred };
	result = make_pair(r, u->type, ends, fds, e);
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
	result = make_socketpair(SOCK_DGRAM, u->peer_cred, fds, e);
	if (result < 0)
		return result;
	r->fds[i] = fds[0];
	r->fds[u->peer - 1] = fds[1];
	if (peer->state != GW__FD_UNIX_STATE__UNIX_CONNECTED || peer->peer != i + 1)
		if (connect(fds[1], &none, sizeof(none)) < 0)
			return err_sys(e, -errno, "unix datagram socket: disconnecting");
	return name_end(r, fds[0], &u->name, owns_name(t, i), i, e);
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
	return unix_name_is_path(&u->name) ? name_end(r, fd, &u->name, false, i, e) : 0;
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
			result = open_pair(t, i, r, e);
		else if (is_unnamed_dgram_pair(t, u))
			result = open_dgram_pair(t, i, r, e);
	}
	for (size_t i = from; i < t->n_descs && result == 0; i++)
		if (unix_of(t, i) && r->fds[i] < 0)
			result = open_single(t, i, r, e);
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

/* A client that has gone: it connects, says what it has said, and goes. */
static int gone_client(struct filling *f, size_t listener, const Gw__FdUnixWaiting *w, int *ret_fd)
{
	cleanup_close int fd = socket(AF_UNIX, (int)unix_of(f->t, listener)->type | SOCK_CLOEXEC, 0);
	bool taken = w && some_socket_has(f->t, &w->name);
	int result = 0;

	if (fd < 0)
		return err_sys(f->e, -errno, "unix socket");
	/* A name that somebody has by now cannot be given to the dead. */
	if (w && w->name.len && !(taken && !unix_name_is_path(&w->name)))
		result = name_end(f->r, fd, &w->name, false, 2 * f->t->n_descs + 1, f->e);
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
	if (listen_as(fd, (int)room, u->peer_cred) < 0)
		return err_sys(f->e, -errno, "unix socket: listen");
	for (size_t j = 0; j < u->n_accept_queue && result == 0; j++)
		result = fill_connection(f, i, j);
	if (result == 0 && room != u->backlog && listen_as(fd, (int)u->backlog, u->peer_cred) < 0)
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
	int result = in_den ? unix_den_enter(&f->r->den, f->e) : 0;

	if (result == 0 && in_den)
		unix_den_address(i, path, &name);
	else if (result == 0 && unix_name_is_path(&u->name))
		result = unix_place_address(u, path, &name, f->e);
	if (result < 0)
		return result;
	result = unix_queue_send(via, m, &name, f->r->fds, pid, f->e);
	if (in_den)
		unix_den_leave(&f->r->den);
	return result;
}

/* A socket of the moment with the name of a sender that the unit does not have. */
static int stand_in(struct filling *f, const ProtobufCBinaryData *name, int *ret_fd)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int result;

	if (fd < 0)
		return err_sys(f->e, -errno, "unix socket");
	result = name_end(f->r, fd, name, false, 2 * f->t->n_descs, f->e);
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
	result = stand_in(f, &m->sender, &stranger);
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
