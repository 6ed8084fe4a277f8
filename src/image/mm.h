/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mm.h - the numbers of an address space: where code, data, heap, stack, arguments and environment are, the auxiliary
 * vector, the executable
 *
 * Restored with prctl(PR_SET_MM, PR_SET_MM_MAP), so that /proc/PID/cmdline, environ, auxv and exe show what they showed
 * and brk(2) goes on. See prctl(2). PR_SET_THP_DISABLE and the core dump filter belong to the task.
 */
#ifndef GODWIT_IMAGE_MM_H
#define GODWIT_IMAGE_MM_H

#include "image/fsfile.h"
#include "image/vma.h"
#include "kern/remote.h"

#define MM_AUXV_MAX 64u

struct mm_fields {
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
	uint64_t auxv[MM_AUXV_MAX];     /* words, with the final AT_NULL pair */
	uint32_t n_auxv;
	int32_t exe_file;               /* index into the fsfile table */
};

/*
 * Reads everything but brk from /proc, and adds the executable to `files`. brk is set to the end of the heap mapping,
 * which is close enough for an offer; the exact value comes from mm_capture_plan and mm_capture_collect.
 */
int mm_read(pid_t pid, const struct vma_list *l, struct fsfile_table *files, struct mm_fields *ret, struct err *e);

/* Adds brk(0) to a batch of the source; after its run, mm_capture_collect takes the result. */
struct remote_call *mm_capture_plan(struct batch *b);
void mm_capture_collect(struct mm_fields *m, const struct remote_call *call);

/*
 * Adds the prctl. Its mappings must be there; no mapping of the skeleton's own program may be. exe_fd: a descriptor in
 * the skeleton of the executable, opened read-only; -1 leaves the link alone. Needs CAP_CHECKPOINT_RESTORE or
 * CAP_SYS_ADMIN.
 */
void mm_plan_restore(struct batch *b, const struct mm_fields *m, int exe_fd);

int mm_encode(const struct mm_fields *m, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* Decodes and validates; n_files bounds exe_file. */
int mm_decode(const void *data, size_t len, uint32_t n_files, struct mm_fields *ret, struct err *e);
int mm_validate(const struct mm_fields *m, uint32_t n_files, struct err *e);

#endif
