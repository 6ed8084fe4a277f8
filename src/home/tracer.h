/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tracer.h - godwit-home as the tracer of a stub that has inherited system call filters
 *
 * A task cannot be rid of a filter, but the filter is not in force while a tracer with PTRACE_O_SUSPEND_SECCOMP is attached. So the stub of a program with filters is
 * traced all its life: by the worker that makes it, and from then on by godwit-home, whose end is its end (PTRACE_O_EXITKILL). In between it spins without calling the
 * kernel (stub.c). It stops, goes on and ends as ever; its parent is told by the kernel as if nobody traced it.
 */
#ifndef GODWIT_HOME_TRACER_H
#define GODWIT_HOME_TRACER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct tracer {
	pid_t pid;     /* 0: it is not traced, or has ended */
	int signals;   /* readable when there may be something to do; -1 */
	bool stopped;  /* by a signal, as far as its parent sees */
};

#define TRACER_NONE ((struct tracer){ .signals = -1 })

/* Takes over the stub, which spins. */
int tracer_begin(struct tracer *t, pid_t pid, struct err *e);
/* Sends it on from wherever it stopped. Does not block. */
void tracer_step(struct tracer *t);
/* Waits until the stub, which has been told to, has ended. */
void tracer_end(struct tracer *t);
/* For the caller, who traces all threads of a process: sends on those that stopped, forgets those that ended. Does not block. */
void tracer_send_on_all(pid_t pid);

#endif
