/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_move.c - see file_move.h */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "file_move.h"
#include "file_phase.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file_look.h"

/* One for each process, in a mapping of all. */
struct file_shared {
	uint32_t wanted, done; /* number of phases asked for and run */
	int phase;
	pid_t child;           /* FORK: the new process */
	int child_index;
	bool share_files;
};

#define FORK (-1)

struct file_reader *file_move_reader;
static const struct file_tree *current_tree;

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

static void __attribute__((noreturn)) serve(struct file_shared *all, int index, void (*phase)(int));

static void fork_from(struct file_shared *all, int index, void (*phase)(int))
{
	struct file_shared *me = &all[index];
	pid_t pid = (pid_t)syscall(SYS_clone, (me->share_files ? CLONE_FILES : 0) | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		serve(all, me->child_index, phase);
	me->child = pid;
}

static void serve(struct file_shared *all, int index, void (*phase)(int))
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint32_t i = 1;; i++) {
		wait_for(&all[index].wanted, i);
		if (all[index].phase == FORK)
			fork_from(all, index, phase);
		else if (current_tree)
			current_tree->phase(index, all[index].phase);
		else
			phase(all[index].phase);
		set(&all[index].done, i);
	}
}

static void open_pidfd(struct file_source *s)
{
	s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
	assert_true(s->pidfd >= 0);
}

void file_source_start(struct file_source *s, void (*phase)(int))
{
	s->shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(s->shared != MAP_FAILED);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0) {
		close_range(0, ~0u, 0);
		serve(s->shared, 0, phase);
	}
	open_pidfd(s);
}

/* Has `parent` fork the process `index`. */
static void start_child(struct file_source *parent, struct file_source *s, int index, bool share_files)
{
	parent->shared->child_index = index;
	parent->shared->share_files = share_files;
	file_source_phase(parent, FORK);
	s->pid = parent->shared->child;
	assert_true(s->pid > 0);
	open_pidfd(s);
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

/* The skeletons have other numbers than the sources. */
static void translate_owners(const struct file_move *m, Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_descs; i++)
		for (size_t k = 0; k < m->n && t->descs[i]->owner; k++)
			if (t->descs[i]->owner->id == (uint32_t)m->source[k].pid) {
				t->descs[i]->owner->id = (uint32_t)m->skeleton[k].pid;
				break;
			}
}

/* old: what was offered; NULL: this is the offer. */
static Gw__FdTable *over_the_wire(struct file_move *m, const Gw__FdTable *old)
{
	struct err e = ERR_INIT;
	Gw__FdTable *t = NULL;
	struct fd_queues pieces;
	uint8_t *data = NULL;
	size_t len = 0;

	if (old) {
		size_t queued = 0;

		check(fdtable_encode_update(&m->table, &data, &len, &pieces, &e), &e);
		for (size_t i = 0; i < pieces.n; i++) {
			m->queues = realloc(m->queues, queued + pieces.v[i].iov_len);
			assert_non_null(m->queues);
			memcpy(m->queues + queued, pieces.v[i].iov_base, pieces.v[i].iov_len);
			queued += pieces.v[i].iov_len;
		}
		free(pieces.v);
		check(fdtable_decode_update(data, len, m->queues, queued, m->files.n, old, &t, &e), &e);
		m->update_bytes = len;
	} else {
		check(fdtable_encode(&m->table, &data, &len, &e), &e);
		check(fdtable_decode(data, len, m->files.n, m->n, &t, &e), &e);
	}
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

static void free_answers(uint32_t n, struct fsfile_answer *a)
{
	for (uint32_t i = 0; i < n; i++)
		close(a[i].fd);
	free(a);
}

void file_capture_all(const struct fd_process *p, size_t n, struct fdtable *ret, struct fsfile_table *files)
{
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;

	check(fdtable_capture(p, n, ret, files, &refusals, &e), &e);
	check(fdtable_recapture(ret, true, files, &refusals, &e), &e);
	fdtable_release(ret);
	assert_no_refusals(&refusals);
	refusals_free(&refusals);
}

static void start_sources(struct file_move *m, void (*phase)(int))
{
	struct fd_process p[FILE_PROCESSES_MAX];
	const struct file_tree *tree = current_tree;

	m->n = tree ? tree->n : 1;
	file_source_start(&m->source[0], phase);
	file_source_phase(&m->source[0], 0);
	for (size_t i = 1; i < m->n; i++) {
		m->source[i].shared = m->source[0].shared + i;
		start_child(&m->source[tree->parent[i]], &m->source[i], (int)i, tree->shares[i]);
		file_source_phase(&m->source[i], 0);
	}
	for (size_t i = 0; i < m->n && tree; i++)
		file_source_phase(&m->source[i], FILE_PHASE_ALL);
	for (size_t i = 0; i < m->n; i++)
		p[i] = (struct fd_process){ m->source[i].pid, m->source[i].pidfd };
	file_capture_all(p, m->n, &m->table, &m->files);
}

static void start_skeletons(struct file_move *m, int pairs[][2])
{
	const struct file_tree *tree = current_tree;

	for (size_t i = 0; i < m->n; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[i]), 0);
	for (size_t i = 0; i < m->n; i++) {
		uint64_t address = 0x50000000 + i * 2 * FAKE_SCRATCH_SIZE; /* above where the heap may be, below the sanitizers' shadow */

		if (m->n > 1 && i == 0 && tree->shares[1])
			fake_skeleton_start_sharing(&m->skeleton[0], address, &m->skeleton[1], address + 2 * FAKE_SCRATCH_SIZE);
		else if (!m->skeleton[i].pid)
			fake_skeleton_start(&m->skeleton[i], address);
		setpgid(m->skeleton[i].pid, 0);
		m->transfer[i] = (struct fd_transfer){ pairs[i][0], pairs[i][1] };
	}
	for (size_t i = 0; i < m->n; i++)
		close(pairs[i][1]);
}

static void prepare(struct file_move *m, const Gw__FdTable *offer, const struct fd_env *env)
{
	struct err e = ERR_INIT;

	check(fdtable_restore_open(offer, env, &m->restore, &e), &e);
	for (uint32_t i = 0; i < m->n; i++)
		check(fdtable_restore_place(offer, i, &m->restore, &m->transfer[i], &m->skeleton[i], &e), &e);
	for (uint32_t i = 0; i < m->n; i++)
		check(fdtable_restore_late(offer, i, &m->restore, &m->transfer[i], &m->skeleton[i], &e), &e);
}

/* As the source does before the offer, and again right before the freeze. */
static void rehearse(struct file_move *m)
{
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;

	/* The second time nothing has moved. Unix sockets are looked at together. */
	for (int i = 0; i < 2; i++) {
		check(fdtable_recapture(&m->table, false, &m->files, &refusals, &e), &e);
		assert_true(m->table.learned);
		if (i == 1)
			assert_int_equal(m->table.few, !m->table.has_unix);
		fdtable_release(&m->table);
	}
	assert_no_refusals(&refusals);
}

static void phase_of_all(struct file_move *m, int phase)
{
	for (size_t i = 0; i < m->n; i++)
		file_source_phase(&m->source[i], phase);
}

static void update(struct file_move *m, const Gw__FdTable *offer, const Gw__FdTable *final, const struct fd_env *env)
{
	struct fd_target targets[FILE_PROCESSES_MAX];
	struct err e = ERR_INIT;

	m->update_ns = clock_ns(CLOCK_MONOTONIC);
	for (size_t i = 0; i < m->n; i++)
		targets[i] = (struct fd_target){ &m->skeleton[i], &m->transfer[i] };
	check(fdtable_restore_update(offer, final, env, &m->restore, targets, &e), &e);
	/* In an order that nobody can count on. */
	for (size_t i = m->n; i-- > 0;)
		check(batch_run(&m->skeleton[i], &e), &e);
	check(fdtable_restore_check(&m->restore, &e), &e);
	m->update_ns = clock_ns(CLOCK_MONOTONIC) - m->update_ns;
	for (size_t i = 0; i < m->n; i++)
		batch_reset(&m->skeleton[i]);
}

static void move(struct file_move *m, void (*phase)(int), void (*before_restore)(void))
{
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fd_env env = { 0 };
	int pairs[FILE_PROCESSES_MAX][2];
	Gw__FdTable *offer, *final;
	uint32_t n_offered;
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), away;

	*m = (struct file_move){ .table = FDTABLE_INIT, .restore = FD_RESTORE_INIT };
	start_sources(m, phase);
	if (file_move_reader)
		rehearse(m);
	offer = over_the_wire(m, NULL);
	n_offered = m->files.n;
	if (before_restore)
		before_restore();
	start_skeletons(m, pairs);
	translate_owners(m, offer);
	env.n_files = n_offered;
	env.answers = answers(m);
	prepare(m, offer, &env);
	/* The destination may be in another network. */
	away = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	if (file_move_reader)
		rehearse(m);
	phase_of_all(m, 1);
	m->recapture_ns = clock_ns(CLOCK_MONOTONIC);
	check(fdtable_recapture(&m->table, true, &m->files, &refusals, &e), &e);
	m->recapture_ns = clock_ns(CLOCK_MONOTONIC) - m->recapture_ns;
	assert_no_refusals(&refusals);
	m->wire_ns = clock_ns(CLOCK_MONOTONIC);
	assert_int_equal(setns(away, CLONE_NEWNET), 0);
	close(away);
	close(home);
	final = over_the_wire(m, offer);
	m->wire_ns = clock_ns(CLOCK_MONOTONIC) - m->wire_ns;
	translate_owners(m, final);
	phase_of_all(m, 2);
	free_answers(n_offered, (struct fsfile_answer *)env.answers);
	env.answers = answers(m);
	env.n_files = m->files.n;
	update(m, offer, final, &env);
	fdtable_restore_free(&m->restore);
	for (size_t i = 0; i < m->n; i++)
		close(pairs[i][0]);
	free_answers(env.n_files, (struct fsfile_answer *)env.answers);
	fdtable_update_free(final, offer);
	free(m->queues);
	m->queues = NULL;
	gw__fd_table__free_unpacked(offer, NULL);
	refusals_free(&refusals);
}

void file_move_run(struct file_move *m, void (*phase)(int), void (*before_restore)(void))
{
	current_tree = NULL;
	move(m, phase, before_restore);
}

void file_move_run_tree(struct file_move *m, const struct file_tree *tree)
{
	current_tree = tree;
	move(m, NULL, NULL);
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

static void compare_options(Gw__FdSockOpt **a, size_t n_a, Gw__FdSockOpt **b, size_t n_b)
{
	assert_int_equal(n_a, n_b);
	for (size_t i = 0; i < n_a; i++) {
		assert_int_equal(a[i]->name, b[i]->name);
		assert_int_equal(a[i]->value.len, b[i]->value.len);
		assert_memory_equal(a[i]->value.data, b[i]->value.data, a[i]->value.len);
	}
}

static void compare_bytes(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	assert_int_equal(a->len, b->len);
	if (a->len)
		assert_memory_equal(a->data, b->data, a->len);
}

static void compare_unix(const Gw__FdUnix *a, const Gw__FdUnix *b, const uint32_t *map)
{
	assert_int_equal(a->type, b->type);
	compare_bytes(&a->name, &b->name);
	assert_int_equal(a->has_file, b->has_file);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->state, b->state);
	assert_int_equal(a->peer ? map[a->peer - 1] + 1 : 0, b->peer);
	compare_bytes(&a->peer_name, &b->peer_name);
	assert_int_equal(a->shut_down, b->shut_down);
	assert_int_equal(a->reset, b->reset);
	assert_int_equal(a->backlog, b->backlog);
	assert_int_equal(a->n_accept_queue, b->n_accept_queue);
	for (size_t i = 0; i < a->n_accept_queue; i++)
		assert_int_equal(map[a->accept_queue[i] - 1] + 1, b->accept_queue[i]);
	compare_options(a->options, a->n_options, b->options, b->n_options);
	assert_int_equal(a->n_queue, b->n_queue);
	for (size_t i = 0; i < a->n_queue; i++) {
		compare_bytes(&a->queue[i]->data, &b->queue[i]->data);
		compare_bytes(&a->queue[i]->sender, &b->queue[i]->sender);
		assert_int_equal(a->queue[i]->n_descs, b->queue[i]->n_descs);
	}
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
	assert_int_equal(a->owner != NULL, b->owner != NULL);
	if (a->owner) {
		assert_int_equal(a->owner->type, b->owner->type);
		assert_int_equal(a->owner->uid, b->owner->uid);
		assert_int_equal(a->owner->euid, b->owner->euid);
	}
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
		compare_options(a->socket->options, a->socket->n_options, b->socket->options, b->socket->n_options);
	}
	if (a->unix_socket)
		compare_unix(a->unix_socket, b->unix_socket, map);
}

/* Numbers of all processes; fills the map of descriptions. */
static void compare_tables(const Gw__FdTable *a, const Gw__FdTable *b, uint32_t *map)
{
	memset(map, 0xff, a->n_descs * sizeof(*map));
	assert_int_equal(a->n_tables, b->n_tables);
	assert_int_equal(a->n_table_of, b->n_table_of);
	assert_memory_equal(a->table_of, b->table_of, a->n_table_of * sizeof(*a->table_of));
	for (size_t k = 0; k < a->n_tables; k++) {
		const Gw__FdNumbers *na = a->tables[k], *nb = b->tables[k];

		assert_int_equal(na->n_fd, nb->n_fd);
		for (size_t i = 0; i < na->n_fd; i++) {
			assert_int_equal(na->fd[i], nb->fd[i]);
			assert_int_equal(na->cloexec[i], nb->cloexec[i]);
			if (map[na->desc[i]] == UINT32_MAX)
				map[na->desc[i]] = nb->desc[i];
			/* The same numbers share a description, in whichever process. */
			assert_int_equal(map[na->desc[i]], nb->desc[i]);
		}
	}
	for (size_t i = 0; i < MIN(a->n_descs, 200); i++)
		for (size_t k = 0; k < i; k++)
			assert_true(map[i] == UINT32_MAX || map[i] != map[k]);
}

static void compare_owners(const struct file_move *m, const Gw__FdTable *a, const Gw__FdTable *b, const uint32_t *map)
{
	for (size_t i = 0; i < a->n_descs; i++) {
		const Gw__FdOwner *owner = map[i] == UINT32_MAX ? NULL : a->descs[i]->owner;

		for (size_t k = 0; owner && k < m->n; k++)
			if (owner->id == (uint32_t)m->source[k].pid)
				assert_int_equal(b->descs[map[i]]->owner->id, m->skeleton[k].pid);
	}
}

static bool lock_is_there(const Gw__FdTable *b, const Gw__FdLock *x, const uint32_t *map)
{
	for (size_t i = 0; i < b->n_locks; i++) {
		const Gw__FdLock *y = b->locks[i];

		if (x->kind == y->kind && x->write == y->write && x->start == y->start && x->end == y->end && map[x->desc] == y->desc &&
		    x->process == y->process)
			return true;
	}
	return false;
}

void file_move_compare(struct file_move *m)
{
	struct fd_process p[FILE_PROCESSES_MAX];
	struct fdtable got = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	const Gw__FdTable *a = m->table.msg, *b;
	uint32_t *map = calloc(a->n_descs + 1, sizeof(*map));

	/* The sources would look like processes outside that have the skeletons' FIFOs open. */
	for (size_t i = m->n; i-- > 0;)
		kill(m->source[i].pid, SIGKILL);
	waitpid(m->source[0].pid, NULL, 0);
	fdtable_release(&m->table);
	for (size_t i = 0; i < m->n; i++)
		p[i] = (struct fd_process){ m->skeleton[i].pid, (int)syscall(SYS_pidfd_open, m->skeleton[i].pid, 0) };
	file_capture_all(p, m->n, &got, &files);
	b = got.msg;
	compare_tables(a, b, map);
	for (uint32_t i = 0; i < a->n_descs; i++)
		if (map[i] != UINT32_MAX)
			compare_desc(&m->table, &got, i, map[i], map);
	compare_owners(m, a, b, map);
	assert_int_equal(a->n_locks, b->n_locks);
	for (size_t i = 0; i < a->n_locks; i++)
		assert_true(lock_is_there(b, a->locks[i], map));
	free(map);
	fdtable_free(&got);
	fsfile_table_free(&files);
	for (size_t i = 0; i < m->n; i++)
		close(p[i].pidfd);
}

int file_move_get(struct file_move *m, int fd)
{
	return file_move_get_from(m, 0, fd);
}

int file_move_get_from(struct file_move *m, int process, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, m->skeleton[process].pid, 0);
	int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	close(pidfd);
	assert_true(copy >= 0);
	return copy;
}

void file_move_end(struct file_move *m)
{
	fdtable_free(&m->table);
	fsfile_table_free(&m->files);
	for (size_t i = 0; i < m->n; i++)
		fake_skeleton_end(&m->skeleton[i]);
	for (size_t i = m->n; i-- > 1;)
		close(m->source[i].pidfd);
	file_source_end(&m->source[0]);
}

static int run_in_directory(const char *name, const struct CMUnitTest *tests, size_t n)
{
	int failed = phase_directory_make() < 0 || _cmocka_run_group_tests(name, tests, n, NULL, NULL);

	phase_directory_remove();
	return failed;
}

int file_move_run_tests(const struct CMUnitTest *tests, size_t n)
{
	struct err e = ERR_INIT;
	int failed = run_in_directory("without BPF", tests, n);

	if (file_reader_load(&file_move_reader, &e) == 0) {
		fdtable_use_reader(file_move_reader);
		failed |= run_in_directory("with BPF", tests, n);
	} else {
		print_message("no BPF here: %s\n", e.message);
	}
	fdtable_use_reader(NULL);
	file_reader_free(file_move_reader);
	return failed;
}
