/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_io.c - contents of files and directories of a file relay; see files_fs.h */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "base/util.h"
#include "home/files_fs_internal.h"

#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif

struct listing {
	DIR *dir;
	off_t at; /* where the stream stands */
};

/* What is open: fuse_file_info.fh is its descriptor, which is the index here. */
static struct opened {
	enum files_handle kind;
	bool written;
	struct listing *listing;
} *opened;
static size_t n_opened;

/* NULL: no memory. */
static struct opened *opened_at(int fd)
{
	if ((size_t)fd >= n_opened) {
		size_t n = MAX((size_t)fd + 1, n_opened * 2);
		struct opened *grown = realloc(opened, n * sizeof(*grown));

		if (!grown)
			return NULL;
		memset(grown + n_opened, 0, (n - n_opened) * sizeof(*grown));
		opened = grown;
		n_opened = n;
	}
	return &opened[fd];
}

enum files_handle files_io_handle(uint64_t number)
{
	return number < n_opened ? opened[number].kind : FILES_HANDLE_NONE;
}

/* The number of what has been opened; -1: no memory. */
static int64_t number_of(int fd, enum files_handle kind, bool written, struct listing *listing)
{
	struct opened *o = opened_at(fd);

	if (!o)
		return -1;
	*o = (struct opened){ kind, written, listing };
	return fd;
}

static void note_written(int fd)
{
	struct opened *o = opened_at(fd);

	if (o)
		o->written = true;
}

static bool was_written(int fd)
{
	return (size_t)fd < n_opened && opened[fd].written;
}

static void close_opened(int fd)
{
	if ((size_t)fd < n_opened)
		opened[fd] = (struct opened){ 0 };
	close(fd);
}

/* How this side opens what a program has opened with `flags`: offsets come with each request, and so does O_APPEND. */
static int own_flags(int flags)
{
	return (flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC | O_NOATIME)) | O_CLOEXEC | O_NOCTTY;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	char link[FILES_LINK_LEN];
	int fd = open(files_node_link(ino, link), own_flags(fi->flags));

	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	if (number_of(fd, FILES_HANDLE_FILE, false, NULL) < 0) {
		close(fd);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uint64_t)fd;
	fuse_reply_open(req, fi);
}

/* A new file has the owner that asked for it; one that is there already stays as it is. */
static int open_new(fuse_req_t req, int parent, const char *name, mode_t mode, int flags)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);
	int fd = openat(parent, name, own_flags(flags) | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
	struct stat above;

	if (fd < 0 && errno == EEXIST && !(flags & O_EXCL))
		return openat(parent, name, own_flags(flags) | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	if (fstat(parent, &above) < 0 || fchown(fd, who->uid, above.st_mode & S_ISGID ? (gid_t)-1 : who->gid) < 0 ||
	    (mode & (S_ISUID | S_ISGID) && fchmod(fd, mode & 07777) < 0)) {
		int code = errno;

		unlinkat(parent, name, 0);
		close(fd);
		errno = code;
		return -1;
	}
	return fd;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	int fd = open_new(req, files_node_fd(parent), name, mode, fi->flags), code = fd < 0 ? errno : 0;
	struct fuse_entry_param entry;

	if (!code && number_of(fd, FILES_HANDLE_FILE, true, NULL) < 0) /* written: its name is to be on the disk, too */
		code = ENOMEM;
	if (!code)
		code = files_fs_find(files_fs_of(req), parent, name, &entry);
	if (code) {
		if (fd >= 0)
			close_opened(fd);
		fuse_reply_err(req, code);
		return;
	}
	fi->fh = (uint64_t)fd;
	fuse_reply_create(req, &entry, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	cleanup_free char *buffer = malloc(size);
	ssize_t n = buffer ? pread((int)fi->fh, buffer, size, offset) : (errno = ENOMEM, -1);

	(void)ino;
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)n);
}

/* What a shared mapping has written comes with any descriptor that can write; its place counts, and not O_APPEND. */
static ssize_t write_page(fuse_ino_t ino, const char *data, size_t size, off_t offset)
{
	struct files_node *n = files_node_of(ino);
	char link[FILES_LINK_LEN];

	if (n->writer < 0)
		n->writer = open(files_node_link(ino, link), O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (n->writer < 0)
		return -1;
	note_written(n->writer);
	return pwrite(n->writer, data, size, offset);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct iovec iov = { (void *)(uintptr_t)data, size };
	ssize_t n;

	if (fi->writepage) {
		n = write_page(ino, data, size, offset);
	} else {
		n = pwritev2((int)fi->fh, &iov, 1, offset, fi->flags & O_APPEND ? RWF_APPEND : 0);
		note_written((int)fi->fh);
	}
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static int to_disk(int fd)
{
	if (fd < 0 || !was_written(fd))
		return 0;
	if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
		return errno;
	opened[fd].written = false;
	return 0;
}

/* close(2), by any process: what was written is not lost any more, and the closer's locks go. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct files_node *n = files_node_of(ino);
	int code = to_disk((int)fi->fh);

	if (!code)
		code = to_disk(n->writer);
	files_lock_drop(n, fi->lock_owner);
	fuse_reply_err(req, code);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	files_lock_closed(files_node_of(ino), (int)fi->fh);
	close_opened((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_err(req, (data_only ? fdatasync((int)fi->fh) : fsync((int)fi->fh)) < 0 ? errno : 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)ino;
	note_written((int)fi->fh);
	fuse_reply_err(req, fallocate((int)fi->fh, mode, offset, length) < 0 ? errno : 0);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	off_t at = lseek((int)fi->fh, offset, whence);

	(void)ino;
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

/* --- directories --- */

static struct listing *listing_of(const struct fuse_file_info *fi)
{
	return opened[fi->fh].listing;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof(*l));
	int fd = l ? openat(files_node_fd(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, code = l ? errno : ENOMEM;

	if (fd >= 0 && number_of(fd, FILES_HANDLE_DIRECTORY, false, l) < 0)
		code = ENOMEM;
	else if (fd >= 0 && !(l->dir = fdopendir(fd)))
		code = errno;
	if (!l || !l->dir) {
		if (fd >= 0)
			close_opened(fd);
		free(l);
		fuse_reply_err(req, code);
		return;
	}
	fi->fh = (uint64_t)fd;
	fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct listing *l = listing_of(fi);
	cleanup_free char *buffer = malloc(size);
	struct dirent *item;
	size_t len = 0;

	(void)ino;
	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (offset == 0)
		rewinddir(l->dir);
	else if (offset != l->at)
		seekdir(l->dir, offset);
	l->at = offset;
	errno = 0;
	while ((item = readdir(l->dir))) {
		struct stat st = { .st_ino = item->d_ino, .st_mode = (mode_t)item->d_type << 12 };
		size_t more = fuse_add_direntry(req, buffer + len, size - len, item->d_name, &st, item->d_off);

		if (more > size - len) {
			seekdir(l->dir, l->at); /* this one is for the next request */
			break;
		}
		len += more;
		l->at = item->d_off;
	}
	if (!item && errno && !len)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, len);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *l = listing_of(fi);

	(void)ino;
	opened[fi->fh] = (struct opened){ 0 };
	closedir(l->dir);
	free(l);
	fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	(void)ino;
	(void)data_only;
	fuse_reply_err(req, fsync((int)fi->fh) < 0 ? errno : 0);
}

void files_io_ops(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->create = op_create;
	ops->read = op_read;
	ops->write = op_write;
	ops->flush = op_flush;
	ops->release = op_release;
	ops->fsync = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}
