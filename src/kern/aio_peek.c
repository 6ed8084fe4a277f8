/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* aio_peek.c - loads and reads the task iterator; see aio_peek.h and bpf/aio_peek.bpf.c */
#include "kern/aio_peek.h"

#include <bpf/bpf.h>
#include <errno.h>

#include "base/util.h"
#include "kern/aio_peek.skel.h"
#include "kern/bpf_iter.h"

static struct aio_peek_bpf *loaded;

unsigned aio_possible_cpus(void)
{
	int n = libbpf_num_possible_cpus();

	return n > 0 ? (unsigned)n : 1;
}

static int find_probe(struct aio_peek_bpf *bpf)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	cleanup_close int link_fd = bpf_link_create(bpf_program__fd(bpf->progs.find_probe), 0, BPF_TRACE_ITER, NULL);
	cleanup_close int fd = link_fd < 0 ? -1 : bpf_iter_create(link_fd);
	char nothing[64];

	if (fd < 0 || bpf_obj_get_info_by_fd(bpf_map__fd(bpf->maps.probe), &info, &len) < 0)
		return -1;
	bpf->bss->probe_id = info.id;
	while (read(fd, nothing, sizeof(nothing)) > 0)
		;
	return bpf->bss->probe_address ? 0 : -1;
}

static struct aio_peek_bpf *open_and_load(void)
{
	struct aio_peek_bpf *bpf = aio_peek_bpf__open();

	if (!bpf)
		return NULL;
	bpf->rodata->cpus = aio_possible_cpus();
	if (aio_peek_bpf__load(bpf) == 0 && find_probe(bpf) == 0)
		return bpf;
	aio_peek_bpf__destroy(bpf);
	return NULL;
}

static int aio_peek_load(struct err *e)
{
	if (!loaded)
		loaded = BPF_ITER_LOAD(open_and_load);
	return loaded ? 0 : err_sys(e, -errno, "loading the BPF iterator that reads contexts of asynchronous I/O");
}

int aio_peek(pid_t pid, struct aio_record *ret_records, size_t max, struct err *e)
{
	int code = aio_peek_load(e);
	cleanup_close int fd = code < 0 ? code : bpf_iter_of(bpf_program__fd(loaded->progs.read_aio), pid, e);
	ssize_t n = fd < 0 ? fd : bpf_iter_fill(fd, ret_records, max * sizeof(*ret_records), e);

	return n < 0 ? (int)n : (int)((size_t)n / sizeof(*ret_records));
}
