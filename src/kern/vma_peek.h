/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma_peek.h - the flags of a process's mappings, read by BPF: cheap enough for the freeze, which smaps is not
 *
 * Which bit of the kernel's is which flag is learned from mappings of one's own. Needs CAP_BPF and CAP_PERFMON, and BTF in the kernel; loading takes some ten
 * milliseconds, once in a process and for its children.
 */
#ifndef GODWIT_KERN_VMA_PEEK_H
#define GODWIT_KERN_VMA_PEEK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "kern/vma_record.h"

enum vma_peek_flag {
	VMA_PEEK_GROWSDOWN,
	VMA_PEEK_LOCKED,
	VMA_PEEK_LOCKONFAULT,
	VMA_PEEK_HUGEPAGE,
	VMA_PEEK_NOHUGEPAGE,
	VMA_PEEK_DONTFORK,
	VMA_PEEK_DONTDUMP,
	VMA_PEEK_WIPEONFORK,
	VMA_PEEK_MERGEABLE,
	VMA_PEEK_RANDOM,
	VMA_PEEK_SEQUENTIAL,
	VMA_PEEK_NORESERVE,
	VMA_PEEK_ACCOUNT,
	VMA_PEEK_DROPPABLE,
	VMA_PEEK_GUARDED, /* there are, or were, guard pages in its page tables (Linux 6.18) */
	VMA_PEEK_SEALED,
	VMA_PEEK_FLAGS
};

#define VMA_PEEK_FDS 2

/* Loads, and learns, now: for this process and its children. ret: the descriptors that a child must keep for that, or -1; they stay ours. */
int vma_peek_prepare(int ret[VMA_PEEK_FDS], struct err *e);
/* Ascending. *ret stays valid until the next call; returns their number, or -ENOSYS when nothing has been loaded. */
ssize_t vma_peek(pid_t pid, const struct vma_record **ret, struct err *e);
/*
 * Two digests that are alike: nothing of the mappings differs, names given by prctl(2) apart. One costs a small part of what reading the mappings does. -ENOSYS: this kernel
 * does not take the program; -EAGAIN: the process has no mappings, or somebody changes them now.
 */
int vma_peek_digest(pid_t pid, struct vma_digest *ret, struct err *e);
/* Before the freeze: the next vma_peek, and vma_peek_digest, of this process are nothing but a read. */
void vma_peek_ready(pid_t pid);
/* The bit in a record's flags; 0: this kernel has no such flag. */
uint64_t vma_peek_bit(enum vma_peek_flag flag);

#endif
