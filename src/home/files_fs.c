/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_fs.c - names and attributes of a file relay; see files_fs.h. Contents are in files_io.c, locks in files_lock.c */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <linux/fuse.h>
#include <sys/xattr.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "home/files_fs_internal.h"
#include "home/files_listen.h"

#define WRITE_MAX (128u << 10)

static struct files_fs here; /* one for each process */

struct files_node *files_node_of(fuse_ino_t ino)
{
	struct files_node *n = here.numbers[ino % FILES_BUCKETS];

	while (n && n->number != ino)
		n = n->next_number;
	return n;
}

static void number_node(struct files_node *n)
{
	struct files_node **at;

	n->number = ++here.last_number;
	at = &here.numbers[n->number % FILES_BUCKETS];
	n->next_number = *at;
	*at = n;
}

static struct files_node **bucket_of(struct files_fs *fs, dev_t dev, ino_t ino)
{
	return &fs->buckets[(ino ^ ino >> 12 ^ dev) % FILES_BUCKETS];
}

/* Takes over fd. NULL: no memory. */
static struct files_node *know(struct files_fs *fs, int fd, const struct stat *st)
{
	struct files_node **at = bucket_of(fs, st->st_dev, st->st_ino), *n;

	for (n = *at; n; n = n->next)
		if (n->dev == st->st_dev && n->ino == st->st_ino) {
			close(fd);
			n->lookups++;
			return n;
		}
	n = malloc(sizeof(*n));
	if (!n) {
		close(fd);
		return NULL;
	}
	*n = (struct files_node){ .next = *at, .dev = st->st_dev, .ino = st->st_ino, .fd = fd, .writer = -1, .lookups = 1 };
	*at = n;
	number_node(n);
	return n;
}

static void forget(struct files_fs *fs, fuse_ino_t ino, uint64_t lookups)
{
	struct files_node *n = files_node_of(ino), **at;

	if (!n || (n >= fs->directories && n < fs->directories + fs->n_directories))
		return;
	n->lookups -= MIN(lookups, n->lookups);
	if (n->lookups)
		return;
	for (at = bucket_of(fs, n->dev, n->ino); *at != n; at = &(*at)->next)
		;
	*at = n->next;
	for (at = &fs->numbers[n->number % FILES_BUCKETS]; *at != n; at = &(*at)->next_number)
		;
	*at = n->next_number;
	files_lock_drop_all(n);
	close(n->fd);
	close_fdp(&n->writer);
	free(n);
}

int files_fs_find(struct files_fs *fs, fuse_ino_t parent, const char *name, struct fuse_entry_param *ret)
{
	struct files_node *n;
	char *end;
	int fd;

	*ret = (struct fuse_entry_param){ 0 };
	if (parent == FUSE_ROOT_ID) {
		unsigned long index = strtoul(name, &end, 10);

		if (*end || end == name || index >= fs->n_directories)
			return ENOENT;
		n = &fs->directories[index];
		ret->ino = n->number;
		return fstat(n->fd, &ret->attr) < 0 ? errno : 0;
	}
	fd = openat(files_node_fd(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (fstat(fd, &ret->attr) < 0) {
		int code = errno;

		close(fd);
		return code;
	}
	n = know(fs, fd, &ret->attr);
	ret->ino = n ? n->number : 0;
	return n ? 0 : ENOMEM;
}

static void answer_entry(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int code = files_fs_find(files_fs_of(req), parent, name, &entry);

	if (code)
		fuse_reply_err(req, code);
	else
		fuse_reply_entry(req, &entry);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	answer_entry(req, parent, name);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	forget(files_fs_of(req), ino, lookups);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list)
{
	for (size_t i = 0; i < count; i++)
		forget(files_fs_of(req), list[i].ino, list[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = { .st_mode = S_IFDIR | 0755, .st_nlink = 2, .st_ino = 1 };

	(void)fi;
	if (files_node_of(ino) && fstat(files_node_fd(ino), &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &st, 0);
}

static int truncate_node(fuse_ino_t ino, const struct fuse_file_info *fi, off_t size)
{
	char link[FILES_LINK_LEN];

	return (fi ? ftruncate((int)fi->fh, size) : truncate(files_node_link(ino, link), size)) < 0 ? errno : 0;
}

static int set_times(fuse_ino_t ino, const struct stat *st, int to_set)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		times[0] = st->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		times[1] = st->st_mtim;
	return utimensat(files_node_fd(ino), "", times, AT_EMPTY_PATH) < 0 ? errno : 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	int fd = files_node_fd(ino), code = 0;
	char link[FILES_LINK_LEN];

	if (to_set & FUSE_SET_ATTR_SIZE)
		code = truncate_node(ino, fi, st->st_size);
	if (!code && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) &&
	    fchownat(fd, "", to_set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1, to_set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1,
		     AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		code = errno;
	if (!code && to_set & FUSE_SET_ATTR_MODE && chmod(files_node_link(ino, link), st->st_mode & 07777) < 0)
		code = errno;
	if (!code && to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
		code = set_times(ino, st, to_set);
	if (code)
		fuse_reply_err(req, code);
	else
		op_getattr(req, ino, fi);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX + 1];
	ssize_t n = readlinkat(files_node_fd(ino), "", target, sizeof(target) - 1);

	if (n < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[n] = 0;
	fuse_reply_readlink(req, target);
}

/* What root has made belongs to whoever asked for it; in a directory with the set-group-id bit the group is right already. */
static int give_away(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);
	struct stat above;

	if (fstat(files_node_fd(parent), &above) < 0)
		return errno;
	return fchownat(files_node_fd(parent), name, who->uid, above.st_mode & S_ISGID ? (gid_t)-1 : who->gid, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

static void answer_made(fuse_req_t req, fuse_ino_t parent, const char *name, int made)
{
	int code = made < 0 ? errno : give_away(req, parent, name);

	if (code)
		fuse_reply_err(req, code);
	else
		answer_entry(req, parent, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	answer_made(req, parent, name, S_ISSOCK(mode) ? files_listen_make(files_node_fd(parent), name, mode) : mknodat(files_node_fd(parent), name, mode, device));
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	answer_made(req, parent, name, mkdirat(files_node_fd(parent), name, mode));
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	answer_made(req, parent, name, symlinkat(target, files_node_fd(parent), name));
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	if (linkat(files_node_fd(ino), "", files_node_fd(parent), name, AT_EMPTY_PATH) < 0)
		fuse_reply_err(req, errno);
	else
		answer_entry(req, parent, name);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, unlinkat(files_node_fd(parent), name, 0) < 0 ? errno : 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, unlinkat(files_node_fd(parent), name, AT_REMOVEDIR) < 0 ? errno : 0);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new_name, unsigned flags)
{
	fuse_reply_err(req, renameat2(files_node_fd(parent), name, files_node_fd(to), new_name, flags) < 0 ? errno : 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct files_node *n = files_node_of(ino);
	struct statvfs st;

	if (!n)
		n = files_fs_of(req)->directories;
	if (fstatvfs(n->fd, &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

/* --- extended attributes; those of symbolic links cannot be reached through a descriptor --- */

static bool is_link(fuse_ino_t ino)
{
	struct stat st;

	return fstat(files_node_fd(ino), &st) == 0 && S_ISLNK(st.st_mode);
}

static void answer_xattr(fuse_req_t req, const char *value, ssize_t n, size_t size)
{
	if (n < 0)
		fuse_reply_err(req, errno);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, value, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	cleanup_free char *value = malloc(size + 1);
	char link[FILES_LINK_LEN];

	if (is_link(ino) || !value)
		fuse_reply_err(req, value ? ENODATA : ENOMEM);
	else
		answer_xattr(req, value, getxattr(files_node_link(ino, link), name, size ? value : NULL, size), size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	cleanup_free char *value = malloc(size + 1);
	char link[FILES_LINK_LEN];

	if (!value)
		fuse_reply_err(req, ENOMEM);
	else
		answer_xattr(req, value, is_link(ino) ? 0 : listxattr(files_node_link(ino, link), size ? value : NULL, size), size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	char link[FILES_LINK_LEN];

	if (is_link(ino))
		fuse_reply_err(req, EOPNOTSUPP);
	else
		fuse_reply_err(req, setxattr(files_node_link(ino, link), name, value, size, flags) < 0 ? errno : 0);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	char link[FILES_LINK_LEN];

	if (is_link(ino))
		fuse_reply_err(req, EOPNOTSUPP);
	else
		fuse_reply_err(req, removexattr(files_node_link(ino, link), name) < 0 ? errno : 0);
}

/* --- the session --- */

static void op_init(void *userdata, struct fuse_conn_info *c)
{
	(void)userdata;
	c->max_write = WRITE_MAX;
	/* The kernel takes set-user-id bits away itself: writing as root does not. */
	c->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_READDIRPLUS |
			       FUSE_CAP_WRITEBACK_CACHE);
	c->want |= c->capable & (FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS);
}

static ssize_t put_answer(int fd, struct iovec *iov, int count, void *userdata)
{
	struct files_fs *fs = userdata;
	size_t len = 0;

	(void)fd;
	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	fs->answer(fs->arg, iov, (size_t)count);
	return (ssize_t)len;
}

/* Requests are handed in, and never read by libfuse. */
static ssize_t read_nothing(int fd, void *buffer, size_t len, void *userdata)
{
	(void)fd;
	(void)buffer;
	(void)len;
	(void)userdata;
	errno = EAGAIN;
	return -1;
}

static void log_fuse(enum fuse_log_level level, const char *format, va_list arguments)
{
	char text[256];

	(void)level;
	vsnprintf(text, sizeof(text), format, arguments);
	text[strcspn(text, "\n")] = 0;
	log_debug("event=fuse text=\"%s\"", text);
}

static int open_directories(struct files_fs *fs, char *const *directories, size_t n, struct err *e)
{
	fs->directories = calloc(n, sizeof(*fs->directories));
	if (!fs->directories)
		return err_sys(e, ENOMEM, "a file relay");
	for (size_t i = 0; i < n; i++) {
		int fd = open(directories[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0)
			return err_sys(e, errno, "%s", directories[i]);
		fs->directories[i] = (struct files_node){ .dev = st.st_dev, .ino = st.st_ino, .fd = fd, .writer = -1, .lookups = 1 };
		number_node(&fs->directories[i]);
		fs->n_directories++;
	}
	return 0;
}

int files_fs_new(char *const *directories, size_t n, void (*answer)(void *arg, const struct iovec *iov, size_t n), void *arg, struct files_fs **ret, struct err *e)
{
	static const struct fuse_custom_io io = { .writev = put_answer, .read = read_nothing };
	struct fuse_lowlevel_ops ops = {
		.init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi, .getattr = op_getattr, .setattr = op_setattr,
		.readlink = op_readlink, .mknod = op_mknod, .mkdir = op_mkdir, .symlink = op_symlink, .link = op_link, .unlink = op_unlink, .rmdir = op_rmdir,
		.rename = op_rename, .statfs = op_statfs, .getxattr = op_getxattr, .listxattr = op_listxattr, .setxattr = op_setxattr,
		.removexattr = op_removexattr,
	};
	struct fuse_args args = FUSE_ARGS_INIT(1, ((char *[]){ (char[]){ "godwit-files" }, NULL }));
	int code, fd;

	files_io_ops(&ops);
	files_lock_ops(&ops);
	fuse_set_log_func(log_fuse);
	umask(0); /* the other kernel has applied the program's */
	limits_raise_descriptors();
	here = (struct files_fs){ .answer = answer, .arg = arg, .last_number = FUSE_ROOT_ID };
	code = open_directories(&here, directories, n, e);
	if (code < 0)
		return code;
	here.session = fuse_session_new(&args, &ops, sizeof(ops), &here);
	fuse_opt_free_args(&args);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC); /* libfuse wants one */
	if (!here.session || fd < 0 || fuse_session_custom_io(here.session, &io, fd) != 0)
		return err_set(e, -ENOMEM, "libfuse: no session");
	*ret = &here;
	return 0;
}

static bool is_known(uint64_t number)
{
	return files_node_of(number) != NULL;
}

static void refuse(const struct files_fs *fs, const uint8_t *data, int code)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -code };
	struct fuse_in_header head;

	memcpy(&head, data, sizeof(head));
	out.unique = head.unique;
	log_debug("event=file-request-refused opcode=%u node=%llu code=%d", head.opcode, (unsigned long long)head.nodeid, code);
	fs->answer(fs->arg, &(struct iovec){ &out, sizeof(out) }, 1);
}

int files_fs_handle(struct files_fs *fs, const uint8_t *data, size_t len)
{
	const struct files_known known = { fs->begun, is_known, files_io_handle };
	struct fuse_buf buffer = { .size = len, .mem = (void *)(uintptr_t)data };
	int code = files_request_check(data, len, &known);

	if (code > 0)
		refuse(fs, data, code);
	if (code)
		return MIN(code, 0);
	fs->begun = true;
	fuse_session_process_buf(fs->session, &buffer);
	return 0;
}
