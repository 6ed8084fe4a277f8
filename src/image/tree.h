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
 * Below the root's pid namespace there may be others (pid_namespaces(7)), in which a process has more numbers. Such a namespace is a *space*: its number in
 * Namespaces.others (ns_other.h), 0 is the root's. What the additional numbers are, of processes, threads, groups and sessions, is a table of its own.
 *
 * Other processes may belong to it that do not descend from the root: daemons that have left the tree and still share memory with it, say. Each is *detached*, and brings its own
 * descendants along. Nobody in the unit is the parent of such a process, and nobody outside of it waits for it.
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
#define TREE_LEVELS_MAX 8u /* of pid namespaces below the root's, one in another */
#define TREE_SPACES_MAX 257u /* NS_OTHERS_MAX and the root's */
#define TREE_NUMBERS_MAX 65536u

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
	bool detached;        /* its parent is not in the unit; `parent` is the root then */
	uint32_t exit_status; /* of a zombie, as wait(2) will give it */
	uint32_t uid, gid;    /* of a zombie: real ones */
	char name[TREE_NAME_MAX];
	uint32_t memory, files, fs, handlers; /* index of the first process that shares it */
	uint32_t space;       /* pid namespace that it is in */
	uint64_t space_id;    /* source: the same, as nsfs.h knows it */
};

/* What a task, group or session below the root's pid namespace has for numbers. */
struct tree_number {
	pid_t number;         /* in the root's */
	uint32_t space, depth;
	pid_t below[TREE_LEVELS_MAX]; /* `depth` of them: in the namespaces on the way down to `space`, which is the last */
	uint64_t space_id;    /* source: of a member's namespace, in which it may not be seen */
};

struct tree {
	struct tree_process *v;
	size_t n;
	struct tree_number *numbers; /* ascending; empty where there is one pid namespace only */
	size_t n_numbers;
	uint32_t *above;      /* by space: in which one it lies; above[0] is not used */
	size_t n_spaces;
};

#define TREE_INIT ((struct tree){ 0 })

void tree_free(struct tree *t);

/*
 * Reads the table of the unit with this root (a number of godwitd's) from /proc while it runs, until two looks agree; also[n_also]: detached ones of the same pid
 * namespace, none of them below another. What cannot move because of how the
 * processes belong together is added to refusals: sharing with a process outside, sessions that cannot be made again (tree_plan.h), core dumps of zombies.
 * What a single process cannot move with is process_check's. -ESRCH: there is no such process. -EAGAIN: it forks faster than it can be read.
 */
int tree_capture(pid_t root, const pid_t *also, size_t n_also, struct tree *ret_tree, struct refusals *r, struct err *e);
/*
 * The same for the freeze, when every known thread is stopped: cheap (nothing is opened; at most one small read a thread). Open it right after tree_capture, the
 * tree must live as long. Returns 1 when something has changed in who belongs to it or in groups and sessions, or may have (threads were made): call tree_capture; 0 when
 * nothing has. Zombies that have been waited for are changes; processes that have become zombies are not: whoever stops them sees that. The cost without
 * changes is two system calls a process, three a zombie.
 */
struct tree_watch;
int tree_watch_open(const struct tree *t, struct tree_watch **ret_watch, struct err *e);
/* From here on process i of the table has so many more children, which are Godwit's agents. */
void tree_watch_agent(struct tree_watch *w, uint32_t i, int n);
/* Whether nobody can have been born since the table was read. */
bool tree_watch_idle(const struct tree_watch *w);
/*
 * Process i of the table, which stands still, has this thread; near: where it is among them, mostly. To be called for all that it has, or for none: then
 * other threads than at the beginning are taken for a change.
 */
int tree_watch_thread(struct tree_watch *w, uint32_t i, size_t near, pid_t tid, struct err *e);
int tree_watch_changed(struct tree_watch *w, struct err *e);
void tree_watch_free(struct tree_watch *w);

/* Whether a thread waits in vfork(), or the like, until its child has called exec: it cannot be stopped as long. */
bool tree_waits_in_vfork(pid_t pid, pid_t tid);

/* Index of a process; TREE_NONE. */
uint32_t tree_find(const struct tree *t, pid_t pid);
uint32_t tree_find_host(const struct tree *t, pid_t host_pid);
/* Who is its parent in the unit; TREE_NONE: nobody. */
static inline uint32_t tree_parent(const struct tree *t, size_t i)
{
	return t->v[i].detached ? TREE_NONE : t->v[i].parent;
}
static inline bool tree_shares_memory(const struct tree *t, size_t i)
{
	return t->v[i].memory != i;
}

/* tree_numbers.c */
/* Source: numbers below the root's namespace, which is `level` below godwitd's, from /proc. -E2BIG: too many, one in another. */
int tree_numbers_capture(struct tree *t, unsigned level, struct err *e);
/* Source: names the spaces. `above`, by space, is copied; find says which one an identity is of, -1: none. What is not to be seen is left out. */
int tree_name_spaces(struct tree *t, const uint32_t *above, size_t n, int (*find)(uint64_t id), struct err *e);
/* Source: whether there is a way to make it, now that the spaces have names. -EOPNOTSUPP. */
int tree_check_spaces(const struct tree *t, struct err *e);
int tree_numbers_copy(const struct tree *from, struct tree *ret, struct err *e);
int tree_numbers_validate(const struct tree *t, struct err *e);
/* How many spaces lie between the root's and this one, with it. */
unsigned tree_depth(const struct tree *t, uint32_t space);
/* Whether what is in `below` can be seen from `space`. */
bool tree_space_sees(const struct tree *t, uint32_t space, uint32_t below);
/* A number of the root's namespace, as processes of a space see it; 0: they do not. */
pid_t tree_seen(const struct tree *t, uint32_t space, pid_t number);
/* For set_tid (clone3(2)): the numbers of a task in a space, innermost first. `number` 0: any, of those that are not known. Returns how many. */
size_t tree_set_tid(const struct tree *t, uint32_t space, pid_t number, pid_t ret[TREE_LEVELS_MAX + 1]);
/* Of a group or session whose leader may be gone: the space that it was in; `otherwise` where that is not known. */
uint32_t tree_space_of(const struct tree *t, pid_t number, uint32_t otherwise);

/* The message Tree of tree.proto; bytes are malloc'ed. */
int tree_encode(const struct tree *t, uint8_t **ret_data, size_t *ret_len);
/* Decodes and validates: one root, parents first, no number twice, everything else in range and consistent. */
int tree_decode(const void *data, size_t len, struct tree *ret_tree, struct err *e);
int tree_validate(const struct tree *t, struct err *e);

#endif
