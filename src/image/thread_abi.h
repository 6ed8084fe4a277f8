/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_abi.h - kernel structures and numbers that this system's headers are too old for, or hide (linux/sched/types.h, asm/prctl.h) */
#ifndef GODWIT_IMAGE_THREAD_ABI_H
#define GODWIT_IMAGE_THREAD_ABI_H

#include <stdint.h>

/* struct sched_attr, version 1 */
struct thread_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

enum { POLICY_DEADLINE = 6, POLICY_EXT = 7 };
#define SCHED_FLAG_RESET_ON_FORK_ONLY 1ull
#define SCHED_FLAGS_DEADLINE 7ull /* that, SCHED_FLAG_RECLAIM and SCHED_FLAG_DL_OVERRUN */

#define SCHED_FLAGS_CLAMP 0x60ull /* SCHED_FLAG_UTIL_CLAMP_MIN and _MAX */
#define UTIL_WHOLE 1024u          /* no clamp */

/* struct ptrace_sud_config */
struct thread_syscall_dispatch {
	uint64_t mode, selector, offset, len;
};
#define THREAD_PTRACE_GET_DISPATCH 0x4210
#define THREAD_PTRACE_SET_DISPATCH 0x4211

#ifndef PR_SPEC_L1D_FLUSH
#define PR_SPEC_L1D_FLUSH 2
#endif

#define THREAD_AFFINITY_MAX 1024u /* bytes: 8192 CPUs */
#define THREAD_IOPRIO_WHO_PROCESS 1
#define THREAD_ARCH_GET_CPUID 0x1011
#define THREAD_ARCH_SET_CPUID 0x1012

#endif
