/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsfile.c - the files a process refers to, on the source; see fsfile.h. The destination's part is in fsfile_match.c,
 * bytes in fsfile_wire.c
 */
#include "image/fsfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "image/buildid.h"
#include "image/fsfile_internal.h"
#include "image/ns_info.h"
#include "image/ns_mount.h"
#include "image/place.h"
#include "image/sha256.h"
#include "image/view.h"
#include "image/xattr.h"

/* Files that are read through descriptors and are larger than this are sent, not hashed. */
#define HASH_MAX_BYTES (64ull << 20)
#define NAMES_MAX 65536u /* of a directory that are looked at */

int fsfile_boot_id(uint8_t ret[16], struct err *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[64];
	ssize_t n;
	int digits = 0;

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	n = read(fd, text, sizeof(text));
	memset(ret, 0, 16);
	for (ssize_t i = 0; i < n && digits < 32; i++) {
		char c = text[i];
		int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

		if (value < 0)
			continue;
		ret[digits / 2] |= digits % 2 ? value : value << 4;
		digits++;
	}
	return digits == 32 ? 0 : err_set(e, -EPROTO, "%s: not a uuid", path);
}

int fsfile_shm_device(dev_t *ret, struct err *e)
{
	static dev_t known;
	cleanup_close int fd = -1;
	struct stat st;

	if (!known) {
		fd = memfd_create("godwit-probe", MFD_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			return err_sys(e, -errno, "memfd_create");
		known = st.st_dev;
	}
	*ret = known;
	return 0;
}

int fsfile_reopen(int path_fd, int flags)
{
	char link[32];
	int fd;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
	fd = open(link, flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* The name of the inode in a directory; false: it has none in there. */
static bool find_name_in(DIR *dir, const struct stat *st, char ret_name[NAME_MAX + 1])
{
	struct dirent *d;

	for (unsigned left = NAMES_MAX; dir && left && (d = readdir(dir)); left--) {
		struct stat at;

		if (d->d_ino != st->st_ino || fstatat(dirfd(dir), d->d_name, &at, AT_SYMLINK_NOFOLLOW) < 0 || at.st_dev != st->st_dev || at.st_ino != st->st_ino)
			continue;
		snprintf(ret_name, NAME_MAX + 1, "%s", d->d_name);
		return true;
	}
	return false;
}

/* Another name that the file has (link(2)), in the directory from which its own was removed or, if that is gone, too, the nearest above it: takes the place of `path`. */
static bool find_other_name(char path[PATH_MAX], const struct stat *st)
{
	char dir_path[PATH_MAX], name[NAME_MAX + 1];
	cleanup_closedir DIR *dir = NULL;
	char *slash;

	snprintf(dir_path, sizeof(dir_path), "%s", path);
	do {
		slash = strrchr(dir_path, '/');
		*slash = 0;
		dir = opendir(place_of(slash == dir_path ? "/" : dir_path));
	} while (!dir && errno == ENOENT && slash != dir_path);
	if (!find_name_in(dir, st, name) || strlen(dir_path) + strlen(name) + 2 > PATH_MAX)
		return false;
	strcpy(path, dir_path);
	strcat(strcat(path, "/"), name);
	return true;
}

/*
 * Whether no path can lead to the file: something is mounted over it since it was opened (a mount on that which the file is on), or it is on a mount that the
 * namespace does not have (whoever started the program opened it elsewhere).
 */
static bool is_out_of_reach(int fd, const char *path)
{
	char list[64], line[2 * PATH_MAX], point[PATH_MAX];
	cleanup_fclose FILE *f = NULL;
	unsigned long long id, parent;
	struct statx sx;
	bool there = false;

	snprintf(list, sizeof(list), "%.*s/mountinfo", place_prefix()[0] ? (int)(strlen(place_prefix()) - strlen("/root")) : (int)strlen("/proc/self"),
		 place_prefix()[0] ? place_prefix() : "/proc/self");
	f = statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &sx) == 0 && sx.stx_mask & STATX_MNT_ID ? fopen(list, "re") : NULL;
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llu %llu %*s %*s %4095s", &id, &parent, point) != 3)
			continue;
		if (parent == sx.stx_mnt_id && path_below(path, point))
			return true;
		there = there || id == sx.stx_mnt_id;
	}
	return f && !there;
}

static bool leads_to(const char *path, const struct stat *st)
{
	struct stat at;

	return stat(place_of(path), &at) == 0 && at.st_dev == st->st_dev && at.st_ino == st->st_ino;
}

/* The path of an O_PATH descriptor; whether it was unlinked, or leads elsewhere. */
static int take_path(int fd, const struct stat *st, struct fsfile *f, struct err *e)
{
	static const char suffix[] = " (deleted)";
	char link[32], path[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return err_sys(e, -errno, "%s", link);
	path[len] = 0;
	f->unlinked = st->st_nlink == 0;
	if ((size_t)len > strlen(suffix) && !strcmp(path + len - strlen(suffix), suffix) && !leads_to(path, st)) {
		path[len - strlen(suffix)] = 0;
		ns_mark_outside(fd, path, sizeof(path));
		/* What is mounted by itself has a path all the same. */
		f->unlinked = path[0] != '/' || (!leads_to(path, st) && (st->st_nlink == 0 || !find_other_name(path, st)));
	} else {
		ns_mark_outside(fd, path, sizeof(path));
	}
	if (!f->unlinked && path[0] == '/' && st->st_nlink && !leads_to(path, st))
		f->out_of_reach = is_out_of_reach(fd, path);
	if (path[0] != '/')
		return err_set(e, -ENODEV, "\"%s\" is not reachable from here (another mount namespace?)", path);
	f->path = strdup(path);
	return f->path ? 0 : err_set(e, -ENOMEM, "no memory for a path");
}

int fsfile_place(struct fsfile *f, struct err *e)
{
	char *placed;

	if (fsfile_is_memory(f) || place_of(f->path) == f->path)
		return 0;
	placed = strdup(place_of(f->path));
	if (!placed)
		return err_set(e, -ENOMEM, "no memory for a path");
	f->marked = f->path;
	f->path = placed;
	return 0;
}

const char *fsfile_seen(const struct fsfile *f)
{
	return fsfile_is_memory(f) ? f->path : place_seen(f->path);
}

const char *fsfile_told(const struct fsfile *f)
{
	return f->marked ? f->marked : f->path;
}

bool fsfile_is_homes(const struct fsfile *f)
{
	return f->type == FSFILE_REGULAR && !f->unlinked && view_has(fsfile_seen(f));
}

static int fill(int fd, const struct stat *st, struct fsfile *f, struct err *e)
{
	struct statfs fs;
	struct stat now;
	dev_t shm = 0;
	int rc;

	f->dev = st->st_dev;
	f->ino = st->st_ino;
	f->size = st->st_size;
	f->mode = st->st_mode & 07777;
	f->uid = st->st_uid;
	f->gid = st->st_gid;
	if (fstatfs(fd, &fs) < 0)
		return err_sys(e, -errno, "fstatfs");
	rc = fsfile_shm_device(&shm, e);
	if (rc == 0)
		rc = fsfile_boot_id(f->boot_id, e);
	if (rc == 0)
		rc = take_path(fd, st, f, e);
	if (rc < 0)
		return rc;
	if (st->st_dev == shm || fs.f_type == FSFILE_HUGETLBFS_MAGIC)
		f->type = fsfile_memory_type(f->path);
	if (st->st_dev == shm && f->type == FSFILE_REGULAR)
		f->type = FSFILE_MEMFD; /* made by a driver, for one */
	rc = fsfile_place(f, e);
	if (rc < 0)
		return rc;
	/* The name may have been removed since st was taken. */
	f->nlink = f->unlinked && fstat(fd, &now) == 0 ? now.st_nlink : st->st_nlink;
	f->mtime_ns = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
	f->ctime_ns = st->st_ctim.tv_sec * 1000000000ll + st->st_ctim.tv_nsec;
	f->fs_magic = (uint64_t)fs.f_type;
	memcpy(&f->fsid, &fs.f_fsid, sizeof(f->fsid));
	return fsfile_is_memory(f) ? fsfile_memory_read(fd, f, e) : 0;
}

void fsfile_take_xattrs(struct fsfile *f, int path_fd)
{
	char link[32];

	if (f->type > FSFILE_MEMFD || !(f->unlinked || f->uses & ~(uint32_t)(FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM)) || f->fs_magic == PROC_SUPER_MAGIC || f->fs_magic == SYSFS_MAGIC ||
	    fsfile_is_homes(f))
		return;
	xattrs_free(f->xattrs, f->nxattrs);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
	xattrs_read(link, true, &f->xattrs, &f->nxattrs);
	f->has_xattrs = true;
}

/* The numbers of System V segments, which are inode numbers, may be those of other memory as well. */
static bool is_segment(int fd)
{
	char link[32], path[16];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, path, sizeof(path)) > 5 && !memcmp(path, "/SYSV", 5);
}

int fsfile_add_fd(struct fsfile_table *t, int fd, uint32_t uses, uint32_t *ret_index, struct err *e)
{
	struct fsfile f = { .fd = -1, .read_fd = -1, .uses = uses }, *grown;
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "fstat");
	if (!S_ISREG(st.st_mode))
		return err_set(e, -ENODEV, "not a regular file");
	for (uint32_t i = 0; i < t->n; i++) {
		if (t->v[i].dev != st.st_dev || t->v[i].ino != st.st_ino || (t->v[i].type == FSFILE_SYSV) != is_segment(fd))
			continue;
		t->v[i].uses |= uses;
		if (!t->v[i].has_xattrs)
			fsfile_take_xattrs(&t->v[i], fd);
		*ret_index = i;
		close(fd);
		return 0;
	}
	if (t->n >= FSFILE_MAX)
		return err_set(e, -E2BIG, "more than %u files", FSFILE_MAX);
	rc = fill(fd, &st, &f, e);
	if (rc == 0)
		fsfile_take_xattrs(&f, fd);
	grown = rc < 0 ? NULL : realloc(t->v, (t->n + 1) * sizeof(*grown));
	if (!grown) {
		free(f.path);
		free(f.marked);
		xattrs_free(f.xattrs, f.nxattrs);
		return rc < 0 ? rc : err_set(e, -ENOMEM, "no memory for a file");
	}
	f.fd = fd;
	t->v = grown;
	t->v[t->n] = f;
	*ret_index = t->n++;
	return 0;
}

int fsfile_add(struct fsfile_table *t, const char *link, uint32_t uses, uint32_t *ret_index, struct err *e)
{
	cleanup_close int fd = open(link, O_PATH | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return err_sys(e, -errno, "%s", link);
	rc = fsfile_add_fd(t, fd, uses, ret_index, e);
	if (rc < 0) {
		err_wrap(e, "%s", link);
		return rc;
	}
	take_fd(&fd);
	return 0;
}

void fsfile_table_free(struct fsfile_table *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		close_fdp(&t->v[i].fd);
		close_fdp(&t->v[i].read_fd);
		free(t->v[i].path);
		free(t->v[i].marked);
		xattrs_free(t->v[i].xattrs, t->v[i].nxattrs);
	}
	free(t->v);
	*t = (struct fsfile_table){ 0 };
}

int fsfile_read_fd(struct fsfile *f, struct err *e)
{
	int fd;

	if (f->read_fd >= 0)
		return f->read_fd;
	if (f->fd < 0)
		return err_set(e, -EBADF, "%s is not on this host", f->path);
	fd = fsfile_reopen(f->fd, O_RDONLY);
	if (fd < 0)
		return err_sys(e, fd, "%s", f->path);
	f->read_fd = fd;
	return fd;
}

/* Whether the destination may have to compare the content, for want of anything better. */
static bool wants_hash(const struct fsfile *f, bool same_kernel)
{
	if (fsfile_is_memory(f) || f->unlinked || f->build_id_len || f->has_sha256 || fsfile_is_homes(f))
		return false;
	if (f->uses & (FSFILE_OPEN_WRITE | FSFILE_MAPPED_WRITE))
		return false;
	if ((f->uses & FSFILE_OPEN_READ) && f->size > HASH_MAX_BYTES)
		return false;
	return !same_kernel || f->fs_magic == TMPFS_MAGIC || !f->nlink; /* mounted, and removed since: the destination has it in memory */
}

/* Those that can be seen; the root is everywhere. */
static void take_directories(struct fsfile *f)
{
	char path[PATH_MAX];
	struct stat st;
	char *slash;

	snprintf(path, sizeof(path), "%s", f->path);
	f->ndirectories = 0;
	while ((slash = strrchr(path, '/')) && slash != path && f->ndirectories < FSFILE_DIRECTORIES_MAX) {
		*slash = 0;
		if (stat(path, &st) < 0)
			return;
		f->directories[f->ndirectories++] = (struct fsfile_directory){ st.st_mode & 07777, st.st_uid, st.st_gid };
	}
}

/* Files come by directories, so that one answer is remembered. */
static bool is_servable(const struct fsfile *f)
{
	static char last[PATH_MAX], directory[PATH_MAX];
	static bool answer;
	const char *path = fsfile_seen(f);
	size_t len = (size_t)(strrchr(path, '/') - path);

	if (place_prefix()[0] || place_has_spaces() || f->out_of_reach)
		return false;
	if (strncmp(last, path, len) || last[len]) {
		snprintf(last, sizeof(last), "%.*s", (int)len, path);
		answer = view_directory_for(path, directory);
	}
	return answer;
}

int fsfile_prepare_offer(struct fsfile_table *t, bool same_kernel, struct err *e)
{
	for (uint32_t i = 0; i < t->n; i++) {
		struct fsfile *f = &t->v[i];
		int fd, rc;

		if (!f->uses || fsfile_is_memory(f) || f->unlinked || f->fs_magic == PROC_SUPER_MAGIC || f->fs_magic == SYSFS_MAGIC)
			continue;
		if (f->uses & ~(uint32_t)(FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM))
			take_directories(f);
		f->servable = is_servable(f);
		if (!(f->uses & (FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM)) && !wants_hash(f, same_kernel))
			continue;
		fd = fsfile_read_fd(f, e);
		if (fd < 0)
			return fd;
		if (!f->build_id_len && (f->uses & (FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM)))
			f->build_id_len = buildid_read(fd, f->build_id);
		if (!wants_hash(f, same_kernel))
			continue;
		rc = sha256_file(fd, f->sha256);
		if (rc < 0)
			return err_sys(e, rc, "reading %s", f->path);
		f->has_sha256 = true;
	}
	return 0;
}

int fsfile_content_next(struct fsfile *f, uint64_t offset, uint64_t max_len, uint64_t *ret_offset, uint64_t *ret_len, struct err *e)
{
	int fd = fsfile_read_fd(f, e);
	off_t data, hole;

	if (fd < 0)
		return fd;
	*ret_offset = offset;
	*ret_len = 0;
	if (offset >= f->size)
		return 0;
	data = lseek(fd, offset, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0)
		return err_sys(e, -errno, "%s: looking for data", f->path);
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return err_sys(e, -errno, "%s: looking for holes", f->path);
	hole = MIN((uint64_t)hole, f->size);
	if (hole <= data)
		return 0;
	*ret_offset = data;
	*ret_len = MIN((uint64_t)(hole - data), max_len);
	return 0;
}

int fsfile_changed(struct fsfile *f, bool *ret_changed, struct err *e)
{
	uint32_t seals = f->seals;
	int64_t mtime, ctime;
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return err_sys(e, -errno, "%s", f->path);
	mtime = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
	ctime = st.st_ctim.tv_sec * 1000000000ll + st.st_ctim.tv_nsec;
	*ret_changed = mtime != f->mtime_ns || ctime != f->ctime_ns || (f->type != FSFILE_SYSV && (uint64_t)st.st_size != f->size);
	if (ctime != f->ctime_ns)
		fsfile_take_xattrs(f, f->fd);
	f->mtime_ns = mtime;
	f->ctime_ns = ctime;
	f->unlinked |= f->nlink && !st.st_nlink; /* had it none before, it is mounted */
	f->nlink = st.st_nlink;
	if (f->type != FSFILE_SYSV) {
		f->size = st.st_size;
		f->mode = st.st_mode & 07777;
		f->uid = st.st_uid;
		f->gid = st.st_gid;
	}
	if (fsfile_is_memory(f)) {
		struct fsfile before = *f;
		/* Opened once, so that in the freeze nothing is. */
		int fd = fsfile_read_fd(f, e), rc = fd < 0 ? fd : fsfile_memory_read(f->fd, f, e);

		if (rc < 0)
			return rc;
		*ret_changed = *ret_changed || seals != f->seals || before.mode != f->mode || before.uid != f->uid || before.gid != f->gid ||
			       before.sysv.destroyed != f->sysv.destroyed;
	}
	return 0;
}
