/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring_make.c - io_urings at the destination; see uring.h
 *
 * Where the kernel maps a ring nobody may say, neither mmap nor mremap: it is the highest free place. So all other free places that are large enough are taken
 * for the moment (tests/facts/uring_rules.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/uring_internal.h"
#include "kern/fdpass.h"

#define LOWEST_PLACE 65536ull
#define BEHIND 256u

void uring_validate_here(const Gw__Process *msg, struct refusals *refusals)
{
	cleanup_fclose FILE *f = msg->n_urings ? fopen("/proc/sys/kernel/io_uring_disabled", "re") : NULL;
	int disabled = 0;

	if (f && fscanf(f, "%d", &disabled) == 1 && disabled > 1)
		refusals_add(refusals, "fd.io_uring", "the destination allows nobody to use io_uring (kernel.io_uring_disabled)", "allow it there", "fd %u (io_uring)",
			     msg->urings[0]->fd);
}

struct batch *uring_batch(const struct uring_skeleton *s, const Gw__Uring *ring, struct err *e)
{
	struct batch *b = ring->submitter ? s->thread(s->arg, (pid_t)ring->submitter) : s->main;

	if (!b)
		err_set(e, -EBADMSG, "fd %u (io_uring): thread %u, which submits to it, does not exist", ring->fd, ring->submitter);
	return b;
}

/* --- places --- */

struct places {
	struct range *v;
	size_t n, room;
};

static void add_place(struct places *p, uint64_t start, uint64_t end)
{
	if (p->n == p->room) {
		struct range *grown = realloc(p->v, (p->room = p->room * 2 + 64) * sizeof(*grown));

		if (!grown)
			abort();
		p->v = grown;
	}
	p->v[p->n++] = (struct range){ start, end };
}

/* A free range is taken but for [start, end). */
static void take_around(struct places *p, uint64_t from, uint64_t to, uint64_t start, uint64_t end)
{
	uint64_t least = end - start;

	if (to <= from || to - from < least)
		return;
	if (start < from || end > to) {
		add_place(p, from, to);
		return;
	}
	if (start > from)
		add_place(p, from, start);
	if (end < to)
		add_place(p, end, to);
}

/* What has to be taken so that [start, end) is the only place for it. */
static int find_places(pid_t pid, uint64_t start, uint64_t end, struct places *ret, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	uint64_t last = LOWEST_PLACE, from, to;
	char path[64], line[8192];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, -errno, "%s", path);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) != 2 || from >= VMA_TASK_SIZE)
			continue;
		if (start < to && from < end)
			return err_set(e, -EEXIST, "something is mapped at %" PRIx64 ", where a ring of io_uring is to be", from);
		take_around(ret, last, from, start, end);
		last = to;
	}
	take_around(ret, last, VMA_TASK_SIZE, start, end);
	return 0;
}

static int map_one(const struct uring_skeleton *s, uint32_t fd, const Gw__UringMap *m, struct err *e)
{
	struct places p = { 0 };
	struct remote_call *map = NULL;
	int ret = find_places(s->pid, m->start, m->start + m->len, &p, e);

	for (size_t i = 0; i < p.n && ret == 0; i++)
		batch_call(s->main, "taking a free place (mmap)", SYS_mmap, p.v[i].start, p.v[i].end - p.v[i].start, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, ~0ull, 0);
	if (ret == 0)
		map = batch_try(s->main, "mapping an io_uring", SYS_mmap, 0, m->len, m->prot, MAP_SHARED | MAP_POPULATE, fd, m->offset);
	for (size_t i = 0; i < p.n && ret == 0; i++)
		batch_call(s->main, "munmap", SYS_munmap, p.v[i].start, p.v[i].end - p.v[i].start);
	if (ret == 0 && m->dontfork)
		batch_call(s->main, "MADV_DONTFORK", SYS_madvise, m->start, m->len, MADV_DONTFORK);
	if (ret == 0)
		ret = batch_run(s->main, e);
	if (map && map->ret < 0)
		ret = err_sys(e, (int)map->ret, "fd %u: mapping an io_uring", fd);
	else if (ret == 0 && (uint64_t)map->ret != m->start)
		ret = err_set(e, -EEXIST, "fd %u: the kernel maps an io_uring at %" PRIx64 " instead of %" PRIx64, fd, (uint64_t)map->ret, m->start);
	batch_reset(s->main);
	free(p.v);
	return ret;
}

/* --- making one --- */

static bool is_as_known(const struct io_uring_params *p, const Gw__Uring *ring)
{
	size_t completions = p->cq_off.cqes + ring->cq_entries * uring_cqe_bytes(ring->flags);

	return p->sq_off.head == offsetof(struct uring_rings, sq_head) && p->sq_off.tail == offsetof(struct uring_rings, sq_tail) &&
		p->cq_off.head == offsetof(struct uring_rings, cq_head) && p->cq_off.tail == offsetof(struct uring_rings, cq_tail) &&
		p->sq_off.flags == offsetof(struct uring_rings, sq_flags) && p->cq_off.flags == offsetof(struct uring_rings, cq_flags) &&
		p->cq_off.overflow == offsetof(struct uring_rings, cq_overflow) && p->cq_off.cqes == sizeof(struct uring_rings) &&
		p->sq_entries == ring->sq_entries && p->cq_entries == ring->cq_entries && completions <= ring->ring_bytes &&
		((ring->flags & SETUP_NO_SQARRAY) || (p->sq_off.array >= completions && p->sq_off.array + 4ul * ring->sq_entries <= ring->ring_bytes));
}

static int set_up(struct batch *b, const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	struct io_uring_params *p;
	struct remote_call *made;
	uint64_t at;
	int ret;

	p = batch_space(b, sizeof(*p), &at);
	p->flags = ring->flags | (ring->cq_entries != 2 * ring->sq_entries ? IORING_SETUP_CQSIZE : 0);
	p->cq_entries = ring->cq_entries;
	made = batch_call(b, "io_uring_setup", SYS_io_uring_setup, ring->sq_entries, at);
	ret = batch_run(b, e);
	if (ret == 0 && !is_as_known(p, ring))
		ret = err_set(e, -EOPNOTSUPP, "fd %u: the destination's kernel lays an io_uring out in another way", ring->fd);
	m->array = p->sq_off.array;
	m->number = (int)made->ret;
	batch_reset(b);
	return ret;
}

/* The lowest number first. */
static int give_numbers(struct batch *b, const Gw__FdNumbers *numbers, struct uring_made *m, uint32_t fd, struct err *e)
{
	ssize_t mine = -1;

	for (size_t i = 0; i < numbers->n_fd && mine < 0; i++)
		if (numbers->fd[i] == fd)
			mine = (ssize_t)i;
	if (mine < 0)
		return err_set(e, -EBADMSG, "io_uring %u is not in the table of descriptors", fd);
	for (size_t i = 0; i < numbers->n_fd; i++) {
		if (numbers->desc[i] != numbers->desc[mine])
			continue;
		if ((int)numbers->fd[i] != m->number)
			batch_call(b, "dup3", SYS_dup3, m->number, numbers->fd[i], numbers->cloexec[i] ? O_CLOEXEC : 0);
		else
			batch_call(b, "F_SETFD", SYS_fcntl, numbers->fd[i], F_SETFD, numbers->cloexec[i] ? FD_CLOEXEC : 0);
	}
	if (m->number != (int)fd)
		batch_call(b, "close", SYS_close, m->number);
	m->number = (int)fd;
	mine = batch_run(b, e);
	batch_reset(b);
	return (int)mine;
}

static int map_here(const struct uring_skeleton *s, const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	cleanup_close int fd = pidfd_get(s->pidfd, m->number, e);
	void *at;

	if (fd < 0)
		return fd;
	at = mmap(NULL, ring->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)IORING_OFF_SQ_RING);
	if (at == MAP_FAILED)
		return err_sys(e, -errno, "fd %u: mapping an io_uring", ring->fd);
	m->memory = at;
	m->memory_bytes = ring->ring_bytes;
	at = mmap(NULL, ring->sqe_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)IORING_OFF_SQES);
	if (at == MAP_FAILED)
		return err_sys(e, -errno, "fd %u: mapping an io_uring", ring->fd);
	m->sqes = at;
	m->sqes_bytes = ring->sqe_bytes;
	return 0;
}

static int take_base(const Gw__Uring *ring, struct uring_made *m, struct err *e)
{
	m->base_memory = calloc(1, ring->ring_bytes);
	m->base_sqes = calloc(1, ring->sqe_bytes);
	if (!m->base_memory || !m->base_sqes)
		return err_sys(e, -ENOMEM, "io_uring");
	return uring_patch(ring->ring, ring->n_ring, m->base_memory, ring->ring_bytes) &&
				       uring_patch(ring->sqes, ring->n_sqes, m->base_sqes, ring->sqe_bytes) ?
		       0 :
		       err_set(e, -EBADMSG, "io_uring %u: memory outside of it", ring->fd);
}

/*
 * What is in flight in the freeze is submitted again, so that the count of submissions must be less by that until then; of a running process it is not known exactly. That of
 * completions is left as far behind, so that there are never submissions alone to be counted.
 */
static struct uring_counts stay_behind(const Gw__Uring *ring)
{
	uint32_t by = ring->in_flight + MIN(ring->sq_entries, BEHIND);

	return (struct uring_counts){ ring->sq_head > by ? ring->sq_head - by : 0, ring->cq_tail > by ? ring->cq_tail - by : 0 };
}

static int make_one(const struct uring_skeleton *s, const Gw__Uring *ring, const Gw__FdNumbers *numbers, struct uring_made *m, struct err *e)
{
	struct batch *b = uring_batch(s, ring, e);
	int ret = b ? set_up(b, ring, m, e) : -EBADMSG;

	if (ret == 0)
		ret = give_numbers(b, numbers, m, ring->fd, e);
	for (size_t i = 0; i < ring->n_maps && ret == 0; i++) {
		ret = map_one(s, ring->fd, ring->maps[i], e);
		if (ring->maps[i]->offset != IORING_OFF_SQES && (ring->maps[i]->prot & PROT_WRITE))
			m->mapped_at = ring->maps[i]->start;
	}
	if (ret == 0)
		ret = map_here(s, ring, m, e);
	if (ret == 0)
		ret = take_base(ring, m, e);
	return ret < 0 ? ret : uring_advance(b, s->pidfd, ring, stay_behind(ring), m, e);
}

int uring_make(const struct uring_skeleton *s, const Gw__Process *msg, const Gw__FdNumbers *numbers, struct uring_set **ret, struct err *e)
{
	struct uring_set *set;
	int result = 0;

	if (!msg->n_urings)
		return 0;
	set = must_alloc(sizeof(*set));
	set->v = must_alloc(msg->n_urings * sizeof(*set->v));
	set->n = msg->n_urings;
	*ret = set;
	for (size_t i = 0; i < set->n; i++)
		set->v[i] = (struct uring_made){ .number = -1 };
	for (size_t i = 0; i < set->n && result == 0; i++)
		result = make_one(s, msg->urings[i], numbers, &set->v[i], e);
	return result;
}

void uring_set_free(struct uring_set *set)
{
	for (size_t i = 0; set && i < set->n; i++) {
		struct uring_made *m = &set->v[i];

		if (m->memory)
			munmap(m->memory, m->memory_bytes);
		if (m->sqes)
			munmap(m->sqes, m->sqes_bytes);
		free(m->base_memory);
		free(m->base_sqes);
	}
	free(set ? set->v : NULL);
	free(set);
}
