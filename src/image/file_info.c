/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_info.c - the texts of /proc/PID/fdinfo; where one is the same as before, nothing that it shows has changed */
#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "image/file_state.h"
#include "image/flock.h"
#include "image/view.h"
#include "kern/files_locks.h"

#define KEPT_INFO_MAX 2048
#define CLOEXEC_IN_FLAGS 02000000u

void fdtable_drop_seen(struct fdtable *t, struct fd_seen *s)
{
	if (s->info >= 0)
		t->kept_info--;
	close_fdp(&s->info);
	free(s->text);
	s->text = NULL;
}

/* Room for so much more. */
static int grow_text(struct fdtable *t, size_t len, size_t more, struct err *e)
{
	char *grown;

	if (t->text_size - len >= more)
		return 0;
	grown = realloc(t->text, t->text_size * 2 + more);
	if (!grown)
		return err_set(e, -ENOMEM, "no memory for a descriptor's fdinfo");
	t->text = grown;
	t->text_size = t->text_size * 2 + more;
	return 0;
}

/* Through the very description, locks of its own are not in the way. */
static bool is_of_description(int fd, const struct flock_line *line)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = line->start, .l_len = line->end == INT64_MAX ? 0 : line->end - line->start + 1 };

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type == F_UNLCK;
}

/* The lines that fdinfo would show if the locks of a file that home serves were taken here. */
static int add_locks(struct fdtable *t, int fd, size_t *len, struct err *e)
{
	static struct files_locks locks;
	char line[160];

	if (ioctl(fd, FILES_IOC_LOCKS, &locks) < 0)
		return err_sys(e, -errno, "the locks of a file that home serves");
	locks.text[MIN(locks.len, sizeof(locks.text) - 1)] = 0;
	for (const char *next = locks.text[0] ? locks.text : NULL; next;) {
		struct flock_line l;
		int ret;

		if (!flock_parse(&next, &l))
			break;
		if (l.kind == GW__FD_LOCK_KIND__LOCK_POSIX && is_of_description(fd, &l))
			l.kind = GW__FD_LOCK_KIND__LOCK_OFD;
		ret = snprintf(line, sizeof(line), "lock:\t1: %s  ADVISORY  %s %d 00:00:0 %lld ", l.kind == GW__FD_LOCK_KIND__LOCK_POSIX ? "POSIX" :
			       l.kind == GW__FD_LOCK_KIND__LOCK_OFD ? "OFDLCK" : "FLOCK", l.write ? "WRITE" : "READ", l.pid, (long long)l.start);
		if (l.end == INT64_MAX)
			ret += snprintf(line + ret, sizeof(line) - (size_t)ret, "EOF\n");
		else
			ret += snprintf(line + ret, sizeof(line) - (size_t)ret, "%lld\n", (long long)l.end);
		if (grow_text(t, *len, (size_t)ret + 1, e) < 0)
			return -ENOMEM;
		memcpy(t->text + *len, line, (size_t)ret + 1);
		*len += (size_t)ret;
	}
	return 0;
}

/* What changes about it. */
static bool is_told_by_records(const Gw__FdDesc *d)
{
	return fdtable_is_plain(d) || (d->socket && d->socket->tcp);
}

/* Reads the whole fdinfo of a number into t->text. */
static int read_text(struct fdtable *t, struct fd_view *v, struct fd_seen *s, size_t *ret_len, struct err *e)
{
	cleanup_close int opened = -1;
	int fd = s->info;
	size_t len = 0;

	if (fd < 0) {
		char name[16];

		snprintf(name, sizeof(name), "%d", s->fd);
		fd = opened = openat(v->info_dir, name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(e, errno == ESRCH ? -EAGAIN : -errno, "pid %d: fdinfo of its descriptor %d", (int)v->pid, s->fd);
	}
	for (;;) {
		ssize_t n;

		if (grow_text(t, len, 4096, e) < 0)
			return -ENOMEM;
		n = pread(fd, t->text + len, t->text_size - len - 1, (off_t)len);
		if (n < 0)
			return err_sys(e, -errno, "pid %d: fdinfo of its descriptor %d", (int)v->pid, s->fd);
		len += (size_t)n;
		/* A short text comes in one read. */
		if (n == 0 || len < 1024)
			break;
	}
	t->text[len] = '\0';
	*ret_len = len;
	/* Where records tell what changes about it, it will not be read in the freeze. */
	if (opened >= 0 && t->kept_info < KEPT_INFO_MAX && !(t->self && is_told_by_records(t->msg->descs[s->desc]))) {
		s->info = take_fd(&opened);
		t->kept_info++;
	}
	return 0;
}

int fdtable_read_info(struct fdtable *t, struct fd_view *v, struct fd_seen *s, struct err *e)
{
	struct fd_held *held = &t->held[s->desc];
	uint64_t flags;
	size_t len = 0;
	bool same;
	int r;

	r = read_text(t, v, s, &len, e);
	if (r == 0 && held->fd >= 0 && view_has_device(held->dev) && t->msg->descs[s->desc]->kind == GW__FD_KIND__FD_FILE)
		r = add_locks(t, held->fd, &len, e);
	if (r < 0)
		return r;
	same = s->text && len == s->text_len && !memcmp(s->text, t->text, len);
	if (!same) {
		free(s->text);
		s->text = fd_alloc(len + 1);
		memcpy(s->text, t->text, len + 1);
		s->text_len = len;
		held->changed = true;
	}
	/* Also of the same text: the one before may be older than what records have told meanwhile. */
	if (!fdinfo_u64(s->text, "flags", 8, &flags))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no flags", s->fd);
	s->cloexec = flags & CLOEXEC_IN_FLAGS;
	s->has_locks = fdinfo_find(s->text, "lock") != NULL;
	return 0;
}
