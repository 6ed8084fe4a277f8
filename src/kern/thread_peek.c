/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_peek.c - loads and reads the task iterator; see thread_peek.h and bpf/thread_peek.bpf.c */
#include "kern/thread_peek.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/thread_peek.skel.h"

#define SPARE 16u /* threads that are made meanwhile */

static struct thread_peek_bpf *loaded;

int thread_peek_load(struct err *e)
{
	if (!loaded)
		loaded = BPF_ITER_LOAD(thread_peek_bpf__open_and_load);
	return loaded ? bpf_program__fd(loaded->progs.read_thread) : err_sys(e, -errno, "loading the BPF iterator that reads threads");
}

int thread_peek_again(struct thread_peek *t, pid_t pid, struct err *e)
{
	close_fdp(&t->next_fd);
	t->next_fd = loaded ? bpf_iter_of(bpf_program__fd(loaded->progs.read_thread), pid, e) : err_set(e, -EOPNOTSUPP, "the BPF iterator that reads threads is not loaded");
	return MIN(t->next_fd, 0);
}

int thread_peek_open(struct thread_peek *t, pid_t pid, size_t threads, struct err *e)
{
	threads += SPARE;
	*t = (struct thread_peek){ .next_fd = -1, .max = threads, .room = threads * (sizeof(struct thread_record) + THREAD_XSTATE_MAX) };
	t->buffer = malloc(t->room);
	t->v = calloc(threads, sizeof(*t->v));
	if (!t->buffer || !t->v)
		return err_sys(e, ENOMEM, "records of threads");
	memset(t->buffer, 0, t->room);
	memset(t->v, 0, threads * sizeof(*t->v));
	return thread_peek_again(t, pid, e);
}

int thread_peek_read(struct thread_peek *t, struct err *e)
{
	cleanup_close int fd = t->next_fd;
	ssize_t n = fd < 0 ? -EBADF : bpf_iter_fill(fd, t->buffer, t->room, e);
	size_t at = 0;

	t->next_fd = -1;
	t->n = 0;
	if (n < 0)
		return (int)n;
	while (at + sizeof(struct thread_record) <= (size_t)n && t->n < t->max) {
		const struct thread_record *r = (const struct thread_record *)(t->buffer + at);

		at += sizeof(*r) + ((r->xstate_len + 7) & ~7u);
		if (at <= (size_t)n)
			t->v[t->n++] = r;
	}
	return 0;
}

void thread_peek_close(struct thread_peek *t)
{
	close_fdp(&t->next_fd);
	free(t->buffer);
	free(t->v);
	*t = (struct thread_peek){ .next_fd = -1 };
}

const struct thread_record *thread_peek_find(const struct thread_peek *t, pid_t tid, size_t near)
{
	for (size_t k = 0; k < t->n; k++) {
		const struct thread_record *r = t->v[(near + k) % t->n];

		if ((pid_t)r->tid == tid)
			return r;
	}
	return NULL;
}
