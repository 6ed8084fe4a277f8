/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_chain_internal.h - the bytes of an image of a chain, and of its index; see archive_chain.h */
#ifndef GODWIT_WIRE_ARCHIVE_CHAIN_INTERNAL_H
#define GODWIT_WIRE_ARCHIVE_CHAIN_INTERNAL_H

#include "wire/archive_chain.h"
#include "wire/archive_internal.h"

/* Payload of ARCHIVE_LINK: this, and the images that it needs. */
struct archive_links_head {
	uint8_t id[ARCHIVE_ID_BYTES];
	uint32_t n, reserved;
};

/* Payload of ARCHIVE_DELTA: this, the pieces, and the bytes of those that are in it, in their order. The record's type is how many pages are in it. */
struct archive_delta_head {
	uint32_t npieces, len; /* len: when it has been put together */
};

#define PIECE_BYTES UINT32_MAX        /* source: `count` bytes, which are in it */
#define PIECE_PAGES (UINT32_MAX - 1)  /* `count` pages, which are in it, and which later images may refer to */

struct archive_piece {
	uint32_t source; /* or: the image, by its number among those that it needs */
	uint32_t count, first; /* pages, from the first-th on that are in that image */
};

#define DELTA_LEN_MAX (4u << 20)
#define PAGE_HASH_BYTES 16u

struct page_hash {
	uint8_t bytes[PAGE_HASH_BYTES];
};

_Static_assert(sizeof(struct archive_link) == 296, "link");
_Static_assert(sizeof(struct archive_links_head) == 24, "links");

struct archive_chain {
	char unit[ARCHIVE_UNIT_MAX];
	uint32_t nlinks;
	struct archive_link links[ARCHIVE_LINKS_MAX];
	struct page_entry {
		struct page_hash hash;
		uint32_t image, page; /* image UINT32_MAX: nothing is here */
	} *table;             /* open addressing; `room` is a power of two, or 0 */
	size_t room, n;
	/* the image that is being written */
	struct archive_link own;
	struct page_hash *fresh; /* of the pages that are in it */
	size_t nfresh, fresh_room;
};

/* archive_delta.c: a new image begins. */
int chain_begin(struct archive_chain *c, struct err *e);
/* archive_delta.c: what is to be stored of a payload, malloc'ed, and how many pages are in it. */
int chain_encode(struct archive_chain *c, const uint8_t *data, size_t len, const struct archive_span *spans, size_t nspans, uint8_t **ret, size_t *ret_len, uint32_t *ret_pages,
		 struct err *e);
const struct page_entry *chain_find(const struct archive_chain *c, const struct page_hash *h);
/* archive_delta.c: what has been written, `own`, is the last image of the chain. */
void chain_add(struct archive_chain *c);

/* archive_links.c: the images that a reader needs. */
struct archive_parents;
int parents_decode(const uint8_t *data, size_t len, struct archive_parents **ret, struct err *e);
void parents_free(struct archive_parents *p);
/* Whether what is being read is the image that the link names, as its second record says. */
bool chain_is(const struct archive_reader *r, const struct archive_link *link);
/* A payload, put together, into *buffer. */
int parents_expand(struct archive_reader *r, const struct archive_header *h, const uint8_t *data, const uint8_t **ret, size_t *ret_len, struct err *e);

struct archive_reader {
	int fd;
	char path[PATH_MAX];
	uint64_t size, at, read_bytes;
	uint64_t record_at; /* where the last record began */
	uint32_t number;
	bool ended;
	bool raw;         /* records of a chain are handed out as they are */
	bool leave_pages;
	struct archive_cipher *cipher;
	uint8_t salt[ARCHIVE_SALT_BYTES];
	uint8_t *stored, *data, *whole;
	size_t stored_room, data_room, whole_room;
	struct archive_parents *parents; /* NULL: it is not of a chain, or that has not been read */
};

int archive_broken(const struct archive_reader *r, const char *why, struct err *e);

#endif
