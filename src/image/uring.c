/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uring.c - io_urings at the source; see uring.h */
#include "image/uring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/file_owner.h"
#include "image/uring_internal.h"
#include "kern/fdpass.h"
#include "kern/uring_peek.h"

#define PATCH_BYTES 256u
#define WAY_OUT "close it first, or let the program use epoll (node: UV_USE_IO_URING=0)"

struct told_ring {
	Gw__Uring *ring;     /* in the message of the offer */
	uint64_t file;       /* what the kernel knows it as */
	uint8_t *memory, *sqes;
	/* in the freeze, when it was last looked at */
	uint32_t sq_head, cq_tail;
	struct uring_request *requests;
	size_t n_requests;
};

struct uring_told {
	struct told_ring *v;
	size_t n;
};

/* What is read anew at each look. */
struct look {
	pid_t pid;
	int pidfd;
	const struct vma_list *layout;
	struct uring_record *rings;  /* one for each ring, with its lowest number */
	size_t n_rings;
	struct uring_file *files;
	size_t n_files;
	struct uring_registered *registered;
	size_t n_registered;
	struct uring_clocks clocks;
	struct refusals *refusals;   /* NULL: frozen */
};

static void look_free(struct look *l)
{
	free(l->rings);
	free(l->files);
	free(l->registered);
}

static bool is_mapped(const struct vma_list *layout)
{
	for (size_t i = 0; i < layout->n; i++)
		if (layout->v[i].kind == VMA_URING)
			return true;
	return false;
}

bool uring_is_in(const Gw__FdTable *t, uint32_t process, const struct vma_list *layout)
{
	const Gw__FdNumbers *n = t->tables[t->table_of[process]];

	for (size_t i = 0; i < n->n_fd; i++)
		if (t->descs[n->desc[i]]->kind == GW__FD_KIND__FD_URING)
			return true;
	return is_mapped(layout);
}

/* Several numbers of one ring are one. */
static size_t without_twins(struct uring_record *v, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		size_t k = 0;

		while (k < kept && v[k].file != v[i].file)
			k++;
		if (k == kept)
			v[kept++] = v[i];
	}
	return kept;
}

static int read_rings(struct look *l, struct err *e)
{
	ssize_t n;

	free(l->rings);
	l->rings = NULL;
	n = uring_peek_rings(l->pid, &l->rings, e);
	if (n < 0)
		return (int)n;
	l->n_rings = without_twins(l->rings, (size_t)n);
	return 0;
}

static int read_all(struct look *l, struct err *e)
{
	int ret = read_rings(l, e);
	ssize_t n;

	if (ret < 0 || !l->n_rings)
		return ret;
	n = uring_peek_files(l->pid, &l->files, e);
	if (n < 0)
		return (int)n;
	l->n_files = (size_t)n;
	n = uring_peek_registered(l->pid, &l->registered, e);
	if (n < 0)
		return (int)n;
	l->n_registered = (size_t)n;
	return 0;
}

/* The lowest number of a file, or -1. */
static int64_t find_file(const struct look *l, uint64_t file)
{
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].file == file)
			return l->files[i].fd;
	return -1;
}

static int64_t find_eventfd(const struct look *l, uint64_t context)
{
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].private == context)
			return l->files[i].fd;
	return -1;
}

/* --- what cannot be carried --- */

static const struct {
	uint32_t bit;
	const char *what;
} state[] = {
	{ URING_RESTRICTED, "it has restrictions (IORING_REGISTER_RESTRICTIONS)" },
	{ URING_PERSONALITIES, "it has credentials registered (IORING_REGISTER_PERSONALITY)" },
	{ URING_BUFFER_LISTS, "it has buffers to choose from (IORING_REGISTER_PBUF_RING, IORING_OP_PROVIDE_BUFFERS)" },
	{ URING_ZERO_COPY, "it has a queue of a network device (IORING_REGISTER_ZCRX_IFQ)" },
	{ URING_NAPI, "it polls network devices (IORING_REGISTER_NAPI)" },
	{ URING_WAIT_REGION, "it has a region of arguments (IORING_REGISTER_MEM_REGION)" },
	{ URING_OVERFLOW, "completions did not fit into it, and have not been taken yet" },
};

static const struct {
	uint32_t flag;
	const char *what;
} setup[] = {
	{ IORING_SETUP_SQPOLL, "a thread of the kernel's submits for it (IORING_SETUP_SQPOLL)" },
	{ IORING_SETUP_R_DISABLED, "it has not been enabled yet (IORING_SETUP_R_DISABLED)" },
	{ SETUP_NO_MMAP, "it lies in memory of the program's own (IORING_SETUP_NO_MMAP)" },
	{ ~(URING_FLAGS_ALLOWED | IORING_SETUP_SQPOLL | IORING_SETUP_R_DISABLED | SETUP_NO_MMAP), "it was made with flags that are not known" },
};

/* NULL: it can be carried. */
static const char *find_obstacle(const struct uring_record *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(setup); i++)
		if (r->flags & setup[i].flag)
			return setup[i].what;
	for (size_t i = 0; i < ARRAY_SIZE(state); i++)
		if (r->bits & state[i].bit)
			return state[i].what;
	return NULL;
}

/* In the freeze what cannot be carried is a reason for another attempt, which then refuses. */
static int refuse(const struct look *l, uint32_t fd, const char *cause, struct err *e)
{
	if (!l->refusals)
		return err_set(e, -EAGAIN, "fd %u (io_uring): %s", fd, cause);
	refusals_add(l->refusals, "fd.io_uring", cause, WAY_OUT, "fd %u (io_uring)", fd);
	return 1;
}

/* --- one ring --- */

static void add_slot(Gw__UringSlot ***list, size_t *n, const Gw__UringSlot *slot)
{
	Gw__UringSlot **grown = realloc(*list, (*n + 1) * sizeof(*grown)), *copy = must_alloc(sizeof(*copy));

	if (!grown)
		abort();
	*copy = *slot;
	*list = grown;
	grown[(*n)++] = copy;
}

static int add_entries(const struct look *l, const struct uring_record *r, Gw__Uring *ring, struct err *e)
{
	const struct uring_entry *v;
	ssize_t n = r->n_files || r->n_buffers ? uring_peek_entries(l->pid, r->ctx, &v, e) : 0;

	if (n < 0)
		return (int)n;
	for (ssize_t i = 0; i < n; i++) {
		Gw__UringSlot slot = GW__URING_SLOT__INIT;
		bool is_file = v[i].kind == URING_ENTRY_FILE;
		int64_t fd = is_file ? find_file(l, v[i].a) : 0;

		if (fd < 0)
			return refuse(l, r->fd, "a file is registered with it that no descriptor refers to any more", e);
		if (!is_file && !v[i].a)
			return refuse(l, r->fd, "memory of the kernel's own is registered with it", e);
		slot.index = v[i].index;
		slot.tag = v[i].b;
		slot.fd = (uint32_t)fd;
		slot.address = is_file ? 0 : v[i].a;
		slot.len = is_file ? 0 : v[i].c;
		if (is_file)
			add_slot(&ring->files, &ring->n_files, &slot);
		else
			add_slot(&ring->buffers, &ring->n_buffers, &slot);
	}
	return 0;
}

/* --- what is in flight --- */

static bool is_place_of(const Gw__Uring *ring, const struct look *l, int64_t place, uint64_t file)
{
	for (size_t i = 0; i < ring->n_files; i++)
		if (ring->files[i]->index == place)
			return find_file(l, file) == ring->files[i]->fd;
	return false;
}

static bool has_number(const struct look *l, int64_t fd, uint64_t file)
{
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].fd == fd)
			return l->files[i].file == file;
	return false;
}

/* By which number, or place, its file is reached now; -1: by none. */
static int64_t find_number(const struct look *l, const Gw__Uring *ring, const struct uring_request *r)
{
	if (r->flags & IOSQE_FIXED_FILE)
		return is_place_of(ring, l, r->fd, r->file) ? r->fd : -1;
	return has_number(l, r->fd, r->file) ? r->fd : find_file(l, r->file);
}

static int refuse_request(const struct look *l, uint32_t fd, const struct uring_request *r, const char *cause, struct err *e)
{
	const char *name = uring_operation_name(r->opcode);

	if (!l->refusals)
		return err_set(e, -EAGAIN, "fd %u (io_uring): a request in flight (IORING_OP_%s): %s", fd, name, cause);
	refusals_add(l->refusals, "fd.io_uring.request", cause, "let it end, or the program use epoll", "fd %u (io_uring, IORING_OP_%s in flight)", fd, name);
	return 1;
}

static int add_requests(const struct look *l, const struct uring_record *record, Gw__Uring *ring, struct err *e)
{
	const struct uring_request *v;
	ssize_t n = record->in_flight ? uring_peek_requests(l->pid, record->ctx, &v, e) : 0;
	int ret = n < 0 ? (int)n : 0;

	for (ssize_t i = 0; i < n && ret == 0; i++) {
		const char *obstacle = uring_flight_obstacle(&v[i]);
		int64_t number = v[i].opcode == IORING_OP_TIMEOUT ? -1 : find_number(l, ring, &v[i]);

		if (!obstacle && v[i].opcode != IORING_OP_TIMEOUT && number < 0)
			obstacle = "it waits for a file that no descriptor refers to any more";
		if (obstacle)
			ret = refuse_request(l, record->fd, &v[i], obstacle, e);
		else
			uring_flight_add(ring, &v[i], &l->clocks)->fd = (int32_t)number;
	}
	return ret;
}

static int add_registered(const struct look *l, const struct uring_record *r, Gw__Uring *ring)
{
	for (size_t i = 0; i < l->n_registered; i++) {
		Gw__UringRegistered **grown, *to;

		if (l->registered[i].file != r->file)
			continue;
		grown = realloc(ring->registered, (ring->n_registered + 1) * sizeof(*grown));
		to = must_alloc(sizeof(*to));
		if (!grown)
			abort();
		gw__uring_registered__init(to);
		to->tid = (uint32_t)fd_owner_seen((pid_t)l->registered[i].tid, "NSpid:");
		to->index = l->registered[i].index;
		ring->registered = grown;
		grown[ring->n_registered++] = to;
	}
	return 0;
}

static int add_maps(const struct look *l, const struct uring_record *r, Gw__Uring *ring, struct err *e)
{
	for (size_t i = 0; i < l->layout->n; i++) {
		const struct vma *v = &l->layout->v[i];
		Gw__UringMap **grown, *to;
		uint32_t bits;
		int ret;

		if (v->kind != VMA_URING || v->ino != r->inode)
			continue;
		ret = vma_bits_at(l->pid, v->start, &bits, e);
		if (ret < 0)
			return ret;
		grown = realloc(ring->maps, (ring->n_maps + 1) * sizeof(*grown));
		to = must_alloc(sizeof(*to));
		if (!grown)
			abort();
		gw__uring_map__init(to);
		to->start = v->start;
		to->len = v->end - v->start;
		to->offset = v->offset;
		to->prot = v->prot;
		to->dontfork = bits & VMA_DONTFORK;
		ring->maps = grown;
		grown[ring->n_maps++] = to;
	}
	return 0;
}

static int describe(const struct look *l, const struct uring_record *r, Gw__Uring *ring, struct err *e)
{
	const char *obstacle = find_obstacle(r);
	int64_t event = r->eventfd ? find_eventfd(l, r->eventfd) : 0;
	int ret;

	if (obstacle)
		return refuse(l, r->fd, obstacle, e);
	if (event < 0)
		return refuse(l, r->fd, "it tells an eventfd that no descriptor refers to any more", e);
	ring->fd = r->fd;
	ring->flags = r->flags & ~(uint32_t)IORING_SETUP_ATTACH_WQ; /* workers are a process's own */
	ring->sq_entries = r->sq_entries;
	ring->cq_entries = r->cq_entries;
	ring->ring_bytes = r->ring_pages * PAGE_SIZE_BYTES;
	ring->sqe_bytes = r->sqe_pages * PAGE_SIZE_BYTES;
	ring->submitter = r->submitter > 0 ? (uint32_t)fd_owner_seen(r->submitter, "NSpid:") : 0;
	ring->no_drain = r->bits & URING_NO_DRAIN;
	ring->sq_head = r->sq_head;
	ring->cq_tail = r->cq_tail;
	ring->eventfd_plus_1 = r->eventfd ? (uint32_t)event + 1 : 0;
	ring->eventfd_async = r->eventfd_async;
	ring->file_places = r->n_files;
	ring->file_alloc_start = r->file_alloc_start;
	ring->file_alloc_end = r->file_alloc_end;
	ring->buffer_places = r->n_buffers;
	ring->clock = (uint32_t)r->clock;
	ring->in_flight = r->in_flight;
	ring->open_flags = r->open_flags & URING_OPEN_FLAGS;
	ring->n_worker_limits = 2;
	ring->worker_limits = must_alloc(2 * sizeof(*ring->worker_limits));
	memcpy(ring->worker_limits, r->worker_limits, sizeof(r->worker_limits));
	add_registered(l, r, ring);
	ret = add_maps(l, r, ring, e);
	if (ret == 0)
		ret = add_entries(l, r, ring, e);
	return ret ? ret : add_requests(l, r, ring, e);
}

/* --- its memory --- */

static void add_patch(Gw__UringPatch ***list, size_t *n, uint32_t at, const uint8_t *data, size_t len)
{
	Gw__UringPatch *last = *n ? (*list)[*n - 1] : NULL, **grown;

	if (last && last->at + last->data.len == at) {
		bytes_append(&last->data, data, len);
		return;
	}
	grown = realloc(*list, (*n + 1) * sizeof(*grown));
	last = must_alloc(sizeof(*last));
	if (!grown)
		abort();
	gw__uring_patch__init(last);
	last->at = at;
	bytes_append(&last->data, data, len);
	*list = grown;
	grown[(*n)++] = last;
}

/* What differs from `base`, which becomes what is there now. */
static void add_differences(Gw__UringPatch ***list, size_t *n, const uint8_t *now, uint8_t *base, size_t len)
{
	for (size_t at = 0; at < len; at += PATCH_BYTES) {
		size_t piece = MIN(len - at, (size_t)PATCH_BYTES);
		uint8_t copy[PATCH_BYTES];

		memcpy(copy, now + at, piece); /* the program may run */
		if (memcmp(copy, base + at, piece) != 0)
			add_patch(list, n, (uint32_t)at, copy, piece);
		memcpy(base + at, copy, piece);
	}
}

static int read_memory(const struct look *l, const Gw__Uring *ring, uint8_t **ret_memory, uint8_t **ret_sqes, struct err *e)
{
	cleanup_close int fd = pidfd_get(l->pidfd, (int)ring->fd, e);
	uint8_t *memory, *sqes;

	if (fd < 0)
		return fd;
	memory = mmap(NULL, ring->ring_bytes, PROT_READ, MAP_SHARED, fd, (off_t)IORING_OFF_SQ_RING);
	sqes = memory == MAP_FAILED ? MAP_FAILED : mmap(NULL, ring->sqe_bytes, PROT_READ, MAP_SHARED, fd, (off_t)IORING_OFF_SQES);
	if (sqes == MAP_FAILED) {
		int code = err_sys(e, -errno, "fd %u: mapping an io_uring", ring->fd);

		if (memory != MAP_FAILED)
			munmap(memory, ring->ring_bytes);
		return code;
	}
	*ret_memory = memory;
	*ret_sqes = sqes;
	return 0;
}

/* base_*: what the destination has, which is changed. */
static int add_memory(const struct look *l, Gw__Uring *ring, uint8_t *base_memory, uint8_t *base_sqes, struct err *e)
{
	uint8_t *memory = NULL, *sqes = NULL;
	int ret = read_memory(l, ring, &memory, &sqes, e);

	if (ret < 0)
		return ret;
	add_differences(&ring->ring, &ring->n_ring, memory, base_memory, ring->ring_bytes);
	add_differences(&ring->sqes, &ring->n_sqes, sqes, base_sqes, ring->sqe_bytes);
	munmap(memory, ring->ring_bytes);
	munmap(sqes, ring->sqe_bytes);
	return 0;
}

static Gw__Uring *add_ring(Gw__Process *msg)
{
	Gw__Uring *ring = must_alloc(sizeof(*ring)), **grown = realloc(msg->urings, (msg->n_urings + 1) * sizeof(*grown));

	if (!grown)
		abort();
	gw__uring__init(ring);
	msg->urings = grown;
	grown[msg->n_urings++] = ring;
	return ring;
}

static void clear(Gw__Process *msg)
{
	for (size_t i = 0; i < msg->n_urings; i++)
		gw__uring__free_unpacked(msg->urings[i], NULL);
	free(msg->urings);
	msg->urings = NULL;
	msg->n_urings = 0;
}

/* --- the offer --- */

void uring_told_free(struct uring_told *told)
{
	for (size_t i = 0; told && i < told->n; i++) {
		free(told->v[i].memory);
		free(told->v[i].sqes);
		free(told->v[i].requests);
	}
	free(told ? told->v : NULL);
	free(told);
}

static void refuse_without_descriptor(const struct look *l)
{
	for (size_t i = 0; i < l->layout->n; i++) {
		const struct vma *v = &l->layout->v[i];
		size_t k = 0;

		while (k < l->n_rings && l->rings[k].inode != v->ino)
			k++;
		if (v->kind == VMA_URING && k == l->n_rings)
			refusals_add(l->refusals, "vma.io-uring", "it is a ring of io_uring that no descriptor of the process refers to", WAY_OUT,
				     "mapping %llx-%llx", (unsigned long long)v->start, (unsigned long long)v->end);
	}
}

static int tell(const struct look *l, Gw__Process *msg, struct uring_told *told, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < l->n_rings && ret >= 0; i++) {
		Gw__Uring *ring = add_ring(msg);
		struct told_ring *t = &told->v[i];

		ret = describe(l, &l->rings[i], ring, e);
		if (ret != 0)
			continue;
		*t = (struct told_ring){ .ring = ring, .file = l->rings[i].file, .memory = calloc(1, ring->ring_bytes), .sqes = calloc(1, ring->sqe_bytes) };
		told->n = i + 1;
		if (!t->memory || !t->sqes)
			return err_sys(e, -ENOMEM, "io_uring");
		ret = add_memory(l, ring, t->memory, t->sqes, e);
	}
	return MIN(ret, 0);
}

int uring_capture(pid_t pid, int pidfd, const struct vma_list *layout, Gw__Process *msg, struct uring_told **ret_told, struct refusals *refusals, struct err *e)
{
	struct look l = { .pid = pid, .pidfd = pidfd, .layout = layout, .refusals = refusals };
	struct uring_told *told = NULL;
	int ret = read_all(&l, e);

	clear(msg);
	if (ret == 0)
		refuse_without_descriptor(&l);
	if (ret == 0 && l.n_rings > URINGS_MAX)
		refusals_add(refusals, "fd.io_uring", "it has too many rings", WAY_OUT, "process %d (%zu io_urings)", pid, l.n_rings);
	if (ret == 0 && l.n_rings) {
		told = must_alloc(sizeof(*told));
		told->v = must_alloc(l.n_rings * sizeof(*told->v));
		told->n = 0;
		ret = tell(&l, msg, told, e);
	}
	look_free(&l);
	if (ret < 0) {
		uring_told_free(told);
		return ret;
	}
	*ret_told = told;
	return 0;
}

void uring_refuse_shared(const Gw__FdTable *t, struct refusals *refusals)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		size_t uses = 0;

		for (size_t k = 0; k < t->n_tables && t->descs[i]->kind == GW__FD_KIND__FD_URING; k++)
			for (size_t n = 0; n < t->tables[k]->n_fd; n++)
				if (t->tables[k]->desc[n] == i) {
					uses++;
					break;
				}
		if (uses > 1)
			refusals_add(refusals, "fd.io_uring", "several processes have it, one of which inherited it", "let the program set it up after fork",
				     "an io_uring of %zu processes", uses);
	}
}

uint64_t uring_pinned_bytes(const Gw__Process *msg)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < msg->n_urings; i++)
		for (size_t k = 0; k < msg->urings[i]->n_buffers; k++)
			bytes += msg->urings[i]->buffers[k]->len;
	return bytes;
}

/* --- the freeze --- */

/* Completions of a ring that only its thread may make. */
static int run_work(const struct look *l, const struct uring_enter *enter, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < l->n_rings && ret == 0; i++)
		if (l->rings[i].in_flight && (l->rings[i].flags & IORING_SETUP_DEFER_TASKRUN) && l->rings[i].submitter > 0)
			ret = enter->run(enter->arg, l->rings[i].submitter, l->rings[i].fd, e);
	return ret;
}

/* Whether all that is in flight waits for something, and can be submitted again. *ret_opcode: of one that cannot, or -1. */
static int is_settled(const struct look *l, const struct uring_record *r, bool *ret_settled, int *ret_opcode, struct err *e)
{
	const struct uring_request *v;
	ssize_t n = r->in_flight ? uring_peek_requests(l->pid, r->ctx, &v, e) : 0;
	bool settled = n == (ssize_t)r->in_flight;

	for (ssize_t i = 0; i < n; i++)
		if (v[i].busy || uring_flight_obstacle(&v[i])) {
			settled = false;
			*ret_opcode = v[i].opcode;
		}
	*ret_settled = settled;
	return MIN((int)n, 0);
}

/* The kernel finishes what it is doing, while the program stands still. */
static int wait_until_settled(struct look *l, const struct uring_enter *enter, struct err *e)
{
	const struct timespec nap = { 0, 200000 };
	uint64_t limit = clock_ns(CLOCK_MONOTONIC) + URING_WAIT_MS * 1000000ull;

	for (;;) {
		bool settled = true, one;
		int opcode = -1, ret = read_rings(l, e);

		for (size_t i = 0; i < l->n_rings && ret == 0; i++) {
			ret = is_settled(l, &l->rings[i], &one, &opcode, e);
			settled = settled && one;
		}
		if (ret < 0 || settled)
			return ret;
		if (clock_ns(CLOCK_MONOTONIC) > limit)
			return err_set(e, -EAGAIN, "process %d: a request of io_uring%s%s does not end, and cannot be submitted again", l->pid,
				       opcode < 0 ? "" : ", IORING_OP_", opcode < 0 ? "" : uring_operation_name((unsigned)opcode));
		ret = run_work(l, enter, e);
		if (ret < 0)
			return ret;
		nanosleep(&nap, NULL);
	}
}

/* What a second look is to agree with. */
static int note(const struct look *l, const struct uring_record *r, struct told_ring *t, struct err *e)
{
	const struct uring_request *v;
	ssize_t n = r->in_flight ? uring_peek_requests(l->pid, r->ctx, &v, e) : 0;

	if (n < 0)
		return (int)n;
	free(t->requests);
	t->requests = must_alloc((size_t)n * sizeof(*v) + 1);
	if (n)
		memcpy(t->requests, v, (size_t)n * sizeof(*v));
	t->n_requests = (size_t)n;
	t->sq_head = r->sq_head;
	t->cq_tail = r->cq_tail;
	return 0;
}

static bool is_as_noted(const struct look *l, const struct uring_record *r, const struct told_ring *t)
{
	const struct uring_request *v;
	ssize_t n = r->in_flight ? uring_peek_requests(l->pid, r->ctx, &v, NULL) : 0;

	return r->file == t->file && r->sq_head == t->sq_head && r->cq_tail == t->cq_tail && r->in_flight == t->n_requests && n == (ssize_t)t->n_requests &&
		(!n || !memcmp(v, t->requests, (size_t)n * sizeof(*v)));
}

int uring_recheck(pid_t pid, const struct uring_told *told, struct err *e)
{
	struct look l = { .pid = pid };
	int ret = told ? read_rings(&l, e) : 0;
	bool same = ret == 0 && (!told || told->n == l.n_rings);

	for (size_t i = 0; told && same && i < told->n; i++)
		same = is_as_noted(&l, &l.rings[i], &told->v[i]);
	look_free(&l);
	return ret < 0 || same ? ret : err_set(e, -EAGAIN, "process %d: a request of io_uring has ended in the freeze", pid);
}

static bool same_maps(const Gw__Uring *a, const Gw__Uring *b)
{
	bool same = a->n_maps == b->n_maps;

	for (size_t i = 0; same && i < a->n_maps; i++)
		same = a->maps[i]->start == b->maps[i]->start && a->maps[i]->len == b->maps[i]->len && a->maps[i]->offset == b->maps[i]->offset &&
			a->maps[i]->prot == b->maps[i]->prot;
	return same;
}

static bool is_same_ring(const Gw__Uring *was, const Gw__Uring *now)
{
	return was->fd == now->fd && was->flags == now->flags && was->sq_entries == now->sq_entries && was->cq_entries == now->cq_entries &&
		was->ring_bytes == now->ring_bytes && was->sqe_bytes == now->sqe_bytes && was->submitter == now->submitter && same_maps(was, now);
}

static int follow(const struct look *l, struct uring_told *told, Gw__Process *msg, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < l->n_rings && ret == 0; i++) {
		struct told_ring *t = &told->v[i];
		Gw__Uring *ring = add_ring(msg);

		ret = describe(l, &l->rings[i], ring, e);
		if (ret == 0)
			ret = note(l, &l->rings[i], t, e);
		if (ret == 0 && (l->rings[i].file != t->file || !is_same_ring(t->ring, ring)))
			ret = err_set(e, -EAGAIN, "process %d has another io_uring as descriptor %u than at the offer", l->pid, ring->fd);
		if (ret == 0)
			ret = add_memory(l, ring, t->memory, t->sqes, e);
	}
	return ret;
}

int uring_recapture(pid_t pid, int pidfd, const struct vma_list *layout, struct uring_told *told, const struct uring_enter *enter, Gw__Process *msg, struct err *e)
{
	struct look l = { .pid = pid, .pidfd = pidfd, .layout = layout, .clocks = enter->clocks };
	int ret;

	clear(msg);
	if (!told && !is_mapped(layout))
		return 0; /* a new descriptor is found where the descriptors are compared */
	ret = wait_until_settled(&l, enter, e);
	if (ret == 0)
		ret = read_all(&l, e);
	if (ret == 0 && l.n_rings != (told ? told->n : 0))
		ret = err_set(e, -EAGAIN, "process %d has %zu io_urings, and had others at the offer", pid, l.n_rings);
	if (ret == 0 && told)
		ret = follow(&l, told, msg, e);
	look_free(&l);
	return ret;
}

/* --- both --- */

bool uring_patch(Gw__UringPatch *const *patches, size_t n, uint8_t *to, size_t len)
{
	for (size_t i = 0; i < n; i++) {
		if (patches[i]->at > len || patches[i]->data.len > len - patches[i]->at)
			return false;
		memcpy(to + patches[i]->at, patches[i]->data.data, patches[i]->data.len);
	}
	return true;
}

static bool are_slots_right(Gw__UringSlot *const *v, size_t n, uint32_t places)
{
	for (size_t i = 0; i < n; i++)
		if (v[i]->index >= places || (i && v[i]->index <= v[i - 1]->index))
			return false;
	return true;
}

static bool are_patches_right(Gw__UringPatch *const *v, size_t n, uint32_t bytes)
{
	for (size_t i = 0; i < n; i++)
		if (v[i]->at > bytes || v[i]->data.len > bytes - v[i]->at)
			return false;
	return true;
}

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static bool are_maps_right(const Gw__Uring *r)
{
	for (size_t i = 0; i < r->n_maps; i++) {
		const Gw__UringMap *m = r->maps[i];

		if (m->start % PAGE_SIZE_BYTES || m->len % PAGE_SIZE_BYTES || !m->len || m->start >= VMA_TASK_SIZE || m->len > VMA_TASK_SIZE - m->start ||
		    (m->prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC)) ||
		    (m->offset != IORING_OFF_SQ_RING && m->offset != IORING_OFF_CQ_RING && m->offset != IORING_OFF_SQES) ||
		    m->len > (m->offset == IORING_OFF_SQES ? r->sqe_bytes : r->ring_bytes))
			return false;
	}
	return true;
}

static int validate_ring(const Gw__Uring *r, struct err *e)
{
	if (r->flags & ~URING_FLAGS_ALLOWED || !is_power_of_two(r->sq_entries) || !is_power_of_two(r->cq_entries) || r->sq_entries > URING_ENTRIES_SQ_MAX ||
	    r->cq_entries > URING_ENTRIES_CQ_MAX || r->fd > INT32_MAX || r->submitter > 0x400000)
		return err_set(e, -EBADMSG, "io_uring %u: flags %#x, %u and %u entries", r->fd, r->flags, r->sq_entries, r->cq_entries);
	if (r->ring_bytes % PAGE_SIZE_BYTES || r->sqe_bytes % PAGE_SIZE_BYTES || r->sqe_bytes < r->sq_entries * uring_sqe_bytes(r->flags) ||
	    r->sqe_bytes > 2 * URING_ENTRIES_SQ_MAX * 64 || r->ring_bytes < sizeof(struct uring_rings) + r->cq_entries * uring_cqe_bytes(r->flags) ||
	    r->ring_bytes > 4u << 20)
		return err_set(e, -EBADMSG, "io_uring %u: %u and %u bytes of memory", r->fd, r->ring_bytes, r->sqe_bytes);
	if (r->file_places > URING_FILES_MAX || r->buffer_places > URING_BUFFERS_MAX || !are_slots_right(r->files, r->n_files, r->file_places) ||
	    !are_slots_right(r->buffers, r->n_buffers, r->buffer_places) || r->file_alloc_end > r->file_places || r->file_alloc_start > r->file_alloc_end)
		return err_set(e, -EBADMSG, "io_uring %u: %zu files and %zu buffers registered", r->fd, r->n_files, r->n_buffers);
	if (!are_patches_right(r->ring, r->n_ring, r->ring_bytes) || !are_patches_right(r->sqes, r->n_sqes, r->sqe_bytes) || !are_maps_right(r))
		return err_set(e, -EBADMSG, "io_uring %u: memory outside of it", r->fd);
	if (r->open_flags & ~URING_OPEN_FLAGS || r->n_worker_limits != 2 || r->clock > 15 || r->eventfd_plus_1 > INT32_MAX)
		return err_set(e, -EBADMSG, "io_uring %u: value out of range", r->fd);
	for (size_t i = 0; i < r->n_registered; i++)
		if (r->registered[i]->index >= URING_RING_FDS || !r->registered[i]->tid)
			return err_set(e, -EBADMSG, "io_uring %u: registered as %u", r->fd, r->registered[i]->index);
	return uring_flight_validate(r, e);
}

int uring_validate(const Gw__Process *msg, struct err *e)
{
	int ret = msg->n_urings > URINGS_MAX ? err_set(e, -EBADMSG, "%zu io_urings", msg->n_urings) : 0;

	for (size_t i = 0; i < msg->n_urings && ret == 0; i++)
		ret = validate_ring(msg->urings[i], e);
	return ret;
}

int uring_validate_update(const Gw__Process *was, const Gw__Process *now, struct err *e)
{
	bool same = was->n_urings == now->n_urings;

	for (size_t i = 0; same && i < was->n_urings; i++)
		same = is_same_ring(was->urings[i], now->urings[i]);
	return same ? 0 : err_set(e, -EBADMSG, "other io_urings than in the offer");
}
