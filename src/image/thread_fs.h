/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thread_fs.h - threads with a working directory and an umask of their own
 *
 * The threads of a process have them in common until one calls unshare(CLONE_FS), as servers do in threads that act for a user each. kcmp(2) tells who has. Such a thread calls
 * unshare(2) at the destination, too, and goes to its directory.
 */
#ifndef GODWIT_IMAGE_THREAD_FS_H
#define GODWIT_IMAGE_THREAD_FS_H

#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

/* Source; the thread may run. -EBUSY: it has, but what it has cannot move. */
int thread_fs_capture(pid_t pid, pid_t tid, Gw__Thread *msg, struct err *e);
/* At the offer: the same, a reason why it cannot move is added to `r`. */
int thread_fs_offer(pid_t pid, pid_t tid, Gw__Thread *msg, struct refusals *r, struct err *e);
/* Two threads of a process: -EBUSY when they have left the others and have theirs in common. */
int thread_fs_check(pid_t tid, const Gw__Thread *msg, pid_t other, const Gw__Thread *other_msg, struct err *e);

int thread_fs_validate(const Gw__Thread *msg, struct err *e);
/* Destination, at the offer: whether the directory is there. */
void thread_fs_validate_here(const Gw__Thread *msg, const Gw__Process *process, struct refusals *r);
/* By the thread itself, when the process has its root. */
void thread_fs_plan(struct batch *b, const Gw__Thread *msg);

#endif
