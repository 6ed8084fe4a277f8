/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest.h - one migration as the destination's worker sees it; shared by the dest_*.c files */
#ifndef GODWIT_MIGRATE_DEST_H
#define GODWIT_MIGRATE_DEST_H

#include "control.pb-c.h"
#include "image/clocks.h"
#include "image/file.h"
#include "image/mm.h"
#include "image/process.h"
#include "image/thread.h"
#include "image/vdso.h"
#include "image/vma_restore.h"
#include "migrate/decode.h"
#include "migrate/link.h"
#include "migrate/migrate.h"
#include "migrate/skeleton.h"
#include "migrate/steps.h"
#include "wire/frame.h"

struct dest {
	const char *self_name;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	int handoff, outcome_fd, arrival_fd;
	struct link link;
	Gw__Hello *peer;
	/* the offer */
	Gw__Offer *offer;
	Gw__Process *process;     /* as offered */
	Gw__Thread **threads;
	size_t nthreads;
	struct fsfile_table files;
	struct fsfile_answer *answers;
	struct vma_list vmas;     /* what the skeleton has now */
	struct vdso vdso;
	struct mm_fields mm;
	Gw__FdTable *fds;
	struct clock_offsets clocks;
	bool post_copy, push;
	uint64_t lazy_pages;      /* that exist, about */
	uint32_t mlock_future;    /* flags for mlockall() */
	struct range_list lazy_ranges;
	/* the skeleton */
	struct skeleton skeleton;
	struct vma_list own;      /* layout of the skeleton's program */
	int *file_fds;            /* number of each file in the skeleton, for mappings */
	uint32_t nfile_fds;
	struct fd_restore restore;
	struct fd_env env;
	struct batch *finish;     /* what the agent runs when all pages are here */
	/* go */
	uint8_t *go_buffer;
	size_t go_buffer_len;
	struct go decoded;        /* of which the next five are parts */
	Gw__Go *go;
	Gw__Process *final_process;
	Gw__Thread **final_threads;
	size_t nfinal;
	Gw__FdTable *final_fds;
	struct mm_fields final_mm;
	bool committed;
};

#define DEST_GO_MAX (256u << 20)

/* dest.c: answers about the files from `first` on; every reason of a refusal. */
int dest_send_accept(struct dest *d, uint32_t first, struct err *e);
int dest_send_refuse(struct dest *d, const struct refusals *r, struct err *e);

/* dest_files.c: receives contents until the last message, of which `expectations` (or NULL) is told. */
int dest_take_content(struct dest *d, int (*expectations)(struct dest *d, const Gw__Content *last, struct err *e), struct err *e);
/* News of files (a FILES frame), while the process runs and inside the freeze. */
int dest_files_running(struct dest *d, const struct frame *f, struct err *e);
int dest_files_frozen(struct dest *d, const void *data, size_t len, struct err *e);

/* dest.c: a Round: a new layout, perhaps. */
int dest_take_round(struct dest *d, const struct frame *f, bool *ret_over, struct err *e);

/* dest_build.c */
int dest_prepare(void *context, struct err *e);
void dest_prepare_undo(void *context);
/* Changes the skeleton's layout to `new`, which it takes over. */
int dest_sync_layout(struct dest *d, struct vma_list *new, struct err *e);
/* Registers the ranges that the agent will fill (post-copy); NULL: all lazy ones. */
int dest_register(struct dest *d, const struct range_list *ranges, struct err *e);
/* Puts the list of lazy pieces where the agent looks for it. */
int dest_set_pieces(struct dest *d, struct err *e);

/* dest_go.c */
int dest_go(void *context, struct err *e);
int dest_restore(void *context, struct err *e);
int dest_commit(void *context, struct err *e);
/* After the undo of a failed migration: the process will never run here. */
void dest_tell_aborted(struct dest *d);

#endif
