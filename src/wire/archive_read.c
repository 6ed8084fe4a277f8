/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_read.c - reading an image, of which nothing is believed; see archive.h */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"
#include "wire/crc32c.h"

int archive_broken(const struct archive_reader *r, const char *why, struct err *e)
{
	return err_set(e, -EBADMSG, "%s is no whole image: %s (record %u, byte %llu)", r->path, why, r->number, (unsigned long long)r->at);
}

/* Exactly len bytes; -EBADMSG when there are fewer. */
static int read_exactly(struct archive_reader *r, void *to, size_t len, struct err *e)
{
	if (len > r->size - r->at)
		return archive_broken(r, "it has been cut off", e);
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(r->fd, (char *)to + got, len - got, (off_t)(r->at + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "%s", r->path);
		if (!n)
			return archive_broken(r, "it has been cut off", e);
		got += (size_t)n;
	}
	r->at += len;
	return 0;
}

static int read_header(struct archive_reader *r, const struct archive_key *key, struct err *e)
{
	struct archive_file_header h;
	struct stat st;
	int ret;

	if (fstat(r->fd, &st) < 0)
		return err_sys(e, -errno, "%s", r->path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EBADMSG, "%s is no regular file", r->path);
	r->size = (uint64_t)st.st_size;
	if (r->size < sizeof(h))
		return err_set(e, -EBADMSG, "%s is no image of Godwit's: it has %llu bytes", r->path, (unsigned long long)r->size);
	ret = read_exactly(r, &h, sizeof(h), e);
	if (ret < 0)
		return ret;
	if (memcmp(h.magic, FILE_MAGIC, sizeof(h.magic)) != 0)
		return err_set(e, -EBADMSG, "%s is no image of Godwit's", r->path);
	if (h.crc != crc32c(0, &h, offsetof(struct archive_file_header, crc)))
		return archive_broken(r, "its header has been altered", e);
	if (h.version != ARCHIVE_VERSION || h.flags & ~FILE_ENCRYPTED)
		return err_set(e, -EPROTONOSUPPORT, "%s is an image of version %u.%u, and this Godwit reads version %u", r->path, h.version, h.flags, ARCHIVE_VERSION);
	if (r->cipher) /* read again */
		return h.flags && !memcmp(h.salt, r->salt, sizeof(r->salt)) ? 0 : archive_broken(r, "it is another one than before", e);
	if (h.flags && !key)
		return err_set(e, -ENOKEY, "%s is encrypted: name the file with its key (--key FILE)", r->path);
	if (!h.flags && key)
		return err_set(e, -EBADMSG, "%s is not encrypted, and so was not made with that key: without --key it is used all the same", r->path);
	memcpy(r->salt, h.salt, sizeof(r->salt));
	return key ? archive_cipher_open(key, h.salt, &r->cipher, e) : 0;
}

int archive_open(const char *path, int fd, const struct archive_key *key, struct archive_reader **ret, struct err *e)
{
	struct archive_reader *r = calloc(1, sizeof(*r));
	int code;

	if (!r) {
		close_fdp(&fd);
		return err_sys(e, -ENOMEM, "%s", path);
	}
	snprintf(r->path, sizeof(r->path), "%s", path);
	r->fd = fd >= 0 ? fd : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	code = r->fd < 0 ? err_sys(e, -errno, "%s", path) : read_header(r, key, e);
	if (code < 0)
		archive_close(r);
	else
		*ret = r;
	return code;
}

static int make_room(uint8_t **buffer, size_t *room, size_t len, struct err *e)
{
	return archive_make_room(buffer, room, len) ? 0 : err_sys(e, -ENOMEM, "an image");
}

static int check_header(struct archive_reader *r, const struct archive_header *h, struct err *e)
{
	uint32_t tag = r->cipher ? ARCHIVE_TAG_BYTES : 0, sealed = r->cipher ? RECORD_SEALED : 0;
	bool fits = h->stored >= tag && (h->flags & RECORD_ZSTD ? h->stored - tag < h->len : h->stored - tag == h->len);

	if (h->magic != RECORD_MAGIC || !archive_limit(h->kind) || h->len > archive_limit(h->kind) || (h->flags & ~RECORD_ZSTD) != sealed || !fits)
		return archive_broken(r, "something that is no record is in it", e);
	if (h->number != r->number)
		return archive_broken(r, "its records are out of order", e);
	if ((h->number == 0) != (h->kind == ARCHIVE_HEAD))
		return archive_broken(r, "its head is not at its beginning", e);
	return 0;
}

/* What is stored, decrypted: its length is h->stored from then on. */
static int unseal(struct archive_reader *r, struct archive_header *h, struct err *e)
{
	if (!r->cipher)
		return 0;
	if (archive_cipher_unseal(r->cipher, h, r->stored) < 0)
		return r->number ? archive_broken(r, "it has been altered by somebody without its key", e) :
			err_set(e, -EBADMSG, "%s was encrypted with another key, or has been altered", r->path);
	h->stored -= ARCHIVE_TAG_BYTES;
	return 0;
}

static int unpack(struct archive_reader *r, const struct archive_header *h, const uint8_t **ret, struct err *e)
{
	size_t n;
	int code;

	if (!(h->flags & RECORD_ZSTD)) {
		*ret = r->stored;
		return 0;
	}
	/* What it says itself is believed even less. */
	if (ZSTD_getFrameContentSize(r->stored, h->stored) != h->len)
		return archive_broken(r, "a record has another length than it says", e);
	code = make_room(&r->data, &r->data_room, h->len, e);
	if (code < 0)
		return code;
	n = ZSTD_decompress(r->data, h->len, r->stored, h->stored);
	if (ZSTD_isError(n) || n != h->len)
		return archive_broken(r, "a record cannot be decompressed", e);
	*ret = r->data;
	return 0;
}

/* One record, checked; its payload, when it has been unpacked, in *ret_data. */
static int take_record(struct archive_reader *r, bool want, struct archive_header *h, const uint8_t **ret_data, struct err *e)
{
	int code;

	r->record_at = r->at;
	code = read_exactly(r, h, sizeof(*h), e);
	if (code == 0)
		code = check_header(r, h, e);
	if (code == 0 && h->stored > r->size - r->at)
		code = archive_broken(r, "it has been cut off", e);
	if (code == 0)
		code = make_room(&r->stored, &r->stored_room, (size_t)h->stored + 1, e);
	if (code == 0)
		code = read_exactly(r, r->stored, h->stored, e);
	if (code < 0)
		return code;
	if (h->crc != crc32c(crc32c(0, h, offsetof(struct archive_header, crc)), r->stored, h->stored))
		return archive_broken(r, "it has been altered", e);
	code = unseal(r, h, e);
	if (code == 0 && (want || h->kind == ARCHIVE_LINK))
		code = unpack(r, h, ret_data, e);
	if (code < 0)
		return code;
	r->number++;
	r->read_bytes += h->len;
	return 0;
}

/* Which images it needs. Read again, it says the same again. */
static int take_links(struct archive_reader *r, const struct archive_header *h, const uint8_t *data, struct err *e)
{
	int code = 0;

	if (h->number != 1)
		return archive_broken(r, "what it says of its chain is not at its beginning", e);
	if (!r->parents)
		code = parents_decode(data, h->len, &r->parents, e);
	return code == -EBADMSG ? archive_broken(r, "what it says of its chain cannot be read", e) : code;
}

int archive_next(struct archive_reader *r, bool want, struct archive_record *ret, struct err *e)
{
	struct archive_header h;
	const uint8_t *data = NULL;
	size_t len;
	int code;

	if (r->ended)
		return 0;
	code = take_record(r, want, &h, &data, e);
	if (code == 0 && h.kind == ARCHIVE_LINK) {
		code = take_links(r, &h, data, e);
		return code < 0 ? code : archive_next(r, want, ret, e); /* it is the second one, so there is no other */
	}
	if (code < 0)
		return code;
	if (h.kind == ARCHIVE_END) {
		r->ended = true;
		return r->at == r->size ? 0 : archive_broken(r, "something has been appended to it", e);
	}
	len = h.len;
	if (h.kind == ARCHIVE_DELTA && !r->raw) {
		h.kind = ARCHIVE_PAGES;
		code = want ? parents_expand(r, &h, data, &data, &len, e) : 0;
		h.type = 0;
	}
	*ret = (struct archive_record){ (enum archive_kind)h.kind, h.stream, h.type, len, data };
	return code < 0 ? code : 1;
}

void archive_leave_pages(struct archive_reader *r)
{
	r->leave_pages = true;
}

int archive_rewind(struct archive_reader *r, struct err *e)
{
	r->at = r->read_bytes = 0;
	r->number = 0;
	r->ended = false;
	return read_header(r, NULL, e);
}

uint64_t archive_size(const struct archive_reader *r)
{
	return r->size;
}

uint64_t archive_read_bytes(const struct archive_reader *r)
{
	return r->read_bytes;
}

void archive_close(struct archive_reader *r)
{
	if (!r)
		return;
	close_fdp(&r->fd);
	archive_cipher_close(r->cipher);
	parents_free(r->parents);
	free(r->stored);
	free(r->data);
	free(r->whole);
	free(r);
}
