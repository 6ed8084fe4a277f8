/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agent_limits.h - resource limits of a process (setrlimit(2)) that are not meant for the agent in it */
#ifndef GODWIT_MIGRATE_AGENT_LIMITS_H
#define GODWIT_MIGRATE_AGENT_LIMITS_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

/* The agent has a copy of its maker's limits: what it maps, opens, writes and computes is not the program's. */
void agent_lift_limits(pid_t agent);

/*
 * A user who has as many processes as he may have cannot make the agent either. Lifts that limit of `pid` for the moment. Returns whether it stood in the way;
 * then *ret_before goes to agent_restore_processes at once.
 */
bool agent_lift_processes(pid_t pid, struct rlimit *ret_before);
void agent_restore_processes(pid_t pid, const struct rlimit *before);

#endif
