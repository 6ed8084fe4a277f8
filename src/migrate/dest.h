/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest.h - one migration as the destination's worker sees it; shared by the dest_*.c files */
#ifndef GODWIT_MIGRATE_DEST_H
#define GODWIT_MIGRATE_DEST_H

#include "control.pb-c.h"
#include "image/clocks.h"
#include "image/file.h"
#include "image/mm.h"
#include "image/process.h"
#include "image/sysv.h"
#include "image/thread.h"
#include "image/vdso.h"
#include "home/parent.h"
#include "image/view.h"
#include "image/vma_restore.h"
#include "migrate/ahead.h"
#include "migrate/decode.h"
#include "migrate/dest_address.h"
#include "migrate/dest_home.h"
#include "migrate/link.h"
#include "migrate/pages.h"
#include "migrate/migrate.h"
#include "migrate/net_flows.h"
#include "migrate/skeleton_set.h"
#include "migrate/steps.h"
#include "wire/frame.h"

struct dest;

/* A list of struct pager_piece in the scratch. */
struct piece_list {
	uint64_t address, n;
};

/* One process of the unit that arrives. */
struct dest_process {
	struct dest *d;
	uint32_t index;           /* in the unit */
	pid_t pid;                /* as it was at the source */
	struct dest_process *host; /* an earlier one whose memory it has, and who builds it; NULL: its own */
	bool has_guests;          /* others have this memory, too */
	bool has_common;          /* there are pages in `common` */
	bool deltas_planned;
	/* the offer */
	Gw__Process *process;     /* as offered */
	Gw__Thread **threads;
	size_t nthreads;
	struct vma_list vmas;     /* what the skeleton has now */
	struct vdso vdso;
	struct mm_fields mm;
	struct present present;   /* what its main thread has before the freeze */
	int transfer_kept;        /* the process's end of its transfer socket: closed there in the freeze, it is not the last one */
	uint64_t scratch_base;
	uint64_t lazy_pages;      /* that exist, about */
	uint32_t mlock_future;    /* flags for mlockall() */
	uint32_t membarrier;      /* registrations that are made before the freeze */
	struct range_list lazy_ranges;
	struct run_list common;   /* pages that it shares with other processes */
	/* the skeleton */
	struct page_link *link;
	struct skeleton *skeleton; /* in the set; NULL before it is made */
	struct vma_list own;      /* layout of the skeleton's program */
	int *file_fds;            /* number of each file in the skeleton, for mappings */
	uint32_t nfile_fds;
	int arrival_fd;
	struct fd_transfer transfer;
	struct piece_list lazy_pieces; /* of vmas; address 0: not written */
	struct batch *finish;     /* what the agent runs when all pages are here */
	uint64_t *ahead;          /* pages that came ahead of the go message, ascending */
	size_t nahead;
	uint64_t *rseq_pages;     /* those that hold areas for rseq(2), ascending */
	size_t n_rseq_pages;
	struct clock_offsets clocks; /* of its time namespace here */
	struct uring_set *urings; /* NULL: none */
	/* go */
	struct go_process *go;    /* NULL before it has come */
};

/* Pages that processes share copy-on-write, until all processes are built; dest_common.c */
struct dest_common {
	struct run_list runs;     /* where they are, in order; their contents in the same order in the memfd */
	int memfd;
	uint8_t *data;            /* it, mapped */
	struct vma_list places;   /* what the first process mapped for them */
};

/* Connections with others; dest_net.c */
struct dest_net {
	struct redirect *r;
	struct redirect_move *move;
	size_t live; /* how far connections have been let go on */
	size_t unput; /* those that wait to be accepted, and are not in a queue yet */
};

struct dest {
	const char *self_name;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	int handoff, outcome_fd;
	struct link link;
	Gw__Hello *peer;
	/* the offer */
	struct offer offered;     /* its parts move into procs, files, fds */
	Gw__Offer *offer;
	struct dest_process *procs; /* [0]: the root */
	size_t nprocs;
	struct skeleton_set set;
	struct dest_common common;
	struct fsfile_table files;
	struct fsfile_answer *answers;
	Gw__FdTable *fds;
	struct clock_offsets clocks;
	struct cgroups_made cgroups;
	struct ns_made ns;
	struct skeleton_world world;
	char **from_home;         /* paths that home is to serve, if it is to be taken (dest_view.c) */
	size_t n_from_home;
	char own_boot_id[64];
	bool post_copy, push;
	struct parent parent;     /* of a unit that somebody at home waits for */
	struct dest_home home;    /* of one that comes home */
	struct dest_net net;
	struct dest_addresses addresses; /* that come along */
	struct fd_restore restore;
	struct fd_env env;
	pid_t *pids; /* for env: of the processes of the skeleton */
	/* go */
	uint8_t *go_buffer;
	size_t go_buffer_len;
	struct go go;
	struct sysv_made sysv;    /* objects made here */
	bool known;               /* the source has said that it knows of the commit */
	bool committed;
};

#define THREADS_SPARE 64u /* threads that the source may have made since the offer */
#define DEST_GO_MAX (256u << 20)

/* dest.c: memory for a go message of so many bytes, touched. What was in the old one is gone. */
int dest_enlarge_buffer(struct dest *d, size_t len, struct err *e);

/* dest.c: answers about the files from `first` on. */
int dest_send_accept(struct dest *d, uint32_t first, struct err *e);

/* dest_view.c */
/* After the offer has come: what of home the unit is to see here. From then on paths are those of the unit's view. */
int dest_view_begin(struct dest *d, struct err *e);
/* Whether home is to serve a file that has got this answer; then the refusals from `before` on are taken back. */
bool dest_view_wants(struct dest *d, const struct fsfile *f, struct fsfile_answer *answer, struct refusals *refusals, size_t before);
bool dest_view_want(struct dest *d, const char *path);
/* The directories that the unit uses. */
void dest_view_judge(struct dest *d);
/* Tells the source what home has to serve. Returns -EAGAIN. */
int dest_view_refuse(struct dest *d, struct err *e);
void dest_view_free(struct dest *d);

/* dest_files.c: looks for a file of the unit here, and judges by what the user wants. */
int dest_match_file(struct dest *d, uint32_t i, struct refusals *refusals, struct err *e);
/* Receives contents until the last message, of which `expectations` (or NULL) is told. */
int dest_take_content(struct dest *d, int (*expectations)(struct dest *d, const Gw__Content *last, struct err *e), struct err *e);
/* News of files (a FILES frame), while the process runs and inside the freeze. */
int dest_files_running(struct dest *d, const struct frame *f, struct err *e);
int dest_files_frozen(struct dest *d, const void *data, size_t len, struct err *e);

/* dest.c: a Round: a new layout, perhaps. */
int dest_take_round(struct dest *d, const struct frame *f, bool *ret_over, struct err *e);

/* dest_build.c */
int dest_prepare(void *context, struct err *e);
void dest_prepare_undo(void *context);
struct uring_skeleton dest_uring_skeleton(struct dest_process *p);

/* dest_memory.c */
/* The mappings of a new skeleton. */
int dest_build_layout(struct dest_process *p, struct err *e);
/* Changes the skeleton's layout to `new`, which it takes over. */
int dest_sync_layout(struct dest_process *p, struct vma_list *new, struct err *e);
/* Registers the ranges that the agent will fill (post-copy); NULL: all lazy ones. */
int dest_register(struct dest_process *p, const struct range_list *ranges, struct err *e);
/* Before the go message: writes the list of lazy pieces as long as the layout stays as it is. */
int dest_prepare_pieces(struct dest_process *p, struct err *e);
/* Puts the list of pieces where the agent looks for it: with the go message the lazy ones, before it all. */
int dest_set_pieces(struct dest_process *p, struct err *e);
/* What is done when all pages are there is a list that the agent can run by itself; a very long one is run by the worker. */
void dest_plan_finish(struct dest_process *p);
/*
 * Makes the memory exist that the process will need, before anything is committed to. Only where pages are pushed after the resume in bulk: in pre-copy
 * they come in place. Not getting it is no failure yet: the pages are copied then, and the kernel finds memory when each comes.
 */
int dest_make_pool(struct dest_process *p, struct err *e);
/* Where pages are received in place: the same, in place. Mappings that cannot be written are left out. */
int dest_populate_ranges(struct dest_process *p, struct err *e);

/* dest_spaces.c */
/* For skeleton_set: puts a process into its namespaces. */
/* skeleton_set.opened */
int dest_open_numbers(struct skeleton *s, uint32_t space, void *arg, struct err *e);
/* Processes whose future children are to be in another pid namespace than they. */
int dest_lead_children(struct dest *d, struct err *e);
int dest_enter_namespaces(struct skeleton *s, pid_t number, void *arg, struct err *e);
/* The user namespace that a process is in, for ns_user_choose. */
uint32_t dest_user_of(const struct dest_process *p);
/* `here`: this host's clocks, read when the source's were. */
void dest_set_clocks(struct dest *d, const Gw__Clocks *here);
/* By how much this worker's clocks are behind those that the source's worker had. */
struct fd_clocks dest_clock_deltas(const struct dest *d);

/* dest_stop.c: stops processes that are to be stopped, before they run their lists. */
int dest_stop(struct dest *d, struct err *e);
/* The opposite, when all threads are held: SIGCONT that was pending. */
void dest_continue(struct dest *d);

/* dest_restart.c: system calls that the freeze interrupted, when memory and descriptors are in place. */
int dest_settle_restarts(struct dest *d, struct err *e);

/* dest_common.c */
int dest_take_common(struct dest *d, const Gw__Content *m, struct err *e);
/* For skeleton_set: the first process, before others are forked from it. */
int dest_common_begin(struct skeleton *first, void *arg, struct err *e);
/* The mappings that the process has inherited with common pages in them (to be appended to *ret), and that may stay. */
int dest_common_inherited(const struct dest_process *p, struct vma_list *ret, struct err *e);
/* When the process has its layout; `mapped`: what of it is new. */
int dest_common_settle(struct dest_process *p, const struct vma_list *inherited, const struct range_list *mapped, struct err *e);
void dest_common_free(struct dest *d);

static inline struct batch *dest_main_batch(const struct dest_process *p)
{
	return p->skeleton->threads[0]->batch;
}

/* Whether pages are dropped in the freeze before missing ones are watched for. */
static inline bool dest_registers_late(const struct dest_process *p)
{
	return p->d->offer->strategy == STRATEGY_HYBRID || p->has_common;
}

/* dest_ahead.c */
/* Takes the payload of an AHEAD frame. */
int dest_take_ahead(struct dest *d, const void *payload, size_t len, struct err *e);
/* With the go message, when the layout is final and stale pages have been dropped: before threads run their lists, what these need; then the rest. */
int dest_apply_first_deltas(struct dest_process *p, struct err *e);
int dest_apply_deltas(struct dest_process *p, struct err *e);
/* The same, but planned: the main thread writes them by itself, where they are few and it may. dest_apply_deltas does nothing then. */
int dest_plan_deltas(struct dest_process *p, struct batch *b, struct err *e);

/* dest_net.c */
int dest_net_answer(struct dest *d, struct err *e);
int dest_net_judge(struct dest *d, struct refusals *refusals, struct err *e);
/* Takes the payload of a CONNECTIONS frame, and answers. */
int dest_net_take_ahead(struct dest *d, const void *payload, size_t len, struct err *e);
/* When the freeze is near: from now on somebody cares for connections if this worker is killed. */
int dest_net_prepare(struct dest *d, struct err *e);
int dest_net_go(struct dest *d, struct err *e);
/* Between the commit and the moment when the processes run. */
void dest_net_live(struct dest *d);
/* When nothing is hurried any more. */
void dest_net_settle(struct dest *d);
void dest_net_undo(struct dest *d);

/* dest_rehearse.c */
void dest_rehearse(struct dest *d);

/* Whether the page of an address came ahead. */
bool dest_has_ahead(const struct dest_process *p, uint64_t address);

/* dest_threads.c */
/* Takes the payload of a THREADS frame. */
int dest_take_threads(struct dest *d, const void *payload, size_t len, struct err *e);
/* With the go message, before memory changes: those that are told something else now are made anew. */
int dest_settle_threads(struct dest_process *p, struct err *e);
/* One that the go message has and the skeleton has not. */
int dest_add_late_thread(struct skeleton *s, pid_t tid, struct err *e);
/* Whether a thread has the scheduling, the processor state, of the go message already. */
bool dest_has_its_sched(const struct skeleton_thread *t, const Gw__Thread *msg);
bool dest_has_its_state(const struct skeleton_thread *t, const Gw__Thread *msg);

/* dest_go.c */
int dest_go(void *context, struct err *e);
int dest_commit(void *context, struct err *e);
/* Before the unit runs, unless there is so much that it would wait for that: what it closes is closed. */
void dest_drop_duplicates(struct dest *d);
/* After the undo of a failed migration: the process will never run here. */
void dest_tell_aborted(struct dest *d);

/* dest_restore.c */
int dest_restore(void *context, struct err *e);
/* For dest_rehearse: plans what a message would have the threads run, and forgets it. */
void dest_rehearse_lists(struct dest_process *p, struct go_process *go);
/* Plans what a thread runs by itself, but for system call filters. */
int dest_plan_thread(const struct dest_process *p, struct skeleton_thread *t, const Gw__Thread *msg, struct err *e);
/* Puts pages into one mapping, where `registered` by the userfaultfd. */
int dest_install(struct dest_process *p, const struct vma *v, uint64_t to, const uint8_t *from, uint64_t len, struct err *e);

#endif
