/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pager.h - what the files of the destination's agent share: pager.c, fill.c */
#ifndef GODWIT_AGENT_PAGER_H
#define GODWIT_AGENT_PAGER_H

#include "sys.h"

#define UFFDIO_ZEROPAGE_IOCTL 0xc020aa04ul
#define PAGE_TABLE_SPAN (512 * AGENT_PAGE) /* what one page table maps */

struct zero_fill {
	uint64_t start, len, mode;
	int64_t done;
};

/* A frame of pages has at least this much before them; what has less is the last of its connection. */
#define FRAME_LEAST (sizeof(struct page_frame) + sizeof(struct page_run))

#define ASKED_MAX 64u /* pages that are waited for; of more, the oldest are no longer measured */

/* A connection that is read in pieces. */
struct stream {
	int fd;
	enum { WANT_FRAME, WANT_RUNS, WANT_PAGES } want;
	uint64_t got, need; /* bytes: of the header with its runs, or of the pages */
	struct stream_frame *f;
	uint64_t small, staging; /* staging: where the pages of this frame go: small, or in the pool */
	uint8_t next[FRAME_LEAST]; /* the beginning of the next frame, received with the pages of this one: one call less for each */
	uint64_t next_got;
};

struct pager {
	struct scratch_header *h;
	struct agent_buffers *b;
	struct pager_context *contexts; /* [0]: the process */
	uint32_t ncontexts;
	struct stream bulk, fault;
	uint64_t pool_used;  /* pages */
	uint64_t pool_spare; /* pages that may be left out for the sake of alignment */
	struct page_run pending; /* received into the pool at pending_from, and not yet put in place */
	uint64_t pending_from;
	uint32_t hurry; /* so many frames are put in place as they come */
	struct {
		uint64_t address; /* at the source; 0: free */
		uint64_t ns;      /* CLOCK_MONOTONIC */
	} asked[ASKED_MAX];
	uint32_t nasked, next_asked;
	int bulk_ended, fault_ended;
	int process_gone;
};

/* pager.c: reads what the process does to its address spaces; 1 something, 0 nothing, or an error. */
long drain_events(struct pager *p);

/* fill.c */
/* Takes [start, end) of current addresses out of the pieces; with `move`, puts what was there at `to`. */
void pieces_cut(struct pager_context *c, uint64_t start, uint64_t end, int move, uint64_t to);
struct pager_piece *piece_by_current(struct pager_context *c, uint64_t current);
void context_drop(struct pager *p, uint32_t i);
int in_pool(const struct pager *p, uint64_t from);
/* Puts pages under their source address into all contexts. from: staging or pool, or 0 for zeros. */
void fill_all(struct pager *p, const struct page_run *run, uint64_t from);
/* A page of which a fault has just been heard. */
void note_asked(struct pager *p, uint64_t address);
/* The same with pages in the pool: several runs at once, at the latest when install_pending is called. */
void install_later(struct pager *p, const struct page_run *run, uint64_t from);
void install_pending(struct pager *p);
int is_pending(const struct pager *p, uint64_t original);

#endif
