/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.h - the image of a unit on the source, as captured from outside while it runs */
#ifndef GODWIT_MIGRATE_UNIT_H
#define GODWIT_MIGRATE_UNIT_H

#include <sys/types.h>

#include "base/err.h"
#include "control.pb-c.h"
#include "image/file.h"
#include "image/fsfile.h"
#include "image/mm.h"
#include "image/cgroup.h"
#include "image/ns.h"
#include "image/refuse.h"
#include "image/sysv.h"
#include "image/tree.h"
#include "image/uring.h"
#include "image/vdso.h"
#include "image/vma.h"
#include "migrate/caller.h"
#include "task.pb-c.h"

/* One process of a unit. */
struct unit_process {
	pid_t pid;            /* as godwitd sees it */
	pid_t number;         /* as it is seen in its pid namespace: what travels */
	bool elsewhere;       /* in another pid namespace than godwitd */
	uint32_t in_tree;     /* index in unit.tree */
	pid_t top;            /* the root, or the detached process that it descends from, as godwitd sees it */
	uint32_t host;        /* index of the first process of the unit that has the same memory, which travels with that one */
	bool guest;           /* that is another one: no mappings are kept here */
	int pidfd;
	Gw__Process *process;
	Gw__Thread **threads; /* [0]: the main thread; their numbers are those of its pid namespace */
	pid_t *tids;          /* the same as godwitd sees them */
	size_t nthreads;
	struct vma_list vmas;
	struct vdso vdso;
	struct mm_fields mm;
	struct uring_told *urings; /* NULL: none */
};

/* A process and its descendants, and detached ones (tree.h) with theirs. Files and descriptions are the unit's: what processes share stays shared. */
struct unit {
	struct tree tree;           /* with those that have ended and not been waited for */
	struct tree_watch *watch;   /* of it, since it was read */
	struct unit_process *procs; /* those that live, parents before their children; [0]: the root */
	size_t nprocs;
	struct fsfile_table files;
	struct fdtable fds;
	Gw__Cgroups *cgroups;       /* NULL: none but godwitd's own */
	Gw__Namespaces *ns;         /* NULL: none of its own */
	Gw__View *view;             /* NULL: it has no directories of another host */
	struct sysv_watch *sysv;
};

#define UNIT_INIT ((struct unit){ .fds = FDTABLE_INIT })

/*
 * Captures everything that can be seen without touching the unit; what cannot move is added to refusals. -EAGAIN, and no refusals, when something failed
 * or looked like a reason while processes came or went. also[n_also]: the detached ones. caller: who asks, NULL: who may do everything; of a unit in which there is something that he may
 * not touch he is told no more than that. *ret must stay where it is.
 */
int unit_capture(pid_t pid, const pid_t *also, size_t n_also, const struct caller *caller, struct unit *ret, struct refusals *refusals, struct err *e);
/* Adds refusals about memory that the unit shares with processes outside. */
int unit_check_sharing(const struct unit *u, struct refusals *refusals, struct err *e);
/* The number of a task of this process in its own pid namespace. */
pid_t unit_number(const struct unit_process *u, pid_t tid);
void unit_free(struct unit *u);
/* Whether processes have come or gone since the capture; the root's end is no such change. */
bool unit_has_changed(const struct unit *u);

/* Lists of encoded messages for the wire; owned by the caller (bytes_free). */
struct bytes_list {
	ProtobufCBinaryData *v;
	size_t n;
};
void bytes_list_free(struct bytes_list *l);
int unit_encode_threads(Gw__Thread *const *threads, size_t n, struct bytes_list *ret, struct err *e);

#endif
