/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fdpass.h - descriptors between processes: SCM_RIGHTS (unix(7)) and pidfd_getfd(2) */
#ifndef GODWIT_KERN_FDPASS_H
#define GODWIT_KERN_FDPASS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/remote.h"

#define FDPASS_MAX 253u

int fd_send(int socket, const int *fds, size_t n, struct err *e);
/* Receives one message with one descriptor and `len` bytes; 0 bytes received (end) is -EPIPE. */
int fd_receive(int socket, void *data, size_t len, int *ret_fd, struct err *e);
int pidfd_open_process(pid_t pid, struct err *e);
int pidfd_get(int pidfd, int fd, struct err *e);
int pidfd_signal(int pidfd, int sig);

/* Has a task receive n descriptors that fd_send has put into `socket` (a number in the task); their numbers go to ret_fds. Runs the batch. */
int batch_receive_fds(struct batch *b, int socket, int *ret_fds, size_t n, struct err *e);

#endif
