/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source.h - one migration as the source's worker sees it; shared by the source_*.c files */
#ifndef GODWIT_MIGRATE_SOURCE_H
#define GODWIT_MIGRATE_SOURCE_H

#include "image/process.h"
#include "image/thread.h"
#include "kern/restart_block.h"
#include "migrate/agent.h"
#include "migrate/link.h"
#include "migrate/migrate.h"
#include "migrate/pages.h"
#include "migrate/steps.h"
#include "migrate/unit.h"

#define THREADS_SPARE 64u   /* slots for threads that are made between the offer and the freeze */
#define GO_PAGES_MAX 96u    /* lazy pages that travel with the registers */

/* A thread that has been stopped and parked. */
struct parked {
	pid_t tid;
	struct task task;
	struct batch *batch;
	struct thread_query query;
	Gw__Thread *msg;
	bool traced;  /* still a tracee */
	bool interrupted;
	bool stopped; /* has been seen in its stop */
	bool parked;  /* runs the stub */
};

/* News of files that the destination has not been told yet; see source_files.c. */
struct file_news_out {
	uint32_t *changed, *filled; /* of as many files as there are */
	bool *todo;                 /* contents to be looked at */
	size_t nchanged, nfilled, ncontent, content_bytes;
	Gw__Content **content;      /* in the freeze */
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
	struct fsfile_answer *answers;
	uint32_t nanswers;
	struct agent agent;
	struct pages pages;
	struct restart_watch *watch;
	struct restart_record *records[2]; /* before and after the stop */
	size_t nrecords[2];
	unsigned moves;
	int mem_fd;               /* /proc/PID/mem */
	uint64_t content_bytes;   /* of files */
	struct file_told *told;   /* of each file, what the destination knows; source_files.c */
	uint32_t ntold;
	struct file_news_out news;
	uint8_t *news_frame;      /* goes before the go message, or NULL */
	size_t news_frame_len;
	struct page_count count;
	bool bulk_in_freeze;      /* pages went over the bulk connection in the freeze */
	bool post_copy, push;
	bool backed_out;          /* after the go message: the destination has given up, and the process goes on here */
	/* the freeze */
	struct parked *parked;
	size_t nparked;
	struct process_query process_query;
	struct remote_call *brk, *children;
	Gw__Process *process;     /* as captured in the freeze */
	struct vma_list frozen_vmas;
	bool layout_changed;
	bool locks_released;
	uint64_t stopped_ns;      /* CLOCK_REALTIME */
	struct run_list hot, go_runs, stale;
	uint8_t *go_pages;
	size_t go_pages_len;
};

/* source_files.c */
/* Right before the offer: sizes and times of now, and names that are gone. */
int source_look_at_files(struct source *s, struct err *e);
/* Whether a file no longer has the name that the destination was told. */
bool source_files_replaced(struct source *s);
int source_send_contents(struct source *s, struct err *e);
/* While the process runs: tells the destination of files that are new or have changed, and brings its copies up to date. */
int source_tell_files(struct source *s, const struct vma_list *vmas, struct err *e);
/* In the freeze: puts the same into s->news_frame, where there is anything. */
int source_files_frozen(struct source *s, const struct vma_list *vmas, struct err *e);
/* After the commit: marks the files here of which the destination has its own copy now. */
void source_mark_left(struct source *s);
void source_news_free(struct file_news_out *out);
void source_files_free(struct source *s);
/* source.c: waits for ACCEPT with n answers, malloc'ed; a REFUSE becomes an error and refusals. */
int source_take_accept(struct source *s, uint32_t n, struct fsfile_answer **ret, struct err *e);

/* source_freeze.c */
int source_freeze(void *context, struct err *e);
int source_rehearse(struct source *s, struct err *e);
void source_thaw(void *context);

/* source_go.c */
int source_go(void *context, struct err *e);
int source_commit(void *context, struct err *e);
/* Leaves in the scratch what the agent needs to ask the destination's daemon when this worker is dead. */
int source_prepare_ask(struct source *s, struct err *e);

/* Sends a Round without waiting: a new layout (or NULL), and whether the rounds are over. */
int source_tell_layout(struct source *s, const struct vma_list *vmas, bool over, struct err *e);
/* Sends a Round and waits for its answer. */
int source_send_round(struct source *s, bool over, struct err *e);

#endif
