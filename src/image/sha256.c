/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sha256.c - SHA-256 (FIPS 180-4); see sha256.h */
#include "image/sha256.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
	0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
	0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
	0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void add_block(struct sha256 *s, const uint8_t *p)
{
	uint32_t w[64], v[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];

		w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
	}
	memcpy(v, s->state, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t big1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
		uint32_t t1 = v[7] + big1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
		uint32_t big0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
		uint32_t t2 = big0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		s->state[i] += v[i];
}

void sha256_start(struct sha256 *s)
{
	static const uint32_t initial[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

	memcpy(s->state, initial, sizeof(initial));
	s->len_bytes = 0;
}

void sha256_add(struct sha256 *s, const void *data, size_t len_bytes)
{
	const uint8_t *p = data;

	while (len_bytes) {
		size_t at = s->len_bytes % 64, n = MIN(64 - at, len_bytes);

		if (n == 64) {
			add_block(s, p);
		} else {
			memcpy(s->block + at, p, n);
			if (at + n == 64)
				add_block(s, s->block);
		}
		s->len_bytes += n;
		p += n;
		len_bytes -= n;
	}
}

void sha256_end(struct sha256 *s, uint8_t ret[32])
{
	uint64_t bits = s->len_bytes * 8;
	uint8_t tail[8];

	for (int i = 0; i < 8; i++)
		tail[i] = bits >> (56 - 8 * i);
	sha256_add(s, "\x80", 1);
	while (s->len_bytes % 64 != 56)
		sha256_add(s, "", 1);
	sha256_add(s, tail, 8);
	for (int i = 0; i < 32; i++)
		ret[i] = s->state[i / 4] >> (24 - 8 * (i % 4));
}

int sha256_file(int fd, uint8_t ret[32])
{
	cleanup_free uint8_t *buffer = malloc(262144);
	struct sha256 s;
	off_t at = 0;

	if (!buffer)
		return -ENOMEM;
	sha256_start(&s);
	for (;;) {
		ssize_t got = pread(fd, buffer, 262144, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		sha256_add(&s, buffer, got);
		at += got;
	}
	sha256_end(&s, ret);
	return 0;
}
