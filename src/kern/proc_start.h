/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* proc_start.h - when a process began: tells it from a later one with the same number (proc_pid_stat(5)) */
#ifndef GODWIT_KERN_PROC_START_H
#define GODWIT_KERN_PROC_START_H

#include <stdint.h>
#include <sys/types.h>

/* In clock ticks since boot; 0 when there is no such process (one that is dead and has not been waited for counts as none). */
uint64_t proc_start_ticks(pid_t pid);

#endif
