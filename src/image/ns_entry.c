/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_entry.c - what lies in the file systems in memory that a unit has mounted for itself; see ns_mount.h */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_mount.h"
#include "image/ns_user.h"
#include "image/xattr.h"

struct seen {
	dev_t dev;
	ino_t ino;
};

struct walk {
	const struct fsfile_table *files;
	bool contents;
	Gw__NsEntry **v;
	struct seen *seen;
	size_t n, bytes;
};

static bool is_used(const struct fsfile_table *files, const struct stat *st, uint32_t uses)
{
	for (uint32_t i = 0; i < files->n; i++)
		if (files->v[i].dev == st->st_dev && files->v[i].ino == st->st_ino && files->v[i].uses & uses)
			return true;
	return false;
}

/* What is open travels as a file; what is only mapped, a program, has to be there before it is looked for. */
static bool is_open(const struct fsfile_table *files, const struct stat *st)
{
	return is_used(files, st, FSFILE_OPEN_READ | FSFILE_OPEN_WRITE | FSFILE_MAPPED_SHARED | FSFILE_MAPPED_WRITE);
}

/* On a file that is mounted by itself others are mounted, before it is a file that travels. */
static bool is_written(const struct fsfile_table *files, const struct stat *st)
{
	return is_used(files, st, FSFILE_OPEN_WRITE | FSFILE_MAPPED_WRITE);
}

static int read_content(int dir, const char *name, Gw__NsEntry *n, struct walk *w, struct err *e)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | (name[0] == '/' ? 0 : O_NOFOLLOW));
	size_t got = 0;
	ssize_t part = 1;

	if (fd < 0)
		return err_sys(e, errno, "%s", name);
	if (n->size > NS_ENTRY_BYTES_MAX || w->bytes + n->size > NS_ENTRY_BYTES_MAX)
		return err_set(e, -E2BIG, "%s: more than %u MiB in file systems in memory", name, NS_ENTRY_BYTES_MAX >> 20);
	n->data.data = must_alloc(n->size + 1);
	while (got < n->size && (part = read(fd, n->data.data + got, n->size - got)) > 0)
		got += (size_t)part;
	if (part < 0)
		return err_sys(e, errno, "%s", name);
	while (got && !n->data.data[got - 1])
		got--;
	n->data.len = got;
	w->bytes += got;
	return 0;
}

static int read_target(int dir, const char *name, Gw__NsEntry *n, struct err *e)
{
	char target[PATH_MAX];
	ssize_t len = readlinkat(dir, name, target, sizeof(target));

	if (len < 0)
		return err_sys(e, errno, "%s", name);
	bytes_set(&n->data, target, (size_t)len);
	n->size = (uint64_t)len;
	return 0;
}

static void read_xattrs(int dir, const char *name, Gw__NsEntry *n)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	xattrs_read(name[0] == '/' ? name : path, false, &n->xattrs, &n->n_xattrs);
}

static int add(struct walk *w, int dir, const char *name, const char *path, const struct stat *st, struct err *e)
{
	Gw__NsEntry **grown = realloc(w->v, (w->n + 1) * sizeof(*grown)), *n;
	struct seen *seen = realloc(w->seen, (w->n + 1) * sizeof(*seen));

	if (grown)
		w->v = grown;
	if (seen)
		w->seen = seen;
	if (!grown || !seen || w->n >= NS_ENTRIES_MAX)
		return err_set(e, -E2BIG, "more than %u files in a file system in memory", NS_ENTRIES_MAX);
	n = must_alloc(sizeof(*n));
	gw__ns_entry__init(n);
	seen[w->n] = (struct seen){ st->st_dev, st->st_ino };
	grown[w->n++] = n;
	bytes_set(&n->path, path, strlen(path));
	n->mode = st->st_mode;
	n->uid = st->st_uid;
	n->gid = st->st_gid;
	n->rdev = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? st->st_rdev : 0;
	n->mtime_ns = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
	for (size_t i = 0; w->contents && !S_ISDIR(st->st_mode) && st->st_nlink > 1 && i + 1 < w->n && !n->link_of; i++)
		if (seen[i].ino == st->st_ino && seen[i].dev == st->st_dev)
			n->link_of = (uint32_t)i + 1;
	n->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	if (!w->contents || n->link_of)
		return 0;
	if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))
		read_xattrs(dir, name, n);
	return S_ISREG(st->st_mode) && n->size ? read_content(dir, name, n, w, e) : S_ISLNK(st->st_mode) ? read_target(dir, name, n, e) : 0;
}

/* Takes over dir. */
static int walk(struct walk *w, int dir, const char *path, struct err *e)
{
	cleanup_closedir DIR *d = fdopendir(dir);
	int ret = 0;

	if (!d) {
		close(dir);
		return err_sys(e, errno, "/%s", path);
	}
	for (struct dirent *entry; ret == 0 && (entry = readdir(d));) {
		char inner[PATH_MAX];
		struct stat st;
		int fd;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISSOCK(st.st_mode) || (S_ISREG(st.st_mode) && is_open(w->files, &st)))
			continue;
		if (snprintf(inner, sizeof(inner), "%s%s%s", path, path[0] ? "/" : "", entry->d_name) >= (int)sizeof(inner))
			return err_set(e, -ENAMETOOLONG, "/%s", path);
		ret = add(w, dirfd(d), entry->d_name, inner, &st, e);
		if (ret < 0 || !S_ISDIR(st.st_mode))
			continue;
		fd = openat(dirfd(d), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0)
			ret = walk(w, fd, inner, e);
	}
	return ret;
}

static int walk_tree(const Gw__Namespaces *msg, size_t fs, size_t tree, struct walk *w, struct err *e)
{
	int root = ns_tree_root(msg, fs, tree), fd, ret;
	char path[64];
	struct stat st;

	if (root < 0 || fstat(root, &st) < 0)
		return err_sys(e, root < 0 ? ENOENT : errno, "%s of a file system in memory", msg->fs[fs]->trees[tree]->root);
	if (!S_ISDIR(st.st_mode)) { /* mounted on a file; what cannot be opened through the link is none that has contents */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
		st.st_nlink = 1;
		if (S_ISREG(st.st_mode) && is_written(w->files, &st))
			return err_set(e, -E2BIG, "a file is mounted there that was removed or that the destination lacks, and the program writes to it");
		return S_ISSOCK(st.st_mode) ? 0 : add(w, AT_FDCWD, path, "", &st, e);
	}
	ret = add(w, root, ".", "", &st, e);
	fd = ret == 0 ? openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (ret == 0 && fd < 0)
		return err_sys(e, errno, "%s of a file system in memory", msg->fs[fs]->trees[tree]->root);
	return ret < 0 ? ret : walk(w, fd, "", e);
}

static void walk_free(struct walk *w)
{
	for (size_t i = 0; w->v && i < w->n; i++)
		gw__ns_entry__free_unpacked(w->v[i], NULL);
	free(w->v);
	free(w->seen);
}

/* Where a file system is mounted, for messages. */
static const char *fs_place(const Gw__Namespaces *msg, size_t fs)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->fs == fs + 1)
			return msg->mounts[i]->where;
	return "?";
}

int ns_entries_capture(Gw__Namespaces *msg, size_t first, const struct fsfile_table *files, struct refusals *r, struct err *e)
{
	size_t bytes = 0;
	int ret = 0;

	for (size_t i = first; i < msg->n_fs; i++)
		for (size_t k = 0; k < msg->fs[i]->n_trees && ret == 0; k++) {
			struct walk w = { .files = files, .contents = true, .bytes = bytes };

			ret = walk_tree(msg, i, k, &w, e);
			if (ret == -E2BIG) {
				refusals_add(r, "ns.mount", e->message, "remove files there", "mount %s (%s)", fs_place(msg, i), msg->fs[i]->type);
				ret = 0;
			}
			msg->fs[i]->trees[k]->entries = w.v;
			msg->fs[i]->trees[k]->n_entries = w.n;
			bytes = w.bytes;
			free(w.seen);
		}
	return ret;
}

static bool same_entry(const Gw__NsEntry *a, const Gw__NsEntry *b)
{
	return bytes_equal(a->path, b->path) && a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
	       a->rdev == b->rdev && a->mtime_ns == b->mtime_ns && (!S_ISREG(a->mode) || a->size == b->size);
}

static int check_tree(const Gw__Namespaces *msg, size_t fs, size_t tree, const struct fsfile_table *files, struct err *e)
{
	const Gw__NsTree *t = msg->fs[fs]->trees[tree];
	struct walk w = { .files = files };
	int ret = walk_tree(msg, fs, tree, &w, e);
	bool same = ret == 0 && w.n == t->n_entries;

	for (size_t k = 0; same && w.v && k < w.n; k++)
		same = same_entry(w.v[k], t->entries[k]);
	walk_free(&w);
	return ret == 0 && !same ? err_set(e, -EAGAIN, "files in %s have changed since the offer", fs_place(msg, fs)) : ret;
}

int ns_entries_check(const Gw__Namespaces *msg, const struct fsfile_table *files, struct err *e)
{
	int ret = ns_mounts_check(e);

	for (size_t i = 0; i < msg->n_fs; i++)
		for (size_t k = 0; k < msg->fs[i]->n_trees && ret == 0; k++)
			ret = check_tree(msg, i, k, files, e);
	return ret;
}

/* --- destination --- */

static int write_content(int fd, const Gw__NsEntry *n)
{
	for (size_t at = 0; at < n->data.len;) {
		ssize_t done = pwrite(fd, n->data.data + at, n->data.len - at, (off_t)at);

		if (done <= 0)
			return done < 0 ? -errno : -ENOSPC;
		at += (size_t)done;
	}
	return ftruncate(fd, (off_t)n->size) < 0 ? -errno : 0;
}

/* Names in a tree are reached from its root, which is `top`; the root itself is there. */
static int make_entry(const Gw__NsTree *t, const Gw__NsEntry *n, int top, const char *path)
{
	cleanup_close int fd = -1;
	char target[PATH_MAX];

	if (n->link_of) {
		const Gw__NsEntry *first = t->entries[n->link_of - 1];

		snprintf(target, sizeof(target), "%.*s", (int)first->path.len, (const char *)first->path.data);
		return linkat(top, target, top, path, 0) < 0 ? -errno : 0;
	}
	switch (n->mode & S_IFMT) {
	case S_IFDIR:
		return mkdirat(top, path, 0700) < 0 ? -errno : 0;
	case S_IFLNK:
		snprintf(target, sizeof(target), "%.*s", (int)n->data.len, (const char *)n->data.data);
		return symlinkat(target, top, path) < 0 ? -errno : 0;
	case S_IFREG:
		fd = openat(top, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		return fd < 0 ? -errno : write_content(fd, n);
	case S_IFIFO:
	case S_IFCHR:
	case S_IFBLK:
		return mknodat(top, path, n->mode & (S_IFMT | 07777), n->rdev) < 0 ? -errno : 0;
	}
	return -EBADMSG;
}

/* A file system in memory takes not all that one on a disk does. */
static int set_xattrs(const Gw__NsEntry *n, int top, const char *path)
{
	char full[PATH_MAX + 64];

	snprintf(full, sizeof(full), "/proc/self/fd/%d%s%s", top, path[0] ? "/" : "", path);
	return n->n_xattrs ? xattrs_set(full, !path[0], n->xattrs, n->n_xattrs, true, NULL) : 0;
}

static int own_entry(const Gw__NsEntry *n, int top, const char *path)
{
	const uid_t uid = ns_user_gives(false, n->uid);
	const gid_t gid = ns_user_gives(true, n->gid);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { n->mtime_ns / 1000000000, n->mtime_ns % 1000000000 } };

	if (!path[0]) { /* which may be a descriptor that opens nothing */
		char link[64];

		snprintf(link, sizeof(link), "/proc/self/fd/%d", top);
		return chown(link, uid, gid) < 0 || chmod(link, n->mode & 07777) < 0 || utimensat(AT_FDCWD, link, times, 0) < 0 ? -errno : 0;
	}
	if (fchownat(top, path, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 || (!S_ISLNK(n->mode) && fchmodat(top, path, n->mode & 07777, 0) < 0))
		return -errno;
	utimensat(top, path, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

int ns_entries_make(const Gw__NsTree *t, int top, struct err *e)
{
	char path[PATH_MAX];

	for (int pass = 0; pass < 2; pass++) { /* times of directories at last */
		for (size_t i = 0; i < t->n_entries; i++) {
			const Gw__NsEntry *n = t->entries[i];
			int ret = 0;

			snprintf(path, sizeof(path), "%.*s", (int)n->path.len, (const char *)n->path.data);
			if (pass == 0 && path[0])
				ret = make_entry(t, n, top, path);
			else if (pass == 0)
				ret = S_ISREG(n->mode) ? write_content(top, n) : 0;
			else if (!n->link_of && (ret = own_entry(n, top, path)) == 0) /* a new owner takes capabilities away */
				ret = set_xattrs(n, top, path);
			if (ret < 0)
				return err_sys(e, ret, "%s of a file system in memory: making /%s (owner %u:%u, here %u:%u)", t->root, path, n->uid, n->gid, ns_user_gives(false, n->uid), ns_user_gives(true, n->gid));
		}
	}
	return 0;
}
