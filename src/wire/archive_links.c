/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * archive_links.c - reading an image of a chain: the images that it needs, and payloads put together from them; see archive_chain.h
 *
 * Of those images nothing is believed either: each is the file that was there when this one was made, or is refused. What they need themselves is not looked at: who refers to a page names the image that has it.
 * A few of their records are kept unpacked, since pages that lay side by side were mostly written side by side.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"

#define KEPT 16u /* records, of at most DELTA_LEN_MAX */
#define READ_BYTES (1u << 20)

/* A record that has pages of its own. */
struct place {
	uint64_t at;
	uint32_t number, first, n; /* number of the record; its pages */
};

struct parent {
	struct archive_reader *reader;
	struct place *places;
	size_t nplaces, room;
	uint32_t npages;
};

struct kept {
	uint32_t image;
	size_t place;
	uint8_t *data; /* NULL: nothing is here */
	size_t room;
	uint64_t used; /* when */
};

struct archive_parents {
	uint8_t id[ARCHIVE_ID_BYTES];
	uint32_t n;
	struct archive_link links[ARCHIVE_LINKS_MAX];
	struct parent v[ARCHIVE_LINKS_MAX];
	bool open;
	struct kept kept[KEPT];
	uint64_t clock;
};

/* --- what it says that it needs --- */

static bool name_valid(const char *name)
{
	return memchr(name, 0, ARCHIVE_LINK_NAME_MAX) && *name && *name != '.' && !strchr(name, '/');
}

static bool links_valid(const struct archive_parents *p)
{
	for (uint32_t i = 0; i < p->n; i++) {
		if (!name_valid(p->links[i].name) || !memcmp(p->links[i].id, p->id, sizeof(p->id)))
			return false;
		for (uint32_t k = 0; k < i; k++)
			if (!memcmp(p->links[i].id, p->links[k].id, sizeof(p->id)) || !strcmp(p->links[i].name, p->links[k].name))
				return false;
	}
	return true;
}

int parents_decode(const uint8_t *data, size_t len, struct archive_parents **ret, struct err *e)
{
	struct archive_links_head h;
	struct archive_parents *p;

	if (len < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	if (h.n > ARCHIVE_LINKS_MAX || len != sizeof(h) + h.n * sizeof(p->links[0]))
		return -EBADMSG;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_sys(e, -ENOMEM, "an image");
	memcpy(p->id, h.id, sizeof(p->id));
	memcpy(p->links, data + sizeof(h), h.n * sizeof(p->links[0]));
	p->n = h.n;
	if (!links_valid(p)) {
		free(p);
		return -EBADMSG;
	}
	*ret = p;
	return 0;
}

static void close_all(struct archive_parents *p)
{
	for (uint32_t i = 0; i < p->n; i++) {
		archive_close(p->v[i].reader);
		free(p->v[i].places);
		p->v[i] = (struct parent){ 0 };
	}
	p->open = false;
}

void parents_free(struct archive_parents *p)
{
	if (!p)
		return;
	close_all(p);
	for (size_t i = 0; i < KEPT; i++)
		free(p->kept[i].data);
	free(p);
}

const struct archive_link *archive_links(const struct archive_reader *r, uint32_t *ret_n, bool *ret_of_chain)
{
	*ret_of_chain = r->parents;
	*ret_n = r->parents ? r->parents->n : 0;
	return *ret_n ? r->parents->links : NULL;
}

bool chain_is(const struct archive_reader *r, const struct archive_link *link)
{
	return r->parents && !memcmp(r->parents->id, link->id, sizeof(link->id));
}

/* --- the images themselves --- */

static int check_digest(int fd, uint64_t bytes, const struct archive_link *link, const char *path, struct err *e)
{
	cleanup_free uint8_t *buffer = malloc(READ_BYTES);
	uint8_t digest[ARCHIVE_DIGEST_BYTES];
	gnutls_hash_hd_t hash;
	ssize_t n = 1;

	if (!buffer || gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
		return err_sys(e, -ENOMEM, "%s", path);
	for (uint64_t at = 0; at < bytes && n > 0; at += (uint64_t)MAX(n, 0)) {
		n = pread(fd, buffer, READ_BYTES, (off_t)at);
		if (n > 0)
			gnutls_hash(hash, buffer, (size_t)n);
	}
	gnutls_hash_deinit(hash, digest);
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	return memcmp(digest, link->digest, sizeof(digest)) ? err_set(e, -EBADMSG, "it has been altered since") : 0;
}

static int open_file(const char *path, const struct archive_link *link, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? err_set(e, -ENOENT, "it is not there") : err_sys(e, -errno, "it cannot be opened");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, -EBADMSG, "it is no file");
	return (uint64_t)st.st_size == link->bytes ? take_fd(&fd) : err_set(e, -EBADMSG, "it has %llu bytes, and had %llu", (unsigned long long)st.st_size, (unsigned long long)link->bytes);
}

static int note_place(struct parent *p, uint64_t at, uint32_t number, uint32_t n)
{
	if (p->nplaces == p->room) {
		size_t room = MAX(2 * p->room, 64u);
		struct place *grown = reallocarray(p->places, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		p->places = grown;
		p->room = room;
	}
	if (n > UINT32_MAX - p->npages)
		return -EBADMSG;
	p->places[p->nplaces++] = (struct place){ at, number, p->npages, n };
	p->npages += n;
	return 0;
}

/* Its second record, and where the pages of the others are. */
static int scan(struct parent *p, const struct archive_link *link, bool whole, struct err *e)
{
	struct archive_reader *x = p->reader;
	struct archive_record record;
	int ret;

	x->raw = true;
	while ((ret = archive_next(x, false, &record, e)) > 0) {
		if (x->parents && !chain_is(x, link))
			return err_set(e, -EBADMSG, "it is another image than then");
		if (x->parents && !whole)
			return 0;
		if (record.kind == ARCHIVE_DELTA && record.type)
			ret = note_place(p, x->record_at, x->number - 1, record.type);
		if (ret < 0)
			return err_sys(e, ret, "its pages");
	}
	return ret < 0 || x->parents ? ret : err_set(e, -EBADMSG, "it is no image of a chain");
}

static int open_parent(const struct archive_reader *r, uint32_t i, bool whole, struct err *e)
{
	const struct archive_link *link = &r->parents->links[i];
	const char *slash = strrchr(r->path, '/');
	struct parent *p = &r->parents->v[i];
	char path[PATH_MAX];
	struct err why = ERR_INIT;
	int fd, ret;

	if ((size_t)snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - r->path + 1) : 0, r->path, link->name) >= sizeof(path))
		return err_set(e, -ENAMETOOLONG, "%s", r->path);
	ret = fd = open_file(path, link, &why);
	if (ret >= 0 && whole) {
		ret = check_digest(fd, link->bytes, link, path, &why);
		if (ret < 0)
			close(fd);
	}
	if (ret >= 0)
		ret = archive_open(path, fd, NULL, &p->reader, &why);
	if (ret >= 0)
		ret = scan(p, link, whole, &why);
	return ret < 0 ? err_set(e, ret == -ENOENT ? ret : -EBADMSG, "%s says only what is new since %s: %s", r->path, link->name, why.message) : 0;
}

int archive_check_links(struct archive_reader *r, bool whole, struct err *e)
{
	struct archive_parents *p = r->parents;
	int ret = 0;

	if (!p || p->open)
		return 0;
	for (uint32_t i = 0; i < p->n && ret == 0; i++)
		ret = open_parent(r, i, whole, e);
	if (ret < 0 || !whole)
		close_all(p);
	p->open = ret == 0 && whole;
	return ret;
}

/* --- pages --- */

static size_t place_of(const struct parent *p, uint32_t page)
{
	size_t low = 0, high = p->nplaces;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (p->places[middle].first <= page)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The pieces of a payload: 0, or -EBADMSG. Where those begin that are in it, and how many pages are. */
static int check_pieces(const uint8_t *data, size_t len, struct archive_delta_head *ret, uint32_t *ret_pages)
{
	uint64_t inside = 0, whole = 0, pages = 0;

	if (len < sizeof(*ret))
		return -EBADMSG;
	memcpy(ret, data, sizeof(*ret));
	if (ret->len > DELTA_LEN_MAX || ret->npieces > (len - sizeof(*ret)) / sizeof(struct archive_piece))
		return -EBADMSG;
	for (uint32_t i = 0; i < ret->npieces; i++) {
		struct archive_piece piece;
		uint64_t bytes;

		memcpy(&piece, data + sizeof(*ret) + i * sizeof(piece), sizeof(piece));
		bytes = piece.source == PIECE_BYTES ? piece.count : (uint64_t)piece.count * ARCHIVE_PAGE_BYTES;
		whole += bytes;
		inside += piece.source >= PIECE_PAGES ? bytes : 0;
		pages += piece.source == PIECE_PAGES ? piece.count : 0;
		if (!piece.count || whole > ret->len)
			return -EBADMSG;
	}
	*ret_pages = (uint32_t)pages;
	return whole == ret->len && inside == len - sizeof(*ret) - ret->npieces * sizeof(struct archive_piece) ? 0 : -EBADMSG;
}

/* The pages of a record of an image, one behind the other. */
static int load(struct archive_parents *p, uint32_t image, size_t place, struct kept *k, struct err *e)
{
	const struct place *from = &p->v[image].places[place];
	struct archive_reader *x = p->v[image].reader;
	struct archive_record record;
	struct archive_delta_head h;
	uint32_t pages;
	size_t at, len = 0;

	k->used = 0;
	x->at = from->at;
	x->number = from->number;
	x->ended = false;
	if (archive_next(x, true, &record, e) <= 0 || record.kind != ARCHIVE_DELTA || check_pieces(record.data, record.len, &h, &pages) < 0 || pages != from->n)
		return err_set(e, -EBADMSG, "%s: pages that cannot be read", x->path);
	if (!archive_make_room(&k->data, &k->room, (size_t)pages * ARCHIVE_PAGE_BYTES))
		return err_sys(e, -ENOMEM, "an image");
	at = sizeof(h) + h.npieces * sizeof(struct archive_piece);
	for (uint32_t i = 0; i < h.npieces; i++) {
		struct archive_piece piece;
		size_t bytes;

		memcpy(&piece, record.data + sizeof(h) + i * sizeof(piece), sizeof(piece));
		bytes = piece.source == PIECE_BYTES ? piece.count : piece.source == PIECE_PAGES ? (size_t)piece.count * ARCHIVE_PAGE_BYTES : 0;
		if (piece.source == PIECE_PAGES) {
			memcpy(k->data + len, record.data + at, bytes);
			len += bytes;
		}
		at += bytes;
	}
	k->image = image;
	k->place = place;
	return 0;
}

static int find(struct archive_parents *p, uint32_t image, size_t place, const uint8_t **ret, struct err *e)
{
	struct kept *oldest = &p->kept[0];

	for (size_t i = 0; i < KEPT; i++) {
		struct kept *k = &p->kept[i];

		if (k->used && k->image == image && k->place == place) {
			k->used = ++p->clock;
			*ret = k->data;
			return 0;
		}
		if (k->used < oldest->used)
			oldest = k;
	}
	if (load(p, image, place, oldest, e) < 0)
		return e ? e->code : -EBADMSG;
	oldest->used = ++p->clock;
	*ret = oldest->data;
	return 0;
}

/* Pages of an image before this one. */
static int fetch(struct archive_reader *r, const struct archive_piece *piece, uint8_t *to, struct err *e)
{
	struct archive_parents *p = r->parents;
	const struct parent *from = &p->v[piece->source];

	if (piece->first > from->npages || piece->count > from->npages - piece->first)
		return archive_broken(r, "it refers to pages that an image before it does not have", e);
	for (uint32_t page = piece->first, left = piece->count; left;) {
		size_t at = place_of(from, page);
		const struct place *place = &from->places[at];
		uint32_t n = MIN(left, place->first + place->n - page);
		const uint8_t *data = NULL;
		int ret = find(p, piece->source, at, &data, e);

		if (ret < 0)
			return ret;
		memcpy(to, data + (size_t)(page - place->first) * ARCHIVE_PAGE_BYTES, (size_t)n * ARCHIVE_PAGE_BYTES);
		to += (size_t)n * ARCHIVE_PAGE_BYTES;
		page += n;
		left -= n;
	}
	return 0;
}

static int put_together(struct archive_reader *r, const struct archive_delta_head *h, const uint8_t *data, struct err *e)
{
	const uint8_t *inside = data + sizeof(*h) + h->npieces * sizeof(struct archive_piece);
	uint8_t *to = r->whole;

	for (uint32_t i = 0; i < h->npieces; i++) {
		struct archive_piece piece;
		size_t bytes;
		int ret;

		memcpy(&piece, data + sizeof(*h) + i * sizeof(piece), sizeof(piece));
		bytes = piece.source == PIECE_BYTES ? piece.count : (size_t)piece.count * ARCHIVE_PAGE_BYTES;
		if (piece.source >= PIECE_PAGES) {
			memcpy(to, inside, bytes);
			inside += bytes;
		} else {
			if (piece.source >= r->parents->n)
				return archive_broken(r, "it refers to an image that it does not name", e);
			ret = archive_check_links(r, true, e);
			if (ret == 0)
				ret = fetch(r, &piece, to, e);
			if (ret < 0)
				return ret;
		}
		to += bytes;
	}
	return 0;
}

int parents_expand(struct archive_reader *r, const struct archive_header *header, const uint8_t *data, const uint8_t **ret, size_t *ret_len, struct err *e)
{
	struct archive_delta_head h;
	uint32_t pages;
	int code;

	if (!r->parents || check_pieces(data, header->len, &h, &pages) < 0 || pages != header->type)
		return archive_broken(r, "pages that cannot be put together", e);
	*ret_len = h.len;
	*ret = NULL;
	if (r->leave_pages)
		return 0;
	if (!archive_make_room(&r->whole, &r->whole_room, (size_t)h.len + 1))
		return err_sys(e, -ENOMEM, "an image");
	code = put_together(r, &h, data, e);
	*ret = r->whole;
	return code;
}
