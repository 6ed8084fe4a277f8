/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uring_peek.bpf.c - io_urings of a process: what they were made with, where they stand, what is registered and what is in flight
 *
 * Requests that are not over are those that the ring has memory for and that are not in its list of free ones: nothing counts them, but this tells exactly.
 */
#include "iter.h"
#include "tid.h"

#include "../uring_record.h"

#define NAPI_INACTIVE 255 /* IO_URING_NAPI_TRACKING_INACTIVE */
#define FILE_POINTER_MASK (~7ull)

struct io_wq_work_node {
	struct io_wq_work_node *next;
} CO_RE;

struct io_wq_work_list {
	struct io_wq_work_node *first;
} CO_RE;

struct io_submit_state {
	struct io_wq_work_node free_list;
	struct io_wq_work_list compl_reqs;
} CO_RE;

struct io_mapped_ubuf {
	unsigned long long ubuf;
	unsigned int len;
	_Bool is_kbuf;
} CO_RE;

struct io_rsrc_node {
	unsigned long long tag;
	union {
		unsigned long file_ptr;
		struct io_mapped_ubuf *buf;
	};
} CO_RE;

struct io_rsrc_data {
	unsigned int nr;
	struct io_rsrc_node **nodes;
} CO_RE;

struct io_file_table {
	struct io_rsrc_data data;
} CO_RE;

struct io_ev_fd {
	void *cq_ev_fd;
	unsigned int eventfd_async;
} CO_RE;

struct io_mapped_region {
	unsigned int nr_pages;
} CO_RE;

struct list_head {
	struct list_head *next;
} CO_RE;

struct xarray {
	void *xa_head;
} CO_RE;

struct io_hash_bucket;

struct io_hash_table {
	struct io_hash_bucket *hbs;
	unsigned int hash_bits;
} CO_RE;

typedef struct {
	int counter;
} CO_RE atomic_t;

typedef struct refcount_struct {
	atomic_t refs;
} CO_RE refcount_t;

struct io_sq_data {
	refcount_t refs;
	int sq_cpu;
} CO_RE;

struct io_ring_ctx {
	unsigned int flags;
	unsigned int restricted : 1;
	unsigned int drain_disabled : 1;
	struct task_struct *submitter_task;
	int clockid;
	unsigned int sq_thread_idle;
	unsigned int cached_sq_head;
	unsigned int sq_entries;
	struct io_file_table file_table;
	struct io_rsrc_data buf_table;
	struct io_submit_state submit_state;
	struct xarray io_bl_xa;
	struct io_hash_table cancel_table;
	atomic_t cq_timeouts;
	struct list_head timeout_list;
	unsigned int cached_cq_tail;
	unsigned int cq_entries;
	struct io_ev_fd *io_ev_fd;
	struct list_head cq_overflow_list;
	struct io_sq_data *sq_data;
	unsigned int file_alloc_start, file_alloc_end;
	struct xarray zcrx_ctxs;
	struct xarray personalities;
	unsigned int iowq_limits[2];
	unsigned int nr_req_allocated;
	unsigned char napi_track_mode, napi_enabled;
	struct io_mapped_region sq_region, ring_region, param_region;
} CO_RE;

/* --- what its requests are made of --- */

struct hlist_node {
	struct hlist_node *next;
} CO_RE;

struct hlist_head {
	struct hlist_node *first;
} CO_RE;

struct io_hash_bucket {
	struct hlist_head list;
} CO_RE;

struct io_cqe {
	unsigned long long user_data;
	int res;
	int fd;
} CO_RE;

struct io_uring_task {
	struct task_struct *task;
	struct file *registered_rings[16];
} CO_RE;

struct io_kiocb {
	struct file *file;
	unsigned char opcode;
	unsigned long long flags;
	struct io_cqe cqe;
	struct io_uring_task *tctx;
	struct hlist_node hash_node;
	void *async_data;
	atomic_t poll_refs;
	struct io_kiocb *link;
} CO_RE;

struct io_poll {
	unsigned int events;
} CO_RE;

struct io_timeout {
	unsigned int off, target_seq, repeats;
	struct list_head list;
} CO_RE;

struct timespec64 {
	long long tv_sec;
	long tv_nsec;
} CO_RE;

struct hrtimer_clock_base {
	int clockid;
} CO_RE;

struct hrtimer {
	long long _softexpires;
	struct hrtimer_clock_base *base;
} CO_RE;

struct io_timeout_data {
	struct hrtimer timer;
	struct timespec64 ts;
	unsigned int flags;
} CO_RE;

struct io_accept {
	void *addr;
	int *addr_len;
	int flags;
	int iou_flags;
	unsigned int file_slot;
} CO_RE;

struct io_sr_msg {
	void *buf;
	int len;
	unsigned int done_io;
	unsigned int msg_flags;
	unsigned short flags;
} CO_RE;

struct kiocb {
	long long ki_pos;
} CO_RE;

struct io_rw {
	struct kiocb kiocb;
	unsigned long long addr;
	unsigned int len;
	int flags;
} CO_RE;

struct io_async_rw {
	unsigned long bytes_done;
} CO_RE;

struct file_operations {
	void *show_fdinfo;
} CO_RE;

struct inode {
	unsigned long i_ino;
} CO_RE;

struct file {
	const struct file_operations *f_op;
	unsigned int f_flags;
	struct inode *f_inode;
	void *private_data;
} CO_RE;

struct task_struct {
	int tgid;
	struct io_uring_task *io_uring;
} CO_RE;

extern const void io_uring_show_fdinfo __ksym __weak;

/* --- the rings --- */

static __always_inline int is_ring(struct file *file)
{
	return file && &io_uring_show_fdinfo && BPF_CORE_READ(file, f_op, show_fdinfo) == (void *)&io_uring_show_fdinfo;
}

struct count {
	struct io_wq_work_node *at;
	unsigned int n;
};

static long count_free(unsigned int i, struct count *c)
{
	struct io_wq_work_node *at = c->at;

	if (!at)
		return 1;
	c->n++;
	c->at = BPF_CORE_READ(at, next);
	return 0;
}

/* Free ones, and those that are over and not put among the free ones yet. */
static __always_inline unsigned int in_flight(struct io_ring_ctx *ctx)
{
	unsigned int allocated = BPF_CORE_READ(ctx, nr_req_allocated);
	struct count c = { BPF_CORE_READ(ctx, submit_state.free_list.next), 0 };

	bpf_loop(allocated + 1, count_free, &c, 0);
	c.at = BPF_CORE_READ(ctx, submit_state.compl_reqs.first);
	bpf_loop(allocated + 1, count_free, &c, 0);
	return allocated - c.n;
}

static __always_inline int is_list_empty(const void *head, const void *next)
{
	return !next || head == next;
}

static __always_inline unsigned int bits_of(struct io_ring_ctx *ctx)
{
	struct io_sq_data *thread = BPF_CORE_READ(ctx, sq_data);
	unsigned int bits = 0;

	if (BPF_CORE_READ_BITFIELD_PROBED(ctx, restricted))
		bits |= URING_RESTRICTED;
	if (BPF_CORE_READ_BITFIELD_PROBED(ctx, drain_disabled))
		bits |= URING_NO_DRAIN;
	if (BPF_CORE_READ(ctx, personalities.xa_head))
		bits |= URING_PERSONALITIES;
	if (BPF_CORE_READ(ctx, io_bl_xa.xa_head))
		bits |= URING_BUFFER_LISTS;
	if (bpf_core_field_exists(ctx->zcrx_ctxs) && BPF_CORE_READ(ctx, zcrx_ctxs.xa_head))
		bits |= URING_ZERO_COPY;
	if (bpf_core_field_exists(ctx->napi_track_mode) ? BPF_CORE_READ(ctx, napi_track_mode) != NAPI_INACTIVE :
						 bpf_core_field_exists(ctx->napi_enabled) && BPF_CORE_READ(ctx, napi_enabled))
		bits |= URING_NAPI;
	if (bpf_core_field_exists(ctx->param_region) && BPF_CORE_READ(ctx, param_region.nr_pages))
		bits |= URING_WAIT_REGION;
	if (!is_list_empty((char *)ctx + bpf_core_field_offset(struct io_ring_ctx, cq_overflow_list), BPF_CORE_READ(ctx, cq_overflow_list.next)))
		bits |= URING_OVERFLOW;
	if (thread && BPF_CORE_READ(thread, refs.refs.counter) > 1)
		bits |= URING_SHARED_WORKERS;
	return bits;
}

static __always_inline void describe(struct io_ring_ctx *ctx, struct uring_record *r)
{
	struct io_ev_fd *event = BPF_CORE_READ(ctx, io_ev_fd);
	struct task_struct *submitter = BPF_CORE_READ(ctx, submitter_task);
	struct io_sq_data *thread = BPF_CORE_READ(ctx, sq_data);

	r->ctx = (unsigned long)ctx;
	r->flags = BPF_CORE_READ(ctx, flags);
	r->bits = bits_of(ctx);
	r->sq_entries = BPF_CORE_READ(ctx, sq_entries);
	r->cq_entries = BPF_CORE_READ(ctx, cq_entries);
	r->sq_head = BPF_CORE_READ(ctx, cached_sq_head);
	r->cq_tail = BPF_CORE_READ(ctx, cached_cq_tail);
	r->in_flight = in_flight(ctx);
	r->eventfd = event ? (unsigned long)BPF_CORE_READ(event, cq_ev_fd) : 0;
	r->eventfd_async = event ? BPF_CORE_READ(event, eventfd_async) : 0;
	r->submitter = submitter ? (int)tid_of(submitter) : 0;
	r->sq_idle = BPF_CORE_READ(ctx, sq_thread_idle);
	r->sq_cpu = thread ? BPF_CORE_READ(thread, sq_cpu) : -1;
	r->clock = BPF_CORE_READ(ctx, clockid);
	bpf_probe_read_kernel(r->worker_limits, sizeof(r->worker_limits), (char *)ctx + bpf_core_field_offset(struct io_ring_ctx, iowq_limits));
	r->n_files = BPF_CORE_READ(ctx, file_table.data.nr);
	r->n_buffers = BPF_CORE_READ(ctx, buf_table.nr);
	r->file_alloc_start = BPF_CORE_READ(ctx, file_alloc_start);
	r->file_alloc_end = BPF_CORE_READ(ctx, file_alloc_end);
	r->ring_pages = BPF_CORE_READ(ctx, ring_region.nr_pages);
	r->sqe_pages = BPF_CORE_READ(ctx, sq_region.nr_pages);
}

SEC("iter/task_file")
int read_rings(struct bpf_iter__task_file *iter)
{
	struct file *file = iter->file;
	struct uring_record r = {};

	if (!is_ring(file))
		return 0;
	r.fd = iter->fd;
	r.file = (unsigned long)file;
	r.open_flags = BPF_CORE_READ(file, f_flags);
	r.inode = BPF_CORE_READ(file, f_inode, i_ino);
	describe(BPF_CORE_READ(file, private_data), &r);
	bpf_seq_write(iter->meta->seq, &r, sizeof(r));
	return 0;
}

SEC("iter/task_file")
int read_files(struct bpf_iter__task_file *iter)
{
	struct uring_file r = { .fd = iter->fd };
	struct file *file = iter->file;

	if (!file)
		return 0;
	r.file = (unsigned long)file;
	r.private = (unsigned long)BPF_CORE_READ(file, private_data);
	bpf_seq_write(iter->meta->seq, &r, sizeof(r));
	return 0;
}

SEC("iter/task")
int read_registered(struct bpf_iter__task *iter)
{
	struct task_struct *task = (void *)iter->task;
	struct io_uring_task *own = task ? BPF_CORE_READ(task, io_uring) : 0;
	struct uring_registered r = {};

	if (!own)
		return 0;
	r.tid = tid_of(task);
	for (unsigned int i = 0; i < 16; i++) {
		struct file *file = 0;

		bpf_probe_read_kernel(&file, sizeof(file), (char *)own + bpf_core_field_offset(struct io_uring_task, registered_rings) + i * sizeof(file));
		if (!file)
			continue;
		r.index = i;
		r.file = (unsigned long)file;
		bpf_seq_write(iter->meta->seq, &r, sizeof(r));
	}
	return 0;
}

/* --- what is registered in one of them --- */

unsigned long long wanted; /* struct uring_record's ctx */
unsigned int n_entries;
struct uring_entry entries[URING_ENTRIES_MAX];

static __always_inline struct uring_entry *next_entry(void)
{
	unsigned int n = n_entries++;

	return n < URING_ENTRIES_MAX ? &entries[n] : 0;
}

static __always_inline struct io_rsrc_node *node_at(struct io_rsrc_node **nodes, unsigned int i)
{
	struct io_rsrc_node *node = 0;

	bpf_probe_read_kernel(&node, sizeof(node), nodes + i);
	return node;
}

static long add_file(unsigned int i, struct io_rsrc_node ***nodes)
{
	struct io_rsrc_node *node = node_at(*nodes, i);
	struct uring_entry *to = node ? next_entry() : 0;

	if (!to)
		return n_entries > URING_ENTRIES_MAX;
	to->kind = URING_ENTRY_FILE;
	to->index = i;
	to->a = BPF_CORE_READ(node, file_ptr) & FILE_POINTER_MASK;
	to->b = BPF_CORE_READ(node, tag);
	to->c = 0;
	return 0;
}

static long add_buffer(unsigned int i, struct io_rsrc_node ***nodes)
{
	struct io_rsrc_node *node = node_at(*nodes, i);
	struct uring_entry *to = node ? next_entry() : 0;
	struct io_mapped_ubuf *buffer;

	if (!to)
		return n_entries > URING_ENTRIES_MAX;
	buffer = BPF_CORE_READ(node, buf);
	to->kind = URING_ENTRY_BUFFER;
	to->index = i;
	to->b = BPF_CORE_READ(node, tag);
	to->a = BPF_CORE_READ(buffer, is_kbuf) ? 0 : BPF_CORE_READ(buffer, ubuf);
	to->c = BPF_CORE_READ(buffer, is_kbuf) ? 0 : BPF_CORE_READ(buffer, len);
	return 0;
}

SEC("iter/task_file")
int read_entries(struct bpf_iter__task_file *iter)
{
	struct file *file = iter->file;
	struct io_ring_ctx *ctx;
	struct io_rsrc_node **nodes;

	if (!wanted || !is_ring(file))
		return 0;
	ctx = BPF_CORE_READ(file, private_data);
	if ((unsigned long)ctx != wanted)
		return 0;
	wanted = 0; /* it may have several numbers */
	n_entries = 0;
	nodes = BPF_CORE_READ(ctx, file_table.data.nodes);
	bpf_loop(BPF_CORE_READ(ctx, file_table.data.nr), add_file, &nodes, 0);
	nodes = BPF_CORE_READ(ctx, buf_table.nodes);
	bpf_loop(BPF_CORE_READ(ctx, buf_table.nr), add_buffer, &nodes, 0);
	return 0;
}

/* --- what waits in one of them --- */

#define OP_READV 1
#define OP_WRITEV 2
#define OP_POLL_ADD 6
#define OP_SENDMSG 9
#define OP_RECVMSG 10
#define OP_TIMEOUT 11
#define OP_ACCEPT 13
#define OP_READ 22
#define OP_WRITE 23
#define OP_SEND 26
#define OP_RECV 27

struct uring_request requests[URING_REQUESTS_MAX];

static __always_inline void describe_transfer(struct io_kiocb *req, struct uring_request *to)
{
	struct io_sr_msg *m = (void *)req;

	to->address = (unsigned long)BPF_CORE_READ(m, buf);
	to->len = BPF_CORE_READ(m, len);
	to->done = BPF_CORE_READ(m, done_io);
	to->operation_flags = BPF_CORE_READ(m, msg_flags);
	to->ioprio = BPF_CORE_READ(m, flags);
}

static __always_inline void describe_rw(struct io_kiocb *req, struct uring_request *to)
{
	struct io_async_rw *own = BPF_CORE_READ(req, async_data);
	struct io_rw *rw = (void *)req;

	to->address = BPF_CORE_READ(rw, addr);
	to->len = BPF_CORE_READ(rw, len);
	to->offset = BPF_CORE_READ(rw, kiocb.ki_pos);
	to->operation_flags = BPF_CORE_READ(rw, flags);
	to->done = own ? BPF_CORE_READ(own, bytes_done) : 0;
}

static __always_inline void describe_accept(struct io_kiocb *req, struct uring_request *to)
{
	struct io_accept *a = (void *)req;

	to->address = (unsigned long)BPF_CORE_READ(a, addr);
	to->address2 = (unsigned long)BPF_CORE_READ(a, addr_len);
	to->operation_flags = BPF_CORE_READ(a, flags);
	to->ioprio = BPF_CORE_READ(a, iou_flags);
	to->place = BPF_CORE_READ(a, file_slot);
}

static __always_inline void describe_timeout(struct io_ring_ctx *ctx, struct io_kiocb *req, struct uring_request *to)
{
	struct io_timeout_data *own = BPF_CORE_READ(req, async_data);
	struct io_timeout *t = (void *)req;

	/* How many completions are still to come before it. */
	if (BPF_CORE_READ(t, off))
		to->offset = BPF_CORE_READ(t, target_seq) - (BPF_CORE_READ(ctx, cached_cq_tail) - BPF_CORE_READ(ctx, cq_timeouts.counter));
	to->repeats = BPF_CORE_READ(t, repeats);
	to->expires = BPF_CORE_READ(own, timer._softexpires);
	to->clock = BPF_CORE_READ(own, timer.base, clockid);
	to->operation_flags = BPF_CORE_READ(own, flags);
	to->period[0] = BPF_CORE_READ(own, ts.tv_sec);
	to->period[1] = BPF_CORE_READ(own, ts.tv_nsec);
}

static __always_inline void describe_request(struct io_ring_ctx *ctx, struct io_kiocb *req)
{
	unsigned int n = n_entries++;
	struct task_struct *task;
	struct uring_request *to;

	if (n >= URING_REQUESTS_MAX)
		return;
	to = &requests[n];
	__builtin_memset(to, 0, sizeof(*to));
	to->opcode = BPF_CORE_READ(req, opcode);
	to->flags = BPF_CORE_READ(req, flags) & 0x7f;
	to->busy = BPF_CORE_READ(req, poll_refs.counter) != 0;
	to->linked = BPF_CORE_READ(req, link) != 0;
	to->data = BPF_CORE_READ(req, cqe.user_data);
	to->fd = BPF_CORE_READ(req, cqe.fd);
	task = BPF_CORE_READ(req, tctx, task);
	to->tid = task ? tid_of(task) : 0;
	to->file = (unsigned long)BPF_CORE_READ(req, file);
	if (to->opcode == OP_POLL_ADD)
		to->events = BPF_CORE_READ((struct io_poll *)req, events);
	else if (to->opcode == OP_TIMEOUT)
		describe_timeout(ctx, req, to);
	else if (to->opcode == OP_ACCEPT)
		describe_accept(req, to);
	else if (to->opcode == OP_SEND || to->opcode == OP_RECV || to->opcode == OP_SENDMSG || to->opcode == OP_RECVMSG)
		describe_transfer(req, to);
	else if (to->opcode == OP_READ || to->opcode == OP_WRITE || to->opcode == OP_READV || to->opcode == OP_WRITEV)
		describe_rw(req, to);
}

struct walk {
	struct io_ring_ctx *ctx;
	struct io_hash_bucket *buckets;
	void *at;
};

static long walk_bucket(unsigned int i, struct walk *w)
{
	struct hlist_node *node = w->at;

	if (!node)
		return 1;
	describe_request(w->ctx, (struct io_kiocb *)((char *)node - bpf_core_field_offset(struct io_kiocb, hash_node)));
	w->at = BPF_CORE_READ(node, next);
	return 0;
}

static long walk_buckets(unsigned int i, struct walk *w)
{
	struct io_hash_bucket *bucket = (void *)((char *)w->buckets + i * bpf_core_type_size(struct io_hash_bucket));

	w->at = BPF_CORE_READ(bucket, list.first);
	bpf_loop(URING_REQUESTS_MAX, walk_bucket, w, 0);
	return 0;
}

static long walk_timeouts(unsigned int i, struct walk *w)
{
	struct list_head *node = w->at;
	char *end = (char *)w->ctx + bpf_core_field_offset(struct io_ring_ctx, timeout_list);

	if (!node || (char *)node == end)
		return 1;
	describe_request(w->ctx, (struct io_kiocb *)((char *)node - bpf_core_field_offset(struct io_timeout, list)));
	w->at = BPF_CORE_READ(node, next);
	return 0;
}

SEC("iter/task_file")
int read_requests(struct bpf_iter__task_file *iter)
{
	struct file *file = iter->file;
	struct io_ring_ctx *ctx;
	struct walk w = {};

	if (!wanted || !is_ring(file))
		return 0;
	ctx = BPF_CORE_READ(file, private_data);
	if ((unsigned long)ctx != wanted)
		return 0;
	wanted = 0;
	n_entries = 0;
	w.ctx = ctx;
	w.buckets = BPF_CORE_READ(ctx, cancel_table.hbs);
	bpf_loop(1u << (BPF_CORE_READ(ctx, cancel_table.hash_bits) & 31), walk_buckets, &w, 0);
	w.at = BPF_CORE_READ(ctx, timeout_list.next);
	bpf_loop(URING_REQUESTS_MAX, walk_timeouts, &w, 0);
	return 0;
}
