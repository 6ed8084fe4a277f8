/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * restart_block.bpf.c - a task iterator that writes each task's restart block, and until when it sleeps
 *
 * The restart block is where the kernel keeps the absolute end of an interrupted sleep (-ERESTART_RESTARTBLOCK); nothing in
 * /proc shows it. Calls like epoll_wait have none, their end is in a struct hrtimer_sleeper on the kernel stack while the task sleeps: it is
 * found by its task pointer, its function and its state.
 */
#include "iter.h"
#include "tid.h"

#include "../restart_record.h"

#define CHUNK_WORDS 32
#define CHUNKS 8 /* sleepers were found up to 700 bytes from the stack pointer */
#define TIMER_ENQUEUED 1
#define NAMESPACES_MAX 12
#define TRACED 8 /* __TASK_TRACED */

struct restart_block {
	long (*fn)(struct restart_block *);
	union {
		struct {
			unsigned int *uaddr;
			unsigned int val;
			unsigned int flags;
			unsigned int bitset;
			unsigned long long time;
		} futex;
		struct {
			int clockid;
			void *rmtp;
			unsigned long long expires;
		} nanosleep;
		struct {
			void *ufds;
			int nfds;
			int has_timeout;
			unsigned long tv_sec;
			unsigned long tv_nsec;
		} poll;
	};
} CO_RE;

struct thread_struct {
	unsigned long sp;
	unsigned long fsbase;
} CO_RE;

struct pt_regs {
	unsigned long orig_ax;
	unsigned long sp;
} CO_RE;

struct seqcount {
	unsigned int sequence;
} CO_RE;

/* Of these only that they are structures matters. */
struct bitmap {
	unsigned long first;
};

struct lock {
	unsigned int sequence;
};

struct id {
	unsigned int val;
};

struct mm_struct {
	unsigned long def_flags;
	struct seqcount mm_lock_seq; /* odd: somebody holds the lock for writing */
	struct bitmap flags;
} CO_RE;

struct mm_struct___before_6_18 {
	unsigned long flags;
} CO_RE;

struct fs_struct {
	struct lock seq; /* begins with its sequence number */
	int umask;
} CO_RE;

struct autogroup {
	int nice;
} CO_RE;

struct hlist_head {
	void *first;
} CO_RE;

struct signal_struct {
	struct hlist_head posix_timers;
	struct autogroup *autogroup;
	unsigned int flags;
	short oom_score_adj;
} CO_RE;

struct cred {
	void *user_ns;
} CO_RE;

struct nsproxy {
	void *uts_ns; /* and the others behind it */
} CO_RE;

struct task_struct {
	unsigned int __state, flags;
	struct restart_block restart_block;
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	const struct cred *real_cred;
	unsigned long nvcsw;
	void *rseq;
	struct thread_struct thread;
	struct task_struct *group_leader;
	struct fs_struct *fs;
	struct signal_struct *signal;
	struct id loginuid;
} CO_RE;

struct hrtimer_clock_base {
	int clockid;
} CO_RE;

struct hrtimer {
	long long _softexpires;
	void *function;
	struct hrtimer_clock_base *base;
	unsigned char state;
} CO_RE;

struct hrtimer_sleeper {
	struct hrtimer timer;
	struct task_struct *task;
} CO_RE;

struct wait_queue_entry {
	void *private;
} CO_RE;

/* A thread in io_uring_enter(2). */
struct io_wait_queue {
	struct wait_queue_entry wq;
	struct hrtimer t;
} CO_RE;

extern const void io_cqring_timer_wakeup __ksym __weak;
extern const void hrtimer_nanosleep_restart __ksym __weak;
extern const void alarm_timer_nsleep_restart __ksym __weak;
extern const void posix_cpu_nsleep_restart __ksym __weak;
extern const void futex_wait_restart __ksym __weak;
extern const void do_restart_poll __ksym __weak;
extern const void do_no_restart_syscall __ksym __weak;
extern const void hrtimer_wakeup __ksym __weak;

static __always_inline void read_block(struct task_struct *task, struct restart_record *r)
{
	struct restart_block *block = &task->restart_block;
	unsigned long fn = (unsigned long)BPF_CORE_READ(task, restart_block.fn);

	if (!fn || fn == (unsigned long)&do_no_restart_syscall) {
		r->kind = RESTART_RECORD_NONE;
	} else if (fn == (unsigned long)&hrtimer_nanosleep_restart || fn == (unsigned long)&alarm_timer_nsleep_restart ||
		   fn == (unsigned long)&posix_cpu_nsleep_restart) {
		r->kind = fn == (unsigned long)&posix_cpu_nsleep_restart ? RESTART_RECORD_CPU_SLEEP : RESTART_RECORD_SLEEP;
		r->clock = BPF_CORE_READ(block, nanosleep.clockid);
		r->pointer = (unsigned long)BPF_CORE_READ(block, nanosleep.rmtp);
		r->expires = BPF_CORE_READ(block, nanosleep.expires);
	} else if (fn == (unsigned long)&futex_wait_restart) {
		r->kind = RESTART_RECORD_FUTEX;
		r->pointer = (unsigned long)BPF_CORE_READ(block, futex.uaddr);
		r->value = BPF_CORE_READ(block, futex.val);
		r->flags = BPF_CORE_READ(block, futex.flags);
		r->bitset = BPF_CORE_READ(block, futex.bitset);
		r->expires = BPF_CORE_READ(block, futex.time);
	} else if (fn == (unsigned long)&do_restart_poll) {
		r->kind = RESTART_RECORD_POLL;
		r->pointer = (unsigned long)BPF_CORE_READ(block, poll.ufds);
		r->value = BPF_CORE_READ(block, poll.nfds);
		r->flags = BPF_CORE_READ(block, poll.has_timeout);
		r->expires = BPF_CORE_READ(block, poll.tv_sec) * 1000000000ull + BPF_CORE_READ(block, poll.tv_nsec);
	} else {
		r->kind = RESTART_RECORD_UNKNOWN;
	}
}

static __always_inline int check_sleeper(unsigned long at, struct restart_record *r)
{
	struct hrtimer_sleeper *s = (void *)(at - bpf_core_field_offset(struct hrtimer_sleeper, task));

	if (BPF_CORE_READ(s, timer.state) != TIMER_ENQUEUED)
		return 0;
	if (&hrtimer_wakeup && (unsigned long)BPF_CORE_READ(s, timer.function) != (unsigned long)&hrtimer_wakeup)
		return 0;
	r->has_timer = 1;
	r->timer_expires = BPF_CORE_READ(s, timer._softexpires);
	r->timer_clock = BPF_CORE_READ(s, timer.base, clockid);
	return 1;
}

static __always_inline int check_uring_wait(unsigned long at, struct restart_record *r)
{
	struct io_wait_queue *s = (void *)(at - bpf_core_field_offset(struct io_wait_queue, wq.private));

	if (!&io_cqring_timer_wakeup || !bpf_core_field_exists(s->t) || (unsigned long)BPF_CORE_READ(s, t.function) != (unsigned long)&io_cqring_timer_wakeup ||
	    BPF_CORE_READ(s, t.state) != TIMER_ENQUEUED)
		return 0;
	r->has_timer = 1;
	r->timer_expires = BPF_CORE_READ(s, t._softexpires);
	r->timer_clock = BPF_CORE_READ(s, t.base, clockid);
	return 1;
}

static __always_inline void find_sleeper(struct task_struct *task, struct restart_record *r)
{
	unsigned long words[CHUNK_WORDS], sp = BPF_CORE_READ(task, thread.sp), me = (unsigned long)task;

	for (int chunk = 0; chunk < CHUNKS; chunk++) {
		unsigned long from = sp + chunk * sizeof(words);

		if (bpf_probe_read_kernel(words, sizeof(words), (void *)from) < 0)
			return;
		for (int i = 0; i < CHUNK_WORDS; i++)
			if (words[i] == me && (check_sleeper(from + i * sizeof(words[0]), r) || check_uring_wait(from + i * sizeof(words[0]), r)))
				return;
	}
}

/* In a ptrace stop it sleeps in no call. */
static __always_inline int is_traced(struct task_struct *task)
{
	return bpf_core_field_exists(task->__state) && BPF_CORE_READ(task, __state) & TRACED;
}

static __always_inline unsigned long long layout_of(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	unsigned int sequence;

	/* Before Linux 6.14 the field was a plain number. */
	if (!mm || !bpf_core_field_exists(mm->mm_lock_seq.sequence))
		return 0;
	sequence = BPF_CORE_READ(mm, mm_lock_seq.sequence);
	return sequence & 1 ? 0 : 1ull << 32 | sequence;
}

#define PF_IO_WORKER 0x10u /* threads of the kernel's own in the process */
#define PF_USER_WORKER 0x4000u
#define DUMP_FILTER_SHIFT 2
#define DUMP_FILTER_MASK 0x1ff
#define SIGNAL_STOP_CONTINUED 2u

static __always_inline void look_at(struct task_struct *task, struct process_look *l)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct mm_struct___before_6_18 *old_mm = (void *)mm;

	if (!fs || !signal || !mm || !bpf_core_field_exists(fs->seq) || !bpf_core_field_exists(signal->posix_timers) || !bpf_core_field_exists(task->loginuid))
		return;
	if (bpf_core_field_exists(mm->flags))
		bpf_probe_read_kernel(&l->coredump_filter, sizeof(l->coredump_filter), &mm->flags);
	else if (bpf_core_field_exists(old_mm->flags))
		bpf_probe_read_kernel(&l->coredump_filter, sizeof(l->coredump_filter), &old_mm->flags);
	else
		return;
	l->fs = (unsigned long)fs;
	bpf_probe_read_kernel(&l->fs_seq, sizeof(l->fs_seq), &fs->seq);
	l->umask = BPF_CORE_READ(fs, umask);
	bpf_probe_read_kernel(&l->loginuid, sizeof(l->loginuid), &task->loginuid);
	bpf_probe_read_kernel(&l->timers, sizeof(l->timers), &signal->posix_timers);
	l->oom_score_adj = BPF_CORE_READ(signal, oom_score_adj);
	if (bpf_core_field_exists(signal->autogroup))
		l->autogroup_nice = BPF_CORE_READ(signal, autogroup, nice);
	l->coredump_filter = l->coredump_filter >> DUMP_FILTER_SHIFT & DUMP_FILTER_MASK;
	l->continued = (BPF_CORE_READ(signal, flags) & SIGNAL_STOP_CONTINUED) != 0;
	l->known = 1;
}

static __always_inline unsigned long long namespaces_of(struct task_struct *task)
{
	unsigned int from = bpf_core_field_offset(struct nsproxy, uts_ns), size = bpf_core_type_size(struct nsproxy) - from;
	char *proxy = (char *)BPF_CORE_READ(task, nsproxy);
	unsigned long long words[NAMESPACES_MAX] = { 0 };
	unsigned long long a = (unsigned long)BPF_CORE_READ(task, real_cred, user_ns);

	if (!proxy || size > sizeof(words) || bpf_probe_read_kernel(words, size, proxy + from))
		return 0;
	for (unsigned int i = 0; i < NAMESPACES_MAX; i++) {
		a = (a ^ words[i]) * 0x9e3779b97f4a7c15ull;
		a ^= a >> 29;
	}
	return a | 1;
}

SEC("iter/task")
int read_restart(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct restart_record r = {};
	struct pt_regs *regs;

	if (!task || BPF_CORE_READ(task, flags) & (PF_IO_WORKER | PF_USER_WORKER))
		return 0;
	r.tid = tid_of(task);
	r.switches = task->nvcsw;
	regs = (void *)bpf_task_pt_regs(task);
	r.nr = regs ? (long)regs->orig_ax : -1;
	r.stack = regs ? regs->sp : 0;
	r.fs = BPF_CORE_READ(task, thread.fsbase);
	if (bpf_core_field_exists(task->rseq))
		bpf_probe_read_kernel(&r.rseq, sizeof(r.rseq), &task->rseq);
	read_block(task, &r);
	if (!is_traced(task))
		find_sleeper(task, &r);
	r.layout = layout_of(task);
	if (task->group_leader == task) {
		look_at(task, &r.look);
		r.new_mappings = BPF_CORE_READ(task, mm, def_flags);
	}
	r.namespaces = namespaces_of(task);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
