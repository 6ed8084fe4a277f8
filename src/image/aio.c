/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* aio.c - contexts of asynchronous I/O; see aio.h and fs/aio.c in the kernel */
#include "image/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/aio_peek.h"

#define CONTEXTS_MAX 128
#define MOVE_APART (1ull << 41) /* other things are put into free places, too */
#define SUBMIT_AT_ONCE 128u
#define POSITION_SLOTS 1024u

/* struct aio_ring */
struct ring {
	uint32_t id, slots, head, tail;
	uint32_t magic, compat_features, incompat_features, header_length;
};

_Static_assert(sizeof(struct ring) == 32 && sizeof(struct io_event) == 32, "aio_abi.h");

static unsigned slots_of(const struct vma *v)
{
	return (unsigned)((v->end - v->start - sizeof(struct ring)) / sizeof(struct io_event));
}

/* The most requests for which the kernel makes a ring of this size: two slots for each, and two. */
static unsigned requests_of(const struct vma *v)
{
	return (slots_of(v) - 2) / 2;
}

static bool has_contexts(const struct vma_list *layout)
{
	for (size_t i = 0; i < layout->n; i++)
		if (layout->v[i].kind == VMA_AIO)
			return true;
	return false;
}

/* --- source --- */

struct contexts {
	struct aio_record v[CONTEXTS_MAX];
	int n;
};

static const struct aio_record *find_context(const struct contexts *c, const struct vma *v)
{
	for (int i = 0; i < c->n; i++)
		if (c->v[i].id == v->start && c->v[i].size == v->end - v->start && c->v[i].slots == slots_of(v))
			return &c->v[i];
	return NULL;
}

int aio_check(pid_t pid, const struct vma_list *layout, struct refusals *refusals, struct err *e)
{
	cleanup_free struct contexts *c = must_alloc(sizeof(*c));

	if (!has_contexts(layout))
		return 0;
	c->n = aio_peek(pid, c->v, CONTEXTS_MAX, e);
	if (c->n < 0)
		return c->n;
	for (size_t i = 0; i < layout->n; i++) {
		const struct vma *v = &layout->v[i];

		if (v->kind == VMA_AIO && !find_context(c, v))
			refusals_add(refusals, "vma.aio", "it is the ring of another process's asynchronous I/O, inherited by fork, or has been taken apart",
				     "let the program call io_setup after fork", "mapping %llx-%llx ([aio])", (unsigned long long)v->start,
				     (unsigned long long)v->end);
	}
	if (c->n == CONTEXTS_MAX)
		refusals_add(refusals, "vma.aio", "it has too many contexts of asynchronous I/O", "configure it to use fewer", "process %d (io_setup)", pid);
	return 0;
}

/* The kernel finishes what is in flight, while the program stands still. */
static int wait_until_idle(pid_t pid, struct contexts *c, struct err *e)
{
	const struct timespec nap = { 0, 200000 };
	uint64_t limit = clock_ns(CLOCK_MONOTONIC) + AIO_WAIT_MS * 1000000ull;

	for (;;) {
		unsigned in_flight = 0;

		c->n = aio_peek(pid, c->v, CONTEXTS_MAX, e);
		if (c->n < 0)
			return c->n;
		for (int i = 0; i < c->n; i++)
			in_flight += c->v[i].in_flight;
		if (!in_flight)
			return 0;
		if (clock_ns(CLOCK_MONOTONIC) > limit)
			return err_set(e, -EAGAIN, "process %d: %u requests of asynchronous I/O (io_submit) do not end; let the program take them back (io_cancel)", pid,
				       in_flight);
		nanosleep(&nap, NULL);
	}
}

static int read_memory(pid_t pid, uint64_t at, void *to, size_t len, struct err *e)
{
	struct iovec local = { to, len }, remote = { (void *)(uintptr_t)at, len };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)len ? 0 : err_sys(e, -errno, "process %d: ring of asynchronous I/O", pid);
}

static Gw__AioContext *add_context(Gw__Process *msg)
{
	Gw__AioContext *c = must_alloc(sizeof(*c)), **grown = realloc(msg->aio, (msg->n_aio + 1) * sizeof(*grown));

	if (!grown)
		abort();
	gw__aio_context__init(c);
	msg->aio = grown;
	grown[msg->n_aio++] = c;
	return c;
}

/* The head is the program's to write: the kernel takes it modulo the number of slots, too. */
static int read_events(pid_t pid, const struct aio_record *r, Gw__Process *msg, struct err *e)
{
	cleanup_free uint8_t *all = must_alloc(r->size);
	const struct io_event *slot = (const void *)(all + sizeof(struct ring));
	const struct ring *ring = (const void *)all;
	int rc = read_memory(pid, r->id, all, r->size, e);
	Gw__AioContext *c;
	uint32_t tail;

	if (rc < 0)
		return rc;
	c = add_context(msg);
	c->id = r->id;
	c->head = ring->head % r->slots;
	tail = r->tail % r->slots;
	if (tail != c->head)
		bytes_append(&c->events, &slot[c->head], ((tail < c->head ? r->slots : tail) - c->head) * sizeof(*slot));
	if (tail && tail < c->head)
		bytes_append(&c->events, slot, tail * sizeof(*slot));
	return 0;
}

int aio_capture(pid_t pid, const struct vma_list *layout, Gw__Process *msg, struct err *e)
{
	cleanup_free struct contexts *c = NULL;
	int rc;

	if (!has_contexts(layout))
		return 0;
	c = must_alloc(sizeof(*c));
	rc = wait_until_idle(pid, c, e);
	for (size_t i = 0; i < layout->n && rc == 0; i++) {
		const struct aio_record *r = layout->v[i].kind == VMA_AIO ? find_context(c, &layout->v[i]) : NULL;

		if (r)
			rc = read_events(pid, r, msg, e);
		else if (layout->v[i].kind == VMA_AIO)
			rc = err_set(e, -EAGAIN, "process %d has other contexts of asynchronous I/O than at the offer", pid);
	}
	return rc;
}

/* --- both --- */

int aio_validate(const Gw__Process *msg, bool offer, struct err *e)
{
	if (msg->n_aio > CONTEXTS_MAX || (offer && msg->n_aio))
		return err_set(e, -EBADMSG, "%zu contexts of asynchronous I/O", msg->n_aio);
	for (size_t i = 0; i < msg->n_aio; i++)
		if (msg->aio[i]->events.len % sizeof(struct io_event))
			return err_set(e, -EBADMSG, "events of asynchronous I/O that are no events");
	return 0;
}

/* --- destination --- */

void aio_validate_here(const struct vma_list *layout, struct refusals *refusals)
{
	unsigned least = 4 * aio_possible_cpus();

	for (size_t i = 0; i < layout->n; i++)
		if (layout->v[i].kind == VMA_AIO && requests_of(&layout->v[i]) < least)
			refusals_add(refusals, "vma.aio-size", "with the CPUs of the destination the kernel makes larger rings", "move it to a host with fewer CPUs",
				     "mapping %llx ([aio])", (unsigned long long)layout->v[i].start);
}

/* The ring cannot be moved to where it lies in part: there it goes by a place where nothing is. */
static int move_ring(struct batch *b, const struct vma_list *layout, const struct vma *v, uint64_t from, struct err *e)
{
	uint64_t len = v->end - v->start, aside = vma_find_free(layout, NULL, len + MOVE_APART);
	int64_t rc;

	if (from == v->start)
		return 0;
	if (from < v->end && v->start < from + len) {
		rc = remote_do(b, e, "moving a ring of asynchronous I/O aside", SYS_mremap, from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, aside);
		if (rc < 0)
			return (int)rc;
		from = aside;
	}
	rc = remote_do(b, e, "moving a ring of asynchronous I/O", SYS_mremap, from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, v->start);
	return rc < 0 ? (int)rc : 0;
}

static int make_one(struct batch *b, int mem_fd, const struct vma_list *layout, const struct vma *v, struct err *e)
{
	struct ring ring;
	uint64_t at;
	uint64_t *id = batch_space(b, sizeof(*id), &at);
	int rc;

	*id = 0;
	batch_call(b, "io_setup (fs.aio-max-nr?)", SYS_io_setup, requests_of(v), at);
	rc = batch_run(b, e);
	at = *id;
	batch_reset(b);
	if (rc < 0)
		return rc;
	if (pread(mem_fd, &ring, sizeof(ring), (off_t)at) != (ssize_t)sizeof(ring))
		return err_sys(e, -errno, "ring of asynchronous I/O");
	if (ring.slots != slots_of(v))
		return err_set(e, -EOPNOTSUPP, "a ring of asynchronous I/O has %u slots here and %u at the source", ring.slots, slots_of(v));
	return move_ring(b, layout, v, at, e);
}

int aio_make(struct batch *b, int mem_fd, const struct vma_list *layout, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < layout->n && rc == 0; i++)
		if (layout->v[i].kind == VMA_AIO)
			rc = make_one(b, mem_fd, layout, &layout->v[i], e);
	return rc;
}

/* Reads of nothing, which are over when they have been submitted; each takes a slot. */
static int submit(struct batch *b, const Gw__AioContext *c, uint32_t n, int null, struct err *e)
{
	uint64_t at, list_at;
	struct iocb *requests = batch_space(b, n * sizeof(*requests), &at);
	uint64_t *list = batch_space(b, n * sizeof(*list), &list_at);
	struct remote_call *call;
	int rc;

	for (uint32_t i = 0; i < n; i++) {
		requests[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)null, .aio_buf = at };
		list[i] = at + i * sizeof(*requests);
	}
	call = batch_call(b, "io_submit", SYS_io_submit, c->id, n, list_at);
	rc = batch_run(b, e);
	if (rc == 0 && call->ret != n)
		rc = err_set(e, -EIO, "events of asynchronous I/O: %lld of %u", (long long)call->ret, n);
	batch_reset(b);
	return rc;
}

static int write_head(int mem_fd, const Gw__AioContext *c, uint32_t head, struct err *e)
{
	ssize_t n = pwrite(mem_fd, &head, sizeof(head), (off_t)(c->id + offsetof(struct ring, head)));

	return n == (ssize_t)sizeof(head) ? 0 : err_sys(e, -errno, "ring of asynchronous I/O");
}

/* Makes `n` events and takes them. */
static int advance(struct batch *b, int mem_fd, const Gw__AioContext *c, uint32_t n, uint32_t slots, int null, struct err *e)
{
	int rc = 0;

	for (uint32_t done = 0, step; done < n && rc == 0; done += step) {
		step = MIN(MIN(n - done, SUBMIT_AT_ONCE), slots / 2);
		rc = submit(b, c, step, null, e);
		if (rc == 0)
			rc = write_head(mem_fd, c, (done + step) % slots, e);
	}
	return rc;
}

static int write_events(int mem_fd, const Gw__AioContext *c, uint32_t head, uint32_t slots, struct err *e)
{
	const struct io_event *events = (const void *)c->events.data;

	for (uint32_t i = 0; i < c->events.len / sizeof(*events); i++) {
		off_t at = (off_t)(c->id + sizeof(struct ring) + (head + i) % slots * sizeof(*events));

		if (pwrite(mem_fd, &events[i], sizeof(*events), at) != (ssize_t)sizeof(*events))
			return err_sys(e, -errno, "events of asynchronous I/O");
	}
	return 0;
}

/* Of a small ring its positions are the same, too; to reach those of a large one would take long. */
static int fill_one(struct batch *b, int mem_fd, const struct vma_list *layout, const Gw__AioContext *c, int null, struct err *e)
{
	const struct vma *v = vma_find(layout, c->id);
	uint32_t n = (uint32_t)(c->events.len / sizeof(struct io_event)), slots, head;
	int rc;

	if (!v || v->kind != VMA_AIO || v->start != c->id || n >= slots_of(v) || c->head >= slots_of(v))
		return err_set(e, -EBADMSG, "events of asynchronous I/O without a context");
	slots = slots_of(v);
	head = slots <= POSITION_SLOTS ? c->head : 0;
	rc = advance(b, mem_fd, c, head, slots, null, e);
	for (uint32_t done = 0, step; done < n && rc == 0; done += step) {
		step = MIN(n - done, SUBMIT_AT_ONCE);
		rc = submit(b, c, step, null, e);
	}
	return rc < 0 ? rc : write_events(mem_fd, c, head, slots, e);
}

static bool any_to_fill(const struct vma_list *layout, const Gw__Process *msg)
{
	for (size_t i = 0; i < msg->n_aio; i++) {
		const struct vma *v = vma_find(layout, msg->aio[i]->id);

		if (msg->aio[i]->events.len || (v && v->kind == VMA_AIO && slots_of(v) <= POSITION_SLOTS && msg->aio[i]->head))
			return true;
	}
	return false;
}

int aio_fill(struct batch *b, int mem_fd, const struct vma_list *layout, const Gw__Process *msg, struct err *e)
{
	int64_t null;
	int rc = 0;

	if (!any_to_fill(layout, msg))
		return 0;
	null = remote_do(b, e, "/dev/null", SYS_openat, (uint64_t)AT_FDCWD, batch_string(b, "/dev/null"), O_RDONLY);
	if (null < 0)
		return (int)null;
	for (size_t i = 0; i < msg->n_aio && rc == 0; i++)
		rc = fill_one(b, mem_fd, layout, msg->aio[i], (int)null, e);
	if (remote_do(b, rc < 0 ? NULL : e, "close", SYS_close, (uint64_t)null) < 0 && rc == 0)
		rc = -EIO;
	return rc;
}
