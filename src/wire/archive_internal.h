/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_internal.h - the bytes of an image's header and records; see archive.h */
#ifndef GODWIT_WIRE_ARCHIVE_INTERNAL_H
#define GODWIT_WIRE_ARCHIVE_INTERNAL_H

#include <stdint.h>

#include "wire/archive.h"

#define RECORD_MAGIC 0x52494447u /* "GDIR" */
#define RECORD_ZSTD 1u
#define FILE_MAGIC "GODWITIM"

struct archive_file_header {
	char magic[8];
	uint32_t version, flags, reserved[3], crc; /* crc: of all before it */
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

/* The most that a payload may have; 0: there is no such kind. */
static inline uint32_t archive_limit(unsigned kind)
{
	static const uint32_t limits[ARCHIVE_KINDS] = {
		[ARCHIVE_HEAD] = 64u << 10, [ARCHIVE_FRAME] = 256u << 20, [ARCHIVE_PAGES] = 4u << 20, [ARCHIVE_ANSWERS] = 16u << 20, [ARCHIVE_SUMMARY] = 64u << 20, [ARCHIVE_END] = 1,
	};

	return kind < ARCHIVE_KINDS ? limits[kind] : 0;
}

#endif
