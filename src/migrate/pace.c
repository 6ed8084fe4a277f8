/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pace.c - the worker's share of the CPU; see pace.h, sched_setattr(2) */
#include "migrate/pace.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/guard.h"

#define HEAP_BYTES (1u << 20)
#define STACK_BYTES (256u << 10)
#define TOUCHED_MAX (6ul << 20)
#define HEAP_MAX (24ul << 20)
#define THREAD_BYTES 24576ul /* its message, encoded or decoded, and some pages of it */
#define CALM_NICE 19
#define BESIDE_NICE 10
#define ASIDE_THREADS 16 /* looked at, with . and ..; a program with more has all CPUs anyway, mostly */
#define ASIDE_NS 10000000ull
#define CALM_SLICE_NS 100000

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* In one call: a page fault for each page is many times as much, above all in a guest. */
static void touch_memory(char *p, size_t bytes)
{
	size_t page = 4096, before = -(uintptr_t)p % page;

	if (bytes <= before || madvise(p + before, (bytes - before) / page * page, MADV_POPULATE_WRITE) < 0)
		explicit_bzero(p, bytes);
}

static void touch_heap(size_t bytes)
{
	char *p = malloc(bytes);

	if (p)
		touch_memory(p, bytes);
	free(p);
}

void pace_prepare(bool forks)
{
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	if (!forks)
		pace_touch(); /* most of it now: it takes milliseconds, and just before the freeze the program would feel that */
}

void pace_prepare_for(size_t threads)
{
	touch_heap(HEAP_BYTES + MIN(threads * THREAD_BYTES, HEAP_MAX));
}

void pace_boost(pid_t tid)
{
	struct sched_param p = { .sched_priority = 1 };

	sched_setscheduler(tid, SCHED_FIFO, &p);
}

void pace_rule(void)
{
	struct sched_param p = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p) < 0)
		setpriority(PRIO_PROCESS, 0, -20);
}

static bool is_idle_library(const char *line)
{
	const char *library = strstr(line, "/lib");

	return strstr(line, ".so") && !(library && (strstr(library, "/libc.so") || strstr(library, "/libprotobuf-c")));
}

/*
 * Pages of the worker that it has never touched, or shares with godwitd that has forked it. Mappings that are large are not of the kind that the freeze needs
 * (stacks of other threads, buffers that are touched by those who made them), and most libraries are for what happens before or after it.
 */
static void touch_mapping(const char *line)
{
	uint64_t start, end;
	char prot[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, prot) != 3 || prot[3] != 'p' || end - start > (strstr(line, "[heap]") ? HEAP_MAX : TOUCHED_MAX))
		return;
	if (prot[1] == 'w')
		madvise((void *)start, end - start, MADV_POPULATE_WRITE);
	else if (prot[0] == 'r' && !is_idle_library(line))
		madvise((void *)start, end - start, MADV_POPULATE_READ);
}

void pace_touch(void)
{
	cleanup_fclose FILE *f = fopen("/proc/self/maps", "re");
	char deep[STACK_BYTES], line[512];

	touch_memory(deep, sizeof(deep));
	while (f && fgets(line, sizeof(line), f))
		touch_mapping(line);
}

static void set_nice(pid_t tid, int nice)
{
	struct attr a = { .size = sizeof(a), .policy = SCHED_OTHER, .nice = guard_hurries() ? PACE_HURRY_NICE : nice, .runtime = CALM_SLICE_NS };

	if (tid)
		guard_care(tid);
	if (syscall(SYS_sched_setattr, tid, &a, 0) < 0)
		setpriority(PRIO_PROCESS, (id_t)tid, a.nice);
}

void pace_hurry(pid_t tid)
{
	set_nice(tid, PACE_HURRY_NICE);
}

void pace_give_way(void)
{
	struct sched_param none = { 0 };

	sched_setscheduler(0, SCHED_BATCH, &none);
}

/* How many tasks of the host want a CPU just now, this one not counted; 0: not known. */
static size_t competitors(void)
{
	cleanup_fclose FILE *f = fopen("/proc/loadavg", "re");
	size_t n = 0;

	return f && fscanf(f, "%*f %*f %*f %zu/", &n) == 1 && n > 1 ? n - 1 : 0;
}

static size_t own_cpus(void)
{
	cpu_set_t mine;

	return sched_getaffinity(0, sizeof(mine), &mine) == 0 ? (size_t)CPU_COUNT(&mine) : 1;
}

bool pace_is_crowded(void)
{
	return guard_hurries() || competitors() > own_cpus();
}

void pace_calm_beside(pid_t tid, size_t nthreads)
{
	size_t cpus = own_cpus();
	size_t running = competitors(), others = MAX(nthreads, running);
	int nice = others < cpus ? CALM_NICE : BESIDE_NICE, overloaded = BESIDE_NICE;

	/* While there is a CPU to spare it may be the last everywhere. A step of niceness is a factor of 1.25. */
	for (size_t share = cpus * 100; nice > 0 && share < others * 100; share += share / 4)
		nice--;
	for (size_t share = cpus * 100; overloaded > PACE_HURRY_NICE && share < running * 100; share += share / 7)
		overloaded--;
	set_nice(tid, running < cpus ? nice : MIN(nice, overloaded));
}

void pace_calm(pid_t tid)
{
	pace_calm_beside(tid, 0);
}

/* The CPU on which a thread runs or wants to run; -1 when it waits for something else. */
static int running_on(pid_t pid, pid_t tid)
{
	char path[64], text[1024], *at;
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	at = strrchr(text, ')');
	if (!at || strncmp(at, ") R ", 4))
		return -1;
	at += 2; /* the third field; the CPU is the 39th */
	for (int field = 3; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at) : -1;
}

static int left_cpu = -1;

void pace_remember(pid_t pid)
{
	left_cpu = running_on(pid, pid);
}

void pace_take_place(pid_t tid)
{
	cpu_set_t before, one;

	set_nice(tid, 0);
	if (left_cpu < 0 || sched_getaffinity(tid, sizeof(before), &before) < 0)
		return;
	CPU_ZERO(&one);
	CPU_SET((unsigned)left_cpu, &one);
	/* Put there once, not held there. */
	if (sched_setaffinity(tid, sizeof(one), &one) == 0)
		sched_setaffinity(tid, sizeof(before), &before);
	left_cpu = -1; /* others find one by themselves */
}

void pace_apart(pid_t tid, cpu_set_t *ret_before)
{
	int cpu = sched_getcpu();
	cpu_set_t others;

	CPU_ZERO(ret_before);
	if (cpu < 0 || sched_getaffinity(tid, sizeof(others), &others) < 0 || !CPU_ISSET((unsigned)cpu, &others) || CPU_COUNT(&others) < 2)
		return;
	*ret_before = others;
	CPU_CLR((unsigned)cpu, &others);
	if (sched_setaffinity(tid, sizeof(others), &others) < 0)
		CPU_ZERO(ret_before);
	set_nice(tid, PACE_HURRY_NICE);
}

void pace_together(pid_t tid, cpu_set_t *before)
{
	if (CPU_COUNT(before))
		sched_setaffinity(tid, sizeof(*before), before);
	CPU_ZERO(before);
}

/* Takes the CPUs that the threads of a process want out of `set`; returns how many threads want one, a large number when there are too many to look at. */
static size_t leave_out(pid_t pid, cpu_set_t *set)
{
	cleanup_closedir DIR *d = NULL;
	struct dirent *entry;
	size_t seen = 0, busy = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (entry = readdir(d))) {
		int cpu = entry->d_name[0] == '.' ? -1 : running_on(pid, atoi(entry->d_name));

		if (++seen > ASIDE_THREADS)
			return SIZE_MAX;
		if (cpu < 0)
			continue;
		busy++;
		CPU_CLR((unsigned)cpu, set);
	}
	return busy;
}

void pace_aside(struct pace_aside *a, pid_t tid, pid_t pid)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	cpu_set_t set;
	size_t busy;

	if (now < a->next_ns)
		return;
	if (!a->next_ns && sched_getaffinity(0, sizeof(a->all), &a->all) < 0)
		return;
	if (!a->next_ns)
		a->set = a->all;
	a->next_ns = now + ASIDE_NS;
	set = a->all;
	busy = leave_out(pid, &set);
	if (!busy) /* it rests just now, and will go on where it was */
		return;
	if (busy == SIZE_MAX || !CPU_COUNT(&set))
		set = a->all;
	if (CPU_EQUAL(&set, &a->set))
		return;
	a->set = set;
	/* There it is in nobody's way, and must not wait for whoever else is busy on this host. */
	if (CPU_EQUAL(&set, &a->all))
		pace_calm_beside(tid, MIN(busy, (size_t)1000));
	else
		set_nice(tid, 0);
	sched_setaffinity(tid, sizeof(set), &set);
	sched_setaffinity(0, sizeof(set), &set);
}
