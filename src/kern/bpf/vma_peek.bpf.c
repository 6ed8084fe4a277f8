/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vma_peek.bpf.c - an iterator over the mappings of a task that writes their flags, and one over tasks that writes a digest of all mappings of each
 *
 * smaps shows the flags as well, but walks the page tables for it. The digest is one record for thousands of mappings, of which nothing is written or compared.
 */
#include "iter.h"

#include "../vma_record.h"

struct task_struct {
	int tgid;
} CO_RE;

#define MINOR_BITS 20
#define MINOR_MASK ((1u << MINOR_BITS) - 1)

struct super_block {
	unsigned int s_dev;
} CO_RE;

struct inode {
	unsigned long i_ino;
	unsigned int i_generation;
	struct super_block *i_sb;
} CO_RE;

struct file {
	struct inode *f_inode;
} CO_RE;

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags, vm_pgoff;
	struct file *vm_file;
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

struct bpf_iter_task_vma {
	unsigned long long opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, unsigned long long address) __ksym __weak;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym __weak;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym __weak;

SEC("iter/task")
int digest_mappings(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct vma_digest r = { .count = 0 };
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;

	/* Only what is read of it makes the type complete, as that of the functions called here must be. */
	if (!task || !task->tgid)
		return 0;
	bpf_iter_task_vma_new(&it, task, 0);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		struct file *file = vma->vm_file;

		vma_digest_add(&r, vma->vm_start, vma->vm_end, vma->vm_flags);
		if (file) {
			struct inode *inode = file->f_inode;
			unsigned int dev = inode->i_sb->s_dev;

			vma_digest_add_file(&r, vma->vm_pgoff, inode->i_ino, dev >> MINOR_BITS, dev & MINOR_MASK);
			r.generations = vma_digest_mix(r.generations, inode->i_generation);
		}
	}
	bpf_iter_task_vma_destroy(&it);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
