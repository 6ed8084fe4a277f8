/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * decode.h - the messages of a migration: from untrusted bytes to checked values
 *
 * Pure functions: they touch no process and no file. Each checks everything that can be known from the bytes and from what has been agreed before; what
 * depends on this host (process_validate_here and the like) comes after. Errors are -EPROTO, or what the decoder of an image module says.
 */
#ifndef GODWIT_MIGRATE_DECODE_H
#define GODWIT_MIGRATE_DECODE_H

#include "control.pb-c.h"
#include "image/cgroup.h"
#include "image/file.h"
#include "image/fsfile.h"
#include "image/mm.h"
#include "image/ns.h"
#include "image/process.h"
#include "image/refuse.h"
#include "image/thread.h"
#include "image/tree.h"
#include "image/vdso.h"
#include "image/vma.h"

#define OFFER_PROCESSES_MAX 4096u
#define OFFER_THREADS_MAX 65536u /* of all processes together */
#define REFUSE_REASONS_MAX 1024u

/* One process of an offer, decoded. */
struct offer_process {
	const Gw__OfferProcess *msg;
	Gw__Process *process;
	Gw__Thread **threads;
	size_t nthreads;
	struct vma_list vmas;
	struct vdso vdso;
	struct mm_fields mm;
};

/* An offer with all that is inside it. */
struct offer {
	Gw__Offer *msg;
	struct offer_process *procs; /* msg->n_processes; [0]: the root */
	size_t nprocs;
	struct fsfile_table files;
	Gw__FdTable *fds;
	struct tree tree;
	Gw__Cgroups *cgroups; /* NULL: none but godwitd's own */
	Gw__Namespaces *ns; /* NULL: none of its own */            /* procs are those of it that are no zombies, in its order */
};

/* On failure, too, *ret is to be freed. */
int offer_decode(const void *data, size_t len, struct offer *ret, struct err *e);
void offer_free(struct offer *o);

/* One process of a go message, decoded. */
struct go_process {
	const Gw__GoProcess *msg;
	const uint8_t *pages; /* data of the pages of msg->runs; points into the payload */
	Gw__Process *process;
	Gw__Thread **threads;
	size_t nthreads;
	struct mm_fields mm;
};

/* The last message before the freeze's end. */
struct go {
	Gw__Go *msg;
	struct go_process *procs;
	size_t nprocs;
	Gw__FdTable *fds;         /* whole; unchanged descriptions are those of offered_fds */
	const Gw__FdTable *offered_fds;
	const uint8_t *queues;    /* what came behind the pages; fds refers to it */
	size_t queues_len;
};

/* What a go message has to agree with. */
struct go_terms {
	const struct offer_process *procs; /* as offered */
	size_t nprocs;
	uint32_t threads_spare;            /* more threads of a process than were offered */
	uint32_t n_files;
	const Gw__FdTable *fds;
};

/* payload: of the GO frame. On failure, too, *ret is to be freed. */
int go_decode(const uint8_t *payload, size_t len, const struct go_terms *terms, struct go *ret, struct err *e);
void go_free(struct go *g);
/* Whether the pages that come with it, and those to be forgotten, lie in mappings with content. */
int go_check_pages(const struct go_process *g, const struct vma_list *l, struct err *e);

/* Threads of one process that are told ahead of the go message. The caller may take some of them out. On failure there is nothing to be freed. */
struct threads_ahead {
	uint32_t process;
	Gw__Thread **v;
	size_t n;
};
int threads_ahead_decode(const void *data, size_t len, size_t nprocs, struct threads_ahead *ret, struct err *e);
void threads_ahead_free(struct threads_ahead *a);

/* Part of a file that was asked for (answers: one a file), or with `last` what memory will be needed (expectations: one a process). */
int content_decode(const void *data, size_t len, const struct fsfile_answer *answers, uint32_t n_files, Gw__Content **ret, struct err *e);
/* The ranges of an expectation. */
int expectation_ranges(const Gw__Expectation *x, struct range_list *ret, struct err *e);

/* What a FILES frame says; `n_files` is their number before. On failure, too, *ret is to be freed. */
struct file_news {
	Gw__FileSync *msg;
	struct fsfile_table added, values; /* values: those of msg->changed */
};
int files_decode(const void *data, size_t len, uint32_t n_files, struct file_news *ret, struct err *e);
void file_news_free(struct file_news *n);

/* New layouts, for processes of which there are `nprocs`. On failure, too, *ret is to be freed. */
struct round_news {
	Gw__Round *msg;
	struct vma_list *layouts; /* of msg->layouts[i] */
	size_t n;
};
int round_decode(const void *data, size_t len, uint32_t n_files, size_t nprocs, struct round_news *ret, struct err *e);
void round_news_free(struct round_news *r);

/* Source: the answer to the offer. Reasons are added with unprintable characters replaced. */
int accept_decode(const void *data, size_t len, uint32_t n_files, struct fsfile_answer **ret, struct err *e);
struct path_list {
	char **v;
	size_t n;
};
void path_list_free(struct path_list *l);
/* Also the paths that the source is to serve; there are reasons or paths, and paths only where there are no reasons. */
int refuse_decode(const void *data, size_t len, struct refusals *refusals, struct path_list *ret_from_home, struct err *e);

/* Both sides of MOUNTS: paths that a unit wants to bind, and whether they are lacking. */
int ns_ask_decode(const void *data, size_t len, Gw__NsAsk **ret, struct err *e);
int ns_answer_decode(const void *data, size_t len, Gw__NsAnswer **ret, struct err *e);

/* When the threads had been let go, and the pid there; a pid that is none is refused. */
int resumed_decode(const void *data, size_t len, Gw__Resumed **ret, struct err *e);

/* Signals for processes of which there are `nprocs`. */
int release_decode(const void *data, size_t len, size_t nprocs, Gw__Release **ret, struct err *e);

#endif
