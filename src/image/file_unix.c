/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_unix.c - the source's side of the tables: unix sockets, and descriptors in flight
 *
 * Theory of operation: a description can be in flight only, in a message that nobody has received: then no number refers to it. The
 * worker learns of it when it peeks at the queue, which gives it a duplicate, as of all others. Such a *loose* description is captured
 * like the rest, with the worker's own /proc/self/fdinfo; at the destination the worker sends it again. A loose unix socket may itself
 * have a queue with more in it.
 *
 * What a unix socket is connected to is decided when it is made. A socket of the offer that has been bound, connected or accepted
 * since is therefore *renewed*: it becomes another description, and its old one is closed.
 */
#include "image/file_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/file_leak.h"
#include "image/pipe.h"
#include "image/socket_options.h"
#include "image/unix_queue.h"
#include "image/unix_socket.h"

static bool is_unix(const struct fdtable *t, uint32_t i)
{
	const struct fd_held *held = &t->held[i];
	struct stat st;

	if (held->fd < 0 || held->settled)
		return false;
	if (held->known && !held->refused)
		return t->msg->descs[i]->kind == GW__FD_KIND__FD_UNIX;
	return fstat(held->fd, &st) == 0 && S_ISSOCK(st.st_mode) && socket_get_int(held->fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX;
}

/* The worker's own fdinfo of one of its duplicates; malloc'ed. */
static char *own_info(int fd)
{
	char path[64], *text = NULL;
	size_t len = 0, room = 0;
	cleanup_close int info = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	do {
		if (room - len < 1024) {
			char *grown = realloc(text, room = room * 2 + 4096);

			if (!grown)
				abort();
			text = grown;
		}
		n = info >= 0 ? pread(info, text + len, room - len - 1, (off_t)len) : 0;
		len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	text[len] = '\0';
	return text;
}

static bool has_fds_in_flight(int fd)
{
	cleanup_free char *text = own_info(fd);
	uint64_t n = 0;

	return fdinfo_u64(text, "scm_fds", 10, &n) && n;
}

/* By the address that the kernel knows it by: in the freeze not all descriptions are held, so that they cannot be compared. */
static uint32_t identify_by_address(struct fdtable *t, struct fd_held *held, const struct file_record *r)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		struct fd_held *known = &t->held[i];
		bool same = known->now == r->file || (!known->now && !known->closed && known->file == r->file && known->inode == r->inode &&
			known->operations == r->kind && fdtable_same_kind(t->msg->descs[i], held->fd));

		if (!same)
			continue;
		known->now = r->file;
		if (known->fd < 0)
			known->fd = take_fd(&held->fd);
		close_fdp(&held->fd);
		return i;
	}
	held->now = held->file = r->file;
	held->inode = r->inode;
	held->operations = r->kind;
	return fdtable_add_desc(t, held);
}

static int compare_records(const void *a, const void *b)
{
	unsigned int x = ((const struct file_record *)a)->fd, y = ((const struct file_record *)b)->fd;

	return x < y ? -1 : x > y;
}

static int take_in_flight(struct fdtable *t, Gw__FdUnixMessage *m, struct err *e)
{
	bool by_address = t->order_is_old;
	ssize_t n = by_address && m->n_descs ? file_watch_read(t->self, &t->records, &t->records_room, e) : 0;

	if (n < 0)
		return (int)n;
	for (size_t i = 0; i < m->n_descs; i++) {
		struct fd_held held = { .fd = (int)m->descs[i] };
		struct file_record key = { .fd = m->descs[i] }, *r = NULL;
		struct stat st;

		if (fstat(held.fd, &st) < 0)
			return err_sys(e, -errno, "a descriptor in flight");
		held.dev = st.st_dev;
		held.ino = st.st_ino;
		if (by_address)
			r = bsearch(&key, t->records, (size_t)n, sizeof(key), compare_records);
		if (by_address && !r)
			return err_set(e, -EIO, "a descriptor in flight is not in this worker's table");
		m->descs[i] = r ? identify_by_address(t, &held, r) : fdtable_identify_loose(t, &held);
		t->held[m->descs[i]].in_flight = true;
	}
	return 0;
}

/* Known before anything is touched. */
static bool has_urgent(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLPRI };

	return poll(&p, 1, 0) == 1 && p.revents & POLLPRI;
}

static int read_queue(struct fdtable *t, uint32_t i, struct refusals *refusals, struct err *e)
{
	struct fd_held *held = &t->held[i];
	struct unix_member who = { .desc = i, .fd = held->uses ? fdtable_number_of(t, i)->fd : -1 };
	int r;

	if (socket_get_int(held->fd, SOL_SOCKET, SO_ACCEPTCONN) == 1)
		return 0;
	if (!t->frozen && has_urgent(held->fd)) {
		unix_queue_refuse(&who, -ENODATA, refusals);
		return 0;
	}
	if (!t->frozen && !has_fds_in_flight(held->fd))
		return 0;
	r = unix_queue_read(held->fd, (uint32_t)socket_get_int(held->fd, SOL_SOCKET, SO_TYPE), !t->frozen, &held->queue, &held->n_queue);
	if (r == -ENODATA || r == -EMSGSIZE) {
		unix_queue_refuse(&who, r, refusals);
		return 0;
	}
	if (r < 0)
		return err_sys(e, r, "reading the queue of a unix socket");
	/* Descriptions may move in memory now. */
	for (size_t k = 0; k < t->held[i].n_queue && r == 0; k++)
		r = take_in_flight(t, t->held[i].queue[k], e);
	return r;
}

void fdtable_forget_queues(struct fdtable *t)
{
	for (size_t i = 0; t->msg && i < t->msg->n_descs; i++) {
		struct fd_held *held = &t->held[i];

		unix_queue_free(held->queue, held->n_queue, false);
		held->queue = NULL;
		held->n_queue = 0;
		free(held->text);
		held->text = NULL;
		held->loose = held->in_flight = false;
	}
}

int fdtable_find_in_flight(struct fdtable *t, struct refusals *refusals, struct err *e)
{
	int r = 0;

	fdtable_forget_queues(t);
	/* The list grows meanwhile. */
	for (uint32_t i = 0; i < t->msg->n_descs && r == 0; i++)
		if (is_unix(t, i))
			r = read_queue(t, i, refusals, e);
	for (uint32_t i = 0; i < t->msg->n_descs && r == 0; i++) {
		struct fd_held *held = &t->held[i];

		if (!held->in_flight || held->uses)
			continue;
		held->loose = held->changed = true;
		held->uses = 1;
		held->view = held->slot = 0;
		held->text = own_info(held->fd);
	}
	return r;
}

int fdtable_refuse_loose(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals)
{
	if (!d->owner && !fdinfo_find(look->info, "lock"))
		return 0;
	refusals_add(refusals, "fd.socket.unix.inflight", "a descriptor in flight with a lock or an owner (F_SETOWN) cannot move yet",
		"try again when the program has received it", "a message in a unix socket (%s)", look->link);
	return FD_REFUSED;
}

static void list_members(const struct fdtable *t, struct unix_member **ret, size_t *ret_n)
{
	struct unix_member *m = fd_alloc(t->msg->n_descs * sizeof(*m));
	size_t n = 0;

	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const struct fd_held *held = &t->held[i];

		if (!is_unix(t, i))
			continue;
		m[n++] = (struct unix_member){ .desc = i, .pid = t->views[held->view].pid,
			.fd = fdtable_number_of(t, i)->fd, .held = held->fd, .ino = held->ino };
	}
	*ret = m;
	*ret_n = n;
}

/* --- renewing --- */

static void renumber(uint32_t *index_plus_one, const uint32_t *map)
{
	if (*index_plus_one && map[*index_plus_one - 1])
		*index_plus_one = map[*index_plus_one - 1];
}

/* In a set of epoll, which may have been settled by its record. */
static void renumber_items(struct fdtable *t, size_t i, const uint32_t *map)
{
	Gw__FdDesc *d = t->msg->descs[i];

	for (size_t k = 0; k < d->n_items; k++)
		if (map[d->items[k]->desc]) {
			d->items[k]->desc = map[d->items[k]->desc] - 1;
			if (t->differs && i < t->differs_room)
				t->differs[i] = 1;
		}
}

void fdtable_renumber(struct fdtable *t, const uint32_t *map)
{
	for (size_t v = 0; v < t->n_views; v++)
		for (size_t k = 0; k < t->views[v].n_seen; k++)
			if (map[t->views[v].seen[k].desc])
				t->views[v].seen[k].desc = map[t->views[v].seen[k].desc] - 1;
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		Gw__FdUnix *u = t->msg->descs[i]->unix_socket;

		renumber_items(t, i, map);
		if (!u)
			continue;
		renumber(&u->peer, map);
		for (size_t k = 0; k < u->n_accept_queue; k++)
			renumber(&u->accept_queue[k], map);
		for (size_t k = 0; k < u->n_queue; k++)
			for (size_t j = 0; j < u->queue[k]->n_descs; j++)
				if (map[u->queue[k]->descs[j]])
					u->queue[k]->descs[j] = map[u->queue[k]->descs[j]] - 1;
	}
	t->changed = true;
}

static void renew(struct fdtable *t, const struct unix_member *m, size_t n)
{
	size_t n_old = t->msg->n_descs;
	cleanup_free uint32_t *map = NULL;

	for (size_t i = 0; i < n; i++) {
		uint32_t now;

		if (!m[i].renew)
			continue;
		if (!map)
			map = fd_alloc((n_old + n) * sizeof(*map));
		now = fdtable_move_desc(t, m[i].desc);
		t->msg->descs[now]->unix_socket = t->msg->descs[m[i].desc]->unix_socket;
		t->msg->descs[m[i].desc]->unix_socket = NULL;
		map[m[i].desc] = now + 1;
	}
	if (map)
		fdtable_renumber(t, map);
}

/* --- whoever else has one of them --- */

static void look_outside(struct fdtable *t, struct unix_member *m, size_t n, struct refusals *refusals)
{
	cleanup_free struct pipe_holder *holders = fd_alloc(n * sizeof(*holders));
	size_t n_new = 0;

	for (size_t i = 0; i < n; i++) {
		struct fd_held *held = &t->held[m[i].desc];
		const Gw__FdUnix *u = t->msg->descs[m[i].desc]->unix_socket;

		if (m[i].refused || held->scanned || !u || !unix_socket_must_be_alone(u))
			continue;
		holders[i].ino = held->ino;
		held->scanned = true;
		n_new++;
	}
	if (!n_new)
		return;
	fdtable_scan_outside(t, holders, n);
	for (size_t i = 0; i < n; i++) {
		if (!holders[i].pid || (t->msg->descs[m[i].desc]->unix_socket->relay && fdtable_is_leaked(t, m[i].desc, "unix socket", NULL)))
			continue;
		refusals_add(refusals, "fd.socket.unix.outside", "another process has it open too, and would stay behind",
			"let the other process end first", "fd %d (unix socket; pid %d, its fd %d)", m[i].fd, (int)holders[i].pid, holders[i].fd);
		refusals_blame(refusals, refusals->n - 1, holders[i].pid);
		t->held[m[i].desc].scanned = false;
		m[i].refused = true;
	}
}

static void name_sender(const struct fdtable *t, Gw__FdUnixCred *cred)
{
	for (uint32_t v = 0; cred && v < t->n_views && !cred->process; v++)
		if (t->views[v].pid == cred->pid)
			cred->process = v + 1;
}

/* Those on connections that nobody has accepted are shown only if the program asks for them then: one that is gone is left out. */
static void name_waiting(const struct fdtable *t, Gw__FdUnix *u)
{
	for (size_t i = 0; u && i < u->n_waiting; i++)
		for (size_t k = 0; k < u->waiting[i]->n_queue; k++)
			name_sender(t, u->waiting[i]->queue[k]->cred);
}

/* Credentials name processes by their place in the unit. Who relays is another one at each host. */
static int name_senders(const struct fdtable *t, const struct unix_member *m, struct refusals *refusals)
{
	const struct fd_held *held = &t->held[m->desc];

	for (size_t k = 0; k < held->n_queue; k++) {
		Gw__FdUnixCred *cred = held->queue[k]->cred;

		if (!cred)
			continue;
		name_sender(t, cred);
		if (!cred->process && !t->msg->descs[m->desc]->unix_socket->relay) {
			refusals_add(refusals, "fd.socket.unix.cred", "a message in its queue has the credentials of a process that does not move with it",
				"try again when the program has read it", "fd %d (unix socket; sender %d)", m->fd, cred->pid);
			return FD_REFUSED;
		}
	}
	return 0;
}

/* What lies in a relayed one at home stays there, for who relays it. Descriptors cannot be relayed. */
static int take_relay(struct fdtable *t, const struct unix_member *m, struct refusals *refusals)
{
	struct fd_held *held = &t->held[m->desc];

	for (size_t k = 0; k < held->n_queue; k++)
		if (held->queue[k]->n_descs) {
			refusals_add(refusals, "fd.socket.unix.inflight", "descriptors that a process outside has sent lie in its queue",
				"try again when the program has received them", "fd %d (unix socket)", m->fd);
			return FD_REFUSED;
		}
	if (!t->relays_travel) {
		unix_queue_free(held->queue, held->n_queue, false);
		held->queue = NULL;
		held->n_queue = 0;
	}
	return 0;
}

/* It stays; the unit has one whose other end is gone. */
static void leave(struct fd_held *held, Gw__FdUnix *u)
{
	u->relay = false;
	unix_queue_free(held->queue, held->n_queue, false);
	held->queue = NULL;
	held->n_queue = 0;
}

int fdtable_capture_unix(struct fdtable *t, struct refusals *refusals, struct err *e)
{
	cleanup_free struct unix_member *m = NULL;
	size_t n = 0;
	int r;

	list_members(t, &m, &n);
	if (!n)
		return 0;
	r = unix_sockets_capture(m, n, t->msg, t->frozen, refusals, e);
	if (r < 0)
		return r;
	/* To go through all processes takes long, and what is left to look at is one of them at a time. */
	for (size_t i = 0; i < n && t->running; i++)
		fdtable_let_go(t, m[i].desc);
	look_outside(t, m, n, refusals);
	for (size_t i = 0; i < n; i++) {
		struct fd_held *held = &t->held[m[i].desc];
		Gw__FdUnix *u = t->msg->descs[m[i].desc]->unix_socket;

		if (u && held->leaked)
			leave(held, u);
		held->peer_ino = held->leaked ? 0 : m[i].peer_ino;
		if (u && u->relay && !m[i].refused)
			m[i].refused = take_relay(t, &m[i], refusals) < 0;
		held->unix_refused = m[i].refused || name_senders(t, &m[i], refusals);
		name_waiting(t, u);
		name_sender(t, u ? u->peer_cred : NULL);
		if (!u)
			continue;
		unix_queue_free(u->queue, u->n_queue, false);
		u->queue = held->queue;
		u->n_queue = held->n_queue;
		held->queue = NULL;
		held->n_queue = 0;
	}
	renew(t, m, n);
	return 0;
}
