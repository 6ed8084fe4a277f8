/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cred_peek.bpf.c - a task iterator that writes what belongs to a task's credentials and is seen from outside by no other way: its keyrings, and what security
 * modules (Landlock) keep with them; and whether its system calls are the program's to handle
 *
 * Up to 16 keys lie in one node of a keyring (linux/assoc_array_priv.h); of more only the number is told.
 */
#include "iter.h"

#include "../cred_record.h"

#define FAN_OUT 16
#define POINTER_META 1ul
#define POINTER_BITS 3ul

struct key_type {
	const char *name;
} CO_RE;

struct assoc_array {
	void *root;
	unsigned long nr_leaves_on_tree;
} CO_RE;

struct assoc_array_node {
	void *slots[FAN_OUT];
} CO_RE;

struct key {
	int serial;
	char *description;
	struct key_type *type;
	struct assoc_array keys;
} CO_RE;

struct cred {
	struct key *session_keyring;
	struct key *process_keyring;
	struct key *thread_keyring;
	void *security;
} CO_RE;

enum syscall_work_bit {
	SYSCALL_WORK_BIT_SYSCALL_USER_DISPATCH = 5,
};

struct thread_info {
	unsigned long syscall_work;
} CO_RE;

typedef struct {
	void *ldt;
} CO_RE mm_context_t;

struct mm_struct {
	mm_context_t context;
} CO_RE;

struct task_struct {
	struct thread_info thread_info;
	struct mm_struct *mm;
	int pid;
	struct cred *cred;
} CO_RE;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, unsigned int);
	__type(value, struct cred_record);
} space SEC(".maps");

static __always_inline int is_user_keyring(struct key *k)
{
	char text[8] = {};
	char *description = BPF_CORE_READ(k, description);

	bpf_probe_read_kernel_str(text, sizeof(text), description);
	return text[0] == '_' && text[1] == 'u' && text[2] == 'i' && text[3] == 'd' && text[4] == '.';
}

static __always_inline void read_keyring(struct key *k, struct cred_keyring *to)
{
	unsigned long root, at;
	char *name;

	if (!k)
		return;
	to->serial = BPF_CORE_READ(k, serial);
	to->keys = BPF_CORE_READ(k, keys.nr_leaves_on_tree);
	name = BPF_CORE_READ(k, description);
	bpf_probe_read_kernel_str(to->name, sizeof(to->name), name);
	root = (unsigned long)BPF_CORE_READ(k, keys.root);
	if (!(root & POINTER_META) || !to->keys)
		return;
	for (int i = 0; i < FAN_OUT; i++) {
		void *slot = (void *)((root & ~POINTER_BITS) + bpf_core_field_offset(struct assoc_array_node, slots) + i * sizeof(at));

		at = 0;
		bpf_probe_read_kernel(&at, sizeof(at), slot);
		if (at && !(at & POINTER_META) && is_user_keyring((void *)(at & ~POINTER_BITS)))
			to->user_links++;
	}
}

SEC("iter/task")
int read_creds(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	unsigned int zero = 0;
	struct cred_record *r = bpf_map_lookup_elem(&space, &zero);
	struct mm_struct *mm;
	struct cred *cred;
	void *security;

	if (!task || !r)
		return 0;
	__builtin_memset(r, 0, sizeof(*r));
	cred = BPF_CORE_READ(task, cred);
	r->tid = task->pid;
	r->dispatches = BPF_CORE_READ(task, thread_info.syscall_work) >> bpf_core_enum_value(enum syscall_work_bit, SYSCALL_WORK_BIT_SYSCALL_USER_DISPATCH) & 1;
	mm = BPF_CORE_READ(task, mm);
	r->has_ldt = mm && bpf_core_field_exists(mm->context.ldt) && BPF_CORE_READ(mm, context.ldt);
	read_keyring(BPF_CORE_READ(cred, session_keyring), &r->session);
	read_keyring(BPF_CORE_READ(cred, process_keyring), &r->process);
	read_keyring(BPF_CORE_READ(cred, thread_keyring), &r->thread);
	security = BPF_CORE_READ(cred, security);
	if (security)
		bpf_probe_read_kernel(r->blob, sizeof(r->blob), security);
	bpf_seq_write(ctx->meta->seq, r, sizeof(*r));
	return 0;
}
