/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thread_peek.bpf.c - a task iterator that writes what a thread is: registers, processor state, masks, addresses that the kernel was told, and what it has in common with others
 *
 * A thread that does not run has its user registers at the end of its kernel stack and its processor state in memory, so that all of it can be read at a fraction of what the same costs
 * by ptrace(2) and by system calls in the thread itself.
 */
#include "iter.h"
#include "tid.h"

#include "../thread_record.h"

#define REGS_ON_STACK 21
#define REG_FS_BASE 21
#define REG_DS 23
#define MCE_FLAGS 0x08000080u /* PF_MCE_EARLY, PF_MCE_PROCESS */

struct area {
	char first;
};

struct fpstate {
	unsigned int size;
	struct area regs;
} CO_RE;

struct fpu {
	struct fpstate *fpstate;
} CO_RE;

struct thread_struct {
	unsigned short es, ds, fsindex, gsindex;
	unsigned long fsbase, gsbase;
	void *io_bitmap;
	unsigned int pkru;
	struct fpu fpu; /* behind struct task_struct since Linux 6.16 */
} CO_RE;

struct thread_info {
	unsigned long flags, syscall_work;
} CO_RE;

struct id {
	unsigned int val;
};

struct capabilities {
	unsigned long long val;
};

struct group_info {
	int ngroups;
	struct id gid[1];
} CO_RE;

/* uid to fsgid lie one behind the other, and so do the sets of capabilities. */
struct cred {
	struct id uid;
	unsigned int securebits;
	struct capabilities cap_inheritable;
	void *user_ns;
	struct group_info *group_info;
	unsigned char jit_keyring;
} CO_RE;

struct io_context {
	unsigned short ioprio;
} CO_RE;

struct sched_entity {
	unsigned long long slice;
} CO_RE;

struct uclamp_se {
	unsigned int whole;
};

struct cpumask {
	unsigned long bits[1];
} CO_RE;

struct seccomp {
	int mode;
} CO_RE;

struct sigset {
	unsigned long sig[1];
};

struct sigpending {
	struct sigset signal;
} CO_RE;

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int on_cpu;
	int static_prio;
	unsigned int rt_priority, policy;
	struct sched_entity se;
	unsigned int uclamp_req[2];
	struct cpumask cpus_mask;
	int pdeath_signal;
	unsigned int sched_reset_on_fork : 1;
	unsigned int restore_sigmask : 1;
	unsigned long atomic_flags;
	void *clear_child_tid;
	unsigned long nvcsw, nivcsw;
	struct cred *cred;
	void *fs;
	char comm[16];
	struct sigset blocked;
	struct sigpending pending;
	unsigned long sas_ss_sp, sas_ss_size;
	unsigned int sas_ss_flags;
	struct seccomp seccomp;
	struct io_context *io_context;
	void *robust_list;
	void *mempolicy;
	void *rseq;
	unsigned int rseq_len, rseq_sig;
	unsigned long long timer_slack_ns;
	struct thread_struct thread;
} CO_RE;

/* A record and the processor state behind it: too large for the stack. One for each CPU, since readers may be many. */
struct space {
	struct thread_record record;
	unsigned char xstate[THREAD_XSTATE_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, unsigned int);
	__type(value, struct space);
} spaces SEC(".maps");

static __always_inline void read_cred(struct task_struct *task, struct thread_class *c)
{
	struct cred *cred = BPF_CORE_READ(task, cred);
	struct group_info *groups;

	bpf_probe_read_kernel(c->ids, sizeof(c->ids), &cred->uid);
	bpf_probe_read_kernel(c->caps, sizeof(c->caps), &cred->cap_inheritable);
	c->securebits = BPF_CORE_READ(cred, securebits);
	c->user_ns = (unsigned long)BPF_CORE_READ(cred, user_ns);
	if (bpf_core_field_exists(cred->jit_keyring))
		c->request_keyring = BPF_CORE_READ(cred, jit_keyring);
	groups = BPF_CORE_READ(cred, group_info);
	c->group_count = (unsigned int)BPF_CORE_READ(groups, ngroups);
	if (c->group_count > THREAD_GROUPS)
		c->groups = (unsigned long)groups; /* those of the same object are the same */
	else
		for (unsigned int i = 0; i < THREAD_GROUPS && i < c->group_count; i++)
			bpf_probe_read_kernel(&c->group_ids[i], sizeof(c->group_ids[i]), (char *)groups + bpf_core_field_offset(struct group_info, gid) + i * sizeof(c->group_ids[i]));
}

static __always_inline void read_class(struct task_struct *task, struct thread_class *c)
{
	struct io_context *io;
	unsigned int size = bpf_core_field_size(task->cpus_mask);

	c->flags = BPF_CORE_READ(task, thread_info.flags);
	if (bpf_core_field_exists(task->thread_info.syscall_work))
		c->work = BPF_CORE_READ(task, thread_info.syscall_work);
	c->atomic_flags = BPF_CORE_READ(task, atomic_flags);
	c->io_bitmap = (unsigned long)BPF_CORE_READ(task, thread.io_bitmap);
	if (bpf_core_field_exists(task->mempolicy))
		c->mempolicy = (unsigned long)BPF_CORE_READ(task, mempolicy);
	c->fs = (unsigned long)BPF_CORE_READ(task, fs);
	c->slack = BPF_CORE_READ(task, timer_slack_ns);
	if (bpf_core_field_exists(task->se.slice))
		c->slice = BPF_CORE_READ(task, se.slice);
	if (bpf_core_field_exists(task->uclamp_req))
		bpf_probe_read_kernel(c->utilization, sizeof(c->utilization), &task->uclamp_req);
	if (size > sizeof(c->cpus))
		size = sizeof(c->cpus);
	bpf_probe_read_kernel(c->cpus, size, &task->cpus_mask);
	c->task_flags = BPF_CORE_READ(task, flags) & MCE_FLAGS;
	c->policy = BPF_CORE_READ(task, policy);
	c->rt_priority = BPF_CORE_READ(task, rt_priority);
	c->static_prio = (unsigned int)BPF_CORE_READ(task, static_prio);
	c->reset_on_fork = (unsigned int)BPF_CORE_READ_BITFIELD_PROBED(task, sched_reset_on_fork);
	c->pdeath_signal = (unsigned int)BPF_CORE_READ(task, pdeath_signal);
	c->seccomp = (unsigned int)BPF_CORE_READ(task, seccomp.mode);
	io = BPF_CORE_READ(task, io_context);
	c->ioprio = io ? BPF_CORE_READ(io, ioprio) : 0x10000;
	read_cred(task, c);
}

static __always_inline void read_regs(struct task_struct *task, struct thread_record *r)
{
	void *regs = (void *)bpf_task_pt_regs(task);

	if (bpf_probe_read_kernel(r->regs, REGS_ON_STACK * sizeof(r->regs[0]), regs) < 0)
		r->state |= THREAD_INCOMPLETE;
	r->regs[17] &= 0xffff; /* cs, ss: the rest is the kernel's */
	r->regs[20] &= 0xffff;
	r->regs[REG_FS_BASE] = BPF_CORE_READ(task, thread.fsbase);
	r->regs[REG_FS_BASE + 1] = BPF_CORE_READ(task, thread.gsbase);
	r->regs[REG_DS] = BPF_CORE_READ(task, thread.ds);
	r->regs[REG_DS + 1] = BPF_CORE_READ(task, thread.es);
	r->regs[REG_DS + 2] = BPF_CORE_READ(task, thread.fsindex);
	r->regs[REG_DS + 3] = BPF_CORE_READ(task, thread.gsindex);
}

static __always_inline void read_signals(struct task_struct *task, struct thread_record *r)
{
	bpf_probe_read_kernel(&r->sigmask, sizeof(r->sigmask), &task->blocked);
	bpf_probe_read_kernel(&r->pending, sizeof(r->pending), &task->pending.signal);
	r->altstack_sp = BPF_CORE_READ(task, sas_ss_sp);
	r->altstack_size = BPF_CORE_READ(task, sas_ss_size);
	r->altstack_flags = BPF_CORE_READ(task, sas_ss_flags);
	/* Where there is no such field a flag says so that is not known from here. */
	if (!bpf_core_field_exists(task->restore_sigmask) || BPF_CORE_READ_BITFIELD_PROBED(task, restore_sigmask))
		r->state |= THREAD_MASK_UNKNOWN;
}

static __always_inline void read_addresses(struct task_struct *task, struct thread_record *r)
{
	r->robust_list = (unsigned long)BPF_CORE_READ(task, robust_list);
	r->clear_tid = (unsigned long)BPF_CORE_READ(task, clear_child_tid);
	if (bpf_core_field_exists(task->rseq_len) && bpf_core_field_exists(task->rseq_sig)) {
		r->rseq = (unsigned long)BPF_CORE_READ(task, rseq);
		r->rseq_len = BPF_CORE_READ(task, rseq_len);
		r->rseq_signature = BPF_CORE_READ(task, rseq_sig);
	} else {
		r->state |= THREAD_INCOMPLETE;
	}
}

static __always_inline void read_xstate(struct task_struct *task, struct space *s)
{
	struct fpu *fpu = bpf_core_field_exists(task->thread.fpu) ? (void *)&task->thread.fpu : (void *)((char *)task + bpf_core_type_size(struct task_struct));
	struct fpstate *state = BPF_CORE_READ(fpu, fpstate);
	unsigned int len = BPF_CORE_READ(state, size);

	s->record.pkru = BPF_CORE_READ(task, thread.pkru);
	if (!len || len > THREAD_XSTATE_MAX || bpf_probe_read_kernel(s->xstate, len, (char *)state + bpf_core_field_offset(struct fpstate, regs)) < 0)
		s->record.state |= THREAD_INCOMPLETE;
	else
		s->record.xstate_len = len;
}

SEC("iter/task")
int read_thread(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	unsigned int zero = 0;
	unsigned long len;
	struct space *s = bpf_map_lookup_elem(&spaces, &zero);
	struct thread_record *r;

	if (!task || !s)
		return 0;
	r = &s->record;
	__builtin_memset(r, 0, sizeof(*r));
	r->tid = tid_of(task);
	r->switches = BPF_CORE_READ(task, nvcsw) + BPF_CORE_READ(task, nivcsw);
	read_regs(task, r);
	read_signals(task, r);
	read_addresses(task, r);
	bpf_probe_read_kernel(r->name, sizeof(r->name), &task->comm);
	read_class(task, &r->class);
	read_xstate(task, s);
	if (BPF_CORE_READ(task, on_cpu)) /* last of all: then it has not run meanwhile, if it rests in a ptrace stop */
		r->state |= THREAD_INCOMPLETE;
	len = sizeof(*r) + ((r->xstate_len + 7ul) & ~7ul);
	asm volatile("" : "+r"(len)); /* the verifier is to see the comparison of this very number */
	if (len <= sizeof(*s))
		bpf_seq_write(ctx->meta->seq, s, len);
	return 0;
}
