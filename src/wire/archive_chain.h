/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * archive_chain.h - images that say only what is new: a chain of them begins with a whole one (docs/image.md)
 *
 * Theory of operation: whoever writes an image of a chain knows the digest of every page that the images before it have. A page that one of them has is not written again: a piece of the record says which
 * image has it, and where. So an image is as long as what is new in it, whatever has moved in the memory, and a reader puts together exactly the stream that was recorded: who gets records from archive_next
 * does not see the difference. A piece names the image that has the page itself, never one that refers to another; so a chain is no list that has to be followed, and cannot go round in a circle.
 *
 * An image of a chain has, in its second record, an ID of its own and all images that it needs: their names (beside it, in the same directory), IDs, lengths and SHA-256.
 *
 * What the writer knows of a chain is kept in an index: the images, and 16 bytes of the SHA-256 of each page that they have. It is no part of an image and is believed by the writer alone.
 */
#ifndef GODWIT_WIRE_ARCHIVE_CHAIN_H
#define GODWIT_WIRE_ARCHIVE_CHAIN_H

#include "wire/archive.h"

#define ARCHIVE_ID_BYTES 16u
#define ARCHIVE_DIGEST_BYTES 32u
#define ARCHIVE_LINKS_MAX 16u        /* images that one may need */
#define ARCHIVE_LINK_NAME_MAX 240u
#define ARCHIVE_UNIT_MAX 128u
#define ARCHIVE_PAGE_BYTES 4096u
#define ARCHIVE_INDEX_PAGES_MAX (8u << 20) /* what is beyond 32 GiB is written each time */
#define ARCHIVE_CHAIN_NAME ".chain"  /* the index of a directory's chain */

struct archive_link {
	uint8_t id[ARCHIVE_ID_BYTES], digest[ARCHIVE_DIGEST_BYTES];
	uint64_t bytes;                    /* of the file */
	char name[ARCHIVE_LINK_NAME_MAX];  /* without a directory */
};

/* Pages in a payload that may be found elsewhere. */
struct archive_span {
	uint32_t at, npages;
};

struct archive_chain;

/* An empty one: the next image is whole. */
int archive_chain_new(struct archive_chain **ret, struct err *e);
/* -ENOENT without words: there is none. -EBADMSG: it cannot be used. */
int archive_chain_load(const char *path, struct archive_chain **ret, struct err *e);
/* As a whole, mode 0600. */
int archive_chain_save(const struct archive_chain *c, const char *path, struct err *e);
void archive_chain_free(struct archive_chain *c);
static inline void archive_chain_freep(struct archive_chain **c)
{
	archive_chain_free(*c);
	*c = NULL;
}
#define cleanup_chain __attribute__((cleanup(archive_chain_freep)))

/* Its images, the whole one first. */
const struct archive_link *archive_chain_links(const struct archive_chain *c, uint32_t *ret_n);
/* Why the next image is to be a whole one; NULL: it need not be. directory: where its images should be, unaltered; NULL: elsewhere. */
const char *archive_chain_worn(const struct archive_chain *c, const char *directory);
/* Whose memory it is; "" until it is said. */
const char *archive_chain_unit(const struct archive_chain *c);
void archive_chain_name_unit(struct archive_chain *c, const char *unit);

/* What is written from the next archive_restart on belongs to that chain, under that name. The chain stays the caller's, and must outlive the writer. Not with a key. */
int archive_use_chain(struct archive_writer *w, struct archive_chain *c, const char *name, struct err *e);
/* As archive_put of ARCHIVE_PAGES. */
int archive_put_pages(struct archive_writer *w, uint32_t stream, const void *data, size_t len, const struct archive_span *spans, size_t nspans, struct err *e);
/* What has been sealed is the chain's last image, from now on. */
void archive_chain_grow(struct archive_writer *w);

/* Of what has been read so far: the images that it needs (NULL, 0: none), and whether it is of a chain. */
const struct archive_link *archive_links(const struct archive_reader *r, uint32_t *ret_n, bool *ret_of_chain);
/* Sees that those are there, and the right ones; with `whole` that they have not been altered. For what has been read as far as its second record. */
int archive_check_links(struct archive_reader *r, bool whole, struct err *e);
/* Records of pages are not put together: they come without data. */
void archive_leave_pages(struct archive_reader *r);

/* The newest image in a directory in which a chain is; the path itself when it is of something else. */
int archive_newest(const char *path, char ret[PATH_MAX], struct err *e);
/* The name of the image that comes next there. */
int archive_next_name(const char *directory, char ret[ARCHIVE_LINK_NAME_MAX], struct err *e);
/* Removes images of the directory that are older than the chain's first. */
void archive_remove_older(const char *directory, const struct archive_chain *c);

#endif
