/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_table.c - loads and runs the programs that read descriptors; see file_table.h and bpf/file_table.bpf.c
 *
 * Theory of operation: the first reads go through the iterator over descriptors. When a watch is prepared, it gets a map with an element for each 64 numbers up to the
 * highest that was seen, and a spare one; the second program fills the elements, which lie in this process's memory. Where that has not read all there is
 * (a number beyond the spare one, a process that is gone), where numbers are few and far between, and on kernels that do not take the program, the iterator does it.
 *
 * Of a long table, whose sockets are megabytes of the kernel's memory, threads on other CPUs read a part (struct crew): each takes the next few groups until there are none. So nobody waits for one
 * that has been woken late.
 */
#include "kern/file_table.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/file_table.skel.h"

struct file_reader {
	struct file_table_bpf *bpf;
	bool has_groups;
};

/* Numbers for each descriptor at most: a table with fewer in use is read one by one. */
#define SPARSE 16
/* Groups that are read in one run of the program; tables of fewer than CREW_RUNS of them by one thread alone. */
#define RUN 8u
#define CREW_RUNS 4u
#define CREW_MAX 3 /* threads beside the one that asks */

struct crew {
	struct file_watch *watch;
	pid_t owner; /* the process whose threads they are: its children have none */
	pthread_t threads[CREW_MAX];
	atomic_int tids[CREW_MAX], n_tids; /* those that have begun */
	unsigned int n_threads;
	sem_t go, all_read;
	atomic_uint next, unread; /* of the runs */
	atomic_bool ends;
	unsigned int n_runs;
	int policy; /* how they are scheduled */
};

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
	struct file_groups_key key;
	struct crew *crew; /* NULL: none is needed */
};

static struct file_table_bpf *load_without_groups(void)
{
	struct file_table_bpf *bpf = file_table_bpf__open();

	if (!bpf)
		return NULL;
	bpf_program__set_autoload(bpf->progs.read_groups, false);
	bpf_program__set_autoload(bpf->progs.read_one, false);
	bpf_map__set_autocreate(bpf->maps.groups_of, false);
	if (file_table_bpf__load(bpf) == 0)
		return bpf;
	file_table_bpf__destroy(bpf);
	return NULL;
}

int file_reader_load(struct file_reader **ret_reader, struct err *e)
{
	struct file_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return err_sys(e, -ENOMEM, "BPF iterator");
	reader->bpf = BPF_ITER_LOAD(file_table_bpf__open_and_load);
	reader->has_groups = reader->bpf != NULL;
	if (!reader->bpf)
		reader->bpf = BPF_ITER_LOAD(load_without_groups);
	if (!reader->bpf) {
		int code = -errno;

		free(reader);
		return err_sys(e, code, "loading the BPF iterator that reads descriptor tables");
	}
	*ret_reader = reader;
	return 0;
}

void file_reader_fds(const struct file_reader *reader, int ret[FILE_READER_FDS])
{
	ret[0] = bpf_program__fd(reader->bpf->progs.read_file);
	ret[1] = reader->has_groups ? bpf_program__fd(reader->bpf->progs.read_groups) : -1;
	ret[2] = reader->has_groups ? bpf_map__fd(reader->bpf->maps.groups_of) : -1;
	ret[3] = reader->has_groups ? bpf_program__fd(reader->bpf->progs.read_one) : -1;
}

void file_reader_free(struct file_reader *reader)
{
	if (!reader)
		return;
	file_table_bpf__destroy(reader->bpf);
	free(reader);
}

bool file_reader_can_ask(const struct file_reader *reader)
{
	return reader->has_groups;
}

bool file_reader_ask(const struct file_reader *reader, unsigned int process, int fd, struct file_record *ret)
{
	struct file_one one = { .process = process, .fd = (unsigned int)fd };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &one, .ctx_size_in = sizeof(one));

	if (fd < 0 || !reader->has_groups || bpf_prog_test_run_opts(bpf_program__fd(reader->bpf->progs.read_one), &opts) < 0 || !one.is_read)
		return false;
	*ret = one.r;
	return true;
}

int file_watch_open(const struct file_reader *reader, pid_t pid, struct file_watch **ret_watch, struct err *e)
{
	union bpf_iter_link_info info = { .task.tid = (uint32_t)pid };
	struct file_watch *watch = calloc(1, sizeof(*watch));
	int ret = watch ? bpf_iter_watch_open(&watch->iter, bpf_program__fd(reader->bpf->progs.read_file), &info, pid, e) : err_sys(e, -ENOMEM, "BPF iterator");

	if (ret < 0) {
		free(watch);
		return ret;
	}
	watch->reader = reader;
	watch->pid = pid;
	*ret_watch = watch;
	return 0;
}

/* Reads groups until there are none that nobody has taken. What could not be read says so itself. */
static void read_runs(struct crew *crew)
{
	struct file_watch *watch = crew->watch;
	unsigned int run;

	while ((run = atomic_fetch_add(&crew->next, 1)) < crew->n_runs) {
		unsigned int first = run * RUN;
		struct file_groups_ask ask = { watch->key, watch->process, first, (unsigned int)MIN((size_t)RUN, watch->n_groups - first) };
		LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ask, .ctx_size_in = sizeof(ask));

		(void)bpf_prog_test_run_opts(bpf_program__fd(watch->reader->bpf->progs.read_groups), &opts);
		if (atomic_fetch_sub(&crew->unread, 1) == 1)
			sem_post(&crew->all_read);
	}
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) < 0)
		;
}

static void *crew_member(void *arg)
{
	struct crew *crew = arg;

	for (;;) {
		wait_for(&crew->go);
		if (atomic_load(&crew->ends))
			return NULL;
		read_runs(crew);
	}
}

static void drop_crew(struct file_watch *watch)
{
	struct crew *crew = watch->crew;

	watch->crew = NULL;
	if (!crew)
		return;
	if (crew->owner == getpid()) {
		atomic_store(&crew->ends, true);
		for (unsigned int i = 0; i < crew->n_threads; i++)
			sem_post(&crew->go);
		for (unsigned int i = 0; i < crew->n_threads; i++)
			pthread_join(crew->threads[i], NULL);
	}
	free(crew);
}

/* On all CPUs that there may be: the program that they read of does not run then. */
static void *crew_begin(void *arg)
{
	struct crew *crew = arg;
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	(void)sched_setaffinity(0, sizeof(all), &all);
	atomic_store(&crew->tids[atomic_fetch_add(&crew->n_tids, 1)], gettid());
	return crew_member(arg);
}

static void make_crew(struct file_watch *watch)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct crew *crew = calloc(1, sizeof(*crew));

	if (!crew)
		return;
	crew->watch = watch;
	crew->owner = getpid();
	crew->policy = -1;
	sem_init(&crew->go, 0, 0);
	sem_init(&crew->all_read, 0, 0);
	while (crew->n_threads < CREW_MAX && (long)crew->n_threads + 1 < cpus &&
	       pthread_create(&crew->threads[crew->n_threads], NULL, crew_begin, crew) == 0)
		crew->n_threads++;
	watch->crew = crew;
	if (!crew->n_threads)
		drop_crew(watch);
}

static void drop_groups(struct file_watch *watch)
{
	drop_crew(watch);
	if (!watch->groups)
		return;
	bpf_map_delete_elem(bpf_map__fd(watch->reader->bpf->maps.groups_of), &watch->key);
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

/* What processes have left that were killed. */
static void drop_orphans(int table)
{
	struct file_groups_key key, next;
	bool any = bpf_map_get_next_key(table, NULL, &next) == 0;

	while (any) {
		key = next;
		any = bpf_map_get_next_key(table, &key, &next) == 0;
		if (kill((pid_t)key.process, 0) < 0 && errno == ESRCH)
			bpf_map_delete_elem(table, &key);
	}
}

/* The table of groups keeps the map. */
static int enter_groups(struct file_watch *watch, int map)
{
	static unsigned int number;
	int table = bpf_map__fd(watch->reader->bpf->maps.groups_of);

	drop_orphans(table);
	watch->key = (struct file_groups_key){ (unsigned int)getpid(), ++number };
	return bpf_map_update_elem(table, &watch->key, &map, BPF_ANY);
}

static int make_groups(struct file_watch *watch, size_t n)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	cleanup_close int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "file_groups", sizeof(unsigned int), sizeof(struct file_group), (unsigned int)n, &opts);
	void *p = map < 0 ? MAP_FAILED : mmap(NULL, n * sizeof(struct file_group), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

	if (p == MAP_FAILED)
		return -1;
	if (enter_groups(watch, map) < 0) {
		munmap(p, n * sizeof(struct file_group));
		return -1;
	}
	watch->groups = p;
	watch->n_groups = n;
	return 0;
}

/* Groups for the numbers that the last read has seen. */
static void prepare_groups(struct file_watch *watch)
{
	size_t n = watch->highest / FILE_GROUP + 2;

	if (!watch->reader->has_groups || !watch->n || n * FILE_GROUP > SPARSE * watch->n + 4 * FILE_GROUP) {
		drop_groups(watch);
		return;
	}
	if (watch->n_groups >= n && watch->n_groups <= 2 * n && watch->groups[0].process == watch->process)
		return;
	drop_groups(watch);
	if (make_groups(watch, n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		watch->groups[i].process = watch->process;
		watch->groups[i].first = (unsigned int)i * FILE_GROUP;
		watch->groups[i].is_last = i == n - 1;
	}
	if (n >= (size_t)RUN * CREW_RUNS)
		make_crew(watch);
}

void file_watch_prepare(struct file_watch *watch)
{
	prepare_groups(watch);
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

/* They read for the one that asks, and when that goes before others so do they. By the kernel's calls, since the C library remembers what it has set itself. */
static void schedule_crew(struct crew *crew)
{
	struct sched_param param = { 0 };
	int policy = sched_getscheduler(0);

	if (policy < 0 || policy == crew->policy || sched_getparam(0, &param) < 0)
		return;
	crew->policy = policy;
	for (unsigned int i = 0; i < CREW_MAX; i++)
		if (atomic_load(&crew->tids[i]))
			(void)sched_setscheduler(atomic_load(&crew->tids[i]), policy & ~SCHED_RESET_ON_FORK, &param);
}

static void fill_groups(struct file_watch *watch)
{
	struct crew *crew = watch->crew;

	for (size_t i = 0; i < watch->n_groups; i++)
		watch->groups[i].is_read = 0;
	if (crew && crew->owner == getpid()) {
		schedule_crew(crew);
		crew->n_runs = (unsigned int)((watch->n_groups + RUN - 1) / RUN);
		atomic_store(&crew->unread, crew->n_runs);
		atomic_store(&crew->next, 0);
		for (unsigned int i = 0; i < crew->n_threads; i++)
			sem_post(&crew->go);
		read_runs(crew);
		wait_for(&crew->all_read);
	} else {
		struct file_groups_ask ask = { watch->key, watch->process, 0, (unsigned int)watch->n_groups };
		LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ask, .ctx_size_in = sizeof(ask));

		(void)bpf_prog_test_run_opts(bpf_program__fd(watch->reader->bpf->progs.read_groups), &opts);
	}
}

/* -1: not all has been read. */
static ssize_t read_groups(struct file_watch *watch, struct file_record **records, size_t *room)
{
	size_t n = 0;

	if (!watch->groups)
		return -1;
	fill_groups(watch);
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
