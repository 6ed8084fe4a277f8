/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_leak.h - descriptors that a program has without knowing: left open by who started it (a launcher of MPI ranks, a shell, a daemon)
 *
 * A connection cannot be in two places. One that an ancestor of the unit uses, too, is refused as a rule; but where nobody in the unit can know that it is there, it stays
 * with the ancestor, and the unit has a descriptor in its place that leads nowhere: a TCP socket without a connection, a unix socket or a pipe without another end. A program knows of a descriptor that was open when it was executed from its arguments or its environment, or because it is one of the first three. So such a one is
 * leaked when, in each process of the unit that has it, all of this holds: an ancestor outside has it, too, and is another program (execve(2) has been called between); it is
 * none of the first three, and not closed on exec, which who knows of it would have seen to; no argument and no variable of the environment that is about descriptors names its number; no
 * thread waits in a call about it, and no epoll instance has it.
 */
#ifndef GODWIT_IMAGE_FILE_LEAK_H
#define GODWIT_IMAGE_FILE_LEAK_H

#include "image/file_state.h"

/* Looked for while the unit runs; what it was found to be then it is in the freeze as well. The user is told by a note, in which it is called `what`. */
/* *ret_why, which may be NULL: why it is not, where that is known. */
bool fdtable_is_leaked(struct fdtable *t, uint32_t desc, const char *what, const char **ret_why);

/* Whether it is a process of the unit. */
bool fdtable_has_process(const struct fdtable *t, pid_t pid);

/* Whether one of the strings in `text` (ended by zeros, as in /proc/PID/cmdline; variables: in /proc/PID/environ) may speak of this descriptor. */
bool fd_is_named(const char *text, size_t len, bool variables, int fd);

#endif
