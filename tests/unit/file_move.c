/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_move.c - see file_move.h */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "file_move.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file_look.h"

struct file_shared {
	uint32_t wanted, done; /* number of phases asked for and run */
	int phase;
};

#define check(call, e)                                                             \
	do {                                                                       \
		if ((call) < 0)                                                    \
			fail_msg("%s: %s", #call, (e)->message);                   \
	} while (0)

static void wait_for(uint32_t *word, uint32_t value)
{
	uint32_t now;

	while ((now = __atomic_load_n(word, __ATOMIC_SEQ_CST)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, now, NULL, NULL, 0);
}

static void set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, 100, NULL, NULL, 0);
}

void file_source_start(struct file_source *s, void (*phase)(int))
{
	s->shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(s->shared != MAP_FAILED);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(0, ~0u, 0);
		for (uint32_t i = 1;; i++) {
			wait_for(&s->shared->wanted, i);
			phase(s->shared->phase);
			set(&s->shared->done, i);
		}
	}
	s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
	assert_true(s->pidfd >= 0);
}

void file_source_phase(struct file_source *s, int phase)
{
	uint32_t next = s->shared->done + 1;

	s->shared->phase = phase;
	set(&s->shared->wanted, next);
	wait_for(&s->shared->done, next);
}

void file_source_end(struct file_source *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	close_fdp(&s->pidfd);
	munmap(s->shared, 4096);
}

static void assert_no_refusals(struct refusals *r)
{
	if (r->n) {
		char *text = refusals_text(r);

		fail_msg("refused: %s", text);
	}
}

static Gw__FdTable *over_the_wire(struct file_move *m)
{
	struct err e = ERR_INIT;
	Gw__FdTable *t = NULL;
	uint8_t *data = NULL;
	size_t len = 0;

	check(fdtable_encode(&m->table, &data, &len, &e), &e);
	check(fdtable_decode(data, len, m->files.n, &t, &e), &e);
	free(data);
	return t;
}

/* Answers for all files of the table: the very files. */
static struct fsfile_answer *answers(struct file_move *m)
{
	struct fsfile_answer *a = calloc(m->files.n + 1, sizeof(*a));

	assert_non_null(a);
	for (uint32_t i = 0; i < m->files.n; i++) {
		a[i].fd = fd_reopen(m->files.v[i].fd, O_RDONLY);
		assert_true(a[i].fd >= 0);
	}
	return a;
}

static void free_answers(struct file_move *m, struct fsfile_answer *a)
{
	for (uint32_t i = 0; i < m->files.n; i++)
		close(a[i].fd);
	free(a);
}

void file_move_run(struct file_move *m, void (*phase)(int), void (*before_restore)(void))
{
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fd_env env = { 0 };
	Gw__FdTable *offer, *final;
	uint32_t n_offered;
	int pair[2];

	*m = (struct file_move){ .table = FDTABLE_INIT, .restore = FD_RESTORE_INIT };
	file_source_start(&m->source, phase);
	file_source_phase(&m->source, 0);
	check(fdtable_capture(m->source.pid, m->source.pidfd, &m->table, &m->files, &refusals, &e), &e);
	assert_no_refusals(&refusals);
	offer = over_the_wire(m);
	n_offered = m->files.n;
	if (before_restore)
		before_restore();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fake_skeleton_start(&m->skeleton, 0x10000000);
	close(pair[1]);
	m->restore.transfer_worker = pair[0];
	m->restore.transfer_task = pair[1];
	env.n_files = n_offered;
	env.answers = answers(m);
	env.self_pid = m->skeleton.pid;
	check(fdtable_restore_open(offer, &env, &m->restore, &e), &e);
	check(fdtable_restore_place(offer, &m->restore, &m->skeleton, &e), &e);
	check(fdtable_restore_late(offer, &env, &m->restore, &m->skeleton, &e), &e);
	file_source_phase(&m->source, 1);
	m->recapture_ns = clock_ns(CLOCK_MONOTONIC);
	check(fdtable_recapture(&m->table, &m->files, &refusals, &e), &e);
	m->recapture_ns = clock_ns(CLOCK_MONOTONIC) - m->recapture_ns;
	assert_no_refusals(&refusals);
	final = over_the_wire(m);
	file_source_phase(&m->source, 2);
	m->files.n = MIN(m->files.n, n_offered);
	free_answers(m, (struct fsfile_answer *)env.answers);
	m->files.n = MAX(m->files.n, n_offered);
	env.answers = answers(m);
	env.n_files = m->files.n;
	m->update_ns = clock_ns(CLOCK_MONOTONIC);
	check(fdtable_restore_update(offer, final, &env, &m->restore, &m->skeleton, &e), &e);
	check(batch_run(&m->skeleton, &e), &e);
	check(fdtable_restore_check(&m->restore, &e), &e);
	m->update_ns = clock_ns(CLOCK_MONOTONIC) - m->update_ns;
	batch_reset(&m->skeleton);
	fdtable_restore_free(&m->restore);
	close(pair[0]);
	free_answers(m, (struct fsfile_answer *)env.answers);
	gw__fd_table__free_unpacked(offer, NULL);
	gw__fd_table__free_unpacked(final, NULL);
	refusals_free(&refusals);
}

static void compare_epoll(const Gw__FdDesc *a, const Gw__FdDesc *b, const uint32_t *map)
{
	assert_int_equal(a->n_items, b->n_items);
	for (size_t i = 0; i < a->n_items; i++) {
		bool found = false;

		for (size_t j = 0; j < b->n_items; j++)
			found = found || (a->items[i]->fd == b->items[j]->fd && map[a->items[i]->desc] == b->items[j]->desc &&
				a->items[i]->data == b->items[j]->data && a->items[i]->events == b->items[j]->events);
		if (!found)
			fail_msg("epoll entry %u is missing", a->items[i]->fd);
	}
}

static void compare_pipe(const Gw__FdPipe *a, const Gw__FdPipe *b)
{
	assert_int_equal(a->size_bytes, b->size_bytes);
	assert_int_equal(a->data.len, b->data.len);
	assert_int_equal(a->n_packet_bytes, b->n_packet_bytes);
	if (a->data.len)
		assert_memory_equal(a->data.data, b->data.data, a->data.len);
	for (size_t i = 0; i < a->n_packet_bytes; i++)
		assert_int_equal(a->packet_bytes[i], b->packet_bytes[i]);
}

static void compare_desc(const struct fdtable *ta, const struct fdtable *tb, uint32_t ia, uint32_t ib, const uint32_t *map)
{
	const Gw__FdDesc *a = ta->msg->descs[ia], *b = tb->msg->descs[ib];

	assert_int_equal(a->kind, b->kind);
	/* A file made with O_TMPFILE still shows that, and O_DIRECTORY as a part of it; a copy does not. */
	assert_int_equal(a->flags & ~(a->flags & 020000000u ? 020200000u : 0), b->flags);
	assert_int_equal(a->position, b->position);
	assert_string_equal(a->path, b->path);
	assert_int_equal(a->device_minor, b->device_minor);
	assert_int_equal(a->owner_self, b->owner_self);
	assert_int_equal(a->signal, b->signal);
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->semaphore, b->semaphore);
	assert_int_equal(a->sigmask, b->sigmask);
	compare_epoll(a, b, map);
	if (a->kind == GW__FD_KIND__FD_PIPE)
		compare_pipe(ta->msg->pipes[a->index], tb->msg->pipes[b->index]);
	if (a->timer) {
		assert_int_equal(a->timer->clock, b->timer->clock);
		assert_int_equal(a->timer->ticks, b->timer->ticks);
		assert_int_equal(a->timer->interval_ns, b->timer->interval_ns);
		assert_true(llabs(a->timer->deadline_ns - b->timer->deadline_ns) < 2000000);
	}
	if (a->socket) {
		assert_int_equal(a->socket->local.len, b->socket->local.len);
		if (a->socket->local.len)
			assert_memory_equal(a->socket->local.data, b->socket->local.data, a->socket->local.len);
		assert_int_equal(a->socket->listening, b->socket->listening);
		assert_int_equal(a->socket->backlog, b->socket->backlog);
		assert_int_equal(a->socket->peer ? map[a->socket->peer - 1] + 1 : 0, b->socket->peer);
		assert_int_equal(a->socket->shut_down, b->socket->shut_down);
		assert_int_equal(a->socket->n_options, b->socket->n_options);
		for (size_t i = 0; i < a->socket->n_options; i++)
			assert_memory_equal(a->socket->options[i]->value.data, b->socket->options[i]->value.data,
				a->socket->options[i]->value.len);
	}
}

void file_move_compare(struct file_move *m)
{
	struct fdtable got = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	const Gw__FdTable *a = m->table.msg, *b;
	int pidfd = (int)syscall(SYS_pidfd_open, m->skeleton.pid, 0);
	uint32_t *map = calloc(a->n_descs + 1, sizeof(*map));

	/* The source would look like a process outside that has the skeleton's FIFO open. */
	kill(m->source.pid, SIGKILL);
	waitpid(m->source.pid, NULL, 0);
	fdtable_release(&m->table);
	check(fdtable_capture(m->skeleton.pid, pidfd, &got, &files, &refusals, &e), &e);
	assert_no_refusals(&refusals);
	b = got.msg;
	assert_int_equal(a->n_slot_fd, b->n_slot_fd);
	memset(map, 0xff, a->n_descs * sizeof(*map));
	for (size_t i = 0; i < a->n_slot_fd; i++) {
		assert_int_equal(a->slot_fd[i], b->slot_fd[i]);
		assert_int_equal(a->slot_cloexec[i], b->slot_cloexec[i]);
		if (map[a->slot_desc[i]] == UINT32_MAX)
			map[a->slot_desc[i]] = b->slot_desc[i];
		/* The same numbers share a description. */
		assert_int_equal(map[a->slot_desc[i]], b->slot_desc[i]);
	}
	for (uint32_t i = 0; i < a->n_descs; i++)
		if (map[i] != UINT32_MAX)
			compare_desc(&m->table, &got, i, map[i], map);
	assert_int_equal(a->n_locks, b->n_locks);
	for (size_t i = 0; i < a->n_locks; i++) {
		assert_int_equal(a->locks[i]->kind, b->locks[i]->kind);
		assert_int_equal(a->locks[i]->write, b->locks[i]->write);
		assert_int_equal(a->locks[i]->start, b->locks[i]->start);
		assert_int_equal(a->locks[i]->end, b->locks[i]->end);
	}
	free(map);
	fdtable_free(&got);
	fsfile_table_free(&files);
	close(pidfd);
}

int file_move_get(struct file_move *m, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, m->skeleton.pid, 0);
	int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	close(pidfd);
	assert_true(copy >= 0);
	return copy;
}

void file_move_end(struct file_move *m)
{
	fdtable_free(&m->table);
	fsfile_table_free(&m->files);
	fake_skeleton_end(&m->skeleton);
	file_source_end(&m->source);
}
