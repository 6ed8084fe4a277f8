/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file_table.bpf.c - an iterator over the descriptors of a task that writes what tells whether one has changed
 */
#include "iter.h"

#include "../file_record.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10
#define TYPE_STREAM 1
#define PROTOCOL_TCP 6
#define MODE_SOCKET 0140000
#define MODE_TYPE 0170000
#define SOCK_WORDS 512
#define CLOCK_REALTIME_ALARM 8
#define CLOCK_BOOTTIME_ALARM 9
#define TIMER_IS_QUEUED 1 /* HRTIMER_STATE_ENQUEUED, ALARMTIMER_STATE_ENQUEUED */
#define WORD_BITS (8 * sizeof(unsigned long))

struct list_head {
	struct list_head *next;
} CO_RE;

struct file_lock_context {
	struct list_head flc_flock;
	struct list_head flc_posix;
	struct list_head flc_lease;
} CO_RE;

struct inode {
	unsigned short i_mode;
	struct file_lock_context *i_flctx;
} CO_RE;

struct sock_common {
	unsigned short skc_family;
} CO_RE;

struct sock {
	struct sock_common __sk_common;
	unsigned short sk_type, sk_protocol;
} CO_RE;

struct socket {
	struct sock *sk;
} CO_RE;

struct tcp_sock {
	unsigned int rcv_nxt;
} CO_RE;

struct tcp6_sock {
	struct tcp_sock tcp;
} CO_RE;

struct file_operations {
	void *show_fdinfo;
} CO_RE;

struct hrtimer;

struct hrtimer_clock_base {
	struct hrtimer *running;
} CO_RE;

struct hrtimer {
	struct hrtimer_clock_base *base;
	unsigned char state;
} CO_RE;

struct alarm {
	int state;
} CO_RE;

struct timerfd_ctx {
	union {
		struct hrtimer tmr;
		struct alarm alarm;
	} t;
	long long tintv;
	int clockid;
	unsigned short expired;
} CO_RE;

struct file {
	const struct file_operations *f_op;
	unsigned int f_flags;
	long long f_pos;
	struct inode *f_inode;
	void *private_data;
	void *f_owner;
} CO_RE;

struct fdtable {
	unsigned long *close_on_exec;
} CO_RE;

struct files_struct {
	struct fdtable *fdt;
} CO_RE;

struct task_struct {
	struct files_struct *files;
} CO_RE;

static __always_inline int is_cloexec(struct task_struct *task, unsigned int fd)
{
	unsigned long word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), task->files->fdt->close_on_exec + fd / WORD_BITS);
	return word >> fd % WORD_BITS & 1;
}

static __always_inline int has_locks(struct inode *inode)
{
	struct file_lock_context *c = inode->i_flctx;

	return c && (c->flc_flock.next != &c->flc_flock || c->flc_posix.next != &c->flc_posix || c->flc_lease.next != &c->flc_lease);
}

extern const void timerfd_show __ksym __weak;

/* Also one whose function runs, or which expires again as soon as somebody looks at it: a periodic one stands still when it has expired. */
static __always_inline unsigned char armed(struct file *file)
{
	struct timerfd_ctx *timer = file->private_data;
	struct hrtimer *hrtimer;
	int clock, queued;

	if (!&timerfd_show || file->f_op->show_fdinfo != &timerfd_show || !bpf_core_field_exists(timer->t.tmr.state))
		return FILE_ARMED_UNKNOWN;
	clock = BPF_CORE_READ(timer, clockid);
	if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) {
		queued = BPF_CORE_READ(timer, t.alarm.state) & TIMER_IS_QUEUED;
	} else {
		hrtimer = (void *)((char *)timer + bpf_core_field_offset(struct timerfd_ctx, t.tmr));
		queued = BPF_CORE_READ(hrtimer, state) & TIMER_IS_QUEUED || BPF_CORE_READ(hrtimer, base, running) == hrtimer;
	}
	return queued || (BPF_CORE_READ(timer, expired) && BPF_CORE_READ(timer, tintv)) ? FILE_ARMED_YES : FILE_ARMED_NO;
}

static unsigned long long words[SOCK_WORDS];

/*
 * The structure as a whole, since options, queues and states are all over it: when nothing of it has changed, nothing has. Connections over which nothing goes
 * are most of those of a busy server.
 */
static __always_inline unsigned long long digest_of(struct sock *sk)
{
	unsigned short family = BPF_CORE_READ(sk, __sk_common.skc_family);
	unsigned int size = family == FAMILY_INET6 ? bpf_core_type_size(struct tcp6_sock) : bpf_core_type_size(struct tcp_sock);
	unsigned long long a = 14695981039346656037ull, b = 1099511628211ull;

	if ((family != FAMILY_INET && family != FAMILY_INET6) || BPF_CORE_READ(sk, sk_type) != TYPE_STREAM || BPF_CORE_READ(sk, sk_protocol) != PROTOCOL_TCP)
		return 0;
	if (size > sizeof(words) || bpf_probe_read_kernel(words, size, sk))
		return bpf_ktime_get_ns() | 1;
	size /= 8;
	for (unsigned int i = 0; i < SOCK_WORDS; i++) {
		if (i >= size)
			break;
		a = (a ^ words[i]) * 0x9e3779b97f4a7c15ull;
		a ^= a >> 29;
		b = (b + words[i]) * 0xc2b2ae3d27d4eb4full;
	}
	return (a ^ b) | 1;
}

/* Members are read directly, which the verifier allows for what the iterator hands out: a helper call for each would take longer than all else. */
SEC("iter/task_file")
int read_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct file_record r = {};
	struct inode *inode;

	if (!task || !file)
		return 0;
	inode = file->f_inode;
	r.fd = ctx->fd;
	r.file = (unsigned long)file;
	r.inode = (unsigned long)inode;
	r.kind = (unsigned long)file->f_op;
	r.flags = file->f_flags;
	r.position = file->f_pos;
	r.cloexec = (unsigned char)is_cloexec(task, r.fd);
	/* In older kernels the owner is no pointer but lies in the description itself: it may be there. */
	r.has_owner = bpf_core_field_size(file->f_owner) != sizeof(void *) || file->f_owner;
	r.has_locks = has_locks(inode);
	r.armed = armed(file);
	if ((inode->i_mode & MODE_TYPE) == MODE_SOCKET) {
		struct socket *socket = file->private_data;
		struct sock *sk = 0;

		bpf_probe_read_kernel(&sk, sizeof(sk), (char *)socket + bpf_core_field_offset(struct socket, sk));
		if (sk)
			r.digest = digest_of(sk);
	}
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
