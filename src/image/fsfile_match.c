/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_match.c - the destination's part of fsfile.h: looks for files, makes those that it lacks */
#include "image/ns_user.h"
#include "image/fsfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <stddef.h>
#include <stdio.h>

#include "base/util.h"
#include "image/buildid.h"
#include "image/fsfile_internal.h"
#include "image/fsfile_parent.h"
#include "image/sha256.h"
#include "image/xattr.h"

#define MARK "trusted.godwit.unit"
#define WRITES (FSFILE_OPEN_WRITE | FSFILE_MAPPED_WRITE)

static bool is_saved, accepts_changed;

void fsfile_set_saved(bool saved, bool accept_changed)
{
	is_saved = saved;
	accepts_changed = accept_changed;
}

/* File systems whose f_fsid, inode numbers and times are the same on every client. */
static bool on_network(uint64_t magic)
{
	static const uint32_t magics[] = {
		NFS_SUPER_MAGIC, 0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */, 0x00c36400 /* ceph */, 0x01161970 /* gfs2 */,
		0x7461636f /* ocfs2 */, 0x0bd00bd0 /* lustre */, V9FS_MAGIC, AFS_SUPER_MAGIC,
	};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (magics[i] == (uint32_t)magic)
			return true;
	return false;
}

static bool by_kernel(uint64_t magic)
{
	return magic == PROC_SUPER_MAGIC || magic == SYSFS_MAGIC || magic == CGROUP2_SUPER_MAGIC;
}

bool fsfile_is_network_same(uint64_t fs_magic, uint64_t fsid, const struct statfs *here)
{
	uint64_t own;

	memcpy(&own, &here->f_fsid, sizeof(own));
	return on_network(fs_magic) && fs_magic == (uint64_t)here->f_type && fsid == own;
}

/* The very same file? */
static bool same_file(const struct fsfile *f, const struct stat *st, const struct statfs *fs, const uint8_t boot_id[16])
{
	int64_t mtime = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;

	if (is_saved)
		return (f->size == (uint64_t)st->st_size && f->mtime_ns == mtime) || (accepts_changed && !(f->uses & (FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM)));
	if (!memcmp(f->boot_id, boot_id, sizeof(f->boot_id)))
		return f->dev == st->st_dev && f->ino == st->st_ino;
	return fsfile_is_network_same(f->fs_magic, f->fsid, fs) && f->ino == st->st_ino && f->size == (uint64_t)st->st_size && f->mtime_ns == mtime;
}

/* Another file with the same content? Only asked for files that the process does not write to. */
static bool same_content(const struct fsfile *f, int fd, const struct stat *st)
{
	uint8_t id[FSFILE_BUILD_ID_MAX], hash[32];
	bool only_mapped = !(f->uses & ~(FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM));

	if (f->size != (uint64_t)st->st_size)
		return false;
	if (f->has_sha256)
		return sha256_file(fd, hash) == 0 && !memcmp(hash, f->sha256, sizeof(hash));
	return only_mapped && f->build_id_len && buildid_read(fd, id) == f->build_id_len && !memcmp(id, f->build_id, f->build_id_len);
}

static void refuse(struct refusals *refusals, const struct fsfile *f, const char *cause, const char *way_out)
{
	refusals_add(refusals, "file.other", cause, way_out, "file %s", f->path);
}

/* How many of the directories that a path goes through are missing; -1: more than f says anything of, or something else is in the way. */
static int missing_directories(const struct fsfile *f)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s", f->path);
	for (int n = 0;; n++) {
		*strrchr(path, '/') = 0;
		if (stat(path[0] ? path : "/", &st) == 0)
			return S_ISDIR(st.st_mode) ? n : -1;
		if (errno != ENOENT || !path[0] || n == (int)f->ndirectories)
			return -1;
	}
}

/*
 * Whether the place of a file that is not here is on the very file system where the source had it: then the file is gone there, too, and making
 * one would put it under the eyes of the process that still runs (an empty journal may mean something to it).
 */
static bool place_is_shared(const struct fsfile *f)
{
	uint8_t boot_id[16];
	char path[PATH_MAX];
	struct statfs fs;
	uint64_t fsid;

	snprintf(path, sizeof(path), "%s", f->path);
	do {
		*strrchr(path, '/') = 0;
	} while (statfs(path[0] ? path : "/", &fs) < 0 && path[0]);
	memcpy(&fsid, &fs.f_fsid, sizeof(fsid));
	if (!fsid || fsid != f->fsid || (uint64_t)fs.f_type != f->fs_magic)
		return false;
	return on_network(f->fs_magic) || (fsfile_boot_id(boot_id, NULL) == 0 && !memcmp(f->boot_id, boot_id, sizeof(boot_id)));
}

/* What to do with a file that is not here. */
static void answer_absent(const struct fsfile *f, struct fsfile_answer *a, struct refusals *refusals)
{
	bool mapped_only = !(f->uses & (FSFILE_OPEN_READ | WRITES | FSFILE_MAPPED_SHARED));

	a->differs = is_saved || !place_is_shared(f);
	if (!mapped_only && missing_directories(f) >= 0 && !a->differs) {
		refuse(refusals, f, "it has been removed since the source looked", "try again");
	} else if (!mapped_only && missing_directories(f) >= 0) {
		a->verdict = FSFILE_CREATE;
	} else if (f->uses & WRITES) {
		refuse(refusals, f, "the program writes to it, and its directory does not exist and cannot be made on the destination",
		       "create the directory there, or mount the file system that holds it");
	} else {
		a->verdict = FSFILE_STAND_IN;
		a->mapped_only = mapped_only;
	}
}

/* A file whose mark says this has not been left: it was made for the unit. */
#define MARK_MADE INT64_MIN

struct mark {
	int64_t mtime_ns; /* when the unit left, or MARK_MADE */
	uint64_t size;
	char unit[256];
};

static void set_mark(const char *path, const struct fsfile *f, int64_t mtime_ns, uint64_t size)
{
	struct mark m = { .mtime_ns = mtime_ns, .size = size };

	if (!f->unit || strlen(f->unit) >= sizeof(m.unit))
		return;
	snprintf(m.unit, sizeof(m.unit), "%s", f->unit);
	(void)!setxattr(path, MARK, &m, offsetof(struct mark, unit) + strlen(m.unit), 0);
}

/* Whether the file at f's path is what the unit that f belongs to left there. */
static bool mark_is_ours(const struct fsfile *f, const struct stat *st)
{
	struct mark m = { 0 };
	ssize_t len = f->unit ? getxattr(f->path, MARK, &m, sizeof(m) - 1) : -1;

	if (len <= (ssize_t)offsetof(struct mark, unit) || strcmp(m.unit, f->unit))
		return false;
	return m.mtime_ns == MARK_MADE ||
	       (m.mtime_ns == st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec && m.size == (uint64_t)st->st_size);
}

void fsfile_mark_left(const struct fsfile *f)
{
	char link[32];
	struct stat st;

	if (f->type == FSFILE_SYSV) {
		fsfile_memory_remove(f);
		return;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", f->fd);
	if (f->fd >= 0 && fstat(f->fd, &st) == 0)
		set_mark(link, f, st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec, (uint64_t)st.st_size);
}

/* What to do when another file is at the path. */
static void answer_other(const struct fsfile *f, const struct stat *st, struct fsfile_answer *a, struct refusals *refusals)
{
	a->differs = true;
	if (S_ISREG(st->st_mode) && mark_is_ours(f, st)) {
		a->verdict = FSFILE_CREATE;
		a->replaces = true;
		return;
	}
	if (f->uses & WRITES && is_saved && S_ISREG(st->st_mode)) {
		refuse(refusals, f, "the program writes to it, and it has changed since the image was made", "with --changed-files=accept it is used as it is; or put back the file that it was");
		return;
	}
	if (f->uses & WRITES) {
		refuse(refusals, f, "the program writes to it, and another file of that name is on the destination",
		       "share the file system between the hosts, or remove the file there");
		return;
	}
	a->verdict = FSFILE_STAND_IN;
	a->mapped_only = !(f->uses & FSFILE_OPEN_READ);
}

static int answer_present(const struct fsfile *f, int path_fd, struct fsfile_answer *a, struct refusals *refusals, struct err *e)
{
	cleanup_close int fd = -1;
	uint8_t boot_id[16];
	struct statfs fs;
	struct stat st;
	int rc = fsfile_boot_id(boot_id, e);

	if (rc < 0)
		return rc;
	if (fstat(path_fd, &st) < 0 || fstatfs(path_fd, &fs) < 0)
		return err_sys(e, -errno, "%s", f->path);
	if (!S_ISREG(st.st_mode)) {
		answer_other(f, &st, a, refusals);
		return 0;
	}
	fd = fsfile_reopen(path_fd, f->uses & WRITES ? O_RDWR : O_RDONLY);
	if (fd < 0 && (f->uses & WRITES)) {
		char cause[256];

		snprintf(cause, sizeof(cause), "the program writes to it, and on the destination it cannot be opened for writing: %s",
			 strerror(-fd));
		refuse(refusals, f, cause, "make it writable there");
		return 0;
	}
	if (fd < 0)
		return err_sys(e, fd, "%s", f->path);
	a->same = (fsfile_is_homes(f) ? f->ino == st.st_ino : same_file(f, &st, &fs, boot_id)) || (by_kernel(f->fs_magic) && f->fs_magic == (uint64_t)fs.f_type);
	if (a->same || (!(f->uses & WRITES) && same_content(f, fd, &st))) {
		a->verdict = FSFILE_HAVE;
		a->fd = take_fd(&fd);
		return 0;
	}
	if (fsfile_is_homes(f))
		return err_set(e, -EAGAIN, "%s has been renamed or replaced since the source looked", f->path);
	answer_other(f, &st, a, refusals);
	return 0;
}

/*
 * A file that no path leads to: the host's root file system may be the same as the source's, and have it below what is mounted over it. A clone of that mount alone shows it by
 * the path that /proc/PID/fd shows.
 */
static int answer_below(const struct fsfile *f, struct fsfile_answer *a, struct err *e)
{
	cleanup_close int root = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), fd = -1;
	struct fsfile_answer there = FSFILE_ANSWER_INIT;
	struct refusals ignored = { 0 };
	int rc = 0;

	if (root >= 0)
		fd = openat(root, fsfile_seen(f) + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		rc = answer_present(f, fd, &there, &ignored, e);
	refusals_free(&ignored);
	if (rc == 0 && there.verdict == FSFILE_HAVE && there.same)
		*a = there;
	else
		close_fdp(&there.fd);
	return rc;
}

int fsfile_match(const struct fsfile *f, struct fsfile_answer *ret, struct refusals *refusals, struct err *e)
{
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	cleanup_close int fd = -1;
	int rc = 0;

	if (!f->uses) {
		a.verdict = FSFILE_HAVE;
	} else if (f->out_of_reach) {
		rc = answer_below(f, &a, e);
		if (rc == 0 && a.verdict != FSFILE_HAVE)
			refuse(refusals, f, "no path leads to it: something has been mounted over it since it was opened, or it was opened in another mount namespace than the program's",
		       "close it, or unmount that, first; if it was given to the program (> FILE from outside a container), give it a pipe instead (| cat > FILE)");
	} else if (f->fs_magic == PROC_SUPER_MAGIC && strlen(fsfile_seen(f)) > 6 && fsfile_seen(f)[6] >= '0' && fsfile_seen(f)[6] <= '9') {
		refuse(refusals, f, "it is a file of /proc about a process of the source", "close it first");
	} else if (fsfile_is_memory(f)) {
		size_t before = refusals->n;

		fsfile_memory_match(f, refusals);
		a.verdict = refusals->n > before ? FSFILE_REFUSE : FSFILE_TEMP;
	} else if (f->unlinked && !(f->uses & (FSFILE_OPEN_READ | FSFILE_MAPPED_SHARED | WRITES))) {
		a.verdict = FSFILE_STAND_IN;
		a.mapped_only = true;
	} else if (f->unlinked) {
		a.verdict = FSFILE_TEMP;
		if (f->nlink && (f->uses & WRITES)) {
			a.verdict = FSFILE_REFUSE;
			refuse(refusals, f, "the program writes to it; its name was removed, and it has another name that cannot be found",
			       "close it first");
		}
	} else {
		fd = open(f->path, O_PATH | O_CLOEXEC);
		if (fd >= 0)
			rc = answer_present(f, fd, &a, refusals, e);
		else if (fsfile_is_homes(f))
			rc = err_set(e, errno == ENOENT ? -EAGAIN : -errno, "%s, which home serves: %s", f->path, strerror(errno));
		else if (errno == ENOENT || errno == ENOTDIR)
			answer_absent(f, &a, refusals);
		else
			rc = err_sys(e, -errno, "%s", f->path);
	}
	if (rc == 0)
		*ret = a;
	return rc;
}

static int make_directory(struct err *e)
{
	static const char *const parts[] = { "/var/lib/godwit", FSFILE_DIR };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (mkdir(parts[i], 0755) < 0 && errno != EEXIST)
			return err_sys(e, -errno, "%s", parts[i]);
	return 0;
}

/* A stand-in of the file's own base name, so that /proc/PID/exe says something useful. */
static int open_stand_in(const struct fsfile *f, struct err *e)
{
	const char *base = strrchr(f->path, '/') + 1;
	char name[PATH_MAX];
	uint64_t random;
	int fd, rc = make_directory(e);

	if (rc < 0)
		return rc;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_sys(e, -EIO, "getrandom");
	snprintf(name, sizeof(name), FSFILE_DIR "/%016llx.%.200s", (unsigned long long)random, base);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0700);
	if (fd < 0)
		return err_sys(e, -errno, "%s", name);
	if (!(f->uses & FSFILE_PROGRAM))
		unlink(name);
	return fd;
}

static int open_temp(const struct fsfile *f, struct err *e)
{
	cleanup_close int directory = -1;
	int fd, rc;

	if (fsfile_is_memory(f))
		return fsfile_memory_make(f, e);
	directory = fsfile_open_parent(f->path, NULL);
	fd = directory < 0 ? directory : ns_user_create(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	rc = make_directory(e);
	if (rc < 0)
		return rc;
	fd = open(FSFILE_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, -errno, FSFILE_DIR ": O_TMPFILE") : fd;
}

/* Makes the directories that are missing, from the outermost one on. */
static int make_parents(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	for (int n = missing_directories(f); n > 0; n--) {
		const struct fsfile_directory *d = &f->directories[n - 1];
		cleanup_close int above = -1, made = -1;
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s", f->path);
		for (int i = 0; i < n; i++)
			*strrchr(path, '/') = 0;
		above = fsfile_open_parent(path, e);
		if (above < 0)
			return above;
		if (mkdirat(above, fsfile_last_name(path), 0700) < 0)
			return err_sys(e, -errno, "making %s", path);
		answer->made++;
		made = openat(above, fsfile_last_name(path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (made < 0 || fchown(made, d->uid, d->gid) < 0 || fchmod(made, d->mode) < 0)
			return err_sys(e, -errno, "%s: owner and mode", path);
	}
	return 0;
}

static void remove_parents(const struct fsfile *f, struct fsfile_answer *answer)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", f->path);
	for (; answer->made; answer->made--) {
		*strrchr(path, '/') = 0;
		if (rmdir(path) < 0)
			return;
	}
}

/* A new file in the place of the unit's old one, which is kept beside it until the commit. */
static int open_replacing(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	cleanup_free char *name = NULL;
	cleanup_close int directory = -1;
	const char *slash = strrchr(f->path, '/');
	uint64_t random;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random) ||
	    asprintf(&name, "%.*s/.godwit-%016llx", (int)(slash - f->path), f->path, (unsigned long long)random) < 0)
		return err_sys(e, -ENOMEM, "replacing %s", f->path);
	directory = fsfile_open_parent(f->path, e);
	if (directory < 0)
		return directory;
	fd = ns_user_create(directory, fsfile_last_name(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "creating %s", name);
	if (renameat2(directory, fsfile_last_name(name), directory, fsfile_last_name(f->path), RENAME_EXCHANGE) < 0) {
		int code = -errno;

		unlinkat(directory, fsfile_last_name(name), 0);
		close(fd);
		return err_sys(e, code, "replacing %s", f->path);
	}
	answer->aside = take_ptr(name);
	return fd;
}

static int open_created(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	cleanup_close int directory = -1;
	int fd, rc;

	if (answer->replaces)
		return open_replacing(f, answer, e);
	rc = make_parents(f, answer, e);
	if (rc == 0)
		rc = directory = fsfile_open_parent(f->path, e);
	if (rc < 0) {
		remove_parents(f, answer);
		return rc;
	}
	fd = ns_user_create(directory, fsfile_last_name(f->path), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0)
		return fd;
	fd = -errno;
	remove_parents(f, answer);
	return err_sys(e, fd == -EEXIST ? -EAGAIN : fd, "creating %s", f->path);
}

int fsfile_open_lacking(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	int fd;

	if (!fsfile_answer_lacks(answer))
		return 0;
	if (answer->verdict == FSFILE_STAND_IN) {
		fd = open_stand_in(f, e);
	} else if (answer->verdict == FSFILE_TEMP) {
		fd = open_temp(f, e);
	} else {
		fd = open_created(f, answer, e);
	}
	if (fd < 0)
		return fd;
	answer->fd = fd;
	answer->born_open = f->type == FSFILE_MEMFD;
	answer->created = answer->verdict == FSFILE_CREATE || f->type == FSFILE_SYSV;
	if (answer->verdict == FSFILE_CREATE)
		set_mark(f->path, f, MARK_MADE, 0);
	if (f->type != FSFILE_SYSV && f->type != FSFILE_SHARED_ANON && ftruncate(fd, f->size) < 0) {
		int code = -errno;

		fsfile_answer_undo(f, answer);
		return err_sys(e, code, "%s: %llu bytes", f->path, (unsigned long long)f->size);
	}
	return 0;
}

/* A program that was finished is only open for reading. It is opened for writing once more when more of it arrives, before it runs. */
static int make_writable(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	int flags = fcntl(answer->fd, F_GETFL), fd;

	if (flags < 0 || (flags & O_ACCMODE) != O_RDONLY)
		return 0;
	fd = fsfile_reopen(answer->fd, O_RDWR);
	if (fd < 0)
		return err_sys(e, fd == -ETXTBSY ? -EAGAIN : fd, "%s: opening it for writing again", f->path);
	close(answer->fd);
	answer->fd = fd;
	return 0;
}

static int set_size(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	struct stat st;
	int ret = 0;

	if (f->type == FSFILE_SYSV || f->type == FSFILE_SHARED_ANON)
		return 0;
	if (fstat(answer->fd, &st) < 0 || st.st_size != (off_t)f->size)
		ret = make_writable(f, answer, e);
	else
		return 0;
	if (ret == 0 && ftruncate(answer->fd, (off_t)f->size) < 0)
		return err_sys(e, -errno, "%s: size", f->path);
	return ret;
}

int fsfile_put(const struct fsfile *f, struct fsfile_answer *answer, uint64_t offset, const void *data, size_t len_bytes, struct err *e)
{
	const char *p = data;
	int ret;

	if (answer->fd < 0 || !fsfile_answer_lacks(answer))
		return err_set(e, -EBADMSG, "%s: content that was not asked for", f->path);
	if (offset > f->size || len_bytes > f->size - offset)
		return err_set(e, -EBADMSG, "%s: content behind its end", f->path);
	ret = make_writable(f, answer, e);
	if (ret < 0)
		return ret;
	if (f->huge_shift)
		return fsfile_memory_write(f, answer->fd, offset, data, len_bytes, e);
	while (len_bytes) {
		ssize_t done = pwrite(answer->fd, p, len_bytes, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(e, done < 0 ? -errno : -ENOSPC, "writing %s", f->path);
		p += done;
		offset += done;
		len_bytes -= done;
	}
	return 0;
}

/* A new owner takes capabilities away: after that. */
static int set_xattrs(const struct fsfile *f, int fd, struct err *e)
{
	char link[32];
	int ret;

	if (!f->has_xattrs)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ret = xattrs_set(link, true, f->xattrs, f->nxattrs, false, e);
	if (ret < 0)
		err_wrap(e, "%s", fsfile_told(f));
	return ret;
}

int fsfile_finish(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
	int fd = answer->fd, readable, ret;

	if (!fsfile_answer_lacks(answer) || fd < 0)
		return 0;
	if (f->mtime_ns >= 0)
		times[1] = (struct timespec){ f->mtime_ns / 1000000000, f->mtime_ns % 1000000000 };
	ret = set_size(f, answer, e);
	if (ret < 0)
		return ret;
	fd = answer->fd;
	if (fsfile_is_memory(f)) {
		ret = fsfile_memory_finish(f, fd, e);
		return ret < 0 ? ret : set_xattrs(f, fd, e);
	}
	if (answer->verdict != FSFILE_STAND_IN && fchown(fd, f->uid, f->gid) < 0)
		return err_sys(e, -errno, "%s: owner %u:%u", f->path, f->uid, f->gid);
	/* A stand-in is root's: it lends nobody root's ids. */
	if (fchmod(fd, answer->verdict == FSFILE_STAND_IN ? f->mode & ~(S_ISUID | S_ISGID) : f->mode) < 0)
		return err_sys(e, -errno, "%s: mode", f->path);
	ret = set_xattrs(f, fd, e);
	if (ret < 0)
		return ret;
	if (futimens(fd, times) < 0)
		return err_sys(e, -errno, "%s: times", f->path);
	if (!(f->uses & FSFILE_PROGRAM))
		return 0;
	/* A file that someone has open for writing cannot be a program */
	readable = fsfile_reopen(fd, O_RDONLY);
	if (readable < 0)
		return err_sys(e, readable, "%s: opening it again", f->path);
	close(fd);
	answer->fd = readable;
	return 0;
}

int fsfile_finish_late(const struct fsfile *f, struct fsfile_answer *answer, struct err *e)
{
	if (!fsfile_is_memory(f) || !fsfile_answer_lacks(answer) || answer->fd < 0)
		return 0;
	return fsfile_memory_finish_late(f, answer->fd, e);
}

static bool is_at_path(const struct fsfile *f, int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && lstat(f->path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Whether the answer that was given is right for more uses, too. */
static bool answer_fits(const struct fsfile_answer *a, uint32_t uses)
{
	if (a->verdict == FSFILE_HAVE && a->fd >= 0)
		return a->same || !(uses & WRITES);
	if (a->fd < 0)
		return !uses;
	return a->verdict != FSFILE_STAND_IN || !(uses & WRITES);
}

int fsfile_update(struct fsfile *f, const struct fsfile *now, struct fsfile_answer *answer, struct err *e)
{
	bool resized;

	/* The key of a segment is in its path, and goes when it is destroyed; memory has no name that matters. */
	if (f->type != now->type || f->dev != now->dev || f->ino != now->ino || (!fsfile_is_memory(f) && strcmp(f->path, now->path)))
		return err_set(e, -EBADMSG, "%s: the update is about another file (%s)", f->path, now->path);
	if (!answer_fits(answer, now->uses) || (now->uses & ~f->uses & FSFILE_PROGRAM))
		return err_set(e, -EAGAIN, "%s: the process uses it in another way since the offer", f->path);
	resized = f->size != now->size;
	f->size = now->size;
	f->mode = now->mode;
	f->uid = now->uid;
	f->gid = now->gid;
	f->mtime_ns = now->mtime_ns;
	f->ctime_ns = now->ctime_ns;
	f->seals = now->seals;
	xattrs_free(f->xattrs, f->nxattrs);
	f->xattrs = xattrs_copy(now->xattrs, now->nxattrs);
	f->nxattrs = now->nxattrs;
	f->has_xattrs = f->has_xattrs || f->nxattrs;
	f->sysv = now->sysv;
	f->uses = now->uses;
	if (!fsfile_answer_lacks(answer) || answer->fd < 0)
		return 0;
	if (now->unlinked && !f->unlinked && answer->created && is_at_path(f, answer->fd))
		unlink(f->path);
	f->unlinked = now->unlinked;
	return resized ? set_size(f, answer, e) : 0;
}

void fsfile_answer_close(struct fsfile_answer *answer)
{
	if (answer->aside)
		unlink(answer->aside);
	freep(&answer->aside);
	close_fdp(&answer->fd);
}

void fsfile_answer_undo(const struct fsfile *f, struct fsfile_answer *answer)
{
	char link[32], path[PATH_MAX];
	ssize_t len;

	if (answer->fd < 0)
		return;
	if (answer->created && f->type == FSFILE_SYSV) {
		fsfile_memory_remove(f);
	} else if (answer->created && is_at_path(f, answer->fd)) {
		if (answer->aside && rename(answer->aside, f->path) == 0)
			freep(&answer->aside);
		else
			unlink(f->path);
		remove_parents(f, answer);
	}
	if (answer->verdict == FSFILE_STAND_IN && (f->uses & FSFILE_PROGRAM)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", answer->fd);
		len = readlink(link, path, sizeof(path) - 1);
		path[MAX(len, 0)] = 0;
		if (!strncmp(path, FSFILE_DIR "/", sizeof(FSFILE_DIR)))
			unlink(path);
	}
	answer->created = false;
	fsfile_answer_close(answer);
}
