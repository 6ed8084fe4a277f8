/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * confine.h - a process gives away all that it does not need before it reads what strangers say
 *
 * It becomes the user nobody without groups or capabilities, can get none by execve(2) either, and a filter of system calls (seccomp(2)) lets it make only those on a
 * list: memory that is not executed, time, sleeping, reading files that anybody may read, its descriptors, and the end. Everything else fails with EPERM. The descriptors that it has
 * open remain: they are what it may still use.
 */
#ifndef GODWIT_BASE_CONFINE_H
#define GODWIT_BASE_CONFINE_H

#include <stddef.h>

#include "base/err.h"

#define CONFINE_USER 65534u
#define CONFINE_MORE_MAX 16u

/*
 * more: numbers of n further system calls (at most CONFINE_MORE_MAX), whatever their arguments. For a process with one thread; PR_SET_PDEATHSIG is kept. An error leaves it with
 * less than before, perhaps, and it should end. Where nobody is no user (a user namespace without that number) it stays who it is, without capabilities.
 */
int confine(const int *more, size_t n, struct err *e);

/*
 * A process that takes connections up and starts another one, as another user, for each keeps what that needs (CAP_SETUID, CAP_SETGID, CAP_SETPCAP), and no more: it can get nothing by
 * execve(2), leaves no core file, and nobody without privileges traces it.
 */
void confine_starter(void);

#endif
