/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * seccomp.h - system call filters of threads (seccomp(2)): strict mode, and classic BPF programs in the order of their installation
 *
 * Capture: the mode from /proc for the offer, the programs by ptrace from a stopped thread. Filters hold for what Godwit has a thread do as well, so that such
 * threads are tracees with PTRACE_O_SUSPEND_SECCOMP while they run anything of ours, on both sides (see docs/decisions, "held").
 *
 * Restore: a chain that all threads have in common is one object for the kernel (SECCOMP_FILTER_FLAG_TSYNC works by that), so it is installed once, by the main thread
 * for all (seccomp_plan_shared, in a list of its own, before any other list of calls); what a thread has beyond it by the thread itself. Both while
 * the thread still has privileges. Filters with the same content that are not common to all threads become objects of their own.
 */
#ifndef GODWIT_IMAGE_SECCOMP_H
#define GODWIT_IMAGE_SECCOMP_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

enum seccomp_kind { SECCOMP_NONE, SECCOMP_STRICT, SECCOMP_FILTERS }; /* as in "Seccomp:" of /proc/PID/status */

#define SECCOMP_PTRACE_SUSPEND 0x200000ul /* PTRACE_O_SUSPEND_SECCOMP */

/* The mode of a task, from /proc; SECCOMP_NONE when it cannot be read. */
enum seccomp_kind seccomp_mode_of(pid_t tid);
/* Source, at the offer, and destination: a filtered task can be handled only by a worker that may suspend filters. */
void seccomp_check(const Gw__Thread *msg, const char *where, struct refusals *r);

/* The programs of a task in a ptrace stop. -EREMOTE: one that cannot move, for a reason that the error names. */
int seccomp_capture(pid_t tid, Gw__Thread *msg, struct err *e);
/* A thread whose filters are those of `first` says only that. */
void seccomp_make_alike(const Gw__Thread *first, Gw__Thread *msg);

int seccomp_validate(const Gw__Thread *msg, struct err *e);

bool seccomp_in_use(Gw__Thread *const *threads, size_t n);
/* In the list of the main thread (threads[0]). */
void seccomp_plan_shared(struct batch *b, Gw__Thread *const *threads, size_t n);
/* In the list of the thread `msg`, behind it, and before it gives up privileges. */
void seccomp_plan_own(struct batch *b, Gw__Thread *const *threads, size_t n, const Gw__Thread *msg);

#endif
