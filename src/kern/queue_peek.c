/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* queue_peek.c - loads and reads the iterator over queues; see queue_peek.h */
#include "kern/queue_peek.h"

#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/queue_peek.skel.h"

static struct queue_peek_bpf *loaded;

int queue_peek(int fd, bool is_inotify, void **ret, size_t *ret_len, struct err *e)
{
	if (!loaded) {
		loaded = BPF_ITER_LOAD(queue_peek_bpf__open_and_load);
		if (!loaded)
			return err_sys(e, -errno, "loading the BPF iterator that reads queues");
	}
	loaded->data->wanted_fd = fd;
	loaded->bss->wanted_inotify = is_inotify;
	return bpf_iter_read_own(bpf_program__fd(loaded->progs.read_queue), ret, ret_len, e);
}

const struct queue_record *queue_next(const void *records, size_t len, size_t *at, const char **ret_data)
{
	const struct queue_record *r = (const void *)((const char *)records + *at);

	if (len - *at < sizeof(*r) || len - *at - sizeof(*r) < r->len)
		return NULL;
	*ret_data = (const char *)(r + 1);
	*at += sizeof(*r) + (r->len + 7) / 8 * 8;
	*at = MIN(*at, len);
	return r;
}
