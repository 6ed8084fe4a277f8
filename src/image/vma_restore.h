/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma_restore.h - builds and changes the layout of the skeleton on the destination
 *
 * All functions add calls to a batch that runs inside the skeleton; they do not run it. `fds` holds, for each index of
 * the fsfile table, the number of a descriptor in the skeleton (-1: none): open for writing where uses has
 * FSFILE_MAPPED_WRITE, else for reading is enough. For a System V segment (FSFILE_SYSV) it is the segment's number.
 *
 * Order on the destination: vma_plan_empty, vdso_plan_move, vma_plan_build, mm_plan_restore; later any number of
 * vma_plan_sync; then vma_plan_seals; when all pages are there and the userfaultfd is gone, vma_plan_finish.
 */
#ifndef GODWIT_IMAGE_VMA_RESTORE_H
#define GODWIT_IMAGE_VMA_RESTORE_H

#include "image/vma.h"
#include "kern/remote.h"

/*
 * Takes down everything that the skeleton has (own: its vma_list_read) except vdso, vvar and the ranges in keep (may be
 * NULL). The scratch is not in the list, so it stays; the code that runs and its stack must lie in it.
 */
void vma_plan_empty(struct batch *b, const struct vma_list *own, const struct range_list *keep);

/*
 * Makes all mappings of l in an address space that holds nothing but vdso and vvar, and `there` (may be NULL): mappings that are kept where they fit.
 * ret_mapped (may be NULL): as of vma_plan_sync. -EINVAL when a file mapping has no descriptor.
 */
int vma_plan_build(struct batch *b, const struct vma_list *there, const struct vma_list *l, const int *fds, uint32_t n_fds, struct range_list *ret_mapped,
		   struct err *e);

/*
 * Turns the layout `old` into `new` with few calls; pieces that are in both keep their pages, only attributes that
 * differ are set. Locked memory is locked for good, but stays empty. ret_mapped (may be NULL) receives the ranges that were mapped anew, in order of address: they are
 * empty and no userfaultfd watches them. A piece that was unmapped and mapped again at the source with the same
 * attributes looks unchanged: its pages have to be compared by the engine. vdso and vvar must be the same in both
 * (-ENOTSUP otherwise).
 */
int vma_plan_sync(struct batch *b, const struct vma_list *old, const struct vma_list *new, const int *fds, uint32_t n_fds,
		  struct range_list *ret_mapped, struct err *e);

/* In the freeze, behind everything that changes the layout: seals cannot be taken off again. */
void vma_plan_seals(struct batch *b, const struct vma_list *l);

/*
 * When all pages have arrived: collapses what had huge pages, and brings in what is missing of what was locked, zeros. The program has been running for a while: nothing here takes back
 * what it has done. Failures of these calls are hints lost, not errors. mlockall(MCL_FUTURE) cannot be seen from outside: it is the caller's affair.
 */
void vma_plan_finish(struct batch *b, const struct vma_list *l);

#endif
