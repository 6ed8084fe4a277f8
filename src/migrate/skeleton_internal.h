/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* skeleton_internal.h - what the skeleton*.c files share */
#ifndef GODWIT_MIGRATE_SKELETON_INTERNAL_H
#define GODWIT_MIGRATE_SKELETON_INTERNAL_H

#include <sys/ptrace.h>

#include "migrate/skeleton.h"

/* Every task of a skeleton dies with the worker; what it clones is reported with its number as the worker sees it, and has the same options. */
#define SKELETON_OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE)

/* Where a process comes from that is forked by another one of the unit. */
struct skeleton_birth {
	pid_t number;         /* in the root's pid namespace; 0: any */
	pid_t tid;            /* of the creator's thread that forks, which is made if need be; 0: the main one */
	bool sibling;         /* a child of its creator's parent, with its creator's exit signal */
	uint32_t exit_signal;
	uint64_t share;       /* CLONE_VM, CLONE_FILES, CLONE_FS, CLONE_SIGHAND */
	const struct tree *tree; /* what knows more numbers */
	uint32_t space;       /* pid namespace that it is in */
	int children;         /* pid namespace that the creator has to lead it into, open; -1: it is born in its creator's, or makes one in there */
	bool first;           /* it makes the namespace */
	bool late;            /* the creator has its layout already: nothing of it may be copied */
};

/* skeleton_start.c */
int skeleton_memfd(const char *name, struct err *e);
int skeleton_program(struct err *e);
/* Whether the holder of a number will be gone in a moment. */
bool skeleton_about_to_go(pid_t pid);
/* Makes the scratch and the sockets of s; their other ends, for the process: memfd (the scratch's own), transfer, bell. */
int skeleton_open(struct skeleton *s, const struct skeleton_terms *terms, int ret_fds[3], struct err *e);
/* Waits until a traced task has exec'ed the skeleton program. */
int skeleton_wait_exec(struct skeleton *s, struct err *e);
/* The unit's first process, at rest; no agent yet. */
int skeleton_start(struct skeleton *s, pid_t pid, bool own_namespace, const struct skeleton_terms *terms, struct err *e);

/* skeleton_seat.c: the same out of the stub. */
int skeleton_sit(struct skeleton *s, pid_t number, const struct skeleton_terms *terms, const struct skeleton_seat *seat, struct err *e);
/* Lets go of it before the commit: godwit-home makes it a stub again. */
void skeleton_leave_seat(struct skeleton *s);

/* skeleton.c */
/* Opens the descriptors by which the worker holds the process. */
int skeleton_hold_on(struct skeleton *s, struct err *e);
/* A process in a ptrace stop, blank: maps its scratch (memfd: a number in the process, which is closed) and brings it to its first rest. */
int skeleton_enter(struct skeleton *s, pid_t number, uint64_t base, int memfd, struct err *e);
/* Has a task clone. Returns its result, the number as the task sees it; *ret_outer: as the worker sees it, in its first stop. */
int64_t skeleton_spawn(struct task *by, struct batch *b, uint64_t nr, const uint64_t arg[6], unsigned slot, pid_t *ret_outer, struct err *e);
int skeleton_first_rest(pid_t tid, struct err *e);
int skeleton_add_entry(struct skeleton *s, pid_t tid, pid_t outer, unsigned slot, struct err *e);
/* A slot that no task has; its flags are SLOT_TRAP then. */
int skeleton_take_slot(const struct scratch *scratch, unsigned *ret_slot, struct err *e);
/* Kills the agent, if there is one, and waits for it. */
void skeleton_end_agent(struct agent *a);
/* Takes tasks out of the tracer's hands that have ended. */
void skeleton_reap(pid_t tid);

/* skeleton_agent.c: `orphan`: nobody in the unit is to be its parent. */
int skeleton_make_agent(struct skeleton *s, bool orphan, struct err *e);

/* skeleton_fork.c: has a process fork another one, which rests then; no agent yet. */
int skeleton_fork(struct skeleton *by, struct skeleton *s, const struct skeleton_birth *birth, const struct skeleton_terms *terms, struct err *e);

/*
 * skeleton_number.c. Numbers as for set_tid, the innermost first, of a task that is made in the pid namespace `ns`; first: as the first one of a new one below it.
 * How many of them its maker may choose; the others are led up to, and may not come.
 */
size_t skeleton_numbers_chosen(const struct skeleton *by, int ns, bool first, size_t n);
int skeleton_lead_to(int ns, bool first, const pid_t *numbers, size_t from, size_t n, struct err *e);
/* Afterwards: what is given out on the host goes on where it was, far from the unit's numbers. */
void skeleton_lead_back(void);
bool skeleton_has_numbers(pid_t outer, const pid_t *numbers, size_t n);
#define SKELETON_NUMBER_TRIES 20

#endif
