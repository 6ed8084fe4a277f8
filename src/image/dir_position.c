/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dir_position.c - directories that are half read; see dir_position.h */
#include "image/dir_position.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/fsfile.h"
#include "image/place.h"

#define ENTRIES_MAX 1000000u

struct entry {
	uint64_t ino;
	int64_t next; /* position behind it */
	unsigned short len;
	unsigned char type;
	char name[];
};

/* What a walk through a whole directory finds. */
struct walk {
	uint64_t entries, digest;
	int64_t wanted;      /* a position to be found, */
	uint64_t read;       /* and how many entries lie before it */
	bool found;
	uint64_t wanted_read; /* or the other way around: */
	int64_t position;
};

static uint64_t add_name(uint64_t digest, const char *name)
{
	/* FNV-1a, the terminating 0 included */
	do
		digest = (digest ^ (unsigned char)*name) * 0x100000001b3ull;
	while (*name++);
	return digest;
}

static int walk_directory(int fd, struct walk *w, struct err *e)
{
	cleanup_close int again = fd_reopen(fd, O_RDONLY | O_DIRECTORY);
	_Alignas(8) char buffer[32768];
	long len;

	w->digest = 0xcbf29ce484222325ull;
	if (again < 0)
		return err_sys(e, again, "reading a directory once more");
	while ((len = syscall(SYS_getdents64, again, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < len;) {
			const struct entry *d = (const void *)(buffer + at);

			at += d->len;
			w->entries++;
			w->digest = add_name(w->digest, d->name);
			if (d->next == w->wanted) {
				w->read = w->entries;
				w->found = true;
			}
			if (w->entries == w->wanted_read)
				w->position = d->next;
		}
		if (w->entries > ENTRIES_MAX)
			return err_set(e, -E2BIG, "a directory with more than %u entries", ENTRIES_MAX);
	}
	return len < 0 ? err_sys(e, -errno, "reading a directory once more") : 0;
}

int dir_position_capture(int held, Gw__FdDesc *d, struct err *e)
{
	Gw__FdDirectory *to = d->directory;
	struct walk w = { .wanted = d->position };
	uint8_t boot_id[16];
	struct stat st = { 0 };
	int r;

	if (!d->position) {
		if (to)
			gw__fd_directory__free_unpacked(to, NULL);
		d->directory = NULL;
		return 0;
	}
	r = fsfile_boot_id(boot_id, e);
	if (r == 0)
		r = walk_directory(held, &w, e);
	if (r == 0 && fstat(held, &st) < 0)
		r = err_sys(e, -errno, "fstat");
	if (r < 0)
		return r;
	if (!to) {
		to = d->directory = fd_alloc(sizeof(*to));
		gw__fd_directory__init(to);
		to->boot_id.data = fd_alloc(sizeof(boot_id));
		to->boot_id.len = sizeof(boot_id);
	}
	memcpy(to->boot_id.data, boot_id, sizeof(boot_id));
	to->dev = st.st_dev;
	to->ino = st.st_ino;
	to->read = w.read;
	to->entries = w.entries;
	to->digest = w.digest;
	to->known = w.found;
	return 0;
}

int dir_position_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdDirectory *from = d->directory;

	if (from && (from->boot_id.len != 16 || from->entries > ENTRIES_MAX || from->read > from->entries))
		return err_set(e, -EPROTO, "a position in a directory, out of range");
	return 0;
}

static bool is_same(const Gw__FdDirectory *from, int fd)
{
	uint8_t boot_id[16];
	struct stat st;

	return fstat(fd, &st) == 0 && fsfile_boot_id(boot_id, NULL) == 0 && !memcmp(boot_id, from->boot_id.data, sizeof(boot_id)) &&
		st.st_dev == from->dev && st.st_ino == from->ino;
}

/* The position here; false: there is none. */
static bool translate(const Gw__FdDesc *d, int fd, int64_t *ret_position)
{
	const Gw__FdDirectory *from = d->directory;
	struct walk w = { .wanted = INT64_MIN, .wanted_read = from ? from->read : 0 };

	if (!from || is_same(from, fd)) {
		*ret_position = d->position;
		return true;
	}
	if (!from->known || walk_directory(fd, &w, NULL) < 0)
		return false;
	if (w.digest != from->digest || w.entries != from->entries)
		return false;
	*ret_position = w.position;
	return true;
}

void dir_position_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals)
{
	cleanup_close int dir = d->directory ? open(place_of(d->path), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int64_t position;

	if (dir >= 0 && !translate(d, dir, &position))
		refusals_add(refusals, "fd.directory.position", "it is half read, and the destination's directory has other entries, or in another order",
			     "share the file system between the hosts, or move it when the directory has been read", "fd %d (%s)", fd, d->path);
}

int dir_position_set(const Gw__FdDesc *d, int fd, struct err *e)
{
	int64_t position;

	if (!translate(d, fd, &position))
		return err_set(e, -EAGAIN, "%s: its entries, or their order, are not the source's", d->path);
	if (lseek(fd, position, SEEK_SET) < 0)
		return err_sys(e, -errno, "%s: setting its position to %lld", d->path, (long long)position);
	return 0;
}
