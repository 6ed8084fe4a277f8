/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sha256.h - SHA-256 (FIPS 180-4), to compare file contents, and to make a key of a secret text */
#ifndef GODWIT_IMAGE_SHA256_H
#define GODWIT_IMAGE_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
	uint32_t state[8];
	uint64_t len_bytes;
	uint8_t block[64];
};

void sha256_start(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t len_bytes);
void sha256_end(struct sha256 *s, uint8_t ret[32]);
/* Of the whole file behind fd, from its start, without moving its offset. Returns 0 or a negative errno. */
int sha256_file(int fd, uint8_t ret[32]);

#endif
