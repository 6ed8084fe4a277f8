/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inject_batch.h - batches that a test runs in a forked child by ptrace, one call after the other
 *
 * The data lies in memory that parent and child share at one address, mapped before the fork. Stands in for the agent in tests of capture
 * and restore code.
 */
#ifndef GODWIT_TESTS_UNIT_INJECT_BATCH_H
#define GODWIT_TESTS_UNIT_INJECT_BATCH_H

#include <sys/types.h>

#include "kern/remote.h"

/* Maps the shared memory; call it before the first fork. */
void inject_init(void);
/* A batch for a ptrace-stopped child. Registers are put back after each run. */
struct batch *inject_batch(pid_t tid);
void inject_free(struct batch *b);
/* PTRACE_SEIZE and stop. */
void inject_stop(pid_t tid);
/*
 * Makes the stopped child issue a call in which it blocks, interrupts it there and returns what is in its rax then, or what the call
 * returned when it did not block. Leaves the registers of that moment.
 */
int64_t inject_blocking(pid_t tid, const struct remote_call *call);

#endif
