/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_internal.h - the bytes of an image's header and records; see archive.h */
#ifndef GODWIT_WIRE_ARCHIVE_INTERNAL_H
#define GODWIT_WIRE_ARCHIVE_INTERNAL_H

#include <stdint.h>
#include <stdlib.h>

#include "wire/archive.h"

#define RECORD_MAGIC 0x52494447u /* "GDIR" */
#define RECORD_ZSTD 1u
#define RECORD_SEALED 2u /* encrypted, with ARCHIVE_TAG_BYTES behind it */
#define FILE_MAGIC "GODWITIM"
#define FILE_ENCRYPTED 1u
#define ARCHIVE_SALT_BYTES 12u
#define ARCHIVE_TAG_BYTES 16u

struct archive_file_header {
	char magic[8];
	uint32_t version, flags;
	uint8_t salt[ARCHIVE_SALT_BYTES]; /* random; 0 when it is not encrypted */
	uint32_t crc;                     /* of all before it */
};

struct archive_header {
	uint32_t magic;
	uint16_t kind, flags;
	uint32_t stream, type;
	uint32_t len, stored; /* of the payload: as it is, and in the file */
	uint32_t number;      /* of the record, from 0 on */
	uint32_t crc;         /* of the header before it, and of the payload as it is in the file */
};

_Static_assert(sizeof(struct archive_file_header) == ARCHIVE_HEADER_BYTES, "header");
_Static_assert(sizeof(struct archive_header) == ARCHIVE_HEADER_BYTES, "record");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian");

/* Makes a buffer (malloc'ed, or NULL) of *room bytes one of at least len; false: there is no memory. */
static inline bool archive_make_room(uint8_t **buffer, size_t *room, size_t len)
{
	uint8_t *grown = len > *room ? realloc(*buffer, len) : *buffer;

	if (len > *room && !grown)
		return false;
	*buffer = grown;
	*room = len > *room ? len : *room;
	return true;
}

/* A file's cipher; NULL: it has none. */
struct archive_cipher;

int archive_cipher_open(const struct archive_key *key, const uint8_t salt[ARCHIVE_SALT_BYTES], struct archive_cipher **ret, struct err *e);
/* Of len bytes, into to, which has room for ARCHIVE_TAG_BYTES more. The header is complete but for its checksum. */
int archive_cipher_seal(struct archive_cipher *c, const struct archive_header *h, const void *data, size_t len, uint8_t *to, struct err *e);
/* Of h->stored bytes, in place: what is left are ARCHIVE_TAG_BYTES fewer. -EBADMSG without a message: it has another key, or has been altered. */
int archive_cipher_unseal(struct archive_cipher *c, const struct archive_header *h, uint8_t *data);
void archive_cipher_close(struct archive_cipher *c);

/* The most that a payload may have; 0: there is no such kind. */
static inline uint32_t archive_limit(unsigned kind)
{
	static const uint32_t limits[ARCHIVE_KINDS] = {
		[ARCHIVE_HEAD] = 64u << 10, [ARCHIVE_FRAME] = 256u << 20, [ARCHIVE_PAGES] = 4u << 20, [ARCHIVE_ANSWERS] = 16u << 20, [ARCHIVE_SUMMARY] = 64u << 20, [ARCHIVE_END] = 1, [ARCHIVE_LINK] = 8u << 10,
		[ARCHIVE_DELTA] = 4u << 20,
	};

	return kind < ARCHIVE_KINDS ? limits[kind] : 0;
}

#endif
