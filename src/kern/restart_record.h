/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restart_record.h - what the BPF program writes for each thread, and for a process; shared by it and restart_block.c, so it includes nothing */
#ifndef GODWIT_KERN_RESTART_RECORD_H
#define GODWIT_KERN_RESTART_RECORD_H

enum restart_record_kind {
	RESTART_RECORD_NONE,      /* the restart block is not armed */
	RESTART_RECORD_SLEEP,     /* nanosleep, clock_nanosleep: expires, clock, pointer (rmtp) */
	RESTART_RECORD_CPU_SLEEP, /* the same on a CPU clock */
	RESTART_RECORD_FUTEX,     /* expires, pointer (uaddr), value, flags, bitset */
	RESTART_RECORD_POLL,      /* expires, pointer (ufds), value (nfds), flags: has a timeout */
	RESTART_RECORD_UNKNOWN,
};

/* What /proc would say of a process: of its main thread only. */
struct process_look {
	unsigned long long fs;       /* who is asked for working and root directory: another one, or another fs_seq, and they may have been changed */
	unsigned long long timers;   /* 0: it has no POSIX timer */
	unsigned int known;          /* 0: this kernel is built otherwise, nothing of this is filled */
	unsigned int fs_seq;
	unsigned int umask, loginuid;
	int oom_score_adj, autogroup_nice;
	unsigned long long coredump_filter;
	unsigned int continued, unused; /* continued: by SIGCONT, and its parent has not waited for that (WCONTINUED) yet */
};

/* Times are nanoseconds of the host's clock, without the offset of a time namespace. Only right for a task that does not run. */
struct restart_record {
	unsigned int tid;  /* as the reader sees it */
	unsigned int kind;
	unsigned long long expires;
	int clock;
	unsigned int value;
	unsigned long long pointer;
	unsigned int flags;
	unsigned int bitset;
	unsigned long long switches; /* voluntary context switches so far */
	long long nr;                /* system call, -1: none */
	unsigned int has_timer;      /* the task sleeps until: */
	int timer_clock;
	unsigned long long timer_expires;
	unsigned long long stack, fs, rseq; /* where it has its stack, its thread-local storage, its area for rseq(2); guesses when it runs */
	struct process_look look;
	unsigned long long layout;   /* counts holds of the lock that changes of the address space need: the same twice, no change between; 0: not known */
	unsigned long long new_mappings; /* flags that its new mappings get, as those of a vma_record; of the main thread */
	unsigned long long namespaces; /* a digest of those that it is in: the same as long as somebody holds them open, it is in the same ones; 0: not known */
};

#endif
