/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bpf_iter.c - reading BPF iterators; see bpf_iter.h */
#include "kern/bpf_iter.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"

#define LEAST_ROOM 4096
#define MOST_BYTES (1ull << 30) /* no iterator has that much to tell: it begins again and again */

static int quiet(enum libbpf_print_level level, const char *format, va_list ap)
{
	(void)level;
	(void)format;
	(void)ap;
	return 0;
}

libbpf_print_fn_t bpf_iter_quiet(void)
{
	return libbpf_set_print(quiet);
}

int bpf_iter_of(int program, pid_t pid, struct err *e)
{
	union bpf_iter_link_info info = { .task.pid = (uint32_t)pid };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	cleanup_close int link_fd = bpf_link_create(program, 0, BPF_TRACE_ITER, &opts);
	int fd;

	if (link_fd < 0)
		return err_sys(e, link_fd, "process %d: attaching a BPF iterator", pid);
	fd = bpf_iter_create(link_fd);
	return fd < 0 ? err_sys(e, fd, "process %d: BPF iterator", pid) : fd;
}

int bpf_iter_own(int program, struct err *e)
{
	return bpf_iter_of(program, getpid(), e);
}

ssize_t bpf_iter_fill(int fd, void *to, size_t room_bytes, struct err *e)
{
	size_t len = 0;

	while (len < room_bytes) {
		ssize_t n = read(fd, (char *)to + len, room_bytes - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "BPF iterator");
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

ssize_t bpf_iter_read_all(int fd, void **buffer, size_t *room_bytes, struct err *e)
{
	size_t len = 0;

	for (;;) {
		ssize_t n;

		if (len > MOST_BYTES)
			return err_set(e, -E2BIG, "a BPF iterator does not end");
		if (*room_bytes - len < LEAST_ROOM) {
			void *grown = realloc(*buffer, *room_bytes * 2 + 2 * LEAST_ROOM);

			if (!grown)
				return err_set(e, -ENOMEM, "no memory for what a BPF iterator tells");
			*buffer = grown;
			*room_bytes = *room_bytes * 2 + 2 * LEAST_ROOM;
		}
		n = bpf_iter_fill(fd, (char *)*buffer + len, *room_bytes - len, e);
		if (n < 0)
			return n;
		len += (size_t)n;
		if (len < *room_bytes)
			return (ssize_t)len;
	}
}

int bpf_iter_read_own(int program, void **ret, size_t *ret_len, struct err *e)
{
	cleanup_close int fd = bpf_iter_own(program, e);
	void *buffer = NULL;
	size_t room = 0;
	ssize_t n = fd < 0 ? fd : bpf_iter_read_all(fd, &buffer, &room, e);

	if (n < 0) {
		free(buffer);
		return (int)n;
	}
	*ret_len = (size_t)n;
	*ret = buffer;
	return 0;
}

int bpf_iter_watch_open(struct bpf_iter_watch *w, int program, union bpf_iter_link_info *info, pid_t pid, struct err *e)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = info, .iter_info_len = sizeof(*info));
	int link_fd = bpf_link_create(program, 0, BPF_TRACE_ITER, &opts);

	if (link_fd < 0)
		return err_sys(e, link_fd, "process %d: attaching the BPF iterator", pid);
	*w = (struct bpf_iter_watch){ link_fd, -1 };
	return 0;
}

void bpf_iter_watch_close(struct bpf_iter_watch *w)
{
	close_fdp(&w->next_fd);
	close_fdp(&w->link_fd);
}

void bpf_iter_watch_prepare(struct bpf_iter_watch *w)
{
	if (w->next_fd < 0)
		w->next_fd = bpf_iter_create(w->link_fd);
}

int bpf_iter_watch_take(struct bpf_iter_watch *w, struct err *e)
{
	int fd;

	bpf_iter_watch_prepare(w);
	fd = take_fd(&w->next_fd);
	return fd < 0 ? err_sys(e, fd, "BPF iterator") : fd;
}
