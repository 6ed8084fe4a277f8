/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flock.c - file locks; see flock.h */
#include "image/flock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "base/util.h"

bool flock_parse(const char **line, struct flock_line *ret)
{
	for (; *line; *line = fdinfo_next_line(*line)) {
		char kind[16], how[16], access[16], end[32];
		int64_t start;
		int pid;

		/* "lock:	1: POSIX  ADVISORY  WRITE 1234 00:2f:5678 0 EOF" */
		if (sscanf(*line, "lock: %*d: %15s %15s %15s %d %*x:%*x:%*u %" SCNd64 " %31s", kind, how, access, &pid, &start, end) != 6)
			continue;
		*ret = (struct flock_line){ .pid = pid, .start = start, .end = strcmp(end, "EOF") ? strtoll(end, NULL, 10) : INT64_MAX };
		ret->write = !strcmp(access, "WRITE");
		if (!strcmp(kind, "POSIX"))
			ret->kind = GW__FD_LOCK_KIND__LOCK_POSIX;
		else if (!strcmp(kind, "FLOCK"))
			ret->kind = GW__FD_LOCK_KIND__LOCK_FLOCK;
		else if (!strcmp(kind, "OFDLCK"))
			ret->kind = GW__FD_LOCK_KIND__LOCK_OFD;
		else
			ret->lease = true;
		*line = fdinfo_next_line(*line);
		return true;
	}
	return false;
}

int flock_validate(const Gw__FdLock *l, size_t n_descs, size_t n_processes, struct err *e)
{
	if (l->kind != GW__FD_LOCK_KIND__LOCK_POSIX && l->kind != GW__FD_LOCK_KIND__LOCK_FLOCK && l->kind != GW__FD_LOCK_KIND__LOCK_OFD)
		return err_set(e, -EPROTO, "lock of unknown kind %d", (int)l->kind);
	if (l->desc >= n_descs || l->process >= n_processes || l->start < 0 || l->end < l->start)
		return err_set(e, -EPROTO, "lock out of range");
	return 0;
}

void flock_plan(struct batch *b, const Gw__FdLock *l, bool take, int fd)
{
	struct flock *lock;
	uint64_t at;

	if (l->kind == GW__FD_LOCK_KIND__LOCK_FLOCK) {
		int how = take ? (l->write ? LOCK_EX : LOCK_SH) | LOCK_NB : LOCK_UN;

		batch_call(b, take ? "taking a lock (flock) that the process holds" : "releasing a lock (flock)", SYS_flock,
			(uint64_t)fd, (uint64_t)how);
		return;
	}
	lock = batch_space(b, sizeof(*lock), &at);
	lock->l_type = (short)(!take ? F_UNLCK : l->write ? F_WRLCK : F_RDLCK);
	lock->l_whence = SEEK_SET;
	lock->l_start = l->start;
	lock->l_len = l->end == INT64_MAX ? 0 : l->end - l->start + 1;
	batch_call(b, take ? "taking a record lock that the process holds (F_SETLK)" : "releasing a record lock (F_SETLK)", SYS_fcntl,
		(uint64_t)fd, l->kind == GW__FD_LOCK_KIND__LOCK_OFD ? F_OFD_SETLK : F_SETLK, at);
}
