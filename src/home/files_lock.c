/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_lock.c - locks of a file relay; see files_fs.h
 *
 * A lock of fcntl(2) belongs to an owner, of which the other kernel says only a number. Here each owner has a descriptor of its own for each file, with locks of the open
 * file description: those of two owners exclude each other and those of this host's processes, and closing the descriptor gives them back. flock(2) is done to the
 * descriptor that stands for the program's. Who has to wait is looked at again every few milliseconds, since nothing here may block.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "base/util.h"
#include "home/files_fs_internal.h"
#include "kern/files_locks.h"

struct files_lock_owner {
	struct files_lock_owner *next;
	uint64_t owner;
	int fd;
	int fh;    /* the open file through which it has locked; -1: none yet */
	pid_t pid; /* of who has locked, there */
};

struct files_waiter {
	struct files_waiter *next;
	fuse_req_t req;
	int fd;
	bool whole; /* flock(2) */
	int op;
	struct flock lock;
};

static struct files_lock_owner *find_owner(fuse_ino_t ino, uint64_t owner)
{
	struct files_node *n = files_node_of(ino);
	struct files_lock_owner *o;
	char link[FILES_LINK_LEN];

	for (o = n->owners; o; o = o->next)
		if (o->owner == owner)
			return o;
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	files_node_link(ino, link);
	o->fd = open(link, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (o->fd < 0)
		o->fd = open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (o->fd < 0) {
		free(o);
		return NULL;
	}
	o->owner = owner;
	o->fh = -1;
	o->next = n->owners;
	n->owners = o;
	return o;
}

void files_lock_drop(struct files_node *n, uint64_t owner)
{
	for (struct files_lock_owner **at = &n->owners; *at; at = &(*at)->next)
		if ((*at)->owner == owner) {
			struct files_lock_owner *o = *at;

			*at = o->next;
			close(o->fd);
			free(o);
			return;
		}
}

void files_lock_drop_all(struct files_node *n)
{
	while (n->owners)
		files_lock_drop(n, n->owners->owner);
}

/* The last descriptor of an open file has gone: what was locked for it (and not for a process) goes, too. */
void files_lock_closed(struct files_node *n, int fh)
{
	for (struct files_lock_owner *o = n->owners, *next; o; o = next) {
		next = o->next;
		if (o->fh == fh)
			files_lock_drop(n, o->owner);
	}
}

static void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct files_lock_owner *o = find_owner(ino, fi->lock_owner);

	lock->l_pid = 0;
	if (!o || fcntl(o->fd, F_OFD_GETLK, lock) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	if (lock->l_pid < 0)
		lock->l_pid = 0; /* of an open file description: of no process that has a number there */
	fuse_reply_lock(req, lock);
}

/* Returns a positive error number. */
static int try_once(struct files_waiter *w)
{
	if (w->whole)
		return flock(w->fd, w->op | LOCK_NB) < 0 ? errno : 0;
	return fcntl(w->fd, F_OFD_SETLK, &w->lock) < 0 ? errno : 0;
}

static bool must_wait(int code)
{
	return code == EAGAIN || code == EACCES;
}

static void lock_or_wait(fuse_req_t req, struct files_waiter *w, bool sleep)
{
	struct files_fs *fs = files_fs_of(req);
	int code = try_once(w);
	struct files_waiter *kept = sleep && must_wait(code) ? malloc(sizeof(*kept)) : NULL;

	if (!kept) {
		fuse_reply_err(req, code);
		return;
	}
	*kept = *w;
	kept->fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 0); /* the owner's own may be closed meanwhile */
	kept->req = req;
	kept->next = fs->waiters;
	fs->waiters = kept;
}

static void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct files_lock_owner *o = find_owner(ino, fi->lock_owner);
	struct files_waiter w = { .lock = *lock };

	if (!o) {
		fuse_reply_err(req, errno);
		return;
	}
	if (lock->l_type != F_UNLCK) {
		o->fh = (int)fi->fh;
		o->pid = lock->l_pid;
	}
	w.fd = o->fd;
	w.lock.l_pid = 0;
	lock_or_wait(req, &w, sleep);
}

/* --- which locks there are: the other host's kernel does not know --- */

/* The lines of fdinfo, with another kind and number where they are of an owner. */
static size_t put_locks(int fd, const struct files_lock_owner *o, char *text, size_t room)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256], kind[16], access[16], end[32];
	long long start;
	size_t len = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && len < room) {
		if (sscanf(line, "lock: %*d: %15s %*s %15s %*d %*s %lld %31s", kind, access, &start, end) != 4 || (strcmp(kind, "FLOCK") == 0) != !o)
			continue;
		len += (size_t)snprintf(text + len, room - len, "lock:\t1: %s  ADVISORY  %s %d 00:00:0 %lld %s\n", o ? "POSIX" : "FLOCK", access, o ? o->pid : 0, start,
					end);
	}
	return len;
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, int cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		     size_t out_size)
{
	static struct files_locks out;
	struct files_node *n = files_node_of(ino);
	size_t len;

	(void)arg;
	(void)in;
	(void)in_size;
	if ((unsigned)cmd != FILES_IOC_LOCKS || out_size < sizeof(out) || flags & FUSE_IOCTL_DIR) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	len = put_locks((int)fi->fh, NULL, out.text, sizeof(out.text));
	for (struct files_lock_owner *o = n->owners; o; o = o->next)
		if (o->fh == (int)fi->fh && len < sizeof(out.text))
			len += put_locks(o->fd, o, out.text + len, sizeof(out.text) - len);
	if (len >= sizeof(out.text)) {
		fuse_reply_err(req, E2BIG);
		return;
	}
	out.len = (uint32_t)len;
	fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct files_waiter w = { .fd = (int)fi->fh, .whole = true, .op = op & ~LOCK_NB };

	(void)ino;
	lock_or_wait(req, &w, !(op & LOCK_NB));
}

bool files_fs_waits(const struct files_fs *fs)
{
	return fs->waiters != NULL;
}

void files_fs_tick(struct files_fs *fs)
{
	for (struct files_waiter **at = &fs->waiters; *at;) {
		struct files_waiter *w = *at;
		int code = fuse_req_interrupted(w->req) ? EINTR : try_once(w);

		if (must_wait(code)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		fuse_reply_err(w->req, code);
		close_fdp(&w->fd);
		free(w);
	}
}

void files_lock_ops(struct fuse_lowlevel_ops *ops)
{
	ops->getlk = op_getlk;
	ops->setlk = op_setlk;
	ops->flock = op_flock;
	ops->ioctl = op_ioctl;
}
