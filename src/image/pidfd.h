/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pidfd.h - pidfds (pidfd_open(2)) of processes and threads of the unit, and of processes that have ended */
#ifndef GODWIT_IMAGE_PIDFD_H
#define GODWIT_IMAGE_PIDFD_H

#include "image/file_look.h"
#include "image/refuse.h"

struct fd_env;

bool pidfd_is_one(const char *link);
/* Which process of the unit, thread or zombie of it `pid` is, as this process sees its number: into ret, which is all 0. False: none. */
typedef bool pidfd_finder(const void *arg, pid_t pid, Gw__FdPid *ret);

/* Fills d->pid. FD_REFUSED with a refusal for a process outside of the unit. */
int pidfd_capture(const struct fd_look *look, Gw__FdDesc *d, pidfd_finder *find, const void *arg, struct refusals *refusals, struct err *e);
int pidfd_validate(const Gw__FdDesc *d, size_t n_processes, struct err *e);
/*
 * For a process that has ended, one is made that ends at once; *ended, of *n_ended, remembers it until pidfd_reap, so that all pidfds of it are of one
 * process.
 */
struct pidfd_ended {
	uint64_t inode;
	pid_t pid;
};

/* beside: a process that has the descriptor, as this worker counts; 0: none. What has ended is made in its pid namespace. */
int pidfd_restore(const Gw__FdDesc *d, const struct fd_env *env, pid_t beside, struct pidfd_ended **ended, size_t *n_ended, int *ret_fd, struct err *e);
void pidfd_reap(struct pidfd_ended **ended, size_t *n_ended);

#endif
