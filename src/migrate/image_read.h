/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_read.h - what an image says, and how its messages are brought up to date; see checkpoint.h. Pure functions but for the clocks: what they are given is not trusted */
#ifndef GODWIT_MIGRATE_IMAGE_READ_H
#define GODWIT_MIGRATE_IMAGE_READ_H

#include "control.pb-c.h"
#include "image.pb-c.h"
#include "wire/archive.h"
#include "wire/hello.h"

struct image_facts {
	Gw__ImageHead *head;
	Gw__ImageSummary *summary;
	bool *shared; /* of each file: it is mapped so that it could be written to */
	size_t nshared;
};

/* Reads all of it, from the first record on: that it is whole, and begins and ends as an image does. */
int image_facts_read(struct archive_reader *archive, struct image_facts *ret, struct err *e);
void image_facts_free(struct image_facts *f);
/* NULL: there is none of that number. */
const Gw__ImageFile *image_facts_file(const struct image_facts *f, uint32_t file);
bool image_facts_is_shared(const struct image_facts *f, uint32_t file);

/* Where and how it is to run. */
struct image_now {
	const char *from, *node;
	bool accept_changed;
	const char *unit;     /* it is that unit, has moved so often, and this is why it moves; NULL: it is a new one */
	unsigned moves;
	const char *reason;
};

/* The offer as it is to be sent now (malloc'ed), of how many files, and processes, it is. */
int image_renew_offer(struct image_facts *f, const struct image_now *now, const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len, uint32_t *ret_files, size_t *ret_procs,
		      struct err *e);
/* News of files, of which there were nfiles before. */
int image_renew_files(struct image_facts *f, uint32_t nfiles, const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len, uint32_t *ret_added, struct err *e);

int image_new_id(uint8_t ret[HELLO_MIG_ID_BYTES], struct err *e);

#endif
