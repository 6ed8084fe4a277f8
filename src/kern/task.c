/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* task.c - the scratch, its slots, and the tasks that run the stub; see task.h */
#include "kern/task.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "kern/remote.h"

extern const uint8_t agent_blob[], agent_blob_end[];

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define CHUNKS_MAX 4096
#define BATCH_FIRST_BLOCK 20480ul
#define BATCH_BLOCK 65536ul
#define SPACES_MAX 32 /* lists with more data are not kept */
#define SPIN_NS 15000ull /* no longer: the task may be waiting for this very CPU */

size_t scratch_size(unsigned threads, size_t arena_bytes)
{
	size_t before_arena = SCRATCH_SLOTS + (size_t)(threads + 1) * SLOT_SIZE;

	return PAGE_ALIGN_UP(before_arena + arena_bytes) + before_arena;
}

int scratch_init(struct scratch *s, int memfd, unsigned threads, size_t arena_bytes, struct err *e)
{
	struct scratch_header *h;

	*s = (struct scratch){ .memfd = memfd, .size = scratch_size(threads, arena_bytes) };
	if (ftruncate(memfd, (off_t)s->size) < 0)
		return err_sys(e, errno, "scratch memory of %zu bytes", s->size);
	s->map = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (s->map == MAP_FAILED) {
		s->map = NULL;
		return err_sys(e, errno, "mapping the scratch memory");
	}
	memcpy(s->map, agent_blob, (size_t)(agent_blob_end - agent_blob));
	s->arena_start = SCRATCH_SLOTS + (size_t)(threads + 1) * SLOT_SIZE;
	s->arena_end = s->size - s->arena_start;
	h = scratch_header(s);
	*h = (struct scratch_header){ .nslots = threads + 1, .size = s->size, .arena = s->arena_start, .worker_fd = -1, .go_fd = -1, .fault_fd = -1,
				      .bulk_fd = -1, .uffd = -1, .pagemap_fd = -1, .mem_fd = -1, .process_pidfd = -1, .worker_pidfd = -1,
				      .root_pidfd = -1, .ask_fd = -1, .record_fd = -1,
				      .chunk_pages = STREAM_PAGES_MAX, .push = 1 };
	return 0;
}

void scratch_free(struct scratch *s)
{
	if (s->map)
		munmap(s->map, s->size);
	if (s->map && s->memfd >= 0)
		close(s->memfd);
	*s = (struct scratch){ .memfd = -1 };
}

void scratch_set_base(struct scratch *s, uint64_t base)
{
	s->base = base;
	scratch_header(s)->base = base;
}

void scratch_set_apart(struct scratch *s)
{
	s->exec_delta = s->arena_end;
	scratch_header(s)->exec_delta = s->exec_delta;
}

int scratch_share_unit(struct scratch *s, int root_memfd, struct err *e)
{
	void *at = mmap(scratch_unit(s), PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, root_memfd, SCRATCH_UNIT);

	return at == MAP_FAILED ? err_sys(e, errno, "mapping the unit's page") : 0;
}

void *scratch_alloc(struct scratch *s, size_t len_bytes, uint64_t *ret_address)
{
	size_t at = (s->arena_start + s->arena_used + 15) & ~(size_t)15;

	if (len_bytes > s->arena_end || at > s->arena_end - len_bytes)
		return NULL;
	s->arena_used = at + len_bytes - s->arena_start;
	if (ret_address)
		*ret_address = s->base + at;
	return s->map + at;
}

int scratch_warm(struct scratch *s, unsigned threads, struct batch *b, struct err *e)
{
	size_t len = MIN(PAGE_ALIGN_UP(s->arena_start + SCRATCH_WARM_BYTES + threads * BATCH_FIRST_BLOCK), s->arena_end), low = SCRATCH_SLOTS + (size_t)(threads + 1) * SLOT_SIZE;
	int64_t ret;

	madvise(s->map, MIN(low, len), MADV_POPULATE_WRITE);
	madvise(s->map + PAGE_ALIGN_DOWN(s->arena_start), len - PAGE_ALIGN_DOWN(s->arena_start), MADV_POPULATE_WRITE);
	ret = remote_do(b, e, "madvise", SYS_madvise, s->base, MIN(low, len), MADV_POPULATE_WRITE);
	if (ret == 0)
		ret = remote_do(b, e, "madvise", SYS_madvise, s->base + PAGE_ALIGN_DOWN(s->arena_start), len - PAGE_ALIGN_DOWN(s->arena_start),
				MADV_POPULATE_WRITE);
	return (int)ret;
}

static void futex_wake_word(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void task_command(struct task *t, enum slot_command command)
{
	struct slot *slot = scratch_slot(t->scratch, t->slot);

	slot->command = command;
	__atomic_store_n(&slot->seq, slot->seq + 1, __ATOMIC_RELEASE);
}

int task_wake(struct task *t, struct err *e)
{
	struct slot *slot = scratch_slot(t->scratch, t->slot);

	switch (t->wake) {
	case TASK_PTRACE:
		if (ptrace(PTRACE_CONT, t->tid, 0, 0) < 0)
			return err_sys(e, errno, "task %d: going on", t->tid);
		return 0;
	case TASK_SOCKET:
		if (send(t->bell_fd, "", 1, MSG_NOSIGNAL) < 0)
			return err_sys(e, errno, "agent %d is gone", t->tid);
		/* It may still be about to wait, or waiting, as it did before it had the socket. */
		futex_wake_word(&slot->seq);
		return 0;
	case TASK_FUTEX:
	case TASK_HELD:
		futex_wake_word(&slot->seq);
		return 0;
	}
	return 0;
}

/* A skeleton task comes back into its ptrace stop. */
static int wait_traced(struct task *t, struct err *e)
{
	struct slot *slot = scratch_slot(t->scratch, t->slot);

	for (;;) {
		int status;

		if (waitpid(t->tid, &status, __WALL) < 0)
			return err_sys(e, errno, "task %d: waiting", t->tid);
		if (WIFEXITED(status) || WIFSIGNALED(status))
			return err_set(e, -ESRCH, "task %d ended (%s %d) while it was being built", t->tid,
				       WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (WSTOPSIG(status) == SIGSTOP && status >> 16 == 0 && __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == slot->seq)
			return 0;
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGBUS || WSTOPSIG(status) == SIGILL)
			return err_set(e, -EFAULT, "task %d got signal %d while it was being built", t->tid, WSTOPSIG(status));
		if (status >> 16 && status >> 16 != PTRACE_EVENT_STOP)
			ptrace(PTRACE_GETEVENTMSG, t->tid, 0, &t->event);
		ptrace(PTRACE_CONT, t->tid, 0, 0);
	}
}

/*
 * A parked thread that is a tracee. In a stopped process it stops again whenever something tells the process so; every signal but SIGKILL and SIGSTOP is
 * blocked in it.
 */
static int send_on(const struct task *t, struct err *e)
{
	int status;
	pid_t got = waitpid(t->tid, &status, __WALL | WNOHANG);

	if (got == 0)
		return 0;
	if (got < 0 || !WIFSTOPPED(status))
		return err_set(e, -ESRCH, "task %d has ended", t->tid);
	if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP)
		return err_set(e, -EFAULT, "task %d got signal %d in the stub", t->tid, WSTOPSIG(status));
	return ptrace(PTRACE_CONT, t->tid, 0, status >> 16 ? 0 : SIGSTOP) < 0 ? err_sys(e, errno, "task %d: going on", t->tid) : 0;
}

/* By a signal, which stops a thread wherever it is. */
static bool is_stopped(pid_t tid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], text[512] = "", *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "re");
	p = f && fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
	return p && p[1] && p[2] == 'T';
}

bool task_is_done(const struct task *t)
{
	const struct slot *slot = scratch_slot(t->scratch, t->slot);

	return __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == slot->seq;
}

int task_wait(struct task *t, int timeout_ms, struct err *e)
{
	struct slot *slot = scratch_slot(t->scratch, t->slot);
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), now = begin;
	uint32_t done;

	if (t->wake == TASK_PTRACE)
		return wait_traced(t, e);
	while ((done = __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE)) != slot->seq) {
		int ret = t->wake == TASK_HELD ? send_on(t, e) : 0;

		if (ret < 0)
			return ret;
		if (now - begin > SPIN_NS) {
			/* A thread that goes on with its program wakes nobody. */
			struct timespec slice = { 0, t->wake == TASK_HELD || slot->command == COMMAND_RESTORE ? 100000 : 20000000 };

			syscall(SYS_futex, &slot->done, FUTEX_WAIT, done, &slice, NULL, 0);
			if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == slot->seq)
				return 0;
			if (timeout_ms >= 0 && now - begin > (uint64_t)timeout_ms * 1000000)
				return err_set(e, -ETIMEDOUT, "task %d did not answer within %d ms", t->tid, timeout_ms);
			if (t->wake == TASK_FUTEX && is_stopped(t->tid) && __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) != slot->seq)
				return err_set(e, -EAGAIN, "task %d was stopped by a signal meanwhile", t->tid);
			if (syscall(SYS_tkill, t->tid, 0) < 0 && errno == ESRCH)
				return err_set(e, -ESRCH, "task %d has ended", t->tid);
		} else {
			__builtin_ia32_pause();
		}
		now = clock_ns(CLOCK_MONOTONIC);
	}
	return 0;
}

int task_run(struct task *t, enum slot_command command, int timeout_ms, struct err *e)
{
	int ret;

	task_command(t, command);
	ret = task_wake(t, e);
	return ret < 0 ? ret : task_wait(t, timeout_ms, e);
}

/* --- batches --- */

struct chunk {
	struct remote_call *calls;
	uint64_t address;
	unsigned n;
};

struct space {
	const void *at;
	size_t len;
};

/* A batch keeps the blocks of the arena that it has got, and starts again with the first one after a reset. */
struct block {
	uint8_t *start;
	uint64_t address;
	size_t len, used;
};

struct batch {
	struct task *task;
	struct block *blocks;
	unsigned nblocks, block; /* block: the one in use */
	struct chunk *chunks;
	unsigned nchunks;
	const char **what;
	size_t nwhat, what_capacity;
	bool full;
	struct remote_call dummy;
	uint8_t *dummy_space;
	struct space spaces[SPACES_MAX]; /* of batch_space, the first ones */
	unsigned nspaces;
	uint8_t *kept;
	size_t kept_len;
};

struct batch *batch_new(struct task *t)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		abort();
	b->task = t;
	return b;
}

static void *block_take(struct block *k, size_t len_bytes, uint64_t *ret_address)
{
	size_t at = (k->used + 15) & ~(size_t)15;

	if (at > k->len || len_bytes > k->len - at)
		return NULL;
	k->used = at + len_bytes;
	*ret_address = k->address + at;
	return k->start + at;
}

/* Not zeroed. */
static void *batch_alloc(struct batch *b, size_t len_bytes, uint64_t *ret_address)
{
	size_t len = MAX(b->nblocks ? BATCH_BLOCK : BATCH_FIRST_BLOCK, len_bytes);
	struct block *grown;

	for (; b->block < b->nblocks; b->block++) {
		void *p = block_take(&b->blocks[b->block], len_bytes, ret_address);

		if (p)
			return p;
	}
	grown = realloc(b->blocks, (b->nblocks + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	b->blocks = grown;
	grown = &b->blocks[b->nblocks];
	*grown = (struct block){ .len = len };
	grown->start = scratch_alloc(b->task->scratch, len, &grown->address);
	if (!grown->start)
		return NULL;
	b->nblocks++;
	return block_take(grown, len_bytes, ret_address);
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	free(b->blocks);
	free(b->chunks);
	free(b->what);
	free(b->dummy_space);
	free(b->kept);
	free(b);
}

static struct chunk *chunk_with_room(struct batch *b)
{
	struct chunk *c = b->nchunks ? &b->chunks[b->nchunks - 1] : NULL;

	if (c && c->n < BATCH_CHUNK)
		return c;
	if (!b->chunks || b->nchunks % 16 == 0) {
		struct chunk *grown = realloc(b->chunks, (b->nchunks + 16) * sizeof(*grown));

		if (!grown)
			return NULL;
		b->chunks = grown;
	}
	c = &b->chunks[b->nchunks];
	*c = (struct chunk){ 0 };
	c->calls = batch_alloc(b, BATCH_CHUNK * sizeof(struct remote_call), &c->address);
	if (!c->calls || b->nchunks == CHUNKS_MAX)
		return NULL;
	b->nchunks++;
	return c;
}

struct remote_call *batch_call_array(struct batch *b, const char *what, uint64_t nr, uint32_t flags, const uint64_t arg[6])
{
	struct chunk *c = chunk_with_room(b);
	struct remote_call *call;

	if (c && b->nwhat == b->what_capacity) {
		size_t capacity = b->what_capacity ? b->what_capacity * 2 : 64;
		const char **grown = realloc(b->what, capacity * sizeof(*grown));

		if (grown) {
			b->what = grown;
			b->what_capacity = capacity;
		}
	}
	if (!c || b->nwhat == b->what_capacity) {
		b->full = true;
		return &b->dummy;
	}
	call = &c->calls[c->n++];
	b->what[b->nwhat++] = what;
	*call = (struct remote_call){ .nr = nr, .flags = flags, .ret = CALL_SKIPPED };
	memcpy(call->arg, arg, sizeof(call->arg));
	return call;
}

void *batch_space(struct batch *b, size_t len_bytes, uint64_t *ret_address)
{
	uint64_t address;
	void *p = batch_alloc(b, len_bytes, ret_address ? ret_address : &address);

	if (p) {
		if (b->nspaces < SPACES_MAX)
			b->spaces[b->nspaces] = (struct space){ p, len_bytes };
		b->nspaces++;
		return memset(p, 0, len_bytes);
	}
	b->full = true;
	if (ret_address)
		*ret_address = 0;
	free(b->dummy_space);
	b->dummy_space = calloc(1, len_bytes + 1);
	if (!b->dummy_space)
		abort();
	return b->dummy_space;
}

uint64_t batch_data(struct batch *b, const void *data, size_t len_bytes)
{
	uint64_t address;
	void *p = batch_space(b, len_bytes, &address);

	if (len_bytes)
		memcpy(p, data, len_bytes);
	return address;
}

uint64_t batch_string(struct batch *b, const char *text)
{
	return batch_data(b, text, strlen(text) + 1);
}

static void chunk_prepare(struct batch *b, unsigned i)
{
	struct slot *slot = scratch_slot(b->task->scratch, b->task->slot);

	slot->list = b->chunks[i].address;
	slot->ncalls = b->chunks[i].n;
	task_command(b->task, COMMAND_RUN);
}

static int chunk_check(struct batch *b, unsigned i, struct err *e)
{
	for (unsigned k = 0; k < b->chunks[i].n; k++) {
		const struct remote_call *c = &b->chunks[i].calls[k];

		if (c->flags & CALL_MAY_FAIL || c->ret >= 0 || c->ret < -4095)
			continue;
		return err_sys(e, (int)c->ret, "%s", b->what[(size_t)i * BATCH_CHUNK + k]);
	}
	return 0;
}

void batch_prepare(struct batch *b)
{
	if (b->nchunks == 1 && !b->full)
		chunk_prepare(b, 0);
}

int batch_start(struct batch *b, struct err *e)
{
	if (b->nchunks != 1 || b->full)
		return 0;
	chunk_prepare(b, 0);
	return task_wake(b->task, e);
}

int batch_finish(struct batch *b, struct err *e)
{
	int ret;

	if (b->nchunks != 1 || b->full)
		return batch_run(b, e);
	ret = task_wait(b->task, 60000, e);
	return ret < 0 ? ret : chunk_check(b, 0, e);
}

int batch_run(struct batch *b, struct err *e)
{
	if (b->full)
		return err_set(e, -ENOMEM, "the list of calls does not fit the scratch memory of %zu bytes", b->task->scratch->size);
	for (unsigned i = 0; i < b->nchunks; i++) {
		int ret;

		chunk_prepare(b, i);
		ret = task_wake(b->task, e);
		if (ret < 0 || (ret = task_wait(b->task, 60000, e)) < 0 || (ret = chunk_check(b, i, e)) < 0)
			return ret;
	}
	return 0;
}

void batch_reset(struct batch *b)
{
	b->nchunks = 0;
	b->nwhat = 0;
	b->nspaces = 0;
	b->full = false;
	for (unsigned i = 0; i < b->nblocks; i++)
		b->blocks[i].used = 0;
	b->block = 0;
}

/* Goes over the list piece by piece; *ret_len: how long all are. False: take, which is asked with where each piece lies in the whole, said so. */
static bool each_piece(const struct batch *b, bool (*take)(const struct batch *b, size_t at, const void *piece, size_t len), size_t *ret_len)
{
	size_t at = 0;

	for (unsigned i = 0; i < b->nchunks; i++) {
		for (unsigned k = 0; k < b->chunks[i].n; k++, at += offsetof(struct remote_call, ret))
			if (take && !take(b, at, &b->chunks[i].calls[k], offsetof(struct remote_call, ret)))
				return false;
	}
	for (unsigned i = 0; i < b->nspaces; at += b->spaces[i].len, i++)
		if (take && !take(b, at, b->spaces[i].at, b->spaces[i].len))
			return false;
	*ret_len = at;
	return true;
}

static bool copy_piece(const struct batch *b, size_t at, const void *piece, size_t len)
{
	memcpy(b->kept + at, piece, len);
	return true;
}

static bool same_piece(const struct batch *b, size_t at, const void *piece, size_t len)
{
	return at + len <= b->kept_len && memcmp(b->kept + at, piece, len) == 0;
}

void batch_keep(struct batch *b)
{
	size_t len;

	free(b->kept);
	b->kept = NULL;
	if (b->full || b->nspaces > SPACES_MAX)
		return;
	each_piece(b, NULL, &len);
	b->kept = malloc(len + 1);
	b->kept_len = len;
	if (b->kept)
		each_piece(b, copy_piece, &len);
}

bool batch_is_kept(const struct batch *b)
{
	size_t len;

	return b->kept && !b->full && b->nspaces <= SPACES_MAX && each_piece(b, same_piece, &len) && len == b->kept_len;
}

size_t batch_count(const struct batch *b)
{
	return b->nwhat;
}

uint64_t batch_list(const struct batch *b, uint64_t *ret_ncalls)
{
	*ret_ncalls = b->nchunks == 1 ? b->chunks[0].n : 0;
	return b->nchunks == 1 ? b->chunks[0].address : 0;
}

int64_t remote_do_array(struct batch *b, struct err *e, const char *what, uint64_t nr, const uint64_t arg[6])
{
	struct remote_call *call = batch_call_array(b, what, nr, 0, arg);
	int ret = batch_run(b, e);
	int64_t result = call->ret;

	batch_reset(b);
	return ret < 0 ? ret : result;
}
