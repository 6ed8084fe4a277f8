/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_record.h - what the BPF programs write; shared by them and vma_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_VMA_RECORD_H
#define GODWIT_KERN_VMA_RECORD_H

struct vma_record {
	unsigned long long start, end;
	unsigned long long flags; /* vm_flags of the kernel: vma_peek_bit says which is which */
};

/* Of all mappings of a process: where they are, their flags, and what file of theirs lies there. */
struct vma_digest {
	unsigned long long count, digest; /* count: 0 when they could not be read */
};

#endif
