/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iter.h - what all BPF iterators here begin with
 *
 * Struct definitions, here and in the programs, are the used parts of the kernel's; CO-RE finds the offsets at load time.
 */
#ifndef GODWIT_KERN_BPF_ITER_PROGRAM_H
#define GODWIT_KERN_BPF_ITER_PROGRAM_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define CO_RE __attribute__((preserve_access_index))

char LICENSE[] SEC("license") = "GPL";

struct task_struct;
struct file;
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} CO_RE;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} CO_RE;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	unsigned int fd;
	struct file *file;
} CO_RE;

#endif
