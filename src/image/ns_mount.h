/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_mount.h - the mounts of a unit that has a mount namespace of its own
 *
 * What is mounted is either a part of a file system that the host has mounted too: then it is the path on the host that travels, and the destination binds what it has
 * there; or a file system that belongs to the unit: in memory (its contents travel), of the kernel (proc, sysfs, devpts, mqueue, cgroup), and these
 * are mounted anew. Everything else refuses the unit. Peer groups and masters are those among the unit's mounts; what is a slave of a mount of
 * the host is one at the destination, too, where that one propagates.
 */
#ifndef GODWIT_IMAGE_NS_MOUNT_H
#define GODWIT_IMAGE_NS_MOUNT_H

#include "image/fsfile.h"
#include "image/ns.h"
#include "image/ns_info.h"

/*
 * Source: the mounts of a process's mount namespace, ordered, each with a descriptor of its root (-1: it has no path any more). *ret_lines: what the kernel says of the namespace
 * itself (malloc'ed): mounts have other numbers there.
 */
int ns_survey(pid_t pid, struct mount_infos *ret, char **ret_lines, struct err *e);

/* Whether a file system of that type is the kernel's own, the same on every host: proc, sysfs, devpts... */
bool ns_mount_is_kernels(const char *type);

/*
 * Source: adds the mounts of a mount namespace of the unit's, as process `pid` sees them; `space`: its number (ns_other.h). Keeps descriptors until ns_mounts_leave.
 */
int ns_mounts_capture(pid_t pid, uint32_t space, Gw__Namespaces *msg, struct refusals *r, struct err *e);
/* Whether a mount is the root of its namespace. */
bool ns_mount_is_root(const Gw__Namespaces *msg, size_t index);
void ns_mounts_leave(void);
/*
 * Source: when a descriptor is on a mount that is not in the first process's namespace, marks `path`, which is what the kernel has said of it (place.h): with the number of
 * another of the unit's, unless the same path leads to the same file in that of the first, too; or as one of the host, where that has the file somewhere (a runtime
 * has given it to a container).
 */
void ns_mark_outside(int fd, char *path, size_t size);
/*
 * Source: where a description of a file is to be opened, when the path by which the file is known (`told`; !named: it has none any more) leads to another mount than it is on. Returns 1 with a
 * path: to the file, or (*ret_through) to the mount, for a file that is opened by its handle; 0: nothing is to be said; -ENOENT: no path leads to the mount.
 */
int ns_place_file(int fd, const char *told, bool named, char *ret, size_t size, bool *ret_through);
/* Source: whether a directory of a process ("cwd") is on a mount of another mount namespace than its path in its own says. */
bool ns_directory_is_elsewhere(pid_t pid, const char *link);
/*
 * Source: the root directory of a process (bare: of its mount namespace), marked with its mount namespace, without a slash at its end: empty for the root of the first process's.
 * false: it is in none of the unit's.
 */
bool ns_root_of(pid_t pid, bool bare, char *ret, size_t size);
/* The roots of the unit's mount namespaces, one after the other; false: there are no more. */
bool ns_root_number(size_t i, char *ret, size_t size);
/* A descriptor of the root of a tree in a file system of the unit's; not the caller's. */
int ns_tree_root(const Gw__Namespaces *msg, size_t fs, size_t tree);
/* In the freeze: -EAGAIN when there are other mounts than at the offer. */
int ns_mounts_check(struct err *e);

/*
 * Before the offer the destination is asked which paths of the host it lacks. What is the unit's own of that becomes a file system in memory at the destination, with its contents:
 * ns_mounts_send changes the message so. The arrays in ask and answer are the caller's.
 */
void ns_mounts_ask(const Gw__Namespaces *msg, Gw__NsAsk *ask);
void ns_mounts_answer(const Gw__NsAsk *ask, Gw__NsAnswer *answer);
int ns_mounts_send(Gw__Namespaces *msg, const Gw__NsAnswer *answer, const struct fsfile_table *files, struct refusals *r, struct err *e);

/* Contents of file systems in memory from number `first` on; `files` have been captured already: those that travel by themselves are left out. */
int ns_entries_capture(Gw__Namespaces *msg, size_t first, const struct fsfile_table *files, struct refusals *r, struct err *e);
/* In the freeze: -EAGAIN when the contents are not those any more. */
int ns_entries_check(const Gw__Namespaces *msg, const struct fsfile_table *files, struct err *e);

int ns_mounts_validate(const Gw__Namespaces *msg, struct err *e);
/* Belongs to a pid namespace of the unit's, or is below what does: mounted from inside of that. */
bool ns_mount_is_late(const Gw__Namespaces *msg, size_t index);
/* To which (ns_other.h) one that is late belongs. */
uint32_t ns_mount_numbers(const Gw__Namespaces *msg, size_t index);
/* Source, when all mounts and pid namespaces are known: which /proc shows which. */
void ns_mounts_name_procs(Gw__Namespaces *msg, struct refusals *r);
/* Whether the host has that file system mounted, too. */
bool ns_mount_is_hosts(size_t index);
/* The descriptor of a mount's root; not the caller's. */
int ns_mount_fd(size_t index);

/* Destination: what it lacks of what is to be bound. */
void ns_mounts_judge(const Gw__Namespaces *msg, struct refusals *r);
/* A directory of the host that everybody can reach; mounts are put together on it, in the holder's mount namespace. */
#define NS_MOUNT_TOP "/run/godwit-root"
/* Whether mount namespaces that the first process is not in belong to user namespaces that it is not in. */
bool ns_mounts_have_users(const Gw__Namespaces *msg);
/* Destination: before others make the mounts, in a user namespace of the unit's own. */
int ns_mounts_borrow(const Gw__Namespaces *msg, struct err *e);
/*
 * In the holder, in a mount namespace of its own: makes all that are not late, and makes those of the first process's namespace its root. For each other namespace it
 * leaves a child, in shared memory at ret_pids[number - 1].
 */
int ns_mounts_make(const Gw__Namespaces *msg, pid_t *ret_pids, struct err *e);
/* In the unit's first process: enters the mount namespace (-1: none) and makes those that are late, also in others; msg NULL: there are none. */
int ns_mounts_join(const Gw__Namespaces *msg, int ns, struct err *e);
/* By the worker, when the first process of another pid namespace is there: makes those that belong to that one. `ns`: the first process's mount namespace. */
int ns_mounts_show_numbers(const Gw__Namespaces *msg, uint32_t numbers, int pids, int ns, struct err *e);
int ns_entries_make(const Gw__NsTree *tree, int top, struct err *e);

#endif
