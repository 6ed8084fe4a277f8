/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unit_kill.h - ends a unit whose time is over, with all its processes, whatever they do meanwhile */
#ifndef GODWIT_DAEMON_UNIT_KILL_H
#define GODWIT_DAEMON_UNIT_KILL_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Kills the process and all its descendants: they are stopped first, again and again until none is new, so that nobody forks away. Returns how many there were; 0: the process is not
 * that one any more. Does not wait for their end. What has left the tree (daemons whose parents have ended) is not found.
 */
unsigned unit_kill(pid_t pid, uint64_t start_ticks);

#endif
