/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.h - the checksum of RFC 3720 (Castagnoli): finds each change of up to 32 bits in a row, and of others all but one in 4 thousand million */
#ifndef GODWIT_WIRE_CRC32C_H
#define GODWIT_WIRE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of len more bytes behind those that `crc` is the sum of; 0 is the sum of none. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
