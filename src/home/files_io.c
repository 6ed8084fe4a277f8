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

/* An open file: fuse_file_info.fh is its descriptor. Whether it has been written to is kept beside it, by that number. */
static uint8_t *written;
static size_t n_written;

static void note_written(int fd, bool value)
{
	if ((size_t)fd >= n_written) {
		size_t n = MAX((size_t)fd + 1, n_written * 2);
		uint8_t *grown = value ? realloc(written, n) : NULL;

		if (!grown)
			return;
		memset(grown + n_written, 0, n - n_written);
		written = grown;
		n_written = n;
	}
	written[fd] = value;
}

static bool was_written(int fd)
{
	return (size_t)fd < n_written && written[fd];
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
	fi->fh = (uint64_t)fd;
	note_written(fd, false);
	if (fuse_reply_open(req, fi) < 0)
		close(fd);
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

	if (!code)
		code = files_fs_find(files_fs_of(req), parent, name, &entry);
	if (code) {
		if (fd >= 0)
			close(fd);
		fuse_reply_err(req, code);
		return;
	}
	fi->fh = (uint64_t)fd;
	note_written(fd, true); /* its name is to be on the disk, too */
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
	note_written(n->writer, true);
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
		note_written((int)fi->fh, true);
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
	note_written(fd, false);
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
	note_written((int)fi->fh, false);
	close((int)fi->fh);
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
	note_written((int)fi->fh, true);
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

struct listing {
	DIR *dir;
	off_t at; /* where the stream stands */
};

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof(*l));
	int fd = l ? openat(files_node_fd(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, code = l ? errno : ENOMEM;

	if (fd >= 0 && !(l->dir = fdopendir(fd))) {
		code = errno;
		close(fd);
	}
	if (!l || !l->dir) {
		free(l);
		fuse_reply_err(req, code);
		return;
	}
	fi->fh = (uint64_t)(uintptr_t)l;
	fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;
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
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;

	(void)ino;
	closedir(l->dir);
	free(l);
	fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;

	(void)ino;
	(void)data_only;
	fuse_reply_err(req, fsync(dirfd(l->dir)) < 0 ? errno : 0);
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
