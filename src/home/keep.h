/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keep.h - the descriptors of a process that goes on when the worker that forked it has ended */
#ifndef GODWIT_HOME_KEEP_H
#define GODWIT_HOME_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes every descriptor above the standard streams for which `wanted` says no. */
void keep_only(bool (*wanted)(const void *arg, int fd), const void *arg);

/*
 * What such a process begins with: a name, a session, signals and niceness of its own, and of the descriptors only those that `wanted` names and the standard streams.
 * SIGPIPE is ignored.
 */
void keep_begin(const char *name, bool (*wanted)(const void *arg, int fd), const void *arg);

/*
 * fork(2), in which the child is one of godwitd's, the subreaper's, and not of this worker. 0 in the child; here a number that means nothing, or a negative
 * errno.
 */
int keep_fork(void);

/* The caller, who may have entered some of a unit's namespaces, goes back to those of process `pid`. */
void keep_host_namespaces(pid_t pid);

#endif
