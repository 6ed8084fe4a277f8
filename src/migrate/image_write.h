/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_write.h - the writer of an image, as its files share it; see checkpoint.h */
#ifndef GODWIT_MIGRATE_IMAGE_WRITE_H
#define GODWIT_MIGRATE_IMAGE_WRITE_H

#include "agent/abi.h"
#include "migrate/checkpoint.h"
#include "migrate/decode.h"
#include "migrate/link.h"
#include "wire/archive_chain.h"
#include "wire/frame.h"

#define STREAM_SPANS 512u

/* The page stream of one process. */
struct image_stream {
	uint8_t *buffer;
	size_t len;
	unsigned barriers, expected; /* that have come, and that must have when what is next is recorded */
	uint64_t pages;
	struct archive_span spans[STREAM_SPANS]; /* where pages are in the buffer */
	size_t nspans;
};

struct image_writer {
	const struct image_wish *wish;
	const struct migrate_image *image;
	const char *self_name;
	int listener, parent;        /* parent: SOCK_SEQPACKET to the source's worker */
	struct archive_writer *archive;
	struct archive_chain *chain; /* NULL: it belongs to none */
	char whole[120];             /* why its image is to be whole */
	int outcome_fd;              /* -1: none */
	bool complete;               /* all has been recorded: there is no other attempt */
	/* the attempt */
	struct link link;
	struct offer offered;        /* its files grow by what is told later */
	bool has_offer;
	struct fsfile_answer *answers; /* of the first nanswers files */
	uint32_t nanswers;
	bool *inside;                /* of each file: contents are in the image */
	struct image_stream *streams;
	bool over;                   /* the last round has been */
	uint8_t *go;                 /* payload of the go message */
	size_t go_len;
	uint64_t content_bytes, page_bytes;
	uint64_t monotonic_ns, boottime_ns, realtime_ns; /* at the go message */
};

/* image_offer.c */
/* Decodes the offer, judges it and says what is to become of its files; -EPERM when the source has been sent refusals. */
int image_take_offer(struct image_writer *w, const struct frame *f, struct err *e);
/* News of files while the process runs (answer them) or in the freeze. */
int image_take_files(struct image_writer *w, const struct frame *f, bool frozen, struct err *e);
/* When everything has stood still for a moment: files as they are now. */
void image_look_at_files(struct image_writer *w);
void image_forget_offer(struct image_writer *w);

/* image_summary.c */
int image_put_head(struct image_writer *w, const Gw__Hello *hello, const char *unit, struct err *e);
int image_put_summary(struct image_writer *w, struct err *e);

/* image_write.c: what the child does; does not return. */
void image_write(struct image_writer *w) __attribute__((noreturn));

/* From the child to its parent, once: what has become of the image. */
struct image_word {
	int code;
	struct image_taken taken;
	char message[ERR_MESSAGE_MAX];
};

#endif
