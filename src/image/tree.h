/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree.h - the processes of a unit and how they belong together
 *
 * A unit is a process, its root, and all its descendants. A struct tree is the table of them: parents come before their children, brothers in the order in which
 * wait(2) finds them, the root is [0]. Numbers are those of the root's pid namespace; a session or group whose leader is not in the table
 * keeps its number all the same (its leader has ended, or does not move).
 *
 * Processes that share memory, descriptors, file system context or signal handlers with another one of the unit (clone(2) without CLONE_THREAD) have the
 * index of the first of those that share, which for most is their own.
 *
 * A zombie is a process that has ended and that its parent has not waited for yet. It has no memory, no threads and no descriptors.
 */
#ifndef GODWIT_IMAGE_TREE_H
#define GODWIT_IMAGE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"

#define TREE_NONE UINT32_MAX
#define TREE_PROCESSES_MAX 4096u
#define TREE_NAME_MAX 16

struct tree_process {
	pid_t pid;            /* in the root's pid namespace */
	pid_t host_pid;       /* source: as godwitd sees it; not sent, 0 at the destination */
	uint32_t parent;      /* index, lower than its own; TREE_NONE: the root */
	pid_t parent_tid;     /* the parent's thread whose child it is (for __WNOTHREAD and PR_SET_PDEATHSIG); 0 for the root */
	pid_t pgid, sid;      /* 0: outside of the pid namespace */
	uint32_t exit_signal; /* sent to the parent at its end; 0: none */
	uint32_t tty;         /* device number of the controlling terminal; 0: none */
	pid_t tpgid;          /* foreground group of that terminal; -1: none */
	bool zombie, stopped; /* stopped: by a signal (job control) */
	uint32_t exit_status; /* of a zombie, as wait(2) will give it */
	uint32_t uid, gid;    /* of a zombie: real ones */
	char name[TREE_NAME_MAX];
	uint32_t memory, files, fs, handlers; /* index of the first process that shares it */
};

struct tree {
	struct tree_process *v;
	size_t n;
};

#define TREE_INIT ((struct tree){ 0 })

void tree_free(struct tree *t);

/*
 * Reads the table of the unit with this root (a number of godwitd's) from /proc while it runs, until two looks agree. What cannot move because of how the
 * processes belong together is added to refusals: sharing with a process outside, sessions that cannot be made again (tree_plan.h), core dumps of zombies.
 * What a single process cannot move with is process_check's. -ESRCH: there is no such process. -EAGAIN: it forks faster than it can be read.
 */
int tree_capture(pid_t root, struct tree *ret_tree, struct refusals *r, struct err *e);
/*
 * The same for the freeze, when every known thread is stopped: cheap (nothing is opened; at most one small read a thread). Open it right after tree_capture, the
 * tree must live as long. Returns 1 when something has changed in who belongs to it or in groups and sessions, or may have (threads were made): call tree_capture; 0 when
 * nothing has. Zombies that have been waited for are changes; processes that have become zombies are not: whoever stops them sees that. The cost without
 * changes is two system calls a process.
 */
struct tree_watch;
int tree_watch_open(const struct tree *t, struct tree_watch **ret_watch, struct err *e);
/* From here on the root has so many children that are Godwit's agents. */
void tree_watch_agents(struct tree_watch *w, uint32_t n);
int tree_watch_changed(struct tree_watch *w, struct err *e);
void tree_watch_free(struct tree_watch *w);

/* Whether a thread waits in vfork(), or the like, until its child has called exec: it cannot be stopped as long. */
bool tree_waits_in_vfork(pid_t pid, pid_t tid);

/* Index of a process; TREE_NONE. */
uint32_t tree_find(const struct tree *t, pid_t pid);
uint32_t tree_find_host(const struct tree *t, pid_t host_pid);
static inline bool tree_shares_memory(const struct tree *t, size_t i)
{
	return t->v[i].memory != i;
}

/* The message Tree of tree.proto; bytes are malloc'ed. */
int tree_encode(const struct tree *t, uint8_t **ret_data, size_t *ret_len);
/* Decodes and validates: one root, parents first, no number twice, everything else in range and consistent. */
int tree_decode(const void *data, size_t len, struct tree *ret_tree, struct err *e);
int tree_validate(const struct tree *t, struct err *e);

#endif
