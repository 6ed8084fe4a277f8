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

#define DIGEST_FACTOR 0x9e3779b97f4a7c15ull

/* Whoever chose mappings with the digest of others would deceive nobody but himself. */
static __always_inline unsigned long long mix(unsigned long long digest, unsigned long long value)
{
	return ((digest << 25 | digest >> 39) ^ value) * DIGEST_FACTOR;
}

SEC("iter/task")
int digest_mappings(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct vma_digest r = { .count = 0 };
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;

	if (!task)
		return 0;
	r.digest = task->tgid;
	bpf_iter_task_vma_new(&it, task, 0);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		struct file *file = vma->vm_file;

		r.digest = mix(mix(mix(r.digest, vma->vm_start), vma->vm_end), vma->vm_flags);
		if (file) {
			struct inode *inode = file->f_inode;

			r.digest = mix(mix(r.digest, vma->vm_pgoff), inode->i_ino);
			r.digest = mix(r.digest, (unsigned long long)inode->i_sb->s_dev << 32 | inode->i_generation);
		}
		r.count++;
	}
	bpf_iter_task_vma_destroy(&it);
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
