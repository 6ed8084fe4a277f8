/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * archive.h - an image: what the source of a migration sends, in a file, to be sent to a destination later (docs/image.md)
 *
 *	header      32 bytes: "GODWITIM", version, flags, salt, checksum
 *	records     each 32 bytes (struct archive_header) and its payload, perhaps compressed (zstd), perhaps encrypted; numbered, with a checksum over both
 *	last one    ARCHIVE_END; nothing follows it
 *
 * Numbers are little-endian. A file is written under no name, or a temporary one, and gets its own when all of it is on the disk: a file with that name is whole, or
 * has been altered since. A reader believes nothing: lengths have limits for each kind, checksums are compared before a payload is used, and a file that does not end
 * with ARCHIVE_END has been cut off.
 *
 * With a key each payload is encrypted (AES-256-GCM, NIST SP 800-38D) under a key of that file's own, derived from the key and the file's salt (HKDF, RFC 5869); the nonce is
 * the number of the record, and the record's header is authenticated with it. So nobody without the key reads a record, alters, drops, repeats or reorders one, or cuts the
 * file off, without being found out.
 */
#ifndef GODWIT_WIRE_ARCHIVE_H
#define GODWIT_WIRE_ARCHIVE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ARCHIVE_VERSION 1u
#define ARCHIVE_HEADER_BYTES 32u
#define ARCHIVE_CHUNK_BYTES (1u << 20) /* of a stream of pages, about */

/* The numbers are part of the format: append, never renumber. */
enum archive_kind {
	ARCHIVE_HEAD = 1, /* ImageHead (proto/image.proto); the first record */
	ARCHIVE_FRAME,    /* payload of a frame of `type` that the source sent on connection `stream` (0: control, 1: go) */
	ARCHIVE_PAGES,    /* part of the page stream of process `stream` (agent/abi.h) */
	ARCHIVE_ANSWERS,  /* what was answered about the files of the frame before */
	ARCHIVE_SUMMARY,  /* ImageSummary; the last but one */
	ARCHIVE_END,      /* nothing */
	ARCHIVE_LINK,     /* of a chain (archive_chain.h): which images it needs; the second record. archive_next does not hand it out, */
	ARCHIVE_DELTA,    /* and makes an ARCHIVE_PAGES of this: pages, of which some are in those images */
	ARCHIVE_KINDS,
};

enum archive_stream { ARCHIVE_CONTROL, ARCHIVE_GO };

struct archive_record {
	enum archive_kind kind;
	uint32_t stream, type;
	size_t len;          /* of the payload, not compressed */
	const uint8_t *data; /* it, the archive's, until the next call; NULL when it was not asked for */
};

#define ARCHIVE_KEY_BYTES 32u

/* 256 random bits, or the digest of as many. */
struct archive_key {
	uint8_t bytes[ARCHIVE_KEY_BYTES];
};

struct archive_writer;
struct archive_reader;

/*
 * Begins a file that will have the name `path`, mode 0600. Owned by the caller: archive_discard. Errors: the directory cannot be written to; what has the name now is no
 * regular file. key: copied; NULL: not encrypted.
 */
int archive_create(const char *path, bool compress, const struct archive_key *key, struct archive_writer **ret, struct err *e);
/* Forgets all records. */
int archive_restart(struct archive_writer *w, struct err *e);
int archive_put(struct archive_writer *w, enum archive_kind kind, uint32_t stream, uint32_t type, const void *data, size_t len, struct err *e);
/* From now on records are only kept in memory, up to max_bytes, so that nobody waits for a processor or disk: until archive_flush. */
void archive_defer(struct archive_writer *w, size_t max_bytes);
int archive_flush(struct archive_writer *w, struct err *e);
/* The end record; when it returns, all is on the disk, but has no name yet. */
int archive_seal(struct archive_writer *w, struct err *e);
/* Gives it its name, in the place of what has it, and waits until that is on the disk. */
int archive_publish(struct archive_writer *w, struct err *e);
/* Bytes of records, and of the file. */
uint64_t archive_raw_bytes(const struct archive_writer *w);
uint64_t archive_file_bytes(const struct archive_writer *w);
/* Frees it (NULL: nothing to do). What has not been published leaves nothing behind; with `published` too, what has been is removed again. */
void archive_discard(struct archive_writer *w, bool published);
/* After a fork: this process has no more to do with it. */
void archive_forget(struct archive_writer *w);

/*
 * Opens and checks the header. fd: taken over, also after a failure; -1: opens `path`. key: used, not kept; NULL: none. -EBADMSG with the reason: it is no image, or of another
 * version; -ENOKEY: it is encrypted, and there is no key; -EBADMSG, too: it is not, and there is one (who has a key expects what was made with it).
 */
int archive_open(const char *path, int fd, const struct archive_key *key, struct archive_reader **ret, struct err *e);
/* 1: *ret is the next record, checked, with its payload if `want`; 0: that was the end record, and the file ends there. -EBADMSG with the reason. */
int archive_next(struct archive_reader *r, bool want, struct archive_record *ret, struct err *e);
/* Back to the first record. */
int archive_rewind(struct archive_reader *r, struct err *e);
/* Bytes of the file, and of records that have been read, not compressed. */
uint64_t archive_size(const struct archive_reader *r);
uint64_t archive_read_bytes(const struct archive_reader *r);
void archive_close(struct archive_reader *r);
static inline void archive_closep(struct archive_reader **r)
{
	archive_close(*r);
	*r = NULL;
}
#define cleanup_archive __attribute__((cleanup(archive_closep)))

#endif
