/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source.h - one migration as the source's worker sees it; shared by the source_*.c files */
#ifndef GODWIT_MIGRATE_SOURCE_H
#define GODWIT_MIGRATE_SOURCE_H

#include <sched.h>

#include "image/cpu_uses.h"
#include "image/process.h"
#include "image/shared.h"
#include "image/thread.h"
#include "image/view.h"
#include "home/files_serve.h"
#include "kern/restart_block.h"
#include "kern/thread_peek.h"
#include "kern/vma_record.h"
#include "migrate/agent.h"
#include "migrate/ahead.h"
#include "migrate/decode.h"
#include "migrate/link.h"
#include "migrate/migrate.h"
#include "migrate/pages.h"
#include "migrate/protection.h"
#include "migrate/source_home.h"
#include "migrate/source_address.h"
#include "migrate/source_net.h"
#include "migrate/steps.h"
#include "migrate/unit.h"

#define THREADS_SPARE 64u   /* slots for threads that are made between the offer and the freeze */
#define GO_PAGES_MAX 128u    /* lazy pages that travel with the registers */
#define HOT_PAGES_MAX 96u   /* up to so many of the working set among them; the rest of it comes first after the resume */

/* A thread that has been stopped and parked. */
struct parked {
	pid_t tid;    /* as godwitd sees it */
	pid_t number; /* in its own pid namespace */
	struct task task;
	struct batch *batch;
	struct thread_query query;
	Gw__Thread *msg;
	bool traced;  /* still a tracee */
	bool interrupted;
	bool stopped; /* has been seen in its stop */
	bool parked;  /* runs the stub */
	bool plain;   /* source_plain.c: it has no list of calls, and is a tracee until the commit */
	const struct thread_record *record; /* if it can be plain */
};

/* News of files that the destination has not been told yet; see source_files.c. */
struct file_news_out {
	uint32_t *changed, *filled; /* of as many files as there are */
	bool *todo;                 /* contents to be looked at */
	size_t nchanged, nfilled, ncontent, content_bytes;
	Gw__Content **content;      /* in the freeze */
};

/* The working set that was sent before the freeze; source_ahead.c. */
struct pages_ahead {
	uint64_t *addresses;      /* ascending */
	size_t n;
	uint8_t *sent, *now;      /* their contents: as sent; some as they are */
	struct compare_job *job;  /* in the scratch, with `sent`: the agent compares; NULL: this worker does */
	uint64_t job_address;
	uint8_t *job_out;         /* what the agent writes */
	const uint8_t *deltas;    /* in job_out or in own */
	size_t deltas_len;
	uint8_t *own;
	size_t own_room;
};

struct source;

/* One process of the unit on its way. */
struct source_process {
	struct source *s;
	struct unit_process *u;
	struct agent agent;
	struct pages pages;
	struct page_link *link;
	struct restart_watch *watch;
	struct restart_record *records[2]; /* before and after the stop; as many as are full may not be all */
	size_t nrecords[2], records_room;
	uint64_t namespaces;      /* struct restart_record's when it was in those of the offer; 0: not known */
	struct thread_peek peek;
	int mem_fd;               /* /proc/PID/mem */
	struct page_count count;
	bool too_much;            /* for the go message: what is left is sent over the bulk connection in the freeze */
	bool bulk_in_freeze;      /* pages went over the bulk connection in the freeze */
	/* the freeze */
	struct parked *parked;
	size_t nparked;
	struct process_query query;
	struct remote_call *brk;
	Gw__Process *process;     /* as captured in the freeze */
	uint64_t rehearsed_layout; /* struct restart_record's layout when the rehearsal found nothing changed; 0: it did not, or nobody knows */
	struct vma_digest rehearsed_digest; /* likewise, of its mappings; count is 0: not known */
	struct process_look seen; /* as long as this is what the records say, /proc needs not be looked at again; known is 0: it does */
	uint64_t compared_layout;  /* the same when contents of files were last compared */
	int stop_signal;          /* by which the process is stopped, 0: it is not */
	bool held;                /* parked threads stay tracees; source_held.c */
	bool guarded;             /* it has, or had, guard pages in its page tables (vma_guards_same) */
	bool layout_changed;      /* to frozen_vmas */
	bool locks_released;
	bool late_stop, late_kill; /* late.h */
	size_t peeked;            /* bytes of the shared queue of signals that were captured */
	ProtobufCBinaryData late_queue; /* what came later; late.h */
	struct vma_list frozen_vmas;
	struct run_list hot, go_runs, stale;
	struct pages_ahead ahead;
	struct beside {
		struct batch *b;           /* what the agent does in the freeze; NULL: nothing */
		const struct remote_call *compare; /* what went ahead; NULL: it does not */
		bool begun;
		cpu_set_t cpus;            /* that the agent may use after the freeze, if it is kept off one in it */
	} beside;
	struct run_list common;    /* pages that the process shared with others when they were sent */
};

struct source {
	const struct migrate_request *request;
	struct migrate_report *report;
	struct refusals *refusals;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	uint64_t begin_ns;
	struct link link;
	Gw__Hello *peer;          /* the destination's HELLO */
	struct unit unit;
	Gw__View *view;     /* what it is to see of home where it goes: the unit's own, or own_view; source_view.c */
	Gw__View *own_view;
	struct files_export export;
	struct source_process *procs; /* one for each of unit.procs */
	size_t nprocs;
	struct fsfile_answer *answers;
	uint32_t nanswers;
	unsigned moves;
	uint64_t cpu_ms; /* used by it before it came here, and until the offer */
	bool started;    /* by `godwit run` */
	struct protection protection;
	struct cpu_programs programs; /* that have begun elsewhere */
	struct source_home home;  /* who waits for the unit */
	struct source_net net;    /* connections with others */
	struct source_addresses addresses; /* that go along */
	uint64_t content_bytes;   /* of files */
	uint64_t ahead_bytes;     /* of pages that went ahead of the freeze */
	struct file_told *told;   /* of each file, what the destination knows; source_files.c */
	uint32_t ntold;
	bool layouts_moved;       /* something may have been mapped since contents of files were last compared */
	struct shared shared;     /* what has been written to memory that mappings share */
	struct shared_watch *shared_watch;
	struct file_news_out news;
	uint8_t *news_frame;      /* goes before the go message, or NULL */
	size_t news_frame_len;
	bool hold;                /* the unit stands still from the offer on (hold.h) */
	enum strategy strategy;   /* what is done: with direct I/O not always what was asked for */
	bool direct_io;           /* devices write memory of the unit past the page tables */
	bool post_copy, push;
	bool backed_out;          /* after the go message: the destination has given up, and the process goes on here */
	/* the freeze */
	uint64_t stopped_ns;      /* CLOCK_REALTIME */
	uint8_t *go_pages;        /* of all processes, one after another */
	size_t go_pages_len;
};

/* The layout as it is to be at the destination now: of the freeze when it has changed there. */
static inline struct vma_list *source_layout(struct source_process *p)
{
	return p->layout_changed ? &p->frozen_vmas : &p->u->vmas;
}

/* Slots that its scratch has, for the threads of the offer and for those made meanwhile. */
static inline unsigned source_slots(const struct unit_process *u)
{
	return (unsigned)u->nthreads + THREADS_SPARE;
}

/* The agent of the unit's root: its scratch has the unit's page. */
static inline struct agent *source_root(const struct source *s)
{
	return &s->procs[0].agent;
}

/* The layouts of all processes at one moment. */
struct layouts {
	const struct vma_list **v;
	size_t n;
};

/* source.c */
struct link_peer source_peer(const struct source *s);
/* Adds up what has been sent so far, after the commit with what the agents have served. */
void source_account(struct source *s);

/* Steps and what undoes them: source_offer.c, source_agent.c, source_rounds.c */
int source_offer(void *context, struct err *e);
void source_offer_undo(void *context);
int source_agent(void *context, struct err *e);
void source_agent_undo(void *context);
int source_rounds(void *context, struct err *e);

/* source_view.c */
/* When the unit has been captured: serves what earlier attempts have found wanted. */
int source_view_begin(struct source *s, struct err *e);
void source_view_end(struct source *s);
/* Puts the view and the directories that the unit uses into the offer; afterwards they are freed. */
void source_view_offer(struct source *s, Gw__Offer *o);
void source_view_offered(Gw__Offer *o);
/* The destination wants these paths from home: -EAGAIN, or a refusal. */
int source_view_refused(struct source *s, const struct path_list *paths, struct err *e);
/* In the freeze, and before it. */
int source_view_flush(struct source *s, struct err *e);

/* source_files.c */
/* Right before the offer: sizes and times of now, and names that are gone. */
int source_look_at_files(struct source *s, struct err *e);
/* Whether a file no longer has the name that the destination was told. */
bool source_files_replaced(struct source *s);
int source_send_contents(struct source *s, struct err *e);
/* While the process runs: tells the destination of files that are new or have changed, and brings its copies up to date. */
int source_tell_files(struct source *s, const struct layouts *now, struct err *e);
/* In the freeze: puts the same into s->news_frame, where there is anything. */
int source_files_frozen(struct source *s, const struct layouts *now, struct err *e);
/* After the commit: marks the files here of which the destination has its own copy now. */
void source_mark_left(struct source *s);
void source_news_free(struct file_news_out *out);
void source_files_free(struct source *s);
/* source_offer.c: waits for ACCEPT with n answers, malloc'ed; a REFUSE becomes an error and refusals. */
int source_take_accept(struct source *s, uint32_t n, struct fsfile_answer **ret, struct err *e);

/* source_rounds.c */
/* What a round works with: the layouts of now, and those that have changed. */
struct round {
	struct vma_list *vmas;
	const struct vma_list **now, **changed;
};

int source_round_begin(struct source *s, struct round *r, struct err *e);
void source_round_end(struct source *s, struct round *r); /* also after a failure of begin */

/* source_shared.c */
/* Before contents are sent: from here on what is written through shared mappings is found. */
int source_track_shared(struct source *s, struct err *e);
void source_untrack_shared(struct source *s); /* before agents are removed */
int source_collect_shared(struct source *s, const struct layouts *now, bool frozen, struct err *e);
/* source_common.c: sends the pages that processes share, which are then on the account as sent. */
int source_send_common(struct source *s, struct err *e);
/* When the answers are there: files that the destination makes must not be written by others. */
int source_check_sharing(struct source *s, struct err *e);

/* source_rounds.c: what was written during a short while is what will be written next. */
int source_find_working_set(struct source *s, struct err *e);

/* source_freeze.c */
int source_freeze(void *context, struct err *e);

/* source_park.c */
/* Lists of calls for the threads that are known. */
int source_plan_parking(struct source_process *p, struct err *e);
/* Seizing does not stop a thread, but signals to it do from then on; one that has ended meanwhile is found out later. */
void source_seize(struct source_process *p);
/* All threads of the unit: they run their lists when it returns. */
int source_stop_and_park(struct source *s, struct err *e);
/* Lets everything go on here. */
void source_thaw(void *context);
/* When its watch is there: that it is in the namespaces that it was offered with, and how that can be seen in the freeze. */
int source_note_namespaces(struct source_process *p, struct err *e);
/* What the kernel says of all threads; which: 0 before the stop, 1 in it. */
void source_read_records(struct source *s, int which);
void source_read_process_records(struct source_process *p, int which);
/* near: where it is, mostly: the kernel lists threads in the order of their birth. NULL: there is none. */
const struct restart_record *source_find_record(const struct source_process *p, int which, pid_t tid, size_t near);
struct parked *source_find_parked(struct source_process *p, pid_t tid, size_t near);

/* source_compare.c */
/*
 * A look at what will be looked at in the freeze, so that it is in the caches then. `again`, just before: only at mappings, where they have changed
 * since; the later, the more seldom they are compared in the freeze.
 */
void source_rehearse(struct source *s, bool again);
/* While the process runs, before contents of files are compared; for the same in the freeze. */
void source_note_layouts(struct source *s);
/* While the process runs: files that it has opened. What fails or cannot move now may be over at the freeze, where it is looked at again. */
void source_look_at_descriptors(struct source *s);
/* In the freeze: mappings, descriptors and files. */
int source_compare(struct source *s, struct err *e);
/* In the freeze: what /proc says, where it can have changed. */
int source_look(struct source_process *p, struct err *e);

/* source_choose.c: in the freeze, when all threads have been read */
int source_choose_pages(struct source *s, struct err *e);
int source_read_pages(struct source *s, struct err *e);
/* Whether a page may travel before the resume at all: one that the program cannot read is of no use to its first instructions. */
bool source_page_may_go(struct source_process *p, uint64_t address);

/* source_ahead.c */
/* When the working set is known: sends it, and keeps what was sent. */
int source_send_ahead(struct source *s, struct err *e);
/* source_threads.c: behind it, the threads that sleep. */
int source_send_threads(struct source_process *p, struct err *e);
/* Whether a page went ahead: then its differences travel, and it need not. */
bool source_is_ahead(const struct source_process *p, uint64_t address);
/* In the freeze, when another layout has been taken into account, before pages are chosen. */
void source_forget_ahead(struct source_process *p);
/* In the freeze, when it is known which pages the destination is to drop: what has changed in those that went ahead. */
int source_compare_ahead(struct source_process *p, struct err *e);
void source_free_ahead(struct source_process *p);

/* source_beside.c */
/* Whether the agent of the process may do something in the freeze beside the worker. */
bool source_has_beside(const struct source_process *p);
/* When the working set has gone ahead: plans what the agent is to do, and rehearses it. */
int source_plan_beside(struct source_process *p, struct err *e);
/* When all threads are stopped. */
int source_begin_beside(struct source_process *p, struct err *e);
/* Waits for the end, where it has begun. */
int source_end_beside(struct source_process *p, struct err *e);
void source_free_beside(struct source_process *p);

/* source_held.c */
/* Lets a parked thread run the stub, still as a tracee. */
int source_held_go(struct source_process *p, struct parked *t, struct err *e);
/* Before the undo: makes tracees of the threads of a process that a signal has stopped meanwhile. */
void source_held_again(struct source_process *p);
/* Gives it back to its program, as it was. */
void source_held_thaw(struct source_process *p, struct parked *t);
/* After the commit, before the agent is told: the agent is not to end the process by itself. */
void source_end_later(struct source_process *p);
/* Then: ends all, but for what is to become a stub and what has so many threads that the agent shall do it. */
void source_end_copies(struct source *s);
/* Where threads are held: reaps it. */
void source_held_reap(struct source_process *p);

/* source_plain.c */
/* Before the stop: gets ready for reading the threads. */
void source_plain_prepare(struct source_process *p);
/* When all have been stopped: which may be plain. */
void source_plain_read(struct source_process *p);
/* When the main thread has been captured: 1: this one has been, too, 0: it has to be asked itself. */
int source_plain_capture(struct source_process *p, struct parked *t, struct err *e);
/* After the commit: they are no tracees any more. */
void source_plain_release(struct source_process *p);
/* Gives one back to its program, as it was. */
void source_plain_thaw(struct source_process *p, struct parked *t);

/* source_go.c */
int source_go(void *context, struct err *e);
int source_commit(void *context, struct err *e);
/* Leaves in the scratch what the agent needs to ask the destination's daemon after the outcome when this worker is dead, and makes a socket for it, for this process to close. */
int source_prepare_ask(struct source_process *p, int *ret_socket, struct err *e);

/* Takes the agents out of the processes, which go on here. */
void source_remove_agents(struct source *s);
/* Sends a Round without waiting: new layouts (of all processes, NULL where nothing has changed), and whether the rounds are over. */
int source_tell_layouts(struct source *s, const struct layouts *changed, bool over, struct err *e);

#endif
