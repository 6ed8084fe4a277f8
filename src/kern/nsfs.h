/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nsfs.h - the files of /proc/PID/ns (namespaces(7)), and the flags by which the kernel knows the kinds
 *
 * A namespace is known by the inode number of its file, which no other has as long as it exists. A task is a process or thread; 0 is the calling thread.
 */
#ifndef GODWIT_KERN_NSFS_H
#define GODWIT_KERN_NSFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum ns_kind { NS_UTS, NS_IPC, NS_NET, NS_CGROUP, NS_PID, NS_MNT, NS_USER, NS_TIME, NS_KINDS };

#define NS_BIT(kind) (1u << (kind))

/* As the file is called. */
const char *ns_name(enum ns_kind kind);
/* CLONE_NEW*, for unshare(2) and setns(2). */
int ns_flag(enum ns_kind kind);
/* -1 with errno. */
int ns_open(pid_t task, enum ns_kind kind);
/* Of NS_PID and NS_TIME: the one that its future children will be in. */
int ns_open_for_children(pid_t task, enum ns_kind kind);
/* 0: it cannot be read. */
uint64_t ns_id(pid_t task, enum ns_kind kind);
uint64_t ns_id_for_children(pid_t task, enum ns_kind kind);
/* Of an open file of a namespace. */
uint64_t ns_id_of(int fd);
/* Whether both can be read and are not the same. */
bool ns_differs(pid_t a, pid_t b, enum ns_kind kind);
/* 0 or -errno. */
int ns_enter(int fd, enum ns_kind kind);

#endif
