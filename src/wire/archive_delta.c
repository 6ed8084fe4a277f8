/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_delta.c - which pages of a payload are to be written, and the index of those that have been; see archive_chain.h */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"
#include "wire/crc32c.h"

#define INDEX_MAGIC "GODWITIX"
#define ROOM_MIN 4096u

struct index_header {
	char magic[8];
	uint32_t nlinks, reserved;
	uint64_t n;
	char unit[ARCHIVE_UNIT_MAX];
	uint32_t reserved2, crc; /* crc: of links and pages */
};

/* --- pages --- */

static int hash_page(const void *page, struct page_hash *ret)
{
	uint8_t digest[32];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, page, ARCHIVE_PAGE_BYTES, digest) < 0)
		return -EIO;
	memcpy(ret->bytes, digest, sizeof(ret->bytes));
	return 0;
}

static size_t slot_of(const struct archive_chain *c, const struct page_hash *h)
{
	uint64_t first;
	size_t i;

	memcpy(&first, h->bytes, sizeof(first));
	for (i = first & (c->room - 1); c->table[i].image != UINT32_MAX && memcmp(&c->table[i].hash, h, sizeof(*h)) != 0; i = (i + 1) & (c->room - 1))
		;
	return i;
}

const struct page_entry *chain_find(const struct archive_chain *c, const struct page_hash *h)
{
	size_t i = c->room ? slot_of(c, h) : 0;

	return c->room && c->table[i].image != UINT32_MAX ? &c->table[i] : NULL;
}

/* Room for n pages more. */
static int grow(struct archive_chain *c, size_t n)
{
	struct page_entry *old = c->table;
	size_t before = c->room, room = MAX(before, ROOM_MIN);

	while (room < (c->n + n) * 4 / 3 + 1)
		room *= 2;
	if (room == before)
		return 0;
	c->table = malloc(room * sizeof(*c->table));
	if (!c->table) {
		c->table = old;
		return -ENOMEM;
	}
	memset(c->table, 0xff, room * sizeof(*c->table));
	c->room = room;
	for (size_t i = 0; i < before; i++)
		if (old[i].image != UINT32_MAX)
			c->table[slot_of(c, &old[i].hash)] = old[i];
	free(old);
	return 0;
}

static void insert(struct archive_chain *c, const struct page_hash *h, uint32_t image, uint32_t page)
{
	size_t i = slot_of(c, h);

	if (c->table[i].image != UINT32_MAX || c->n >= ARCHIVE_INDEX_PAGES_MAX)
		return;
	c->table[i] = (struct page_entry){ *h, image, page };
	c->n++;
}

/* --- a payload --- */

struct encoder {
	struct archive_chain *chain;
	struct archive_piece *pieces;
	uint8_t *out;     /* what is in it */
	size_t npieces, len;
	uint32_t pages;
};

static void put(struct encoder *x, struct archive_piece p)
{
	if (x->npieces) {
		struct archive_piece *last = &x->pieces[x->npieces - 1];

		if (last->source == p.source && (p.source >= PIECE_PAGES || last->first + last->count == p.first)) {
			last->count += p.count;
			return;
		}
	}
	x->pieces[x->npieces++] = p;
}

static void put_bytes(struct encoder *x, const uint8_t *data, size_t len)
{
	if (!len)
		return;
	put(x, (struct archive_piece){ PIECE_BYTES, (uint32_t)len, 0 });
	memcpy(x->out + x->len, data, len);
	x->len += len;
}

static int put_page(struct encoder *x, const uint8_t *data)
{
	struct archive_chain *c = x->chain;
	const struct page_entry *found;
	struct page_hash h;

	if (hash_page(data, &h) < 0)
		return -EIO;
	found = chain_find(c, &h);
	if (found) {
		put(x, (struct archive_piece){ found->image, 1, found->page });
		return 0;
	}
	if (c->nfresh == c->fresh_room) {
		size_t room = MAX(2 * c->fresh_room, 1024u);
		struct page_hash *grown = reallocarray(c->fresh, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		c->fresh = grown;
		c->fresh_room = room;
	}
	c->fresh[c->nfresh++] = h;
	put(x, (struct archive_piece){ PIECE_PAGES, 1, 0 });
	memcpy(x->out + x->len, data, ARCHIVE_PAGE_BYTES);
	x->len += ARCHIVE_PAGE_BYTES;
	x->pages++;
	return 0;
}

static int put_all(struct encoder *x, const uint8_t *data, size_t len, const struct archive_span *spans, size_t nspans)
{
	size_t at = 0;
	int ret = 0;

	for (size_t i = 0; i < nspans; i++) {
		put_bytes(x, data + at, spans[i].at - at);
		for (uint32_t k = 0; k < spans[i].npages && ret == 0; k++)
			ret = put_page(x, data + spans[i].at + (size_t)k * ARCHIVE_PAGE_BYTES);
		at = spans[i].at + (size_t)spans[i].npages * ARCHIVE_PAGE_BYTES;
	}
	put_bytes(x, data + at, len - at);
	return ret;
}

int chain_encode(struct archive_chain *c, const uint8_t *data, size_t len, const struct archive_span *spans, size_t nspans, uint8_t **ret, size_t *ret_len, uint32_t *ret_pages,
		 struct err *e)
{
	size_t most = 2 * nspans + 1, head, at = 0;
	cleanup_free struct archive_piece *pieces = NULL;
	cleanup_free uint8_t *out = malloc(len + 1);
	struct encoder x = { .chain = c, .out = out };
	uint8_t *all;
	int r;

	for (size_t i = 0; i < nspans; i++) {
		if (spans[i].at < at || spans[i].npages > len / ARCHIVE_PAGE_BYTES || spans[i].at > len - (size_t)spans[i].npages * ARCHIVE_PAGE_BYTES)
			return err_set(e, -EINVAL, "pages that are not in the record");
		at = spans[i].at + (size_t)spans[i].npages * ARCHIVE_PAGE_BYTES;
		most += spans[i].npages;
	}
	x.pieces = pieces = reallocarray(NULL, most, sizeof(*pieces));
	r = out && pieces ? put_all(&x, data, len, spans, nspans) : -ENOMEM;
	if (r < 0)
		return err_sys(e, r, "pages of an image");
	head = sizeof(struct archive_delta_head) + x.npieces * sizeof(*pieces);
	all = malloc(head + x.len);
	if (!all)
		return err_sys(e, -ENOMEM, "pages of an image");
	memcpy(all, &(struct archive_delta_head){ (uint32_t)x.npieces, (uint32_t)len }, sizeof(struct archive_delta_head));
	memcpy(all + sizeof(struct archive_delta_head), pieces, x.npieces * sizeof(*pieces));
	memcpy(all + head, out, x.len);
	*ret = all;
	*ret_len = head + x.len;
	*ret_pages = x.pages;
	return 0;
}

/* --- the chain --- */

int archive_chain_new(struct archive_chain **ret, struct err *e)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : err_sys(e, -ENOMEM, "the index of a chain");
}

void archive_chain_free(struct archive_chain *c)
{
	if (!c)
		return;
	free(c->table);
	free(c->fresh);
	free(c);
}

int chain_begin(struct archive_chain *c, struct err *e)
{
	c->nfresh = 0;
	if (c->nlinks >= ARCHIVE_LINKS_MAX)
		return err_set(e, -EFBIG, "the chain is too long");
	return getrandom(c->own.id, sizeof(c->own.id), 0) == (ssize_t)sizeof(c->own.id) ? 0 : err_sys(e, -errno, "random numbers");
}

void chain_add(struct archive_chain *c)
{
	bool room = c->nfresh < UINT32_MAX && grow(c, c->nfresh) == 0;

	for (size_t i = 0; room && i < c->nfresh; i++)
		insert(c, &c->fresh[i], c->nlinks, (uint32_t)i);
	c->links[c->nlinks++] = c->own;
	c->nfresh = 0;
}

const struct archive_link *archive_chain_links(const struct archive_chain *c, uint32_t *ret_n)
{
	*ret_n = c->nlinks;
	return c->links;
}

const char *archive_chain_unit(const struct archive_chain *c)
{
	return c->unit;
}

void archive_chain_name_unit(struct archive_chain *c, const char *unit)
{
	snprintf(c->unit, sizeof(c->unit), "%s", unit);
}

/* --- the index --- */

static uint32_t checksum(const struct archive_chain *c, const struct page_entry *pages, size_t n)
{
	uint32_t crc = crc32c(0, c->unit, sizeof(c->unit));

	return crc32c(crc32c(crc, c->links, c->nlinks * sizeof(c->links[0])), pages, n * sizeof(*pages));
}

static int read_index(int fd, const char *path, struct archive_chain *c, struct err *e)
{
	cleanup_free struct page_entry *pages = NULL;
	struct index_header h;
	struct stat st;

	if (fstat(fd, &st) < 0 || read(fd, &h, sizeof(h)) != (ssize_t)sizeof(h) || memcmp(h.magic, INDEX_MAGIC, sizeof(h.magic)) != 0 || h.nlinks > ARCHIVE_LINKS_MAX ||
	    h.n > ARCHIVE_INDEX_PAGES_MAX || (uint64_t)st.st_size != sizeof(h) + h.nlinks * sizeof(c->links[0]) + h.n * sizeof(*pages))
		return err_set(e, -EBADMSG, "%s is no index of a chain", path);
	pages = malloc(h.n * sizeof(*pages) + 1);
	if (!pages)
		return err_sys(e, -ENOMEM, "%s", path);
	c->nlinks = h.nlinks;
	memcpy(c->unit, h.unit, sizeof(c->unit));
	c->unit[sizeof(c->unit) - 1] = 0;
	if (read(fd, c->links, h.nlinks * sizeof(c->links[0])) != (ssize_t)(h.nlinks * sizeof(c->links[0])) || read(fd, pages, h.n * sizeof(*pages)) != (ssize_t)(h.n * sizeof(*pages)) ||
	    checksum(c, pages, h.n) != h.crc)
		return err_set(e, -EBADMSG, "%s has been altered", path);
	if (grow(c, h.n) < 0)
		return err_sys(e, -ENOMEM, "%s", path);
	for (size_t i = 0; i < h.n; i++)
		if (pages[i].image < h.nlinks)
			insert(c, &pages[i].hash, pages[i].image, pages[i].page);
	return 0;
}

int archive_chain_load(const char *path, struct archive_chain **ret, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_chain struct archive_chain *c = NULL;
	int r;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_sys(e, -errno, "%s", path);
	r = archive_chain_new(&c, e);
	if (r == 0)
		r = read_index(fd, path, c, e);
	if (r == 0)
		*ret = take_ptr(c);
	return r;
}

static bool write_whole(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)data + done, len - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

int archive_chain_save(const struct archive_chain *c, const char *path, struct err *e)
{
	struct index_header h = { .magic = INDEX_MAGIC, .nlinks = c->nlinks, .n = c->n };
	cleanup_free struct page_entry *pages = malloc(c->n * sizeof(*pages) + 1);
	cleanup_close int fd = -1;
	char fresh[PATH_MAX];
	size_t n = 0;

	if (!pages || (size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return err_sys(e, pages ? -ENAMETOOLONG : -ENOMEM, "%s", path);
	for (size_t i = 0; i < c->room; i++)
		if (c->table[i].image != UINT32_MAX)
			pages[n++] = c->table[i];
	memcpy(h.unit, c->unit, sizeof(h.unit));
	h.crc = checksum(c, pages, n);
	unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "%s", fresh);
	errno = 0;
	if (!write_whole(fd, &h, sizeof(h)) || !write_whole(fd, c->links, c->nlinks * sizeof(c->links[0])) || !write_whole(fd, pages, n * sizeof(*pages)) || rename(fresh, path) < 0) {
		err_sys(e, errno ? -errno : -ENOSPC, "%s", path);
		unlink(fresh);
		return e ? e->code : -EIO;
	}
	return 0;
}
