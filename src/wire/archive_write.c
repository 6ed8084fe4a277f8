/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_write.c - writing an image; see archive.h */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <zstd.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"
#include "wire/crc32c.h"

#define LEVEL 1              /* of compression: faster than most disks */
#define WORTH_BYTES 128u     /* smaller payloads are stored as they are */
#define NAME_TRIES 16

struct waiting {
	struct waiting *next;
	enum archive_kind kind;
	uint32_t stream, type;
	size_t len;
	struct archive_span *spans; /* NULL, 0: pages of it are not looked at */
	size_t nspans;
	uint8_t data[];
};

struct archive_writer {
	int directory, fd;
	char name[NAME_MAX + 1], path[PATH_MAX];
	char temporary[NAME_MAX + 1]; /* "": it has no name yet */
	bool compress, published;
	uint32_t number;
	uint64_t raw_bytes, file_bytes;
	ZSTD_CCtx *zstd;
	bool has_key;
	struct archive_key key;
	struct archive_cipher *cipher;
	uint8_t *packed, *sealed;
	size_t packed_room, sealed_room;
	struct waiting *first, **last;
	size_t waiting_bytes, waiting_max;
	struct archive_chain *chain; /* NULL: of none */
	gnutls_hash_hd_t hash;       /* of all that is in the file; NULL: none */
};

/* Fills in a name that nobody has. */
static int choose_name(struct archive_writer *w, struct err *e)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_sys(e, -errno, "random numbers");
	snprintf(w->temporary, sizeof(w->temporary), ".%.200s.%016llx", w->name, (unsigned long long)random);
	return 0;
}

/* A file that nobody sees where the file system has such, so that a writer that is killed leaves nothing behind. */
static int open_file(struct archive_writer *w, struct err *e)
{
	w->fd = openat(w->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	for (int i = 0; w->fd < 0 && i < NAME_TRIES; i++) {
		if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT && errno != EEXIST)
			break;
		if (choose_name(w, e) < 0)
			return e ? e->code : -EIO;
		w->fd = openat(w->directory, w->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	if (w->fd < 0) {
		w->temporary[0] = 0;
		return err_sys(e, -errno, "%s", w->path);
	}
	return fchmod(w->fd, 0600) < 0 ? err_sys(e, -errno, "%s", w->path) : 0;
}

static int open_directory(struct archive_writer *w, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char directory[PATH_MAX];
	struct stat st;

	if (!slash || !slash[1] || strlen(path) >= sizeof(w->path) || strlen(slash + 1) > NAME_MAX - 20)
		return err_set(e, -EINVAL, "%s: an absolute path of a file is expected", path);
	snprintf(w->path, sizeof(w->path), "%s", path);
	snprintf(w->name, sizeof(w->name), "%s", slash + 1);
	snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
	w->directory = open(directory[0] ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->directory < 0)
		return err_sys(e, -errno, "%s", directory);
	if (fstatat(w->directory, w->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
		return err_set(e, -EEXIST, "%s is there already, and no regular file: name another one", path);
	return 0;
}

/* Another one each time: numbers of records are used again. */
static int new_cipher(struct archive_writer *w, struct archive_file_header *h, struct err *e)
{
	archive_cipher_close(w->cipher);
	w->cipher = NULL;
	if (!w->has_key)
		return 0;
	h->flags |= FILE_ENCRYPTED;
	if (getrandom(h->salt, sizeof(h->salt), 0) != (ssize_t)sizeof(h->salt))
		return err_sys(e, -errno, "random numbers");
	return archive_cipher_open(&w->key, h->salt, &w->cipher, e);
}

static void free_waiting(struct waiting *one)
{
	free(one->spans);
	free(one);
}

static void forget_waiting(struct archive_writer *w)
{
	while (w->first) {
		struct waiting *next = w->first->next;

		free_waiting(w->first);
		w->first = next;
	}
}

static int begin_chain(struct archive_writer *w, const struct archive_file_header *h, struct err *e)
{
	int ret = w->chain ? chain_begin(w->chain, e) : 0;

	if (ret < 0 || !w->chain)
		return ret;
	if (w->hash)
		gnutls_hash_deinit(w->hash, NULL);
	w->hash = NULL;
	if (gnutls_hash_init(&w->hash, GNUTLS_DIG_SHA256) < 0 || gnutls_hash(w->hash, h, sizeof(*h)) < 0)
		return err_set(e, -EIO, "%s: no SHA-256", w->path);
	return 0;
}

int archive_restart(struct archive_writer *w, struct err *e)
{
	struct archive_file_header h = { .magic = FILE_MAGIC, .version = ARCHIVE_VERSION };

	if (new_cipher(w, &h, e) < 0)
		return e ? e->code : -EIO;
	forget_waiting(w);
	w->last = &w->first;
	w->waiting_bytes = w->waiting_max = 0;
	w->number = 0;
	w->raw_bytes = 0;
	w->file_bytes = sizeof(h);
	h.crc = crc32c(0, &h, offsetof(struct archive_file_header, crc));
	if (ftruncate(w->fd, 0) < 0 || lseek(w->fd, 0, SEEK_SET) < 0 || write(w->fd, &h, sizeof(h)) != (ssize_t)sizeof(h))
		return err_sys(e, errno ? -errno : -ENOSPC, "%s", w->path);
	return begin_chain(w, &h, e);
}

int archive_use_chain(struct archive_writer *w, struct archive_chain *c, const char *name, struct err *e)
{
	if (w->has_key)
		return err_set(e, -EINVAL, "images of a chain cannot be encrypted: leave out --key, or --incremental");
	if (strlen(name) >= sizeof(c->own.name) || name[0] == '.' || !name[0] || strchr(name, '/'))
		return err_set(e, -EINVAL, "%s: no name for an image of a chain", name);
	memset(c->own.name, 0, sizeof(c->own.name));
	snprintf(c->own.name, sizeof(c->own.name), "%s", name);
	w->chain = c;
	return archive_restart(w, e);
}

int archive_create(const char *path, bool compress, const struct archive_key *key, struct archive_writer **ret, struct err *e)
{
	struct archive_writer *w = calloc(1, sizeof(*w));
	int code;

	if (!w)
		return err_sys(e, -ENOMEM, "%s", path);
	w->directory = w->fd = -1;
	w->last = &w->first;
	w->compress = compress;
	w->has_key = key;
	if (key)
		w->key = *key;
	code = open_directory(w, path, e);
	if (code == 0)
		code = open_file(w, e);
	if (code == 0 && compress) {
		w->zstd = ZSTD_createCCtx();
		code = w->zstd ? 0 : err_sys(e, -ENOMEM, "%s", path);
	}
	if (code == 0)
		code = archive_restart(w, e);
	if (code < 0)
		archive_discard(w, false);
	else
		*ret = w;
	return code;
}

static int write_all(struct archive_writer *w, struct iovec *iov, int n, struct err *e)
{
	for (int i = 0; w->hash && i < n; i++)
		if (gnutls_hash(w->hash, iov[i].iov_base, iov[i].iov_len) < 0)
			return err_set(e, -EIO, "%s: no SHA-256", w->path);
	while (n) {
		ssize_t done = writev(w->fd, iov, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(e, done ? -errno : -ENOSPC, "%s", w->path);
		w->file_bytes += (uint64_t)done;
		for (; n && (size_t)done >= iov->iov_len; iov++, n--)
			done -= (ssize_t)iov->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

/* 0: it is not worth it. */
static size_t compress(struct archive_writer *w, const void *data, size_t len)
{
	size_t n;

	if (!w->compress || len < WORTH_BYTES || !archive_make_room(&w->packed, &w->packed_room, ZSTD_compressBound(len)))
		return 0;
	n = ZSTD_compressCCtx(w->zstd, w->packed, w->packed_room, data, len, LEVEL);
	return ZSTD_isError(n) || n >= len ? 0 : n;
}

/* What h says is stored, encrypted; h says so then. NULL on failure. */
static const void *seal(struct archive_writer *w, struct archive_header *h, const void *stored, struct err *e)
{
	size_t len = h->stored;

	if (!archive_make_room(&w->sealed, &w->sealed_room, len + ARCHIVE_TAG_BYTES)) {
		err_sys(e, -ENOMEM, "%s", w->path);
		return NULL;
	}
	h->flags |= RECORD_SEALED;
	h->stored += ARCHIVE_TAG_BYTES;
	return archive_cipher_seal(w->cipher, h, stored, len, w->sealed, e) < 0 ? NULL : w->sealed;
}

static int write_record(struct archive_writer *w, enum archive_kind kind, uint32_t stream, uint32_t type, const void *data, size_t len, struct err *e)
{
	struct archive_header h = { .magic = RECORD_MAGIC, .kind = (uint16_t)kind, .stream = stream, .type = type, .len = (uint32_t)len, .number = w->number++ };
	size_t packed = compress(w, data, len);
	const void *stored = packed ? w->packed : data;
	struct iovec iov[2];

	h.flags = packed ? RECORD_ZSTD : 0;
	h.stored = (uint32_t)(packed ? packed : len);
	if (w->cipher && (stored = seal(w, &h, stored, e)) == NULL)
		return e ? e->code : -EIO;
	h.crc = crc32c(crc32c(0, &h, offsetof(struct archive_header, crc)), stored, h.stored);
	w->raw_bytes += len;
	iov[0] = (struct iovec){ &h, sizeof(h) };
	iov[1] = (struct iovec){ (void *)(uintptr_t)stored, h.stored };
	return write_all(w, iov, h.stored ? 2 : 1, e);
}

/* Which images it needs, behind its head. */
static int write_links(struct archive_writer *w, struct err *e)
{
	struct {
		struct archive_links_head head;
		struct archive_link links[ARCHIVE_LINKS_MAX];
	} all = { .head.n = w->chain->nlinks };

	memcpy(all.head.id, w->chain->own.id, sizeof(all.head.id));
	memcpy(all.links, w->chain->links, w->chain->nlinks * sizeof(all.links[0]));
	return write_record(w, ARCHIVE_LINK, 0, 0, &all, sizeof(all.head) + w->chain->nlinks * sizeof(all.links[0]), e);
}

static int write_one(struct archive_writer *w, const struct waiting *one, const void *data, struct err *e)
{
	cleanup_free uint8_t *encoded = NULL;
	uint32_t pages = 0;
	size_t len = 0;
	int ret;

	if (w->chain && one->kind == ARCHIVE_PAGES) {
		ret = chain_encode(w->chain, data, one->len, one->spans, one->nspans, &encoded, &len, &pages, e);
		return ret < 0 ? ret : write_record(w, ARCHIVE_DELTA, one->stream, pages, encoded, len, e);
	}
	ret = write_record(w, one->kind, one->stream, one->type, data, one->len, e);
	return ret == 0 && w->chain && one->kind == ARCHIVE_HEAD ? write_links(w, e) : ret;
}

void archive_defer(struct archive_writer *w, size_t max_bytes)
{
	w->waiting_max = max_bytes;
}

int archive_flush(struct archive_writer *w, struct err *e)
{
	int ret = 0;

	while (w->first && ret == 0) {
		struct waiting *one = w->first;

		ret = write_one(w, one, one->data, e);
		w->first = one->next;
		free_waiting(one);
	}
	if (!w->first) {
		w->last = &w->first;
		w->waiting_bytes = 0;
	}
	return ret;
}

static int put(struct archive_writer *w, const struct waiting *what, const void *data, struct err *e)
{
	struct waiting *one;

	if (what->len > archive_limit(what->kind))
		return err_set(e, -EFBIG, "%s: a record of %zu bytes", w->path, what->len);
	if (w->waiting_bytes + what->len > w->waiting_max) {
		int ret = archive_flush(w, e);

		return ret < 0 ? ret : write_one(w, what, data, e);
	}
	one = malloc(sizeof(*one) + what->len);
	if (!one)
		return err_sys(e, -ENOMEM, "%s", w->path);
	*one = *what;
	one->spans = NULL;
	if (what->nspans) {
		one->spans = reallocarray(NULL, what->nspans, sizeof(*one->spans));
		if (!one->spans) {
			free(one);
			return err_sys(e, -ENOMEM, "%s", w->path);
		}
		memcpy(one->spans, what->spans, what->nspans * sizeof(*one->spans));
	}
	if (what->len)
		memcpy(one->data, data, what->len);
	*w->last = one;
	w->last = &one->next;
	w->waiting_bytes += what->len;
	return 0;
}

int archive_put(struct archive_writer *w, enum archive_kind kind, uint32_t stream, uint32_t type, const void *data, size_t len, struct err *e)
{
	return put(w, &(struct waiting){ .kind = kind, .stream = stream, .type = type, .len = len }, data, e);
}

int archive_put_pages(struct archive_writer *w, uint32_t stream, const void *data, size_t len, const struct archive_span *spans, size_t nspans, struct err *e)
{
	return put(w, &(struct waiting){ .kind = ARCHIVE_PAGES, .stream = stream, .len = len, .spans = (struct archive_span *)(uintptr_t)spans, .nspans = w->chain ? nspans : 0 }, data, e);
}

int archive_seal(struct archive_writer *w, struct err *e)
{
	int ret = archive_flush(w, e);

	w->waiting_max = 0;
	if (ret == 0)
		ret = write_record(w, ARCHIVE_END, 0, 0, NULL, 0, e);
	if (ret == 0 && fsync(w->fd) < 0)
		ret = err_sys(e, -errno, "%s", w->path);
	if (ret == 0 && w->hash) {
		gnutls_hash_output(w->hash, w->chain->own.digest);
		w->chain->own.bytes = w->file_bytes;
	}
	return ret;
}

void archive_chain_grow(struct archive_writer *w)
{
	chain_add(w->chain);
}

int archive_publish(struct archive_writer *w, struct err *e)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", w->fd);
	for (int i = 0; !w->temporary[0] && i < NAME_TRIES; i++) {
		if (choose_name(w, e) < 0)
			return e ? e->code : -EIO;
		if (linkat(AT_FDCWD, link, w->directory, w->temporary, AT_SYMLINK_FOLLOW) < 0) {
			w->temporary[0] = 0;
			if (errno != EEXIST)
				return err_sys(e, -errno, "%s", w->path);
		}
	}
	if (renameat(w->directory, w->temporary, w->directory, w->name) < 0)
		return err_sys(e, -errno, "%s", w->path);
	w->temporary[0] = 0;
	w->published = true;
	return fsync(w->directory) < 0 ? err_sys(e, -errno, "%s", w->path) : 0;
}

uint64_t archive_raw_bytes(const struct archive_writer *w)
{
	return w->raw_bytes;
}

uint64_t archive_file_bytes(const struct archive_writer *w)
{
	return w->file_bytes;
}

void archive_forget(struct archive_writer *w)
{
	forget_waiting(w);
	if (w->hash)
		gnutls_hash_deinit(w->hash, NULL);
	close_fdp(&w->fd);
	close_fdp(&w->directory);
	ZSTD_freeCCtx(w->zstd);
	archive_cipher_close(w->cipher);
	explicit_bzero(&w->key, sizeof(w->key));
	free(w->packed);
	free(w->sealed);
	free(w);
}

void archive_discard(struct archive_writer *w, bool published)
{
	if (!w)
		return;
	if (w->temporary[0])
		unlinkat(w->directory, w->temporary, 0);
	if (w->published && published)
		unlinkat(w->directory, w->name, 0);
	archive_forget(w);
}
