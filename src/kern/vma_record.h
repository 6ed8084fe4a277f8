/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_record.h - what the BPF program writes for each mapping; shared by it and vma_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_VMA_RECORD_H
#define GODWIT_KERN_VMA_RECORD_H

struct vma_record {
	unsigned long long start, end;
	unsigned long long flags; /* vm_flags of the kernel: vma_peek_bit says which is which */
};

#endif
