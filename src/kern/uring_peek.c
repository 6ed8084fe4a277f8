/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uring_peek.c - loads and reads the iterators; see uring_peek.h and bpf/uring_peek.bpf.c */
#include "kern/uring_peek.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/uring_peek.skel.h"

static struct uring_peek_bpf *loaded;

static int load(struct err *e)
{
	if (!loaded)
		loaded = BPF_ITER_LOAD(uring_peek_bpf__open_and_load);
	return loaded ? 0 : err_sys(e, -errno, "loading the BPF iterators that read io_urings");
}

static ssize_t read_records(const struct bpf_program *program, pid_t pid, void **ret, size_t record_bytes, struct err *e)
{
	cleanup_close int fd = bpf_iter_of(bpf_program__fd(program), pid, e);
	void *buffer = NULL;
	size_t room = 0;
	ssize_t n = fd < 0 ? fd : bpf_iter_read_all(fd, &buffer, &room, e);

	if (n < 0) {
		free(buffer);
		return n;
	}
	*ret = buffer;
	return n / (ssize_t)record_bytes;
}

ssize_t uring_peek_rings(pid_t pid, struct uring_record **ret, struct err *e)
{
	int code = load(e);

	return code < 0 ? code : read_records(loaded->progs.read_rings, pid, (void **)ret, sizeof(**ret), e);
}

ssize_t uring_peek_files(pid_t pid, struct uring_file **ret, struct err *e)
{
	int code = load(e);

	return code < 0 ? code : read_records(loaded->progs.read_files, pid, (void **)ret, sizeof(**ret), e);
}

ssize_t uring_peek_registered(pid_t pid, struct uring_registered **ret, struct err *e)
{
	int code = load(e);

	return code < 0 ? code : read_records(loaded->progs.read_registered, pid, (void **)ret, sizeof(**ret), e);
}

/* Runs a program that looks at one ring. */
static ssize_t look_into(pid_t pid, unsigned long long ctx, bool requests, struct err *e)
{
	int code = load(e);
	cleanup_close int fd = code < 0 ? code : bpf_iter_of(bpf_program__fd(requests ? loaded->progs.read_requests : loaded->progs.read_entries), pid, e);
	char nothing[64];
	ssize_t n;

	if (fd < 0)
		return fd;
	loaded->bss->wanted = ctx;
	n = bpf_iter_fill(fd, nothing, sizeof(nothing), e);
	if (n < 0)
		return n;
	if (loaded->bss->wanted)
		return err_set(e, -EAGAIN, "process %d has closed an io_uring meanwhile", pid);
	if (loaded->bss->n_entries > (requests ? URING_REQUESTS_MAX : URING_ENTRIES_MAX))
		return err_set(e, -E2BIG, "process %d: an io_uring with more than %u things registered, or %u requests in flight", pid, URING_ENTRIES_MAX,
			       URING_REQUESTS_MAX);
	return loaded->bss->n_entries;
}

ssize_t uring_peek_entries(pid_t pid, unsigned long long ctx, const struct uring_entry **ret, struct err *e)
{
	ssize_t n = look_into(pid, ctx, false, e);

	if (n >= 0)
		*ret = loaded->bss->entries;
	return n;
}

ssize_t uring_peek_requests(pid_t pid, unsigned long long ctx, const struct uring_request **ret, struct err *e)
{
	ssize_t n = look_into(pid, ctx, true, e);

	if (n >= 0)
		*ret = loaded->bss->requests;
	return n;
}
