/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cgroup.h - the control groups that a unit is in (cgroups(7)), where they are not godwitd's own
 *
 * At the destination processes and threads join the groups of the same paths, with whatever limits they have there. A group that the destination lacks is made
 * with the settings that it has at the source, and so are those above it that are lacking, and all below it. In the paths is what godwitd sees: it works
 * in its own cgroup namespace for that. A group that was made is marked, and removed when the unit has left it: nobody else will.
 */
#ifndef GODWIT_IMAGE_CGROUP_H
#define GODWIT_IMAGE_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "cgroup.pb-c.h"
#include "image/refuse.h"
#include "ns.pb-c.h"
#include "task.pb-c.h"

#define CGROUP_GROUPS_MAX 4096u

/* Source: where a process and its threads are. */
int cgroup_capture(pid_t pid, Gw__Process *msg, struct err *e);
int cgroup_validate(const Gw__Process *msg, struct err *e);
/* Source: the groups of all places, with their settings; *ret is NULL when there are none. `root` is the unit's first process. */
int cgroups_capture(pid_t root, Gw__Process *const *processes, size_t n, Gw__Cgroups **ret, struct refusals *r, struct err *e);
int cgroups_validate(const Gw__Cgroups *msg, struct err *e);
/* Source, when nothing of the unit is left here: removes groups that were made for it. */
void cgroups_remove(const Gw__Cgroups *msg);

/* Destination: makes those that are lacking, and has the worker in a cgroup namespace with the unit's root where the unit has one. */
struct cgroups_made {
	char **paths;
	size_t n;
};
int cgroups_make(const Gw__Cgroups *msg, bool own_namespace, struct cgroups_made *made, struct err *e);
/* Undoes it when nobody is in them. */
void cgroups_made_undo(struct cgroups_made *made);
/* Before the freeze, by the worker: process `pid` joins; `find` gives the thread as the worker sees it, 0: it is not there. */
int cgroup_join(pid_t pid, const Gw__Process *msg, pid_t (*find)(void *arg, pid_t tid), void *arg, struct err *e);

/* Source: where a cgroup namespace of a part of the unit begins, which `ns` is and process `pid` is in. */
/*
 * Of the text of a process's /proc/PID/cgroup (taken apart), and of what it is to a reader in there: what is cut off. false: it is not below the root. Hierarchies come and go with what others on this
 * machine mount: one that is in only one of the texts has no namespaces that count.
 */
bool cgroup_roots_cut(char *whole, const char *seen, Gw__NsOther *out);
int cgroup_roots_capture(pid_t pid, int ns, Gw__NsOther *out, struct refusals *r, struct err *e);
int cgroup_roots_validate(const Gw__NsOther *o, struct err *e);
/* Destination: the caller, a process for the moment, goes where such a one is to begin. */
int cgroup_roots_join(const Gw__NsOther *o, struct err *e);

/* Where a hierarchy can be reached as a whole, mounted for all to see or not; in godwitd's own cgroup namespace (ns_in_own_cgroups). */
bool cgroup_find_mount(const char *names, char ret_point[PATH_MAX]);
/* Source, after cgroup_capture: whether godwitd is in that group or below it. */
bool cgroup_leads_here(const char *names, const char *path);
/* The group at or above `path` that processes, not only threads, can join: version 2; in place. */
void cgroup_to_domain(const char *point, char *path);

#endif
