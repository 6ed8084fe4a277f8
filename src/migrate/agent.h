/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * agent.h - the worker's hold on an agent: making it in the process that is to move, and in the skeleton
 *
 * See ARCHITECTURE.md, "The scratch area". All functions must be called by the one thread of the worker that traces.
 */
#ifndef GODWIT_MIGRATE_AGENT_H
#define GODWIT_MIGRATE_AGENT_H

#include <sys/types.h>

#include "base/err.h"
#include "kern/remote.h"
#include "kern/restart_block.h"
#include "kern/task.h"

struct agent {
	struct scratch scratch;
	struct task task;    /* the agent itself, slot 0 */
	struct batch *batch; /* for calls in the agent */
	pid_t pid;           /* 0: none */
	pid_t seen;          /* its number in a pid namespace of the unit's own, when it is a child of that one's first process; 0: it is nobody's in the unit */
	pid_t reaper;        /* who that first process is, as the worker sees it */
	int pidfd;
	int socket;          /* the worker's end of the bell; its closing is how the agent learns of the worker's death */
	int uffd;            /* duplicate of the agent's userfaultfd; -1: none */
	int shared_uffd;     /* another, for shared memory, which the agent itself does not keep: image/shared_watch.h; -1: none */
	uint64_t gadget;     /* a syscall instruction in the process */
	uint64_t errand;     /* room for code that a borrowed thread runs */
	bool guest;          /* set before agent_inject: other scratches of this worker are in the same memory */
	bool filtered;       /* it has inherited a system call filter: keeper.h */
	uint32_t mlock_future; /* flags of the mlockall() that is in force for the process's new mappings */
	uint32_t membarrier; /* registrations of the address space: see membarrier.h */
};

#define AGENT_INIT ((struct agent){ .scratch = { .memfd = -1 }, .pidfd = -1, .socket = -1, .uffd = -1, .shared_uffd = -1 })

/* Descriptors handed to an agent; -1 where there is none. */
struct agent_fds {
	int go, fault, bulk, pagemap, mem, process_pidfd, worker_pidfd;
	/* Of a unit of several processes, for all but its root; 0 or -1 otherwise. */
	int unit;       /* memfd of the root's scratch: its unit page (unit_page.h) is mapped over this one's, in the process and here */
	int root_pidfd; /* destination */
	int ask;        /* source, else 0: a socket for the question after the outcome */
	int record;     /* destination, else 0: the record of the commit (outcome.h) */
};

/*
 * Makes an agent in the running process `pid` of the unit of `root`: stops one thread for some 50 us, has it clone the agent, lets it go, and sets the agent up while the
 * process runs. The scratch is mapped at `base`, with slots for `threads` threads. `watch` may be NULL. After a failure call agent_remove.
 */
int agent_inject(struct agent *a, pid_t pid, pid_t root, uint64_t base, unsigned threads, size_t arena_bytes, struct restart_watch *watch, struct err *e);

/* Hands descriptors over and makes the agent watch the worker. After this it can be woken over its socket only. */
int agent_equip(struct agent *a, int agent_socket_fd, const struct agent_fds *fds, struct err *e);

/*
 * The migration has failed before the commit: the parked threads have been restored. Ends the agent, unmaps the scratch and reaps the agent in the
 * process. Safe at any stage of agent_inject.
 */
void agent_remove(struct agent *a, pid_t pid);

/* Has process `pid` wait for an agent (its own or another's) that has ended and is its child. */
void agent_reap(pid_t pid, pid_t seen);

/* Takes what the agent has rung its bell for (agent.socket is readable then): drained or finished, which the header says. */
void agent_heard(const struct agent *a);

/* Waits until the agent has ended; kills it when it does not within the time. */
void agent_wait_exit(const struct agent *a, int timeout_ms);

/* Lets go of everything on the worker's side; the agent goes on by itself. */
void agent_forget(struct agent *a);

#endif
