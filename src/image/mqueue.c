/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mqueue.c - POSIX message queues; see mqueue.h */
#include "image/mqueue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>

#include "base/util.h"
#include "image/bytes.h"

#define MESSAGES_MAX 65536
#define BYTES_MAX (16 << 20)
#define PRIORITIES 32768u
#define NAME_LEN_MAX 255

/* Queues made here. Several descriptions may refer to one. */
struct made {
	uint64_t inode; /* at the source */
	char *name;     /* NULL: it has none any more */
	int fd;
};

static struct made *made;
static size_t n_made;

/* --- source --- */

static bool has_it_open(pid_t pid, const struct stat *queue, int *ret_fd)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		if (fstatat(dirfd(dir), d->d_name, &st, 0) < 0 || st.st_ino != queue->st_ino || st.st_dev != queue->st_dev)
			continue;
		*ret_fd = atoi(d->d_name);
		return true;
	}
	return false;
}

static pid_t find_outsider(const struct stat *queue, const pid_t *inside, size_t n, int *ret_fd)
{
	cleanup_closedir DIR *proc = opendir("/proc");

	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t pid = atoi(d->d_name);
		bool ours = pid <= 0 || pid == getpid();

		for (size_t i = 0; i < n && !ours; i++)
			ours = inside[i] == pid;
		if (!ours && has_it_open(pid, queue, ret_fd))
			return pid;
	}
	return 0;
}

/* "QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260" */
static int read_notification(int queue, pid_t *ret_pid, struct err *e)
{
	char text[128];
	ssize_t n = pread(queue, text, sizeof(text) - 1, 0);
	const char *p;

	text[MAX(n, 0)] = 0;
	p = strstr(text, "NOTIFY_PID:");
	if (!p)
		return err_set(e, -EPROTO, "message queue: unexpected form of its text");
	*ret_pid = atoi(p + 11);
	return 0;
}

static void forget_messages(Gw__FdMqueue *q)
{
	for (size_t i = 0; i < q->n_messages; i++)
		gw__fd_mqueue_message__free_unpacked(q->messages[i], NULL);
	free(q->messages);
	q->messages = NULL;
	q->n_messages = 0;
}

static int put_all(int queue, const Gw__FdMqueue *q, struct err *e)
{
	for (size_t i = 0; i < q->n_messages; i++)
		if (mq_send(queue, q->messages[i]->data.len ? (const char *)q->messages[i]->data.data : "", q->messages[i]->data.len, q->messages[i]->priority) < 0)
			return err_sys(e, -errno, "message queue %s: message of %zu bytes", q->name, q->messages[i]->data.len);
	return 0;
}

static int take_all(int queue, Gw__FdMqueue *q, struct err *e)
{
	cleanup_free char *buffer = fd_alloc((size_t)q->message_bytes);

	for (;;) {
		unsigned priority;
		ssize_t n = mq_receive(queue, buffer, (size_t)q->message_bytes, &priority);
		Gw__FdMqueueMessage *m;

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return err_sys(e, -errno, "message queue %s", q->name);
		m = fd_alloc(sizeof(*m));
		gw__fd_mqueue_message__init(m);
		m->priority = priority;
		bytes_set(&m->data, buffer, (size_t)n);
		fd_append(&q->messages, &q->n_messages, m);
	}
}

static int refuse(const struct fd_look *look, const char *code, const char *cause, const char *way_out, struct refusals *refusals)
{
	refusals_add(refusals, code, cause, way_out, "fd %d (POSIX message queue %s)", look->fd, look->link ? look->link : "");
	return FD_REFUSED;
}

static int capture_first(const struct fd_look *look, Gw__FdDesc *d, const pid_t *inside, size_t n_inside, struct refusals *refusals)
{
	static const char deleted[] = " (deleted)";
	size_t len = strlen(look->link);
	char cause[120];
	struct stat st;
	pid_t other;
	int fd;

	if (fstat(look->held, &st) < 0)
		return refuse(look, "fd.mqueue", "it cannot be looked at", "close it first", refusals);
	other = find_outsider(&st, inside, n_inside, &fd);
	if (other) {
		snprintf(cause, sizeof(cause), "pid %d has it open too (its fd %d), and would stay behind", other, fd);
		refuse(look, "fd.mqueue.outside", cause, "let the other process end first", refusals);
		refusals_blame(refusals, refusals->n - 1, other);
		return FD_REFUSED;
	}
	d->mqueue = fd_alloc(sizeof(*d->mqueue));
	gw__fd_mqueue__init(d->mqueue);
	d->mqueue->name = fd_strdup(look->link);
	if (!st.st_nlink && len > sizeof(deleted) - 1 && !strcmp(look->link + len - (sizeof(deleted) - 1), deleted)) {
		d->mqueue->name[len - (sizeof(deleted) - 1)] = 0;
		d->mqueue->deleted = true;
	}
	d->mqueue->inode = st.st_ino;
	d->mqueue->mode = st.st_mode & 07777;
	d->mqueue->uid = st.st_uid;
	d->mqueue->gid = st.st_gid;
	return 0;
}

int mqueue_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, const pid_t *inside, size_t n_inside, struct refusals *refusals, struct err *e)
{
	cleanup_close int queue = fd_reopen(look->held, O_RDWR | O_NONBLOCK);
	struct mq_attr attr;
	pid_t registered = 0;
	struct stat st;
	int r = 0;

	if (queue < 0 || mq_getattr(queue, &attr) < 0 || fstat(queue, &st) < 0)
		return err_sys(e, queue < 0 ? queue : -errno, "fd %d: message queue", look->fd);
	if (!d->mqueue)
		r = capture_first(look, d, inside, n_inside, refusals);
	if (r == 0)
		r = read_notification(queue, &registered, e);
	if (r != 0)
		return r;
	if (registered)
		return refuse(look, "fd.mqueue.notify", "a notification is registered (mq_notify), which cannot be read", "let the program cancel it", refusals);
	d->mqueue->deleted = st.st_nlink == 0;
	d->mqueue->max_messages = attr.mq_maxmsg;
	d->mqueue->message_bytes = attr.mq_msgsize;
	forget_messages(d->mqueue);
	if (!frozen || !attr.mq_curmsgs)
		return 0;
	r = take_all(queue, d->mqueue, e);
	/* Also after a failure: what has been taken out goes back. */
	return put_all(queue, d->mqueue, r < 0 ? NULL : e) < 0 && r == 0 ? -EIO : r;
}

void mqueue_remove(const Gw__FdTable *t)
{
	for (size_t i = 0; t && i < t->n_descs; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_MQUEUE && t->descs[i]->mqueue && !t->descs[i]->mqueue->deleted)
			mq_unlink(t->descs[i]->mqueue->name);
}

/* --- destination --- */

int mqueue_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdMqueue *q = d->mqueue;
	uint64_t bytes = 0;

	if (!q || q->name[0] != '/' || !q->name[1] || strchr(q->name + 1, '/') || strlen(q->name) > NAME_LEN_MAX || q->mode > 07777 || q->uid == UINT32_MAX ||
	    q->gid == UINT32_MAX)
		return err_set(e, -EPROTO, "message queue without sense");
	if (q->max_messages <= 0 || q->max_messages > MESSAGES_MAX || q->message_bytes <= 0 || q->message_bytes > BYTES_MAX ||
	    (int64_t)q->n_messages > q->max_messages)
		return err_set(e, -EPROTO, "message queue of %lld messages of %lld bytes", (long long)q->max_messages, (long long)q->message_bytes);
	for (size_t i = 0; i < q->n_messages; i++) {
		bytes += q->messages[i]->data.len;
		if (q->messages[i]->priority >= PRIORITIES || (int64_t)q->messages[i]->data.len > q->message_bytes)
			return err_set(e, -EPROTO, "message of %zu bytes with priority %u", q->messages[i]->data.len, q->messages[i]->priority);
	}
	return bytes > 16ull * BYTES_MAX ? err_set(e, -EPROTO, "messages of %llu bytes", (unsigned long long)bytes) : 0;
}

static int make(const Gw__FdMqueue *q, struct made *ret, struct err *e)
{
	struct mq_attr attr = { .mq_maxmsg = q->max_messages, .mq_msgsize = q->message_bytes };
	cleanup_close int fd = mq_open(q->name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0600, &attr);

	if (fd < 0 && errno == EEXIST)
		return err_set(e, -EEXIST, "message queue %s: there is one of that name on the destination already", q->name);
	if (fd < 0)
		return err_sys(e, -errno, "message queue %s of %lld messages of %lld bytes (fs.mqueue.*_max)", q->name, (long long)q->max_messages,
			       (long long)q->message_bytes);
	if (fchown(fd, q->uid, q->gid) < 0 || fchmod(fd, q->mode) < 0) {
		int code = err_sys(e, -errno, "message queue %s: owner and mode", q->name);

		mq_unlink(q->name);
		return code;
	}
	if (q->deleted)
		mq_unlink(q->name);
	*ret = (struct made){ q->inode, q->deleted ? NULL : fd_strdup(q->name), take_fd(&fd) };
	return 0;
}

int mqueue_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	size_t i = 0;
	int fd;

	while (i < n_made && made[i].inode != d->mqueue->inode)
		i++;
	if (i == n_made) {
		struct made *grown = realloc(made, (n_made + 1) * sizeof(*made));
		int r;

		if (!grown)
			return err_sys(e, -ENOMEM, "message queues");
		made = grown;
		r = make(d->mqueue, &made[i], e);
		if (r < 0)
			return r;
		n_made++;
	}
	fd = fd_reopen(made[i].fd, (int)(d->flags & (O_ACCMODE | O_NONBLOCK)));
	if (fd < 0)
		return err_sys(e, fd, "message queue %s", d->mqueue->name);
	*ret_fd = fd;
	return 0;
}

int mqueue_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	cleanup_close int queue = fd_reopen(fd, O_RDWR | O_NONBLOCK);
	Gw__FdMqueue old = GW__FD_MQUEUE__INIT;
	int r;

	if (queue < 0)
		return err_sys(e, queue, "message queue %s", d->mqueue->name);
	/* Through another description of it the messages may be there already. */
	old.name = d->mqueue->name;
	old.message_bytes = d->mqueue->message_bytes;
	r = take_all(queue, &old, e);
	forget_messages(&old);
	return r < 0 ? r : put_all(queue, d->mqueue, e);
}

void mqueue_done(bool undo)
{
	for (size_t i = 0; i < n_made; i++) {
		if (undo && made[i].name)
			mq_unlink(made[i].name);
		free(made[i].name);
		close_fdp(&made[i].fd);
	}
	n_made = 0;
}
