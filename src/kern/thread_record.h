/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_record.h - what the BPF program writes for each thread; shared by it and thread_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_THREAD_RECORD_H
#define GODWIT_KERN_THREAD_RECORD_H

#define THREAD_CPU_WORDS 16    /* of an affinity mask: 1,024 CPUs */
#define THREAD_GROUPS 32
#define THREAD_XSTATE_MAX 4096u

/*
 * What threads of one process mostly have in common, as the kernel keeps it: where this is the same, byte by byte, the kernel answers the same to all questions about it. Addresses of
 * kernel objects are in it to be compared only.
 */
struct thread_class {
	unsigned long long flags, work, atomic_flags; /* of the thread: CPU modes, what happens at system calls, speculation and privileges */
	unsigned long long io_bitmap, mempolicy, slack, slice, user_ns, groups, fs, caps[5];
	unsigned long long cpus[THREAD_CPU_WORDS];
	unsigned int ids[8]; /* uid, gid, suid, sgid, euid, egid, fsuid, fsgid */
	unsigned int securebits, task_flags, policy, rt_priority, static_prio, reset_on_fork, pdeath_signal, ioprio, seccomp, utilization[2], group_count, group_ids[THREAD_GROUPS];
	unsigned int request_keyring, unused; /* KEY_REQKEY_DEFL_* */
};

#define THREAD_INCOMPLETE 1u   /* not all could be read, or it runs: the record is of no use */
#define THREAD_MASK_UNKNOWN 2u /* the signal mask may be another one */

/* One thread; only right for one that does not run. Registers are laid out as struct user_regs_struct. */
struct thread_record {
	unsigned int tid; /* as the reader sees it */
	unsigned int state; /* THREAD_* */
	unsigned long long switches; /* of its context so far */
	unsigned long long regs[27];
	unsigned long long sigmask, pending, altstack_sp, altstack_size;
	unsigned long long robust_list, clear_tid, rseq;
	unsigned int altstack_flags, rseq_len, rseq_signature, pkru;
	char name[16];
	struct thread_class class;
	unsigned int xstate_len; /* bytes of processor state in the kernel's own format, behind the record; the next record begins at a multiple of 8 */
	unsigned int unused;
};

#endif
