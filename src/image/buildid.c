/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* buildid.c - the build-id note of an ELF file; see buildid.h. The file is not trusted: every size and offset is checked. */
#include "image/buildid.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* Looks through notes (n bytes, 4-byte aligned records). */
static uint32_t find_note(const uint8_t *notes, size_t n, uint8_t ret[FSFILE_BUILD_ID_MAX])
{
	size_t at = 0;

	while (n - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr h;
		size_t name, desc;

		memcpy(&h, notes + at, sizeof(h));
		if (h.n_namesz > 4096 || h.n_descsz > 4096)
			return 0;
		name = at + sizeof(h);
		desc = name + ((h.n_namesz + 3) & ~3u);
		at = desc + ((h.n_descsz + 3) & ~3u);
		if (at > n)
			return 0;
		if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4 && !memcmp(notes + name, "GNU", 4) && h.n_descsz &&
		    h.n_descsz <= FSFILE_BUILD_ID_MAX) {
			memcpy(ret, notes + desc, h.n_descsz);
			return h.n_descsz;
		}
	}
	return 0;
}

uint32_t buildid_read(int fd, uint8_t ret[FSFILE_BUILD_ID_MAX])
{
	Elf64_Phdr headers[64];
	uint8_t notes[4096];
	Elf64_Ehdr elf;
	ssize_t got;
	size_t n;

	if (pread(fd, &elf, sizeof(elf), 0) != sizeof(elf) || memcmp(elf.e_ident, ELFMAG, SELFMAG) || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
	    elf.e_phentsize != sizeof(*headers) || elf.e_phoff > INT64_MAX)
		return 0;
	n = MIN((size_t)elf.e_phnum, ARRAY_SIZE(headers));
	if (pread(fd, headers, n * sizeof(*headers), elf.e_phoff) != (ssize_t)(n * sizeof(*headers)))
		return 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t len;

		if (headers[i].p_type != PT_NOTE || headers[i].p_offset > INT64_MAX)
			continue;
		got = pread(fd, notes, MIN(headers[i].p_filesz, sizeof(notes)), headers[i].p_offset);
		len = got > 0 ? find_note(notes, got, ret) : 0;
		if (len)
			return len;
	}
	return 0;
}
