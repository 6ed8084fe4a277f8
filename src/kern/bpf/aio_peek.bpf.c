/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * aio_peek.bpf.c - a task iterator that writes the contexts of asynchronous I/O (io_setup(2)) of a task's memory
 *
 * How many requests are in flight nothing else shows: of a ring's slots each is available (to all, or to one CPU), holds an event that was not given back, or belongs
 * to a request.
 *
 * Where the memory of each CPU lies is learned from a map of our own (find_probe, once), whose address the kernel tells both ways: __per_cpu_offset is not among the
 * symbols of every kernel.
 */
#include "iter.h"

#include "../aio_record.h"

const volatile unsigned int cpus = 1;

struct kioctx_cpu {
	unsigned int reqs_available;
} CO_RE;

typedef struct {
	int counter;
} CO_RE atomic_t;

struct kioctx {
	unsigned long user_id;
	struct kioctx_cpu *cpu;
	unsigned int nr_events;
	unsigned long mmap_size;
	atomic_t reqs_available;
	unsigned int tail;
	unsigned int completed_events;
} CO_RE;

struct kioctx_table {
	unsigned int nr;
	struct kioctx *table[];
} CO_RE;

struct mm_struct {
	struct kioctx_table *ioctx_table;
} CO_RE;

struct task_struct {
	struct mm_struct *mm;
	int pid;
	int tgid;
} CO_RE;

struct bpf_map {
	unsigned int id;
} CO_RE;

struct bpf_array {
	void *pptrs[0];
} CO_RE;

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} CO_RE;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, unsigned int);
	__type(value, unsigned long long);
} probe SEC(".maps");

unsigned int probe_id;            /* set before find_probe runs */
unsigned long long probe_address; /* its memory, as a pointer to memory of each CPU */

SEC("iter/bpf_map")
int find_probe(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;

	if (map && BPF_CORE_READ(map, id) == probe_id)
		bpf_probe_read_kernel(&probe_address, sizeof(probe_address), (char *)map + bpf_core_field_offset(struct bpf_array, pptrs));
	return 0;
}

struct sum {
	unsigned long base; /* of a structure of each CPU */
	unsigned int available;
};

static long add_cpu(unsigned int i, struct sum *sum)
{
	unsigned int n = 0, zero = 0;
	unsigned long at = 0;
	void *here = bpf_map_lookup_percpu_elem(&probe, &zero, i);

	if (!here)
		return 0;
	bpf_probe_read_kernel(&at, sizeof(at), &here); /* a number, with which the verifier lets us calculate */
	bpf_probe_read_kernel(&n, sizeof(n), (void *)(sum->base + (at - probe_address) + bpf_core_field_offset(struct kioctx_cpu, reqs_available)));
	sum->available += n;
	return 0;
}

static __always_inline unsigned int available_to_cpus(struct kioctx *c)
{
	struct sum sum = { .base = (unsigned long)BPF_CORE_READ(c, cpu) };

	bpf_loop(cpus, add_cpu, &sum, 0);
	return sum.available;
}

struct walk {
	struct seq_file *seq;
	struct kioctx_table *table;
};

static long write_context(unsigned int i, struct walk *w)
{
	struct aio_record r = {};
	struct kioctx *c = 0;

	bpf_probe_read_kernel(&c, sizeof(c), (char *)w->table + bpf_core_field_offset(struct kioctx_table, table) + i * sizeof(c));
	if (!c)
		return 0;
	r.id = BPF_CORE_READ(c, user_id);
	r.size = BPF_CORE_READ(c, mmap_size);
	r.slots = BPF_CORE_READ(c, nr_events);
	r.tail = BPF_CORE_READ(c, tail);
	r.in_flight = r.slots - 1 - (unsigned int)BPF_CORE_READ(c, reqs_available.counter) - available_to_cpus(c) - BPF_CORE_READ(c, completed_events);
	bpf_seq_write(w->seq, &r, sizeof(r));
	return 0;
}

SEC("iter/task")
int read_aio(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct kioctx_table *table;
	struct walk w = {};

	if (!task || !probe_address || task->pid != task->tgid)
		return 0;
	table = BPF_CORE_READ(task, mm, ioctx_table);
	if (!table)
		return 0;
	w.seq = ctx->meta->seq;
	w.table = table;
	bpf_loop(BPF_CORE_READ(table, nr), write_context, &w, 0);
	return 0;
}
