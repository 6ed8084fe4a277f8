// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_files.c - a file relay: its frames (first byte f), and the requests of another host's kernel (r)
 *
 * Frames come over a socket. Requests, each with its length (u16) before it, go through the check to libfuse itself, with operations that do nothing but look at everything
 * that they are given: the sanitizer sees what lies outside.
 */
#define FUSE_USE_VERSION 34
#include <fuse3/fuse_lowlevel.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "home/files_check.h"
#include "home/files_link.h"

#define FRAMES_MAX 32768u /* fits into a socket */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
const char *__lsan_default_suppressions(void); /* sanitizer/lsan_interface.h */

/* An INTERRUPT of a request that libfuse does not know waits in the session for the next request; fuse_session_destroy(3) does not free it. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libfuse3.so\n";
}

/* --- frames --- */

static volatile uint8_t sink;

static void look(const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		sink ^= p[i];
}

static void handle(void *arg, const uint8_t *data, size_t len)
{
	look(data, len);
	++*(unsigned *)arg;
}

static void try_frames(const uint8_t *data, size_t len)
{
	struct files_link l = FILES_LINK_INIT;
	unsigned handled = 0;
	struct err e = ERR_INIT;
	int pair[2], ret;

	if (len > FRAMES_MAX || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	if (write(pair[1], data, len) != (ssize_t)len)
		abort();
	shutdown(pair[1], SHUT_WR);
	files_link_attach(&l, pair[0]);
	files_link_send(&l, &(struct iovec){ (char[]){ "kept" }, 4 }, 1);
	ret = files_link_input(&l, handle, &handled, &e);
	if (ret >= 0 || !e.message[0] || handled != l.handled) /* at the latest the stream ends */
		abort();
	files_link_output(&l, NULL);
	files_link_detach(&l);
	while (l.first) {
		struct { void *next; } *k = (void *)l.first;

		l.first = k->next;
		free(k);
	}
	close(pair[1]);
}

/* --- requests --- */

static bool is_node(uint64_t number)
{
	return number > 1 && number < 10;
}

static enum files_handle handle_of(uint64_t number)
{
	return number >= 3 && number <= 5 ? FILES_HANDLE_FILE : number == 6 ? FILES_HANDLE_DIRECTORY : FILES_HANDLE_NONE;
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void must_be_node(fuse_ino_t ino)
{
	must(is_node(ino));
}

static void must_be_name(const char *name)
{
	look(name, strlen(name) + 1);
	must(*name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."));
}

static void must_be_file(const struct fuse_file_info *fi)
{
	must(handle_of(fi->fh) == FILES_HANDLE_FILE);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	must(parent == FUSE_ROOT_ID || is_node(parent));
	must_be_name(name);
	fuse_reply_err(req, ENOENT);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	(void)ino;
	(void)n;
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list)
{
	look(list, count * sizeof(*list));
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	must(ino == FUSE_ROOT_ID || is_node(ino));
	fuse_reply_err(req, ENOENT);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	(void)to_set;
	must_be_node(ino);
	look(st, sizeof(*st));
	if (fi)
		must_be_file(fi);
	fuse_reply_err(req, EPERM);
}

static void op_node(fuse_req_t req, fuse_ino_t ino)
{
	must_be_node(ino);
	fuse_reply_err(req, EPERM);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	(void)mode;
	(void)device;
	must_be_node(parent);
	must_be_name(name);
	fuse_reply_err(req, EPERM);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, mode, 0);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	op_mknod(req, parent, name, 0, 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	look(target, strlen(target) + 1);
	op_mknod(req, parent, name, 0, 0);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	must_be_node(ino);
	op_mknod(req, parent, name, 0, 0);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned flags)
{
	(void)flags;
	must_be_node(to);
	must_be_name(new_name);
	op_mknod(req, parent, name, 0, 0);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	must(ino == FUSE_ROOT_ID || is_node(ino));
	fuse_reply_err(req, EPERM);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)fi;
	op_mknod(req, parent, name, mode, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)offset;
	must_be_node(ino);
	must_be_file(fi);
	must(size <= 1 << 20);
	fuse_reply_err(req, EIO);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)offset;
	must_be_node(ino);
	must_be_file(fi);
	look(data, size);
	fuse_reply_write(req, size);
}

static void op_file(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	must_be_node(ino);
	must_be_file(fi);
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	(void)data_only;
	op_file(req, ino, fi);
}

static void op_directory(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	must(handle_of(fi->fh) == FILES_HANDLE_DIRECTORY);
	fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)offset;
	must(size <= 1 << 20);
	op_directory(req, ino, fi);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)flags;
	must_be_node(ino);
	look(name, strlen(name) + 1);
	look(value, size);
	fuse_reply_err(req, EPERM);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	must(size <= 1 << 20);
	op_setxattr(req, ino, name, NULL, 0, 0);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	must(size <= 1 << 20);
	op_node(req, ino);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	op_setxattr(req, ino, name, NULL, 0, 0);
}

static void op_lock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	look(lock, sizeof(*lock));
	op_file(req, ino, fi);
}

static void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	(void)sleep;
	op_lock(req, ino, fi, lock);
}

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	(void)op;
	op_file(req, ino, fi);
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, int cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	(void)cmd;
	(void)arg;
	(void)flags;
	(void)out_size;
	look(in, in_size);
	op_file(req, ino, fi);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)mode;
	(void)offset;
	(void)length;
	op_file(req, ino, fi);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	(void)offset;
	(void)whence;
	op_file(req, ino, fi);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi, .getattr = op_getattr, .setattr = op_setattr, .readlink = op_node, .mknod = op_mknod,
	.mkdir = op_mkdir, .symlink = op_symlink, .link = op_link, .unlink = op_remove, .rmdir = op_remove, .rename = op_rename, .open = op_open, .create = op_create,
	.read = op_read, .write = op_write, .flush = op_file, .release = op_file, .fsync = op_fsync, .opendir = op_open, .readdir = op_readdir,
	.releasedir = op_directory, .setxattr = op_setxattr, .getxattr = op_getxattr, .listxattr = op_listxattr, .removexattr = op_removexattr, .getlk = op_lock,
	.setlk = op_setlk, .flock = op_flock, .ioctl = op_ioctl, .fallocate = op_fallocate, .lseek = op_lseek,
};

static ssize_t take_answer(int fd, struct iovec *iov, int count, void *userdata)
{
	size_t len = 0;

	(void)fd;
	(void)userdata;
	for (int i = 0; i < count; i++) {
		look(iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return (ssize_t)len;
}

static ssize_t read_nothing(int fd, void *buffer, size_t len, void *userdata)
{
	(void)fd;
	(void)buffer;
	(void)len;
	(void)userdata;
	errno = EAGAIN;
	return -1;
}

static void say_nothing(enum fuse_log_level level, const char *format, va_list arguments)
{
	(void)level;
	(void)format;
	(void)arguments;
}

static void try_requests(const uint8_t *data, size_t len)
{
	static const struct fuse_custom_io io = { .writev = take_answer, .read = read_nothing };
	struct files_known known = { false, is_node, handle_of };
	struct fuse_args args = FUSE_ARGS_INIT(1, ((char *[]){ (char[]){ "fuzz" }, NULL }));
	struct fuse_session *session;
	uint16_t n;

	fuse_set_log_func(say_nothing);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	fuse_opt_free_args(&args);
	if (!session || fuse_session_custom_io(session, &io, open("/dev/null", O_RDWR | O_CLOEXEC)) != 0)
		abort();
	for (; len >= sizeof(n); data += n, len -= n) {
		struct fuse_buf buffer;
		int code;

		memcpy(&n, data, sizeof(n));
		data += sizeof(n);
		len -= sizeof(n);
		n = (uint16_t)MIN(n, len);
		buffer = (struct fuse_buf){ .size = n, .mem = malloc(n ? n : 1) };
		if (!buffer.mem)
			abort();
		memcpy(buffer.mem, data, n); /* by itself, so that its end is an end */
		code = files_request_check(buffer.mem, n, &known);
		if (code > 4096 || (code < 0 && code != -EPROTO))
			abort();
		if (code == 0) {
			known.begun = true;
			fuse_session_process_buf(session, &buffer);
		}
		free(buffer.mem);
	}
	fuse_session_destroy(session); /* closes the descriptor */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len || len > 65536)
		return 0;
	if (data[0] == 'f')
		try_frames(data + 1, len - 1);
	else if (data[0] == 'r')
		try_requests(data + 1, len - 1);
	return 0;
}
