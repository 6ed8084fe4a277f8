/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restart_block.c - loads and reads the task iterator; see restart_block.h and bpf/restart_block.bpf.c */
#include "kern/restart_block.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/restart_block.skel.h"

struct restart_reader {
	struct restart_block_bpf *bpf;
};

struct restart_watch {
	struct bpf_iter_watch iter;
};

int restart_reader_load(struct restart_reader **ret_reader, struct err *e)
{
	struct restart_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return err_sys(e, -ENOMEM, "BPF iterator");
	reader->bpf = BPF_ITER_LOAD(restart_block_bpf__open_and_load);
	if (!reader->bpf) {
		int code = -errno;

		free(reader);
		return err_sys(e, code, "loading the BPF iterator that reads restart blocks");
	}
	*ret_reader = reader;
	return 0;
}

int restart_reader_fd(const struct restart_reader *reader)
{
	return bpf_program__fd(reader->bpf->progs.read_restart);
}

void restart_reader_free(struct restart_reader *reader)
{
	if (!reader)
		return;
	restart_block_bpf__destroy(reader->bpf);
	free(reader);
}

int restart_watch_open(const struct restart_reader *reader, pid_t pid, struct restart_watch **ret_watch, struct err *e)
{
	union bpf_iter_link_info info = { .task.pid = (uint32_t)pid };
	struct restart_watch *watch = calloc(1, sizeof(*watch));
	int ret = watch ? bpf_iter_watch_open(&watch->iter, restart_reader_fd(reader), &info, pid, e) : err_sys(e, -ENOMEM, "BPF iterator");

	if (ret < 0) {
		free(watch);
		return ret;
	}
	bpf_iter_watch_prepare(&watch->iter);
	*ret_watch = watch;
	return 0;
}

void restart_watch_close(struct restart_watch *watch)
{
	if (!watch)
		return;
	bpf_iter_watch_close(&watch->iter);
	free(watch);
}

void restart_watch_ready(struct restart_watch *watch)
{
	bpf_iter_watch_prepare(&watch->iter);
}

int restart_watch_read(struct restart_watch *watch, struct restart_record *ret_records, size_t max, struct err *e)
{
	cleanup_close int fd = bpf_iter_watch_take(&watch->iter, e);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = bpf_iter_fill(fd, ret_records, max * sizeof(*ret_records), e);
	return n < 0 ? (int)n : (int)((size_t)n / sizeof(*ret_records));
}
