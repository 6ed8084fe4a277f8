/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* buildid.h - the build-id note of a 64-bit ELF file (NT_GNU_BUILD_ID) */
#ifndef GODWIT_IMAGE_BUILDID_H
#define GODWIT_IMAGE_BUILDID_H

#include <stdint.h>

#include "image/fsfile.h"

/* Reads it with a few preads. Returns its length, or 0 when the file is no 64-bit ELF file or has none (errors are "none", too). */
uint32_t buildid_read(int fd, uint8_t ret[FSFILE_BUILD_ID_MAX]);

#endif
