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
#include "image/file.h"
#include "image/fsfile.h"
#include "image/mm.h"
#include "image/process.h"
#include "image/refuse.h"
#include "image/thread.h"
#include "image/vdso.h"
#include "image/vma.h"

#define OFFER_THREADS_MAX 65536u
#define REFUSE_REASONS_MAX 1024u

/* An offer with all that is inside it. */
struct offer {
	Gw__Offer *msg;
	Gw__Process *process;
	Gw__Thread **threads;
	size_t nthreads;
	struct fsfile_table files;
	struct vma_list vmas;
	struct vdso vdso;
	struct mm_fields mm;
	Gw__FdTable *fds;
};

/* On failure, too, *ret is to be freed. */
int offer_decode(const void *data, size_t len, struct offer *ret, struct err *e);
void offer_free(struct offer *o);

/* The last message before the freeze's end; `pages` points into the payload. */
struct go {
	Gw__Go *msg;
	const uint8_t *pages;
	uint64_t npages;
	Gw__Process *process;
	Gw__Thread **threads;
	size_t nthreads;
	Gw__FdTable *fds;
	struct mm_fields mm;
};

/* What a go message has to agree with. */
struct go_terms {
	pid_t pid;
	uint32_t threads_max, n_files;
	const Gw__FdTable *fds; /* as offered */
};

/* payload: of the GO frame. On failure, too, *ret is to be freed. */
int go_decode(const uint8_t *payload, size_t len, const struct go_terms *terms, struct go *ret, struct err *e);
void go_free(struct go *g);
/* Whether the pages that come with it, and those to be forgotten, lie in mappings with content, and are as many as the payload holds. */
int go_check_pages(const struct go *g, const struct vma_list *l, struct err *e);

/* Part of a file that was asked for (answers: one a file), or with `last` what memory will be needed. */
int content_decode(const void *data, size_t len, const struct fsfile_answer *answers, uint32_t n_files, Gw__Content **ret, struct err *e);
/* The ranges of a content message with `last`. */
int content_ranges(const Gw__Content *c, struct range_list *ret, struct err *e);

/* What a FILES frame says; `n_files` is their number before. On failure, too, *ret is to be freed. */
struct file_news {
	Gw__FileSync *msg;
	struct fsfile_table added, values; /* values: those of msg->changed */
};
int files_decode(const void *data, size_t len, uint32_t n_files, struct file_news *ret, struct err *e);
void file_news_free(struct file_news *n);

/* ret_vmas stays empty, and *ret_changed false, when the layout is as before. */
int round_decode(const void *data, size_t len, uint32_t n_files, struct vma_list *ret_vmas, bool *ret_changed, bool *ret_over, struct err *e);

/* Source: the answer to the offer. Reasons are added with unprintable characters replaced. */
int accept_decode(const void *data, size_t len, uint32_t n_files, struct fsfile_answer **ret, struct err *e);
int refuse_decode(const void *data, size_t len, struct refusals *refusals, struct err *e);

#endif
