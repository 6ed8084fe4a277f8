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
	unsigned long long generations;   /* of the files: what /proc does not show */
};

#define VMA_DIGEST_FACTOR 0x9e3779b97f4a7c15ull

/* Whoever chose mappings with the digest of others would deceive nobody but himself. */
static inline __attribute__((always_inline)) unsigned long long vma_digest_mix(unsigned long long digest, unsigned long long value)
{
	return ((digest << 25 | digest >> 39) ^ value) * VMA_DIGEST_FACTOR;
}

/* Mappings are added in ascending order. */
static inline __attribute__((always_inline)) void vma_digest_add(struct vma_digest *d, unsigned long long start, unsigned long long end, unsigned long long flags)
{
	d->digest = vma_digest_mix(vma_digest_mix(vma_digest_mix(d->digest, start), end), flags);
	d->count++;
}

/* The file of the mapping that was added last; page: where in it the mapping begins. */
static inline __attribute__((always_inline)) void vma_digest_add_file(struct vma_digest *d, unsigned long long page, unsigned long long ino, unsigned int major,
								      unsigned int minor)
{
	d->digest = vma_digest_mix(vma_digest_mix(vma_digest_mix(d->digest, page), ino), (unsigned long long)major << 32 | minor);
}

#endif
