/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton.h - the destination's process before it runs: an address space, threads that rest in ptrace stops, and an agent
 *
 * Everything is a tracee of the worker with PTRACE_O_EXITKILL until skeleton_release: when the worker dies, the skeleton dies. All functions must be called
 * by the one thread of the worker that traces.
 */
#ifndef GODWIT_MIGRATE_SKELETON_H
#define GODWIT_MIGRATE_SKELETON_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/remote.h"
#include "kern/task.h"
#include "migrate/agent.h"

struct skeleton_thread {
	pid_t tid;       /* as the process sees it */
	struct task task; /* task.tid: as the worker sees it */
	struct batch *batch;
};

struct skeleton {
	pid_t pid;       /* as the worker sees it; 0: none */
	int pidfd, mem_fd;
	bool own_pid_namespace;
	pid_t namespace_init;
	struct skeleton_thread **threads; /* [0]: the main thread */
	size_t nthreads;
	struct agent agent;
	int agent_end;     /* the agent's end of the bell, a number in the agent */
	int transfer;      /* the worker's end of the socket through which descriptors go into the process */
	int transfer_end;  /* its other end, a number in the process */
};

#define SKELETON_INIT ((struct skeleton){ .pidfd = -1, .mem_fd = -1, .transfer = -1, .agent = AGENT_INIT })

/*
 * Creates the process with the number `pid` (in a pid namespace of its own when the number is taken here, or own_namespace says so), with a scratch at `base` for `threads` threads,
 * and its agent. It has one thread, at rest.
 */
int skeleton_create(struct skeleton *s, pid_t pid, bool own_namespace, uint64_t base, unsigned threads, size_t arena_bytes, struct err *e);

/* Adds a thread with this number, at rest. */
int skeleton_add_thread(struct skeleton *s, pid_t tid, struct err *e);
struct skeleton_thread *skeleton_find_thread(struct skeleton *s, pid_t tid);
/* Ends a thread (not the main one) that the source has no more. */
int skeleton_end_thread(struct skeleton *s, pid_t tid, struct err *e);

/* Writes the agent's trampoline into the vdso once it is where it will stay. */
int skeleton_place_trampoline(struct skeleton *s, struct err *e);

/*
 * The commit: registers have been set. Takes EXITKILL from all threads, the last one being the point of no return (state COMMITTING before, COMMITTED
 * after), and detaches. After an error of this function the process may be running.
 */
int skeleton_release(struct skeleton *s, struct err *e);

/* Kills what has been built. */
void skeleton_destroy(struct skeleton *s);

#endif
