/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_core.h - a core file (core(5), elf(5)) of a process in an image, for debuggers
 *
 * It is what the kernel would have written if the process had dumped core when the image was taken, with two differences: no signal has killed it, and memory that the image has not
 * got since it is in files (pages of programs and libraries that were not written to) is in the list of mappings (NT_FILE) only, so that a debugger reads it from these files.
 */
#ifndef GODWIT_MIGRATE_IMAGE_CORE_H
#define GODWIT_MIGRATE_IMAGE_CORE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "wire/archive.h"

struct core_made {
	pid_t pid;
	uint32_t threads, mappings;
	uint64_t memory_bytes; /* whose contents are in the file, with what is zeros */
	uint64_t file_bytes;   /* on the disk: zeros are holes */
	char path[4096];
};

/*
 * Writes it, mode 0600: under its name when it is whole. key NULL: none. pid: as in the image; 0: its only process. out NULL: core.PID in the working directory. -EBADMSG: the image is
 * not whole; -EINVAL: there is no such process in it, or more than one, which the message lists. Blocks; needs memory for the mappings, not for what is in them.
 */
int image_core(const char *image, const struct archive_key *key, pid_t pid, const char *out, struct core_made *ret, struct err *e);

#endif
