/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_other.h - namespaces of a unit that its first process is not in
 *
 * They are a table, of all kinds: Namespaces.others. A process names those that it is in by kind (Process.namespaces), and so does a descriptor of a namespace
 * (FdDesc.space): 0 is the one that the unit's first process is in, whichever that is; n is others[n - 1]. The worker holds each open, on both sides; it enters one
 * for as long as it looks into it, or fills it. A process is made in its creator's namespaces, and enters its own before others are born to it.
 */
#ifndef GODWIT_IMAGE_NS_OTHER_H
#define GODWIT_IMAGE_NS_OTHER_H

#include "image/clocks.h"
#include "image/ns.h"
#include "image/tree.h"
#include "task.pb-c.h"

#define NS_HOSTS UINT32_MAX /* FdDesc.space, NsOther.user: godwitd's own */

/*
 * Source, after ns_capture: finds what the processes (pids[0]: the first one) are in and reads it. *msg is made if it is NULL and there is something to be said. What
 * cannot move is refused.
 */
int ns_others_capture(const pid_t *pids, size_t n, Gw__Namespaces **msg, struct refusals *r, struct err *e);
/* Which ones a process is in. */
void ns_others_name(pid_t pid, Gw__Process *msg);
/* The user namespace that a process is in (ns_user_choose). */
uint32_t ns_others_user_of(pid_t pid);
bool ns_others_have_users(void);
/* Whether a thread is still in those that its process was in at the offer. */
bool ns_others_same(pid_t pid, pid_t tid, const Gw__Process *msg);
/* By which number a namespace is known; false: it is none of the unit's. */
bool ns_others_find(enum ns_kind kind, uint64_t id, uint32_t *ret);
void ns_others_leave(void);
/* Source: names the pid namespaces of the tree (tree.h). -EAGAIN: it has changed. */
int ns_others_name_tree(const Gw__Namespaces *msg, struct tree *t, struct err *e);

int ns_others_validate(const Gw__Namespaces *msg, struct err *e);
/* Of Process.namespaces, with the table that they refer to (NULL: none). */
int ns_others_validate_process(const Gw__Namespaces *msg, const Gw__Process *process, struct err *e);
/* What is said in the offer only. */
void ns_others_take_over(const Gw__Process *offered, Gw__Process *msg);
/* Destination, by ns_make, when the worker is in the first process's: user namespaces, and all that is not mounts, clocks or numbers. */
int ns_others_begin(const Gw__Namespaces *msg, const struct ns_made *made, struct err *e);
/* One that belongs to a user namespace; not the caller's. -1: there is none. */
int ns_others_find_owned(const Gw__Namespaces *msg, uint32_t user, enum ns_kind kind);
/* Destination, after ns_make. `first`: the source's clocks of the first process, and what they are to be here. */
int ns_others_make(const Gw__Namespaces *msg, const struct ns_made *made, const Gw__Clocks *first, const struct clock_offsets *offsets, struct err *e);
/* A pid namespace, when its first process has been made: takes the descriptor. */
void ns_others_put(uint32_t number, int fd);
/* That of the first process, wherever the worker is at the moment; not the caller's. At the destination of NS_NET only. */
int ns_first_fd(enum ns_kind kind);
/* The namespace of that number, open; not the caller's. -1 for 0. */
int ns_others_fd(uint32_t number);
/* The worker goes into it, and back by what this has returned; of number 0 nothing is done. -errno: there is none. */
int ns_others_visit(enum ns_kind kind, uint32_t number);
void ns_others_return(enum ns_kind kind, int back);

#endif
