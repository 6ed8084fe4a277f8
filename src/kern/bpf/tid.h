/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tid.h - the number of a task in the pid namespace of whoever reads the iterator */
#ifndef GODWIT_KERN_BPF_TID_H
#define GODWIT_KERN_BPF_TID_H

#include "iter.h"

struct upid {
	int nr;
} CO_RE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} CO_RE;

/* A flavour (CO-RE drops what follows the three underscores), beside the one of the program. */
struct task_struct___tid {
	struct pid *thread_pid;
} CO_RE;

/* 0: it has none. */
static __always_inline unsigned int tid_of(struct task_struct *of)
{
	struct task_struct___tid *task = (void *)of, *me = (void *)bpf_get_current_task_btf();
	unsigned int level = BPF_CORE_READ(me, thread_pid, level);
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid *numbers;
	int nr = 0;

	if (!pid || level > 32)
		return 0;
	numbers = (void *)((char *)pid + bpf_core_field_offset(struct pid, numbers));
	bpf_probe_read_kernel(&nr, sizeof(nr), (char *)numbers + level * bpf_core_type_size(struct upid) +
						       bpf_core_field_offset(struct upid, nr));
	return (unsigned int)nr;
}

#endif
