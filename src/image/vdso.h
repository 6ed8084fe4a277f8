/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdso.h - the kernel's own mappings (vvar, vvar_vclock, vdso), which are moved to where the program knows them
 *
 * The program has called into the vdso, may be inside it, and has its addresses in its data. The destination's kernel
 * must have the very same vdso (sizes, order and content); otherwise the move is refused.
 */
#ifndef GODWIT_IMAGE_VDSO_H
#define GODWIT_IMAGE_VDSO_H

#include "image/vma.h"
#include "kern/remote.h"

#define VDSO_PARTS_MAX 8u
#define VDSO_SIZE_MAX (64ull << 10)

struct vdso {
	uint32_t n;                             /* 0: the program has none */
	uint64_t size[VDSO_PARTS_MAX];          /* of the mappings, in order of address */
	uint32_t kind[VDSO_PARTS_MAX];          /* VMA_VDSO or VMA_VVAR */
	uint8_t sha256[32];                     /* of the vdso's bytes */
};

/* Reads pid's vdso through /proc/PID/mem. */
int vdso_read(pid_t pid, const struct vma_list *l, struct vdso *ret, struct err *e);

/* Whether `here` (the skeleton's, or this process's own) can stand for `source`; adds a refusal when not. */
bool vdso_compatible(const struct vdso *source, const struct vdso *here, struct refusals *refusals);

/*
 * Adds the mremap calls that move the skeleton's (own) mappings to the source's addresses; also right when old and new
 * places overlap. Run it after vma_plan_empty and before anything is mapped. What the source does not have is unmapped.
 */
int vdso_plan_move(struct batch *b, const struct vma_list *source, const struct vma_list *own, struct err *e);

int vdso_encode(const struct vdso *v, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* Decodes and validates. */
int vdso_decode(const void *data, size_t len, struct vdso *ret, struct err *e);

#endif
