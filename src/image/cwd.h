/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cwd.h - the working directory of a process
 *
 * It is known by its path. One whose name was removed is made again and removed again (file_gone.h), and whoever has the same one, as working directory or as a
 * descriptor, has the same one again.
 */
#ifndef GODWIT_IMAGE_CWD_H
#define GODWIT_IMAGE_CWD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/proc_ended.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

/* The process may run. */
int cwd_capture(pid_t pid, Gw__Process *msg, struct err *e);
/* Source: whether its path leads to it. It does not where something has been mounted over it, nor in a tree that is mounted nowhere. */
bool cwd_is_reached(pid_t pid, const Gw__Process *msg);
bool cwd_root_is_reached(pid_t pid, const Gw__Process *msg);
/* Whether it has become another one without a name since: only one of the offer can be made in the freeze. */
bool cwd_is_news(const Gw__Process *was, const Gw__Process *now);
int cwd_validate(const Gw__Process *msg, struct err *e);
/* Destination, at the offer. */
void cwd_validate_here(const Gw__Process *msg, struct refusals *r);

/* Whether two processes, or a process and a description, have the same one whose name was removed. */
bool cwd_is_same(const Gw__Process *a, const Gw__Process *b);
bool cwd_is_removed_inode(const Gw__Process *msg, const Gw__FdInode *inode);
/* Whether it is that of a process that has ended: it can be entered only while there is a stand-in. */
bool cwd_is_of_process(const Gw__Process *msg);
/* Destination: makes the one without a name and opens it (O_PATH). `stand`: of such a process. */
int cwd_make_removed(const Gw__Process *msg, const struct proc_ended *stand, int *ret_fd, struct err *e);
/* Goes to the one that has a name. `inside`: the process has its root already. */
void cwd_plan(struct batch *b, const Gw__Process *msg, bool inside);

#endif
