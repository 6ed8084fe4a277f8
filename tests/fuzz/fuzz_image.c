// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_image.c - files that are said to be images. The first byte says what the others are: 0 a file; 1 records (kind, flags, u16 length, u16 stored, payload), which
 * get right checksums and numbers, so that what is behind those is reached; 2 a u32 length of a summary, that summary, and an offer or news of files to be brought up to date;
 * 3 as 1, encrypted, for a reader with the key; 4 a file, for such a reader
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/image_read.h"
#include "wire/archive_internal.h"
#include "wire/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void write_or_abort(int fd, const void *data, size_t len)
{
	if (write(fd, data, len) != (ssize_t)len)
		abort();
}

/* With a key what is decrypted is what the fuzzer says: somebody has the key. */
static void make_records(int fd, const struct archive_key *key, const uint8_t *p, size_t len)
{
	struct archive_cipher *cipher = NULL;
	struct archive_file_header f = { .magic = FILE_MAGIC, .version = ARCHIVE_VERSION };
	uint32_t number = 0;

	f.flags = key ? FILE_ENCRYPTED : 0;
	if (key && archive_cipher_open(key, f.salt, &cipher, NULL) < 0)
		abort();
	f.crc = crc32c(0, &f, offsetof(struct archive_file_header, crc));
	write_or_abort(fd, &f, sizeof(f));
	while (len >= 6) {
		struct archive_header h = { .magic = RECORD_MAGIC, .kind = p[0], .flags = p[1], .number = number++ };
		uint8_t sealed[UINT16_MAX + ARCHIVE_TAG_BYTES];
		const uint8_t *payload = p;
		uint16_t whole, stored;

		memcpy(&whole, p + 2, sizeof(whole));
		memcpy(&stored, p + 4, sizeof(stored));
		p += 6;
		len -= 6;
		h.len = whole;
		stored = (uint16_t)MIN((size_t)stored, len);
		h.stored = stored;
		if (key) {
			h.stored += ARCHIVE_TAG_BYTES;
			h.flags ^= RECORD_SEALED;
			if (archive_cipher_seal(cipher, &h, p, stored, sealed, NULL) < 0)
				abort();
			payload = sealed;
		}
		h.crc = crc32c(crc32c(0, &h, offsetof(struct archive_header, crc)), payload, h.stored);
		write_or_abort(fd, &h, sizeof(h));
		write_or_abort(fd, payload, h.stored);
		p += stored;
		len -= stored;
	}
	archive_cipher_close(cipher);
}

static void read_file(const uint8_t *data, size_t len, bool records, const struct archive_key *key)
{
	struct archive_reader *r = NULL;
	struct image_facts facts = { 0 };
	struct archive_record record;
	struct err e = ERR_INIT;
	int fd = memfd_create("image", MFD_CLOEXEC), ret;

	if (fd < 0)
		abort();
	if (records)
		make_records(fd, key, data, len);
	else
		write_or_abort(fd, data, len);
	ret = archive_open("image", fd, key, &r, &e);
	if (ret == 0)
		ret = image_facts_read(r, &facts, &e);
	if (ret < 0 && !e.message[0])
		abort();
	/* What has been found whole once is whole again. */
	if (ret == 0 && archive_rewind(r, &e) < 0)
		abort();
	while (ret == 0 && (ret = archive_next(r, true, &record, &e)) > 0)
		ret = record.len && !record.data ? -1 : 0;
	if (facts.summary && ret < 0 && facts.head && !e.message[0])
		abort();
	image_facts_free(&facts);
	archive_close(r);
}

static void renew(const uint8_t *data, size_t len)
{
	const struct image_now now = { "n1", "n2", true };
	struct image_facts facts = { 0 };
	uint8_t *out = NULL;
	size_t out_len = 0, nprocs = 0;
	uint32_t nfiles = 0, n;
	struct err e = ERR_INIT;

	if (len < sizeof(n))
		return;
	memcpy(&n, data, sizeof(n));
	n = (uint32_t)MIN((size_t)n, len - sizeof(n));
	data += sizeof(n);
	len -= sizeof(n);
	facts.summary = gw__image_summary__unpack(NULL, n, data);
	if (!facts.summary)
		return;
	if (image_renew_offer(&facts, &now, data + n, len - n, &out, &out_len, &nfiles, &nprocs, &e) < 0 && !e.message[0])
		abort();
	free(out);
	out = NULL;
	if (image_renew_files(&facts, nfiles, data + n, len - n, &out, &out_len, &n, &e) < 0 && !e.message[0])
		abort();
	free(out);
	image_facts_free(&facts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct archive_key key = { { 1, 2, 3 } };

	if (len && data[0] == 2)
		renew(data + 1, len - 1);
	else if (len)
		read_file(data + 1, len - 1, data[0] == 1 || data[0] == 3, data[0] >= 3 ? &key : NULL);
	return 0;
}
