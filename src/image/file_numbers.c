/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_numbers.c - the destination's side of the tables: descriptions get their numbers in one process of the skeleton
 *
 * Theory of operation: the worker sends up to 253 descriptors in one SCM_RIGHTS message, and the process's recvmsg gives them
 * the lowest free numbers, in order. Since the plan knows every number in use, it knows which these are, and one batch can
 * receive and dup3 without looking. Descriptions are sent in ascending order of the number that they are for. Then the j-th
 * number received is never above the j-th number wanted, and moving them from the last to the first never overwrites one that
 * still waits. A dense table (0, 1, 2, ...) needs no dup3 at all. fdtable_restore_check compares the numbers received with those
 * counted on.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/file_look.h"
#include "image/file_place.h"

#define SCM_MAX 253u

/* A message that the skeleton receives in a batch. */
struct fd_arrival {
	const uint8_t *control;   /* in the scratch */
	uint32_t n;
	int expected[SCM_MAX];
};

void number_use_set(struct number_use *u, int fd, bool used)
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

int number_use_take(struct number_use *u)
{
	size_t fd = u->lowest;

	while (u->used && fd < u->n && u->used[fd])
		fd++;
	number_use_set(u, (int)fd, true);
	u->lowest = fd + 1;
	return (int)fd;
}

void number_use_add(struct number_use *u, const Gw__FdTable *t, uint32_t table, bool wide)
{
	const Gw__FdNumbers *n = t->tables[table];

	for (size_t i = 0; i < n->n_fd; i++)
		number_use_set(u, (int)n->fd[i], true);
	for (size_t i = 0; i < t->n_descs && wide; i++)
		for (size_t j = 0; j < t->descs[i]->n_items; j++)
			number_use_set(u, (int)t->descs[i]->items[j]->fd, true);
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
static void plan_receive(const struct fd_transfer *x, struct batch *b, uint32_t n, bool cloexec, struct fd_arrival *arrival)
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
	batch_call(b, "receiving descriptors (recvmsg)", SYS_recvmsg, (uint64_t)x->task_number, message_at,
		cloexec ? MSG_CMSG_CLOEXEC : 0);
}

/* Sends up to SCM_MAX descriptions and plans their arrival at the numbers wanted (ascending). */
static int plan_chunk(const struct placing *p, const struct fd_wanted *w, uint32_t n, struct number_use *use, struct err *e)
{
	struct fd_restore *r = p->r;
	struct fd_arrival *arrivals = realloc(r->arrivals, (r->n_arrivals + 1) * sizeof(*arrivals)), *a;
	struct batch *b = p->b;
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
	result = send_descriptors(p->x->worker_end, fds, n, e);
	if (result < 0)
		return result;
	born_cloexec = n_cloexec * 2 > n;
	plan_receive(p->x, b, n, born_cloexec, a);
	for (uint32_t i = 0; i < n; i++)
		a->expected[i] = number_use_take(use);
	for (uint32_t i = n; i-- > 0;) {
		uint64_t got = (uint64_t)a->expected[i], fd = (uint64_t)w[i].fd;

		if (got != fd) {
			batch_call(b, "dup3", SYS_dup3, got, fd, w[i].cloexec ? O_CLOEXEC : 0);
			batch_call(b, "close", SYS_close, got);
			number_use_set(use, (int)got, false);
			number_use_set(use, (int)fd, true);
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

int placing_run(const struct placing *p, struct err *e)
{
	int result = batch_run(p->b, e);

	if (result >= 0)
		result = fdtable_restore_check(p->r, e);
	batch_reset(p->b);
	return result < 0 ? result : 0;
}

int placing_send(const struct placing *p, const struct fd_wanted *w, size_t n, struct number_use *use, bool run, struct err *e)
{
	int result = 0;

	for (size_t at = 0; at < n && result == 0; at += SCM_MAX) {
		result = plan_chunk(p, w + at, (uint32_t)MIN(n - at, (size_t)SCM_MAX), use, e);
		if (result == 0 && run)
			result = placing_run(p, e);
	}
	return result;
}

int placing_slots(const struct placing *p, const Gw__FdTable *t, uint32_t table, const uint8_t *take, struct number_use *use, bool run,
	struct err *e)
{
	const Gw__FdNumbers *m = t->tables[table];
	cleanup_free struct fd_wanted *wanted = fd_alloc(m->n_fd * sizeof(*wanted));
	cleanup_free int *first = fd_alloc(t->n_descs * sizeof(*first));
	size_t n = 0, n_calls = 0;
	int result;

	for (size_t i = 0; i < t->n_descs; i++)
		first[i] = -1;
	for (size_t i = 0; i < m->n_fd; i++) {
		if (!take[i] || first[m->desc[i]] >= 0 || t->descs[m->desc[i]]->kind == GW__FD_KIND__FD_URING)
			continue;
		first[m->desc[i]] = (int)m->fd[i];
		wanted[n++] = (struct fd_wanted){ m->desc[i], (int)m->fd[i], m->cloexec[i] };
	}
	result = placing_send(p, wanted, n, use, run, e);
	for (size_t i = 0; i < m->n_fd && result == 0; i++) {
		if (!take[i] || first[m->desc[i]] == (int)m->fd[i] || t->descs[m->desc[i]]->kind == GW__FD_KIND__FD_URING)
			continue;
		batch_call(p->b, "dup3", SYS_dup3, (uint64_t)first[m->desc[i]], m->fd[i], m->cloexec[i] ? O_CLOEXEC : 0);
		if (run && ++n_calls % SCM_MAX == 0)
			result = placing_run(p, e);
	}
	return result == 0 && run ? placing_run(p, e) : result;
}
