/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vma_peek.bpf.c - an iterator over the mappings of a task that writes their flags
 *
 * smaps shows them as well, but walks the page tables for it.
 */
#include "iter.h"

#include "../vma_record.h"

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags;
} CO_RE;

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
} CO_RE;

SEC("iter/task_vma")
int read_mapping(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *vma = ctx->vma;
	struct vma_record r;

	if (!ctx->task || !vma)
		return 0;
	r.start = vma->vm_start;
	r.end = vma->vm_end;
	r.flags = vma->vm_flags;
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
