// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_image.c - files that are said to be images. The first byte says what the others are: 0 a file; 1 records (kind, flags, u16 length, u16 stored, payload), which
 * get right checksums and numbers, so that what is behind those is reached; 2 a u32 length of a summary, that summary, and an offer or news of files to be brought up to date;
 * 3 as 1, encrypted, for a reader with the key; 4 a file, for such a reader; 5 a u16 length of records of an image, and records of one that says what is new since that one, which is its first link
 */
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/image_read.h"
#include "wire/archive_chain_internal.h"
#include "wire/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static volatile uint8_t sink;

static void write_or_abort(int fd, const void *data, size_t len)
{
	if (write(fd, data, len) != (ssize_t)len)
		abort();
}

/* As the writer would count them. */
static uint32_t pages_in(const uint8_t *p, size_t len)
{
	struct archive_delta_head h;
	uint32_t n = 0;

	if (len < sizeof(h))
		return 0;
	memcpy(&h, p, sizeof(h));
	for (uint32_t i = 0; i < h.npieces && sizeof(h) + (i + 1) * sizeof(struct archive_piece) <= len; i++) {
		struct archive_piece piece;

		memcpy(&piece, p + sizeof(h) + i * sizeof(piece), sizeof(piece));
		n += piece.source == PIECE_PAGES ? piece.count : 0;
	}
	return n;
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
		struct archive_header h = { .magic = RECORD_MAGIC, .kind = p[0], .flags = p[1], .number = number };
		uint8_t sealed[UINT16_MAX + ARCHIVE_TAG_BYTES];
		const uint8_t *payload = p;
		uint16_t whole, stored;

		number++;
		memcpy(&whole, p + 2, sizeof(whole));
		memcpy(&stored, p + 4, sizeof(stored));
		p += 6;
		len -= 6;
		h.len = whole;
		stored = (uint16_t)MIN((size_t)stored, len);
		h.stored = stored;
		if (h.kind == ARCHIVE_DELTA && !(h.flags & RECORD_ZSTD))
			h.type = pages_in(p, stored);
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

/* What nobody could guess: that the first link of a second record is the file of that descriptor. */
static void point_to(int parent, uint8_t *p, size_t len)
{
	static uint8_t whole[1 << 20];
	struct archive_links_head head;
	struct archive_link link;
	ssize_t n = pread(parent, whole, sizeof(whole), 0);

	if (n < 0 || len < sizeof(head) + sizeof(link))
		return;
	memcpy(&link, p + sizeof(head), sizeof(link));
	link.bytes = (uint64_t)n;
	memset(link.name, 0, sizeof(link.name));
	snprintf(link.name, sizeof(link.name), "%d", parent);
	gnutls_hash_fast(GNUTLS_DIG_SHA256, whole, (size_t)n, link.digest);
	memcpy(p + sizeof(head), &link, sizeof(link));
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

/* Both files are in a directory of this process's. */
static void read_chain(const uint8_t *data, size_t len)
{
	static char directory[] = "/tmp/godwit-fuzz-XXXXXX";
	static bool made;
	char parent_path[64], path[64];
	struct archive_reader *r = NULL;
	struct archive_record record;
	struct err e = ERR_INIT;
	uint8_t *copy;
	uint16_t n;
	int parent, fd, ret;

	if (len < sizeof(n) || (!made && !mkdtemp(directory)))
		return;
	made = true;
	memcpy(&n, data, sizeof(n));
	n = (uint16_t)MIN((size_t)n, len - sizeof(n));
	snprintf(path, sizeof(path), "%s/image", directory);
	parent = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	copy = malloc(len);
	if (parent < 0 || fd < 0 || !copy)
		abort();
	snprintf(parent_path, sizeof(parent_path), "/proc/self/fd/%d", parent);
	make_records(parent, NULL, data + sizeof(n), n);
	len -= sizeof(n) + n;
	memcpy(copy, data + sizeof(n) + n, len);
	for (size_t at = 0; at + 6 <= len;) { /* its records */
		uint16_t stored;

		memcpy(&stored, copy + at + 4, sizeof(stored));
		at += 6;
		if (copy[at - 6] == ARCHIVE_LINK)
			point_to(parent, copy + at, MIN((size_t)stored, len - at));
		at += stored;
	}
	make_records(fd, NULL, copy, len);
	free(copy);
	snprintf(path, sizeof(path), "%s/%d", directory, parent);
	unlink(path);
	if (linkat(AT_FDCWD, parent_path, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
		abort();
	snprintf(parent_path, sizeof(parent_path), "%s/image", directory);
	ret = archive_open(parent_path, fd, NULL, &r, &e);
	while (ret >= 0 && (ret = archive_next(r, true, &record, &e)) > 0)
		for (size_t i = 0; i < record.len; i += 512)
			sink ^= record.data[i]; /* all of it can be read */
	if (ret < 0 && !e.message[0])
		abort();
	archive_close(r);
	close(parent);
	unlink(path);
	unlink(parent_path);
	rmdir(directory);
	made = false;
	memcpy(strrchr(directory, '-'), "-XXXXXX", 8);
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
	else if (len && data[0] == 5)
		read_chain(data + 1, len - 1);
	else if (len)
		read_file(data + 1, len - 1, data[0] == 1 || data[0] == 3, data[0] >= 3 ? &key : NULL);
	return 0;
}
