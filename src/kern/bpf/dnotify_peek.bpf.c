/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dnotify_peek.bpf.c - an iterator over the descriptors of one process that tells which directories it is notified of (F_NOTIFY)
 *
 * Nothing in /proc shows that.
 */
#include "iter.h"

#include "../dnotify_record.h"

#define MARKS_MAX 64
#define ENTRIES_MAX 64

struct hlist_node {
	struct hlist_node *next;
} CO_RE;

struct hlist_head {
	struct hlist_node *first;
} CO_RE;

struct fsnotify_ops {
	void *free_mark;
} CO_RE;

struct fsnotify_group {
	const struct fsnotify_ops *ops;
} CO_RE;

struct fsnotify_mark {
	struct fsnotify_group *group;
	struct hlist_node obj_list;
} CO_RE;

struct fsnotify_mark_connector {
	struct hlist_head list;
} CO_RE;

struct inode {
	struct fsnotify_mark_connector *i_fsnotify_marks;
} CO_RE;

struct file {
	struct inode *f_inode;
} CO_RE;

struct dnotify_struct {
	struct dnotify_struct *dn_next;
	unsigned int dn_mask;
	struct file *dn_filp;
} CO_RE;

struct dnotify_mark {
	struct fsnotify_mark fsn_mark;
	struct dnotify_struct *dn;
} CO_RE;

struct task_struct;

extern const void dnotify_free_mark __ksym __weak;

static __always_inline unsigned int mask_of(struct dnotify_mark *mark, struct file *file)
{
	struct dnotify_struct *dn = BPF_CORE_READ(mark, dn);

	for (int i = 0; i < ENTRIES_MAX && dn; i++) {
		if (BPF_CORE_READ(dn, dn_filp) == file)
			return BPF_CORE_READ(dn, dn_mask);
		dn = BPF_CORE_READ(dn, dn_next);
	}
	return 0;
}

SEC("iter/task_file")
int read_dnotify(struct bpf_iter__task_file *ctx)
{
	struct fsnotify_mark_connector *connector;
	struct file *file = ctx->file;
	struct hlist_node *node;
	struct dnotify_record r = {};

	if (!file || !&dnotify_free_mark)
		return 0;
	connector = BPF_CORE_READ(file, f_inode, i_fsnotify_marks);
	node = connector ? BPF_CORE_READ(connector, list.first) : 0;
	for (int i = 0; i < MARKS_MAX && node; i++) {
		struct fsnotify_mark *mark = (void *)((char *)node - bpf_core_field_offset(struct fsnotify_mark, obj_list));

		if (BPF_CORE_READ(mark, group, ops, free_mark) == (void *)&dnotify_free_mark)
			r.mask = mask_of((struct dnotify_mark *)mark, file);
		node = BPF_CORE_READ(node, next);
	}
	r.fd = ctx->fd;
	if (r.mask)
		bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
