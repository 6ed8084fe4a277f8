/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.c - open files of a program, by name and position */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "portable/state.h"

static int look_descriptor(int fd, struct file_state *s, char path[STATE_TEXT_MAX], struct err *e)
{
	char link[64];
	struct stat st;
	int flags = fcntl(fd, F_GETFL);
	off_t position = lseek(fd, 0, SEEK_CUR);
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, STATE_TEXT_MAX - 1);
	if (flags < 0 || n <= 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "file '%s': descriptor %d", s->name, fd);
	path[n] = 0;
	if (!S_ISREG(st.st_mode) || path[0] != '/' || position < 0)
		return err_set(e, -ENOTSUP, "file '%s' (%s) is no regular file: only those are carried; close it in a call-back before the move", s->name, path);
	if (!st.st_nlink)
		return err_set(e, -ENOENT, "file '%s' (%s) has been removed: it has no name by which it could be opened again", s->name, path);
	s->flags = FILE_OPEN;
	s->flags |= (flags & O_ACCMODE) != O_WRONLY ? FILE_READ : 0;
	s->flags |= (flags & O_ACCMODE) != O_RDONLY ? FILE_WRITE : 0;
	s->flags |= flags & O_APPEND ? FILE_APPEND : 0;
	s->position = (uint64_t)position;
	return 0;
}

int file_look(const struct file_entry *f, struct file_state *ret, char path[STATE_TEXT_MAX], struct err *e)
{
	struct file_state s = { .name = f->name, .path = path };
	int fd = f->fd ? *f->fd : -1, r = 0;

	path[0] = 0;
	if (f->stream && *f->stream) {
		if (fflush(*f->stream) != 0)
			return err_sys(e, -errno, "file '%s': what is in its buffer could not be written", f->name);
		fd = fileno(*f->stream);
	}
	if (fd >= 0)
		r = look_descriptor(fd, &s, path, e);
	if (r == 0 && f->stream && *f->stream)
		s.position = (uint64_t)ftello(*f->stream); /* the descriptor may have been read ahead */
	if (r == 0)
		*ret = s;
	return r;
}

int file_open(const struct file_state *s, int *ret_fd, struct err *e)
{
	int mode = s->flags & FILE_WRITE ? (s->flags & FILE_READ ? O_RDWR : O_WRONLY) : O_RDONLY;
	struct stat st;
	int fd;

	*ret_fd = -1;
	if (!(s->flags & FILE_OPEN))
		return 0;
	fd = open(s->path, mode | (s->flags & FILE_APPEND ? O_APPEND : 0) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, -errno, "file '%s': %s cannot be opened here", s->name, s->path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < s->position || lseek(fd, (off_t)s->position, SEEK_SET) < 0) {
		close(fd);
		return err_set(e, -ESTALE, "file '%s': %s is another file here: %s", s->name, s->path,
			       S_ISREG(st.st_mode) ? "it is shorter than the position in it" : "no regular one");
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	*ret_fd = fd;
	return 0;
}

int file_put(const struct file_entry *f, const struct file_state *s, int fd, struct err *e)
{
	const char *mode = s->flags & FILE_APPEND ? (s->flags & FILE_READ ? "a+" : "a") : s->flags & FILE_WRITE ? "r+" : "r";
	FILE *stream = NULL;

	if (f->fd) {
		*f->fd = fd;
		return 0;
	}
	if (fd >= 0) {
		if ((s->flags & (FILE_WRITE | FILE_READ | FILE_APPEND)) == FILE_WRITE)
			mode = "w"; /* fdopen does not truncate */
		stream = fdopen(fd, mode);
		if (!stream || fseeko(stream, (off_t)s->position, SEEK_SET) < 0)
			return err_sys(e, -errno, "file '%s': a stream of %s", f->name, s->path);
	}
	*f->stream = stream;
	return 0;
}
