/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_core_internal.h - what the files of image_core.h share */
#ifndef GODWIT_MIGRATE_IMAGE_CORE_INTERNAL_H
#define GODWIT_MIGRATE_IMAGE_CORE_INTERNAL_H

#include <elf.h>

#include "agent/abi.h"
#include "migrate/decode.h"
#include "migrate/image_core.h"
#include "wire/archive.h"

/* A part of the address space as the core file has it. */
struct core_segment {
	uint64_t start, end;
	uint64_t at;     /* its place in the file */
	uint32_t prot;
	bool contents;   /* false: the file has only that it is there */
};

struct core {
	struct archive_reader *archive;
	const char *image;
	size_t process, memory;        /* indices in the offer: whose core it is, and which process's page stream its memory came in */
	struct offer offer;            /* its files grow by what was told later */
	struct fsfile_answer *answers; /* of nfiles files, as they were given to the source */
	uint32_t nfiles;
	struct vma_list layout;        /* of the memory, as far as the image has been read */
	struct vma_list last;          /* when it has been read once: the last one */
	struct range_list common;      /* pages that it had in common with other processes */
	struct range_list pages;       /* first reading: where private pages of file mappings are, in any order */
	uint8_t *payload;              /* of the go message */
	size_t payload_len;
	struct go go;
	bool gone;
	/* the file */
	int fd;
	struct core_segment *segments; /* in order of address */
	size_t nsegments;
	uint64_t notes_at, notes_len, end;
};

/* image_core_elf.c */
/* When the image has been read once: what goes where in the file. */
int core_plan(struct core *c, struct err *e);
/* Headers and notes, when memory has been written (the arguments are read from there). */
int core_write_head(struct core *c, struct err *e);

/* image_core_memory.c */
/* What the image has of memory, in its order; the file is `fd`, with segments as planned. */
int core_write_memory(struct core *c, struct err *e);
/* The file's bytes of an address; false: they are not all there. */
bool core_read(const struct core *c, uint64_t address, void *to, size_t len);
/* Bytes are put where the file has them; data NULL: zeros. What it has no place for is left out. */
int core_put(struct core *c, uint64_t address, const uint8_t *data, uint64_t len, struct err *e);

/* image_core.c */
/* A new layout of the memory, as messages have it. Where the file has another mapping's contents they are forgotten. */
int core_take_layout(struct core *c, const void *data, size_t len, struct err *e);
/* The header of a frame of a page stream; all of the frame is there. */
int core_read_frame(const struct core *c, const struct archive_record *r, size_t at, struct page_frame *ret, struct err *e);
/* Those of a round that are of it. */
int core_take_round(struct core *c, const struct archive_record *r, struct err *e);
/* Whether what the mapping's file contains is in the image. */
bool core_has_file(const struct core *c, const struct vma *v);

#endif
