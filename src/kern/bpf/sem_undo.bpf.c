/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sem_undo.bpf.c - a task iterator that writes what a task's end would undo in System V semaphores (SEM_UNDO in semop(2))
 *
 * Nothing in /proc or of the system calls shows these adjustments.
 */
#include "iter.h"

#include "../sem_undo_record.h"

#define ENTRIES_MAX 256

struct list_head {
	struct list_head *next;
} CO_RE;

struct sem_undo_list {
	struct list_head list_proc;
} CO_RE;

struct sem_undo {
	struct list_head list_proc;
	int semid;
	short semadj[];
} CO_RE;

struct sysv_sem {
	struct sem_undo_list *undo_list;
} CO_RE;

struct task_struct {
	struct sysv_sem sysvsem;
} CO_RE;

SEC("iter/task")
int read_sem_undo(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct sem_undo_record r = {};
	struct sem_undo_list *list;
	struct list_head *head, *at;

	if (!task)
		return 0;
	list = BPF_CORE_READ(task, sysvsem.undo_list);
	if (!list)
		return 0;
	r.list = (unsigned long)list;
	head = (void *)((char *)list + bpf_core_field_offset(struct sem_undo_list, list_proc));
	at = BPF_CORE_READ(head, next);
	for (int i = 0; i < ENTRIES_MAX && at && at != head; i++) {
		struct sem_undo *u = (void *)((char *)at - bpf_core_field_offset(struct sem_undo, list_proc));
		void *adjust = (char *)u + bpf_core_field_offset(struct sem_undo, semadj);

		r.semid = BPF_CORE_READ(u, semid);
		r.truncated = i == ENTRIES_MAX - 1;
		/* an array at the end of the structure; in older kernels a pointer to it */
		if (bpf_core_field_size(u->semadj) == sizeof(void *))
			bpf_probe_read_kernel(&adjust, sizeof(adjust), adjust);
		bpf_probe_read_kernel(r.adjust, sizeof(r.adjust), adjust);
		bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}
