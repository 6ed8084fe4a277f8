/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.c - see crc32c.h; by the processor's own instruction where it has one (SSE 4.2, since 2008) */
#include "wire/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t sum = crc, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum = __builtin_ia32_crc32di(sum, word);
	}
	crc = (uint32_t)sum;
	while (len--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}

static uint32_t by_bits(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
	}
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	return ~(__builtin_cpu_supports("sse4.2") ? by_instruction(~crc, data, len) : by_bits(~crc, data, len));
}
