/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_place.c - the destination's side of a descriptor table: descriptions get their numbers in the skeleton
 *
 * Theory of operation: the worker sends up to 253 descriptors in one SCM_RIGHTS message, and the skeleton's recvmsg gives them
 * the lowest free numbers, in order. Since the plan knows every number in use, it knows which these are, and one batch can
 * receive and dup3 without looking. Descriptions are sent in ascending order of the number that they are for. Then the j-th
 * number received is never above the j-th number wanted, and moving them from the last to the first never overwrites one that
 * still waits. A dense table (0, 1, 2, ...) needs no dup3 at all. fdtable_restore_check compares the numbers received with those
 * counted on.
 */
#include "image/file_place.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/epoll.h"
#include "image/file_look.h"
#include "image/flock.h"
#include "image/socket_listen.h"

#define SCM_MAX 253u

/* A message that the skeleton receives in a batch. */
struct fd_arrival {
	const uint8_t *control;   /* in the scratch */
	uint32_t n;
	int expected[SCM_MAX];
};

/* Which number is in use, as far as the plan has got. */
struct number_use {
	uint8_t *used;
	size_t n;
	size_t lowest; /* nothing below is free */
};

/* One description and the first number that it is for. */
struct wanted {
	uint32_t desc;
	int fd;
	bool cloexec;
};

static void use_set(struct number_use *u, int fd, bool used)
{
	if (!u->used || (size_t)fd >= u->n) {
		size_t n = (size_t)fd * 2 + 512;

		u->used = realloc(u->used, n);
		if (!u->used)
			abort();
		memset(u->used + u->n, 0, n - u->n);
		u->n = n;
	}
	u->used[fd] = used;
	if (!used && (size_t)fd < u->lowest)
		u->lowest = (size_t)fd;
}

static int use_take_lowest(struct number_use *u)
{
	size_t fd = u->lowest;

	while (u->used && fd < u->n && u->used[fd])
		fd++;
	use_set(u, (int)fd, true);
	u->lowest = fd + 1;
	return (int)fd;
}

static void use_table(struct number_use *u, const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_slot_fd; i++)
		use_set(u, (int)t->slot_fd[i], true);
	/* Entries of epoll sets may need a number for a moment that is not open. */
	for (size_t i = 0; i < t->n_descs; i++)
		for (size_t j = 0; j < t->descs[i]->n_items; j++)
			use_set(u, (int)t->descs[i]->items[j]->fd, true);
}

/* The lowest number that neither table uses (b may be NULL), and that is not `except`. */
static int spare_number(const Gw__FdTable *a, const Gw__FdTable *b, int except)
{
	struct number_use use = { 0 };
	int spare;

	use_table(&use, a);
	if (b)
		use_table(&use, b);
	if (except >= 0)
		use_set(&use, except, true);
	spare = use_take_lowest(&use);
	free(use.used);
	return spare;
}

static int send_descriptors(int socket_fd, const int *fds, uint32_t n, struct err *e)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(SCM_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (char[]){ 'F' }, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	if (sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return err_sys(e, -errno, "sending %u descriptors to the skeleton", n);
	return 0;
}

/* The skeleton's recvmsg of n descriptors. */
static void plan_receive(struct fd_restore *r, struct batch *b, uint32_t n, bool cloexec, struct fd_arrival *arrival)
{
	size_t control_len = CMSG_SPACE(n * sizeof(int));
	uint64_t message_at, iov_at, control_at, byte_at;
	struct msghdr *message = batch_space(b, sizeof(*message), &message_at);
	struct iovec *iov = batch_space(b, sizeof(*iov), &iov_at);

	batch_space(b, 1, &byte_at);
	arrival->control = batch_space(b, control_len, &control_at);
	arrival->n = n;
	iov->iov_base = (void *)byte_at;
	iov->iov_len = 1;
	message->msg_iov = (void *)iov_at;
	message->msg_iovlen = 1;
	message->msg_control = (void *)control_at;
	message->msg_controllen = control_len;
	batch_call(b, "receiving descriptors (recvmsg)", SYS_recvmsg, (uint64_t)r->transfer_task, message_at,
		cloexec ? MSG_CMSG_CLOEXEC : 0);
}

/* Sends up to SCM_MAX descriptions and plans their arrival at the numbers wanted (ascending). */
static int plan_chunk(struct fd_restore *r, struct batch *b, const struct wanted *w, uint32_t n, struct number_use *use, struct err *e)
{
	struct fd_arrival *arrivals = realloc(r->arrivals, (r->n_arrivals + 1) * sizeof(*arrivals)), *a;
	int fds[SCM_MAX], result;
	uint32_t n_cloexec = 0;
	bool born_cloexec;

	if (!arrivals)
		return err_set(e, -ENOMEM, "no memory for a list of descriptors");
	r->arrivals = arrivals;
	a = &arrivals[r->n_arrivals++];
	for (uint32_t i = 0; i < n; i++) {
		fds[i] = r->fds[w[i].desc];
		n_cloexec += w[i].cloexec;
	}
	result = send_descriptors(r->transfer_worker, fds, n, e);
	if (result < 0)
		return result;
	born_cloexec = n_cloexec * 2 > n;
	plan_receive(r, b, n, born_cloexec, a);
	for (uint32_t i = 0; i < n; i++)
		a->expected[i] = use_take_lowest(use);
	for (uint32_t i = n; i-- > 0;) {
		uint64_t got = (uint64_t)a->expected[i], fd = (uint64_t)w[i].fd;

		if (got != fd) {
			batch_call(b, "dup3", SYS_dup3, got, fd, w[i].cloexec ? O_CLOEXEC : 0);
			batch_call(b, "close", SYS_close, got);
			use_set(use, (int)got, false);
			use_set(use, (int)fd, true);
		} else if (w[i].cloexec != born_cloexec) {
			batch_call(b, "F_SETFD", SYS_fcntl, fd, F_SETFD, w[i].cloexec ? FD_CLOEXEC : 0);
		}
	}
	return 0;
}

int fdtable_restore_check(struct fd_restore *r, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < r->n_arrivals && result == 0; i++) {
		const struct fd_arrival *a = &r->arrivals[i];
		const struct cmsghdr *c = (const void *)a->control;

		if (c->cmsg_len != CMSG_LEN(a->n * sizeof(int)) || memcmp(CMSG_DATA(c), a->expected, a->n * sizeof(int)))
			result = err_set(e, -EIO,
				"the skeleton received its descriptors at unexpected numbers (a limit of open files that is too low?)");
	}
	free(r->arrivals);
	r->arrivals = NULL;
	r->n_arrivals = 0;
	return result;
}

static int run_and_check(struct fd_restore *r, struct batch *b, struct err *e)
{
	int result = batch_run(b, e);

	if (result >= 0)
		result = fdtable_restore_check(r, e);
	batch_reset(b);
	return result < 0 ? result : 0;
}

/*
 * Sends what the slots for which take(i) holds refer to, and plans dup3 for further numbers of the same description. Each
 * description is sent once, for the first of its numbers. When `run` is set, the batch runs after each message, so that its size
 * stays bounded.
 */
static int place_slots(const Gw__FdTable *t, const uint8_t *take, struct fd_restore *r, struct batch *b, struct number_use *use,
	bool run, struct err *e)
{
	cleanup_free struct wanted *wanted = fd_alloc(t->n_slot_fd * sizeof(*wanted));
	cleanup_free int *first = fd_alloc(t->n_descs * sizeof(*first));
	size_t n = 0, n_calls = 0;
	int result = 0;

	for (size_t i = 0; i < t->n_descs; i++)
		first[i] = -1;
	for (size_t i = 0; i < t->n_slot_fd; i++) {
		if (!take[i] || first[t->slot_desc[i]] >= 0)
			continue;
		first[t->slot_desc[i]] = (int)t->slot_fd[i];
		wanted[n++] = (struct wanted){ t->slot_desc[i], (int)t->slot_fd[i], t->slot_cloexec[i] };
	}
	for (size_t at = 0; at < n && result == 0; at += SCM_MAX) {
		result = plan_chunk(r, b, wanted + at, (uint32_t)MIN(n - at, (size_t)SCM_MAX), use, e);
		if (result == 0 && run)
			result = run_and_check(r, b, e);
	}
	for (size_t i = 0; i < t->n_slot_fd && result == 0; i++) {
		if (!take[i] || first[t->slot_desc[i]] == (int)t->slot_fd[i])
			continue;
		batch_call(b, "dup3", SYS_dup3, (uint64_t)first[t->slot_desc[i]], t->slot_fd[i], t->slot_cloexec[i] ? O_CLOEXEC : 0);
		if (run && ++n_calls % SCM_MAX == 0)
			result = run_and_check(r, b, e);
	}
	return result == 0 && run ? run_and_check(r, b, e) : result;
}

int fdtable_restore_place(const Gw__FdTable *t, struct fd_restore *r, struct batch *b, struct err *e)
{
	cleanup_free uint8_t *take = fd_alloc(t->n_slot_fd);
	struct number_use use = { 0 };
	int spare = spare_number(t, NULL, -1), result;

	if (spare != r->transfer_task)
		batch_call(b, "moving the transfer socket (dup3)", SYS_dup3, (uint64_t)r->transfer_task, (uint64_t)spare, O_CLOEXEC);
	r->transfer_task = spare;
	if (spare > 0)
		batch_call(b, "close_range", SYS_close_range, 0, (uint64_t)spare - 1);
	batch_call(b, "close_range", SYS_close_range, (uint64_t)spare + 1, UINT32_MAX);
	use_set(&use, spare, true);
	memset(take, 1, t->n_slot_fd);
	result = place_slots(t, take, r, b, &use, true, e);
	free(use.used);
	return result;
}

/* Lookups for epoll and locks in one table. */
struct lookup {
	const Gw__FdTable *t;
	int *first; /* a number of each description */
};

static void lookup_init(struct lookup *l, const Gw__FdTable *t)
{
	l->t = t;
	l->first = fd_alloc(t->n_descs * sizeof(*l->first));
	for (size_t i = 0; i < t->n_descs; i++)
		l->first[i] = -1;
	for (size_t i = t->n_slot_fd; i-- > 0;)
		l->first[t->slot_desc[i]] = (int)t->slot_fd[i];
}

static int lookup_slot(const void *arg, uint32_t fd, bool *ret_cloexec)
{
	const Gw__FdTable *t = ((const struct lookup *)arg)->t;
	size_t low = 0, high = t->n_slot_fd;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (t->slot_fd[middle] == fd) {
			*ret_cloexec = t->slot_cloexec[middle];
			return (int)t->slot_desc[middle];
		}
		if (t->slot_fd[middle] < fd)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

static int lookup_number(const void *arg, uint32_t desc)
{
	return ((const struct lookup *)arg)->first[desc];
}

/* F_SETOWN, F_SETSIG, O_ASYNC: by the task, for its own numbers. */
static void plan_owner(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, pid_t self_pid)
{
	if (fd < 0 || d->kind == GW__FD_KIND__FD_PATH || d->kind == GW__FD_KIND__FD_CLOSED)
		return;
	if (d->signal != (was ? was->signal : 0))
		batch_call(b, "F_SETSIG", SYS_fcntl, (uint64_t)fd, F_SETSIG, d->signal);
	if (d->owner_self != (was && was->owner_self))
		batch_call(b, "F_SETOWN", SYS_fcntl, (uint64_t)fd, F_SETOWN, (uint64_t)(d->owner_self ? self_pid : 0));
	if ((d->flags ^ (was ? was->flags : 0)) & O_ASYNC)
		batch_call(b, "F_SETFL O_ASYNC", SYS_fcntl, (uint64_t)fd, F_SETFL,
			d->flags & (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC));
}

static int plan_additions(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env,
	const struct fd_numbers *numbers, struct batch *b,
	struct err *e)
{
	for (size_t i = 0; i < new->n_descs; i++) {
		const Gw__FdDesc *d = new->descs[i], *was = old && i < old->n_descs ? old->descs[i] : NULL;
		int fd = numbers->number(numbers->arg, (uint32_t)i);
		int result = d->kind == GW__FD_KIND__FD_EPOLL ? epoll_plan_add(b, was, d, fd, numbers, e) : 0;

		if (result < 0)
			return result;
		plan_owner(b, was, d, fd, env->self_pid);
	}
	return 0;
}

int fdtable_restore_late(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *r, struct batch *b, struct err *e)
{
	struct lookup l;
	struct fd_numbers numbers = { lookup_slot, lookup_number, spare_number(t, NULL, r->transfer_task), &l };
	int result;

	lookup_init(&l, t);
	result = plan_additions(NULL, t, env, &numbers, b, e);
	if (result == 0)
		result = batch_run(b, e);
	batch_reset(b);
	free(l.first);
	return result < 0 ? result : 0;
}

/* Marks the slots of `new` that must be placed, plans closing what they replace and F_SETFD for the rest. */
static void plan_table_changes(const Gw__FdTable *old, const Gw__FdTable *new, struct batch *b, uint8_t *take, struct number_use *use)
{
	size_t j = 0;

	for (size_t i = 0; i < new->n_slot_fd || j < old->n_slot_fd;) {
		if (i == new->n_slot_fd || (j < old->n_slot_fd && old->slot_fd[j] < new->slot_fd[i])) {
			batch_call(b, "close", SYS_close, old->slot_fd[j++]);
			continue;
		}
		if (j == old->n_slot_fd || old->slot_fd[j] > new->slot_fd[i]) {
			take[i++] = 1;
			continue;
		}
		if (old->slot_desc[j] != new->slot_desc[i]) {
			batch_call(b, "close", SYS_close, old->slot_fd[j]);
			take[i] = 1;
		} else {
			use_set(use, (int)new->slot_fd[i], true);
			if (old->slot_cloexec[j] != new->slot_cloexec[i])
				batch_call(b, "F_SETFD", SYS_fcntl, new->slot_fd[i], F_SETFD, new->slot_cloexec[i] ? FD_CLOEXEC : 0);
		}
		i++;
		j++;
	}
}

/* Closes, replaces and adds numbers. */
static int plan_numbers(const Gw__FdTable *old, const Gw__FdTable *new, struct fd_restore *r, struct batch *b, struct err *e)
{
	cleanup_free uint8_t *take = fd_alloc(new->n_slot_fd);
	struct number_use use = { 0 };
	int spare = spare_number(old, new, -1), result;

	/* The transfer socket's number may be wanted now. */
	if (spare != r->transfer_task) {
		batch_call(b, "moving the transfer socket (dup3)", SYS_dup3, (uint64_t)r->transfer_task, (uint64_t)spare, O_CLOEXEC);
		batch_call(b, "close", SYS_close, (uint64_t)r->transfer_task);
		r->transfer_task = spare;
	}
	use_set(&use, spare, true);
	plan_table_changes(old, new, b, take, &use);
	result = place_slots(new, take, r, b, &use, false, e);
	free(use.used);
	return result;
}

static bool same_slots(const Gw__FdTable *a, const Gw__FdTable *b)
{
	return a->n_slot_fd == b->n_slot_fd && !memcmp(a->slot_fd, b->slot_fd, a->n_slot_fd * sizeof(*a->slot_fd)) &&
		!memcmp(a->slot_desc, b->slot_desc, a->n_slot_fd * sizeof(*a->slot_desc)) &&
		!memcmp(a->slot_cloexec, b->slot_cloexec, a->n_slot_fd * sizeof(*a->slot_cloexec));
}

static void plan_epoll_removals(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_restore *r, struct batch *b)
{
	struct lookup l;
	struct fd_numbers numbers = { lookup_slot, lookup_number, spare_number(old, new, r->transfer_task), &l };

	lookup_init(&l, old);
	for (size_t i = 0; i < old->n_descs; i++)
		if (old->descs[i]->kind == GW__FD_KIND__FD_EPOLL && new->descs[i]->kind == GW__FD_KIND__FD_EPOLL)
			epoll_plan_remove(b, old->descs[i], new->descs[i], l.first[i], &numbers);
	free(l.first);
}

int fdtable_restore_update(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r,
	struct batch *b, struct err *e)
{
	struct lookup l;
	struct fd_numbers numbers = { lookup_slot, lookup_number, -1, &l };
	int result = fdtable_validate_update(old, new, e);

	if (result == 0)
		result = fdtable_open_from(new, old->n_descs, env, r, e);
	if (result == 0)
		result = fdtable_fill(old, new, env, r, e);
	if (result < 0)
		return result;
	plan_epoll_removals(old, new, r, b);
	if (!same_slots(old, new))
		result = plan_numbers(old, new, r, b, e);
	if (result < 0)
		return result;
	lookup_init(&l, new);
	numbers.spare = spare_number(new, NULL, r->transfer_task);
	result = plan_additions(old, new, env, &numbers, b, e);
	if (result == 0)
		flock_plan(b, new->locks, new->n_locks, true, lookup_number, &l);
	free(l.first);
	batch_call(b, "closing the transfer socket", SYS_close, (uint64_t)r->transfer_task);
	for (size_t i = 0; i < new->n_descs; i++)
		if (new->descs[i]->kind == GW__FD_KIND__FD_CLOSED)
			close_fdp(&r->fds[i]);
	return result;
}

static void close_all(struct fd_restore *r)
{
	for (size_t i = 0; i < r->n; i++) {
		close_fdp(&r->fds[i]);
		close_fdp(&r->others[i]);
	}
	for (size_t i = 0; i < r->n_aside; i++)
		free(r->aside[i]);
	free(r->aside);
	free(r->fds);
	free(r->others);
	free(r->arrivals);
	*r = FD_RESTORE_INIT;
}

void fdtable_restore_free(struct fd_restore *r)
{
	for (size_t i = 0; i < r->n_aside; i++)
		socket_aside_remove(r->aside[i]);
	close_all(r);
}

void fdtable_restore_undo(struct fd_restore *r)
{
	for (size_t i = 0; i < r->n_aside; i++)
		socket_aside_restore(r->aside[i]);
	close_all(r);
}
