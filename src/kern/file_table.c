/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_table.c - loads and reads the iterators over descriptors; see file_table.h and bpf/file_table.bpf.c
 *
 * Theory of operation: the first reads go through the iterator over descriptors. When a watch is prepared, it gets a map with an element for each 64 numbers up to the
 * highest that was seen, and a spare one; the program fills the elements, which lie in this process's memory, in one iteration. Where that has not read all there is
 * (a number beyond the spare one, a process that is gone), and where numbers are few and far between, the first iterator does it.
 */
#include "kern/file_table.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sys/mman.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/file_table.skel.h"

struct file_reader {
	struct file_table_bpf *bpf;
};

/* Numbers for each descriptor at most: a table with fewer in use is read one by one. */
#define SPARSE 16

struct file_watch {
	const struct file_reader *reader;
	pid_t pid;
	struct bpf_iter_watch iter;
	/* What the last read has seen. */
	unsigned int process, highest;
	size_t n;
	bool by_groups;
	/* The groups: the map's elements; NULL: none. */
	struct file_group *groups;
	size_t n_groups;
	struct bpf_iter_watch group_iter;
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

int file_reader_group_fd(const struct file_reader *reader)
{
	return bpf_program__fd(reader->bpf->progs.read_group);
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
	watch->reader = reader;
	watch->pid = pid;
	watch->group_iter = (struct bpf_iter_watch){ -1, -1 };
	*ret_watch = watch;
	return 0;
}

static void drop_groups(struct file_watch *watch)
{
	bpf_iter_watch_close(&watch->group_iter);
	if (watch->groups)
		munmap(watch->groups, watch->n_groups * sizeof(*watch->groups));
	watch->groups = NULL;
	watch->n_groups = 0;
}

void file_watch_close(struct file_watch *watch)
{
	if (!watch)
		return;
	drop_groups(watch);
	bpf_iter_watch_close(&watch->iter);
	free(watch);
}

/* The link keeps the map. */
static int make_groups(struct file_watch *watch, size_t n)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	cleanup_close int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "file_groups", sizeof(unsigned int), sizeof(struct file_group), (unsigned int)n, &opts);
	union bpf_iter_link_info info = { .map.map_fd = (unsigned int)map };
	void *p = map < 0 ? MAP_FAILED : mmap(NULL, n * sizeof(struct file_group), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

	if (p == MAP_FAILED)
		return -1;
	watch->groups = p;
	watch->n_groups = n;
	return bpf_iter_watch_open(&watch->group_iter, file_reader_group_fd(watch->reader), &info, watch->pid, NULL);
}

/* Groups for the numbers that the last read has seen. */
static void prepare_groups(struct file_watch *watch)
{
	size_t n = watch->highest / FILE_GROUP + 2;

	if (!watch->n || n * FILE_GROUP > SPARSE * watch->n + 4 * FILE_GROUP) {
		drop_groups(watch);
		return;
	}
	if (watch->n_groups >= n && watch->n_groups <= 2 * n && watch->groups[0].process == watch->process)
		return;
	drop_groups(watch);
	if (make_groups(watch, n) < 0) {
		drop_groups(watch);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		watch->groups[i].process = watch->process;
		watch->groups[i].first = (unsigned int)i * FILE_GROUP;
		watch->groups[i].is_last = i == n - 1;
	}
}

void file_watch_prepare(struct file_watch *watch)
{
	prepare_groups(watch);
	if (watch->groups)
		bpf_iter_watch_prepare(&watch->group_iter);
	bpf_iter_watch_prepare(&watch->iter);
}

static size_t take_group(const struct file_group *g, struct file_record *to)
{
	size_t n = 0;

	for (uint64_t left = g->open; left;) {
		unsigned int from = (unsigned int)__builtin_ctzll(left);
		uint64_t ended = ~(left >> from);
		unsigned int run = ended ? (unsigned int)__builtin_ctzll(ended) : FILE_GROUP;

		memcpy(to + n, &g->v[from], run * sizeof(*to));
		n += run;
		left = from + run < FILE_GROUP ? left & (UINT64_MAX << (from + run)) : 0;
	}
	return n;
}

/* -1: not all has been read. */
static ssize_t read_groups(struct file_watch *watch, struct file_record **records, size_t *room)
{
	cleanup_close int fd = watch->groups ? bpf_iter_watch_take(&watch->group_iter, NULL) : -1;
	size_t n = 0;
	char none;

	for (size_t i = 0; fd >= 0 && i < watch->n_groups; i++)
		watch->groups[i].is_read = 0;
	if (fd < 0 || bpf_iter_fill(fd, &none, sizeof(none), NULL) != 0)
		return -1;
	for (size_t i = 0; i < watch->n_groups; i++) {
		if (!watch->groups[i].is_read)
			return -1;
		n += (size_t)__builtin_popcountll(watch->groups[i].open);
	}
	if (*room < n) {
		struct file_record *grown = realloc(*records, n * sizeof(*grown));

		if (!grown)
			return -1;
		*records = grown;
		*room = n;
	}
	n = 0;
	for (size_t i = 0; i < watch->n_groups; i++)
		n += take_group(&watch->groups[i], *records + n);
	return (ssize_t)n;
}

static ssize_t read_all(struct file_watch *watch, struct file_record **records, size_t *room, struct err *e)
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

ssize_t file_watch_read(struct file_watch *watch, struct file_record **records, size_t *room, struct err *e)
{
	ssize_t n = read_groups(watch, records, room);

	watch->by_groups = n >= 0;
	if (n < 0)
		n = read_all(watch, records, room, e);
	if (n < 0)
		return n;
	watch->n = (size_t)n;
	if (n) {
		watch->process = (*records)[n - 1].process;
		watch->highest = (*records)[n - 1].fd;
	}
	return n;
}

bool file_watch_was_by_groups(const struct file_watch *watch)
{
	return watch->by_groups;
}
