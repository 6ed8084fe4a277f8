/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_place.c - the destination's side of the tables: what the processes of the skeleton do themselves
 *
 * Numbers (file_numbers.c), entries of epoll sets, owners, POSIX locks. Nothing here depends on the order in which the processes run
 * their lists: each description is made in the worker (file_restore.c), and what one process has to do with it needs no other. Of
 * processes that share a table, the first does everything but the locks. An owner is set by the first process that has the
 * description; an entry of an epoll set is added by one that has the set and, if there is one, the entry's number for what it watches.
 * What no process has together with the set is brought into one for a moment (a *guest*). A set that no process has, since it is in flight, is a guest
 * of the first table.
 */
#include "image/file_place.h"
#include "image/mqueue.h"
#include "image/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/dir_notify.h"
#include "image/epoll.h"
#include "image/file_look.h"
#include "image/file_owner.h"
#include "image/flock.h"
#include "image/socket_listen.h"
#include "image/socket_tcp.h"
#include "image/unix_name.h"

/* The tables at the moment that a plan runs, seen from one of them. */
struct lookup {
	const Gw__FdTable *t;
	int *first;      /* of each table and description: a number, or -1 */
	uint32_t *home;  /* of each description: the first table with a number of it, or UINT32_MAX */
	bool has_epoll;
	uint32_t table;  /* whose turn it is */
	int *guests;     /* of each description: its number for the moment, or -1; NULL: none */
	uint32_t epoll;  /* the set that is planned */
};

static int *lookup_first(const struct lookup *l, uint32_t table, uint32_t desc)
{
	return &l->first[(size_t)table * l->t->n_descs + desc];
}

static void lookup_init(struct lookup *l, const Gw__FdTable *t)
{
	size_t n = t->n_tables * t->n_descs;

	*l = (struct lookup){ .t = t, .first = fd_alloc(n * sizeof(*l->first)), .home = fd_alloc(t->n_descs * sizeof(*l->home)) };
	memset(l->first, 0xff, n * sizeof(*l->first));
	memset(l->home, 0xff, t->n_descs * sizeof(*l->home));
	for (uint32_t k = 0; k < t->n_tables; k++)
		for (size_t i = t->tables[k]->n_fd; i-- > 0;) {
			uint32_t desc = t->tables[k]->desc[i];

			*lookup_first(l, k, desc) = (int)t->tables[k]->fd[i];
			if (l->home[desc] == UINT32_MAX)
				l->home[desc] = k;
		}
	for (size_t i = 0; i < t->n_descs && !l->has_epoll; i++)
		l->has_epoll = t->descs[i]->kind == GW__FD_KIND__FD_EPOLL;
}

static void lookup_free(struct lookup *l)
{
	free(l->first);
	free(l->home);
	free(l->guests);
}

/* Index of a number in a table, or -1. */
static ssize_t find_number(const Gw__FdNumbers *n, uint32_t fd)
{
	size_t low = 0, high = n->n_fd;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (n->fd[middle] == fd)
			return (ssize_t)middle;
		if (n->fd[middle] < fd)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

static int lookup_slot(const void *arg, uint32_t fd, bool *ret_cloexec)
{
	const struct lookup *l = arg;
	const Gw__FdNumbers *n = l->t->tables[l->table];
	ssize_t at = find_number(n, fd);

	if (at < 0)
		return -1;
	*ret_cloexec = n->cloexec[at];
	return (int)n->desc[at];
}

static int lookup_number(const void *arg, uint32_t desc)
{
	const struct lookup *l = arg;
	int number = *lookup_first(l, l->table, desc);

	return number < 0 && l->guests ? l->guests[desc] : number;
}

/* The number of a set in the table whose turn it is, if its entries are that table's: -1 when they are not, or it is to be a guest still. */
static int lookup_set(const struct lookup *l, uint32_t epoll, bool *ret_guest)
{
	*ret_guest = l->home[epoll] == UINT32_MAX && l->table == 0;
	return *ret_guest ? lookup_number(l, epoll) : *lookup_first(l, l->table, epoll);
}

/* Which table is the one for an entry of the set l->epoll. */
static uint32_t find_table(const struct lookup *l, const Gw__FdEpollItem *item)
{
	uint32_t best = 0;
	int best_rank = -1;

	if (l->home[l->epoll] == UINT32_MAX)
		return 0;
	for (uint32_t k = 0; k < l->t->n_tables; k++) {
		const Gw__FdNumbers *n = l->t->tables[k];
		ssize_t at = find_number(n, item->fd);
		int rank = *lookup_first(l, k, l->epoll) < 0 ? -1 : at >= 0 && n->desc[at] == item->desc ? 2 :
			*lookup_first(l, k, item->desc) >= 0 ? 1 : 0;

		if (rank > best_rank) {
			best_rank = rank;
			best = k;
		}
	}
	return best;
}

static bool lookup_mine(const void *arg, const Gw__FdEpollItem *item)
{
	const struct lookup *l = arg;

	return l->t->n_tables == 1 || find_table(l, item) == l->table;
}

/* The lowest number that the table uses neither in a nor in b (b may be NULL), and that is not `except`. */
static int spare_number(const Gw__FdTable *a, const Gw__FdTable *b, uint32_t table, int except)
{
	struct number_use use = { 0 };
	int spare;

	number_use_add(&use, a, table, true);
	if (b)
		number_use_add(&use, b, table, true);
	if (except >= 0)
		number_use_set(&use, except, true);
	spare = number_use_take(&use);
	free(use.used);
	return spare;
}

int fdtable_restore_place(const Gw__FdTable *t, uint32_t process, struct fd_restore *r, struct fd_transfer *x, struct batch *b,
	struct err *e)
{
	uint32_t table = t->table_of[process];
	const struct placing p = { r, x, b };
	cleanup_free uint8_t *take = NULL;
	struct number_use use = { 0 };
	int spare, result;

	if (fdtable_first_sharer(t, process) != process)
		return 0;
	spare = spare_number(t, NULL, table, -1);
	if (spare != x->task_number)
		batch_call(b, "moving the transfer socket (dup3)", SYS_dup3, (uint64_t)x->task_number, (uint64_t)spare, O_CLOEXEC);
	x->task_number = spare;
	if (spare > 0)
		batch_call(b, "close_range", SYS_close_range, 0, (uint64_t)spare - 1);
	batch_call(b, "close_range", SYS_close_range, (uint64_t)spare + 1, UINT32_MAX);
	number_use_set(&use, spare, true);
	take = fd_alloc(t->tables[table]->n_fd);
	memset(take, 1, t->tables[table]->n_fd);
	result = placing_slots(&p, t, table, take, &use, true, e);
	free(use.used);
	return result;
}

/* --- guests --- */

static bool same_items(const Gw__FdDesc *a, const Gw__FdDesc *b)
{
	bool same = a && b && a->n_items == b->n_items && bytes_equal(a->epoll_params, b->epoll_params);

	if (a == b)
		return true;
	for (size_t i = 0; same && i < a->n_items; i++)
		same = a->items[i]->fd == b->items[i]->fd && a->items[i]->desc == b->items[i]->desc &&
			a->items[i]->events == b->items[i]->events && a->items[i]->data == b->items[i]->data;
	return same;
}

/* Marks a description as a guest, if the process does not have it. Returns how many guests there are more. */
static size_t mark_guest(struct lookup *l, uint32_t desc)
{
	if (lookup_number(l, desc) >= 0)
		return 0;
	if (!l->guests) {
		l->guests = fd_alloc(l->t->n_descs * sizeof(*l->guests));
		memset(l->guests, 0xff, l->t->n_descs * sizeof(*l->guests));
	}
	l->guests[desc] = 0; /* no longer -1: counted once */
	return 1;
}

/* Marks what entries of this table's epoll sets watch and the process does not have. Returns how many. */
static size_t find_guests(struct lookup *l, const Gw__FdTable *other)
{
	size_t n = 0;

	for (uint32_t i = 0; i < l->t->n_descs; i++) {
		const Gw__FdDesc *d = l->t->descs[i];
		bool guest;

		if (d->kind != GW__FD_KIND__FD_EPOLL || (lookup_set(l, i, &guest) < 0 && !guest) ||
		    same_items(d, other && i < other->n_descs ? other->descs[i] : NULL))
			continue;
		l->epoll = i;
		n += guest ? mark_guest(l, i) : 0;
		for (size_t k = 0; k < d->n_items; k++)
			n += lookup_mine(l, d->items[k]) ? mark_guest(l, d->items[k]->desc) : 0;
	}
	return n;
}

/* Brings the guests; `other`: the tables after or before, NULL: none. `except`: a further number that is not free. */
static int bring_guests(const struct placing *p, struct lookup *l, const Gw__FdTable *other, int except, struct err *e)
{
	size_t n = find_guests(l, other), at = 0;
	cleanup_free struct fd_wanted *wanted = NULL;
	struct number_use now = { 0 }, never = { 0 };
	int result;

	if (!n)
		return 0;
	wanted = fd_alloc(n * sizeof(*wanted));
	number_use_add(&now, l->t, l->table, false);
	number_use_set(&now, p->x->task_number, true);
	number_use_add(&never, l->t, l->table, true);
	if (other)
		number_use_add(&never, other, l->table, true);
	number_use_set(&never, p->x->task_number, true);
	number_use_set(&never, except, true);
	for (uint32_t i = 0; i < l->t->n_descs; i++)
		if (l->guests[i] >= 0) {
			l->guests[i] = number_use_take(&never);
			wanted[at++] = (struct fd_wanted){ i, l->guests[i], true };
		}
	result = placing_send(p, wanted, n, &now, false, e);
	free(now.used);
	free(never.used);
	return result;
}

static void dismiss_guests(const struct placing *p, struct lookup *l)
{
	for (uint32_t i = 0; l->guests && i < l->t->n_descs; i++)
		if (l->guests[i] >= 0)
			batch_call(p->b, "close", SYS_close, (uint64_t)l->guests[i]);
	free(l->guests);
	l->guests = NULL;
}

/* --- epoll sets, owners --- */

static int plan_additions(const struct placing *p, const Gw__FdTable *old, struct lookup *l, struct err *e)
{
	int spare = l->has_epoll ? spare_number(l->t, NULL, l->table, p->x->task_number) : -1;
	int result = l->has_epoll ? bring_guests(p, l, old, spare, e) : 0;
	struct fd_numbers numbers = { lookup_slot, lookup_number, lookup_mine, spare, l };

	for (uint32_t i = 0; i < l->t->n_descs && result == 0; i++) {
		const Gw__FdDesc *d = l->t->descs[i], *was = old && i < old->n_descs ? old->descs[i] : NULL;
		bool guest;
		int fd = lookup_set(l, i, &guest);

		if (fd < 0 || d == was)
			continue;
		l->epoll = i;
		if (d->kind == GW__FD_KIND__FD_EPOLL)
			result = epoll_plan_add(p->b, was, d, fd, &numbers, e);
		/* The first process with the description is the one to name its owner. */
		if (l->home[i] != l->table)
			continue;
		fd_owner_plan(p->b, d->kind == GW__FD_KIND__FD_LEASED ? NULL : was, d, fd);
		if (old)
			dir_notify_plan(p->b, d, fd);
	}
	dismiss_guests(p, l);
	return result;
}

static int plan_removals(const struct placing *p, const Gw__FdTable *new, struct lookup *l, struct err *e)
{
	struct fd_numbers numbers = { lookup_slot, lookup_number, lookup_mine, -1, l };
	int result;

	if (!l->has_epoll)
		return 0;
	numbers.spare = spare_number(l->t, new, l->table, p->x->task_number);
	result = bring_guests(p, l, new, numbers.spare, e);
	for (uint32_t i = 0; i < l->t->n_descs && result == 0; i++) {
		bool guest;
		int fd = lookup_set(l, i, &guest);

		l->epoll = i;
		if (l->t->descs[i] != new->descs[i] && l->t->descs[i]->kind == GW__FD_KIND__FD_EPOLL && new->descs[i]->kind == GW__FD_KIND__FD_EPOLL && fd >= 0)
			epoll_plan_remove(p->b, l->t->descs[i], new->descs[i], fd, &numbers);
	}
	dismiss_guests(p, l);
	return result;
}

int fdtable_restore_late(const Gw__FdTable *t, uint32_t process, struct fd_restore *r, struct fd_transfer *x, struct batch *b,
	struct err *e)
{
	const struct placing p = { r, x, b };
	struct lookup l;
	int result;

	if (fdtable_first_sharer(t, process) != process)
		return 0;
	lookup_init(&l, t);
	l.table = t->table_of[process];
	result = plan_additions(&p, NULL, &l, e);
	if (result == 0)
		result = placing_run(&p, e);
	lookup_free(&l);
	return result;
}

/* --- the freeze --- */

static bool has_leased(const Gw__FdTable *t, const Gw__FdNumbers *n)
{
	for (size_t i = 0; i < n->n_fd; i++)
		if (t->descs[n->desc[i]]->kind == GW__FD_KIND__FD_LEASED)
			return true;
	return false;
}

/*
 * Marks the numbers of the table `new` of t that must be placed, plans closing what they replace and F_SETFD for the rest. What was not opened before
 * is placed like something new.
 */
static void plan_table_changes(const Gw__FdTable *t, const Gw__FdNumbers *old, const Gw__FdNumbers *new, struct batch *b, uint8_t *take,
	struct number_use *use)
{
	size_t j = 0;

	for (size_t i = 0; i < new->n_fd || j < old->n_fd;) {
		if (i == new->n_fd || (j < old->n_fd && old->fd[j] < new->fd[i])) {
			batch_call(b, "close", SYS_close, old->fd[j++]);
			continue;
		}
		if (j == old->n_fd || old->fd[j] > new->fd[i]) {
			take[i++] = 1;
			continue;
		}
		if (old->desc[j] != new->desc[i] || t->descs[new->desc[i]]->kind == GW__FD_KIND__FD_LEASED) {
			batch_call(b, "close", SYS_close, old->fd[j]);
			take[i] = 1;
		} else {
			number_use_set(use, (int)new->fd[i], true);
			if (old->cloexec[j] != new->cloexec[i])
				batch_call(b, "F_SETFD", SYS_fcntl, new->fd[i], F_SETFD, new->cloexec[i] ? FD_CLOEXEC : 0);
		}
		i++;
		j++;
	}
}

/* Closes, replaces and adds numbers. */
static int plan_numbers(const struct placing *p, const Gw__FdTable *old, const Gw__FdTable *new, uint32_t table, struct err *e)
{
	cleanup_free uint8_t *take = fd_alloc(new->tables[table]->n_fd);
	int spare = spare_number(old, new, table, -1), result;
	struct number_use use = { 0 };

	/* The transfer socket's number may be wanted now. */
	if (spare != p->x->task_number) {
		batch_call(p->b, "moving the transfer socket (dup3)", SYS_dup3, (uint64_t)p->x->task_number, (uint64_t)spare, O_CLOEXEC);
		batch_call(p->b, "close", SYS_close, (uint64_t)p->x->task_number);
		p->x->task_number = spare;
	}
	number_use_set(&use, spare, true);
	plan_table_changes(new, old->tables[table], new->tables[table], p->b, take, &use);
	result = placing_slots(p, new, table, take, &use, false, e);
	free(use.used);
	return result;
}

/* Everything of one table but the locks. */
static int plan_table(const struct placing *p, struct lookup *before, struct lookup *after, uint32_t table, struct err *e)
{
	const Gw__FdTable *old = before->t, *new = after->t;
	int result;

	before->table = after->table = table;
	result = plan_removals(p, new, before, e);
	if (result == 0 && (!fdtable_numbers_same(old->tables[table], new->tables[table]) || has_leased(new, new->tables[table])))
		result = plan_numbers(p, old, new, table, e);
	return result == 0 ? plan_additions(p, old, after, e) : result;
}

/*
 * A lock carries the pid of the process that takes it. But a process that shares a table does not know when the first has brought its
 * numbers up to date: then the first takes it.
 */
static int plan_locks(const Gw__FdTable *old, struct lookup *after, uint32_t process, const struct fd_target *targets, struct err *e)
{
	const Gw__FdTable *new = after->t;
	uint32_t table = new->table_of[process], taker = process;

	after->table = table;
	if (!fdtable_numbers_same(old->tables[table], new->tables[table]))
		taker = fdtable_first_sharer(new, process);
	for (size_t i = 0; i < new->n_locks; i++) {
		int fd;

		if (new->locks[i]->process != process)
			continue;
		fd = *lookup_first(after, table, new->locks[i]->desc);
		if (fd < 0)
			return err_set(e, -EPROTO, "descriptor table: a lock of a process that does not have the file open");
		flock_plan(targets[taker].b, new->locks[i], true, fd);
	}
	return 0;
}

/* Sockets that are closed, or made anew: their ports are needed, and nobody is to hear of the end of a connection. */
static void forget_sockets(const Gw__FdTable *old, const Gw__FdTable *new, struct fd_restore *r)
{
	for (size_t i = 0; i < old->n_descs; i++) {
		if (old->descs[i] == new->descs[i] || !old->descs[i]->socket || new->descs[i]->kind != GW__FD_KIND__FD_CLOSED)
			continue;
		if (!old->descs[i]->socket->tcp) {
			socket_listen_yield(old->descs[i], r->fds[i]);
			continue;
		}
		socket_tcp_forget(r->fds[i]);
		socket_tcp_forget(r->others[i]);
		close_fdp(&r->others[i]);
	}
}

int fdtable_restore_update(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r,
	const struct fd_target *targets, struct err *e)
{
	struct lookup before, after;
	int result = fdtable_validate_update(old, new, e);

	if (result == 0)
		forget_sockets(old, new, r);
	if (result == 0)
		result = fdtable_open_from(new, old->n_descs, env, r, e);
	if (result == 0)
		result = fdtable_fill(old, new, env, r, e);
	if (result < 0)
		return result;
	lookup_init(&before, old);
	lookup_init(&after, new);
	for (uint32_t i = 0; i < new->n_table_of && result == 0; i++) {
		const struct placing p = { r, targets[i].x, targets[i].b };

		if (fdtable_first_sharer(new, i) == i)
			result = plan_table(&p, &before, &after, new->table_of[i], e);
	}
	for (uint32_t i = 0; i < new->n_table_of && result == 0; i++)
		result = plan_locks(old, &after, i, targets, e);
	for (uint32_t i = 0; i < new->n_table_of && result == 0; i++)
		if (fdtable_first_sharer(new, i) == i)
			batch_call(targets[i].b, "closing the transfer socket", SYS_close, (uint64_t)targets[i].x->task_number);
	lookup_free(&before);
	lookup_free(&after);
	for (size_t i = 0; i < new->n_descs; i++)
		if ((i >= old->n_descs || old->descs[i] != new->descs[i]) && new->descs[i]->kind == GW__FD_KIND__FD_CLOSED)
			close_fdp(&r->fds[i]);
	return result;
}

static void close_all(struct fd_restore *r)
{
	struct lease_late late = r->late;

	unix_den_clear(&r->den);
	for (size_t i = 0; i < r->n; i++) {
		close_fdp(&r->fds[i]);
		close_fdp(&r->others[i]);
	}
	for (size_t i = 0; i < r->n_aside; i++)
		free(r->aside[i]);
	for (size_t i = 0; i < r->n_relays; i++)
		close_fdp(&r->relays[i].fd);
	free(r->relays);
	free(r->aside);
	pty_set_free(&r->ptys);
	free(r->fds);
	free(r->others);
	free(r->arrivals);
	*r = FD_RESTORE_INIT;
	r->late = late;
}

/* Those that a number refers to; the others travel in queues. */
static uint8_t *find_numbered(const Gw__FdTable *t)
{
	uint8_t *ret = fd_alloc(t->n_descs);

	for (size_t k = 0; k < t->n_tables; k++)
		for (size_t i = 0; i < t->tables[k]->n_fd; i++)
			if (t->tables[k]->desc[i] < t->n_descs)
				ret[t->tables[k]->desc[i]] = 1;
	return ret;
}

void fdtable_restore_drop(struct fd_restore *r, const Gw__FdTable *t)
{
	cleanup_free uint8_t *numbered = find_numbered(t);

	for (size_t i = 0; i < r->n; i++) {
		if (i >= t->n_descs || numbered[i] || !socket_tcp_must_settle(t, i))
			close_fdp(&r->fds[i]);
		close_fdp(&r->others[i]);
	}
}

void fdtable_restore_free(struct fd_restore *r)
{
	for (size_t i = 0; i < r->n_aside; i++)
		unix_aside_remove(r->aside[i]);
	mqueue_done(false);
	close_all(r);
}

void fdtable_restore_undo(struct fd_restore *r)
{
	for (size_t i = 0; i < r->n_aside; i++)
		unix_aside_restore(r->aside[i]);
	for (size_t i = 0; i < r->n; i++) {
		socket_tcp_forget(r->fds[i]);
		socket_tcp_forget(r->others[i]);
	}
	mqueue_done(true);
	close_all(r);
	lease_late_free(&r->late);
}
