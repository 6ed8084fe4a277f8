/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sem_undo.c - loads and reads the task iterator; see sem_undo.h and bpf/sem_undo.bpf.c */
#include "kern/sem_undo.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/sem_undo.skel.h"

struct sem_undo_reader {
	struct sem_undo_bpf *bpf;
};

int sem_undo_load(struct sem_undo_reader **ret, struct err *e)
{
	struct sem_undo_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return err_sys(e, -ENOMEM, "BPF iterator");
	reader->bpf = BPF_ITER_LOAD(sem_undo_bpf__open_and_load);
	if (!reader->bpf) {
		int code = -errno;

		free(reader);
		return err_sys(e, code, "loading the BPF iterator that reads semaphore adjustments");
	}
	*ret = reader;
	return 0;
}

void sem_undo_free(struct sem_undo_reader *reader)
{
	if (!reader)
		return;
	sem_undo_bpf__destroy(reader->bpf);
	free(reader);
}

int sem_undo_read(struct sem_undo_reader *reader, pid_t pid, struct sem_undo_record *ret_records, size_t max, struct err *e)
{
	cleanup_close int fd = bpf_iter_of(bpf_program__fd(reader->bpf->progs.read_sem_undo), pid, e);
	ssize_t n = fd < 0 ? fd : bpf_iter_fill(fd, ret_records, max * sizeof(*ret_records), e);

	return n < 0 ? (int)n : (int)((size_t)n / sizeof(*ret_records));
}
