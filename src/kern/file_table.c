/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_table.c - loads and reads the iterator over descriptors; see file_table.h and bpf/file_table.bpf.c */
#include "kern/file_table.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/file_table.skel.h"

struct file_reader {
	struct file_table_bpf *bpf;
};

struct file_watch {
	struct bpf_iter_watch iter;
};

int file_reader_load(struct file_reader **ret_reader, struct err *e)
{
	struct file_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return err_sys(e, -ENOMEM, "BPF iterator");
	reader->bpf = BPF_ITER_LOAD(file_table_bpf__open_and_load);
	if (!reader->bpf) {
		int code = -errno;

		free(reader);
		return err_sys(e, code, "loading the BPF iterator that reads descriptor tables");
	}
	*ret_reader = reader;
	return 0;
}

int file_reader_fd(const struct file_reader *reader)
{
	return bpf_program__fd(reader->bpf->progs.read_file);
}

void file_reader_free(struct file_reader *reader)
{
	if (!reader)
		return;
	file_table_bpf__destroy(reader->bpf);
	free(reader);
}

int file_watch_open(const struct file_reader *reader, pid_t pid, struct file_watch **ret_watch, struct err *e)
{
	union bpf_iter_link_info info = { .task.tid = (uint32_t)pid };
	struct file_watch *watch = calloc(1, sizeof(*watch));
	int ret = watch ? bpf_iter_watch_open(&watch->iter, file_reader_fd(reader), &info, pid, e) : err_sys(e, -ENOMEM, "BPF iterator");

	if (ret < 0) {
		free(watch);
		return ret;
	}
	*ret_watch = watch;
	return 0;
}

void file_watch_close(struct file_watch *watch)
{
	if (!watch)
		return;
	bpf_iter_watch_close(&watch->iter);
	free(watch);
}

void file_watch_prepare(struct file_watch *watch)
{
	bpf_iter_watch_prepare(&watch->iter);
}

ssize_t file_watch_read(struct file_watch *watch, struct file_record **records, size_t *room, struct err *e)
{
	size_t room_bytes = *room * sizeof(**records);
	cleanup_close int fd = bpf_iter_watch_take(&watch->iter, e);
	void *buffer = *records;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = bpf_iter_read_all(fd, &buffer, &room_bytes, e);
	*records = buffer;
	*room = room_bytes / sizeof(**records);
	return n < 0 ? n : n / (ssize_t)sizeof(**records);
}
