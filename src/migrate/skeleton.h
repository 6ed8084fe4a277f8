/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton.h - the destination's process before it runs: an address space, threads that rest in ptrace stops, and an agent
 *
 * Everything is a tracee of the worker with PTRACE_O_EXITKILL until skeleton_set_release: when the worker dies, the skeleton dies. All functions must be called
 * by the one thread of the worker that traces.
 */
#ifndef GODWIT_MIGRATE_SKELETON_H
#define GODWIT_MIGRATE_SKELETON_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"
#include "image/ns.h"
#include "image/tree.h"
#include "kern/remote.h"
#include "kern/task.h"
#include "migrate/agent.h"
#include "task.pb-c.h"

#define SKELETON_RSEQ_AREA 32

struct skeleton_thread {
	pid_t tid;       /* as the process sees it */
	struct task task; /* task.tid: as the worker sees it */
	struct batch *batch;
	Gw__Thread *ahead; /* what it was told ahead of the go message to be, and is; dest_threads.c. Owned */
	uint8_t area[SKELETON_RSEQ_AREA]; /* its area for rseq(2) before the kernel wrote there for it */
	bool settled;     /* the go message says the same */
	bool spoilt;      /* it could not be made so */
	bool late;        /* made in the freeze, when its maker has a real-time priority, and so without a timer slack */
	bool no_exitkill; /* it does not die with the worker by itself, but with the main thread */
	bool held;        /* see skeleton_hold: */
	struct user_regs_struct regs; /* what it goes on with then */
};

struct parent;

/* The unit's root comes back to where a stub has its place (home/back.h). */
struct skeleton_seat {
	int door;        /* the connection to godwit-home, asked */
	pid_t pid;       /* of the stub */
};

struct skeleton {
	struct parent *parent; /* set before skeleton_create: the surrogate parent that clones it; NULL: it is a child of godwitd */
	pid_t pid;       /* as the worker sees it; 0: none */
	bool seated;     /* in the place of its stub: it is not killed, but left to godwit-home, when the migration fails */
	int pidfd, mem_fd;
	bool own_pid_namespace;
	pid_t namespace_init; /* of one that is there for its number only; 0: it is in none */
	uint32_t namespaces[NS_KINDS]; /* as Process.namespaces: those that it is in so far */
	const struct tree *tree; /* what knows its numbers in pid namespaces below the root's; NULL: it has none */
	const struct skeleton_world *world; /* of the first process; NULL: the worker's */
	struct skeleton_thread **threads; /* [0]: the main thread */
	size_t nthreads;
	size_t looked_up;  /* where skeleton_find_thread has found the last one: they are asked for in order, mostly */
	struct agent agent;
	int agent_end;     /* the agent's end of the bell, a number in the agent; -1: no agent */
	int transfer;      /* the worker's end of the socket through which descriptors go into the process */
	int transfer_end;  /* its other end, a number in the process */
};

/* The namespaces that the first process enters, which the worker is not in itself. */
struct skeleton_world {
	const Gw__Namespaces *msg;
	const struct ns_made *made;
	struct err *why; /* in memory shared with that process: why it could not */
};

#define SKELETON_INIT ((struct skeleton){ .pidfd = -1, .mem_fd = -1, .transfer = -1, .agent_end = -1, .agent = AGENT_INIT })

/* Where a scratch is to be in the process, and how large. */
struct skeleton_terms {
	uint64_t base;
	unsigned threads;
	size_t arena_bytes;
};

/*
 * Creates the process with the number `pid` (in a pid namespace of its own when the number is taken here, or own_namespace says so), with a scratch at `base` for `threads` threads,
 * and its agent. It has one thread, at rest.
 */
int skeleton_create(struct skeleton *s, pid_t pid, bool own_namespace, uint64_t base, unsigned threads, size_t arena_bytes, struct err *e);

/* How many pid namespaces below this worker's a process is. */
unsigned skeleton_levels(pid_t pid);
/* Has the process, which has one thread, enter a namespace, or with CLONE_NEWPID lead its children into one. The descriptor is the caller's. */
int skeleton_setns(struct skeleton *s, int ns, int flag, struct err *e);

/* Adds a thread with this number, at rest, if there is none. */
int skeleton_add_thread(struct skeleton *s, pid_t tid, struct err *e);
struct skeleton_thread *skeleton_find_thread(struct skeleton *s, pid_t tid);
/* Ends a thread (not the main one) that the source has no more. */
int skeleton_end_thread(struct skeleton *s, pid_t tid, struct err *e);

/* Writes the agent's trampoline into the vdso once it is where it will stay. */
int skeleton_place_trampoline(struct skeleton *s, struct err *e);

/*
 * Stops the process as by `signal`: when it is let go it does not run, whatever else is pending then. Its main thread is at rest; all can run lists as before.
 * Signals other than SIGSTOP stop only where the process group is not orphaned; elsewhere it is SIGSTOP.
 */
int skeleton_stop(struct skeleton *s, int signal, struct err *e);

/*
 * For each thread, when its lists have run, its interrupted call has been primed and thread_apply_state has been called on it: what it will go on with. It stays in its ptrace stop;
 * nothing is run or primed in it any more.
 */
int skeleton_hold(struct skeleton_thread *t, const struct user_regs_struct *regs, uint64_t sigmask, struct err *e);

/* Kills what has been built. */
void skeleton_destroy(struct skeleton *s);

#endif
