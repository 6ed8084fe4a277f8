/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keeper.h - a tracer for an agent that has inherited a seccomp filter
 *
 * A task cannot be rid of a filter, but the filter is not in force while a tracer with PTRACE_O_SUSPEND_SECCOMP is attached. The agent has to outlive its
 * worker, so that its tracer is a process of its own, which does nothing else and ends with the agent.
 */
#ifndef GODWIT_MIGRATE_KEEPER_H
#define GODWIT_MIGRATE_KEEPER_H

#include "base/err.h"
#include "migrate/agent.h"

/* Hands the agent, a tracee of the caller that waits for commands, over to a new keeper. */
int keeper_take_over(struct agent *a, struct err *e);

#endif
