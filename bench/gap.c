// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * gap.c - the program that the benchmark moves: it uses memory, reads the clock, and keeps what it saw in its own memory
 *
 * usage: gap MIB WORKING_SET_PAGES PATTERN THRESHOLD_US [CROWD]    (0 pages: all; PATTERN: cycle, sequential or random; CROWD: crowd.h)
 *
 * It makes no system call while it works. What it saw lies in struct stats at a fixed address, which the benchmark reads through
 * /proc/PID/mem:
 *   - every pause between two readings of CLOCK_REALTIME above the threshold (a ring of `struct pause`),
 *   - for every millisecond the number of iterations at its start (a ring of `struct mark`),
 *   - the result of checking every word of the memory, when `command` asks for it.
 * Iteration k writes k into the first word of a page of the working set; all other words hold a hash of their place, so that the memory is
 * incompressible and every lost, stale or misplaced page is found.
 */
#include "crowd.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define STATS_ADDRESS 0x100000000ul
#define MAGIC 0x5041472d44574731ul /* "1GWD-GAP" */
#define PAUSES 32768u
#define MARKS 16384u
#define WORDS 512u
#define RANDOM_STEP 2654435761u /* odd: visits every page once a cycle when their number is a power of two */

enum command { COMMAND_NONE, COMMAND_VERIFY, COMMAND_END };

struct pause {
	uint64_t start_ns;
	uint32_t len_ns;
	uint32_t iteration;
};

struct mark {
	uint32_t ms; /* since stats.start_ns, plus 1; 0: none */
	uint32_t iteration;
};

struct stats {
	uint64_t magic, start_ns, now_ns, iterations;
	uint64_t n_pauses;
	uint64_t bad_words, verified_words;
	uint32_t command, unused;
	uint64_t pages, working_set, threshold_ns;
	uint64_t largest_start_ns, largest_ns;
	char padding[4096 - 104];
	struct mark marks[MARKS];
	struct pause pauses[PAUSES];
};

_Static_assert(sizeof(struct stats) == 4096 + sizeof(struct mark) * MARKS + sizeof(struct pause) * PAUSES, "the layout that bench.py reads");

static struct stats *s;
static uint64_t *memory;
static enum { CYCLE, SEQUENTIAL, RANDOM } pattern;

static uint64_t hash(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* The page that iteration k writes. */
static inline uint64_t page_of(uint64_t k)
{
	uint64_t turn = k % s->working_set;

	switch (pattern) {
	case SEQUENTIAL:
		return turn;
	case RANDOM:
		return k * RANDOM_STEP % s->working_set;
	default:
		return turn * (s->pages / s->working_set); /* spread evenly over the memory */
	}
}

static void verify(void)
{
	uint64_t bad = 0, words = 0, k, p, w, seen = 0;

	for (p = 0; p < s->pages; p++) {
		for (w = 1; w < WORDS; w++)
			bad += memory[p * WORDS + w] != hash(p * WORDS + w);
		words += WORDS;
		k = memory[p * WORDS];
		if (k == hash(p * WORDS)) /* never written */
			continue;
		seen++;
		/* written by iteration k, and not long ago: each page's turn comes once in working_set iterations */
		bad += !(k < s->iterations && k + s->working_set >= s->iterations && page_of(k) == p);
	}
	bad += seen != (s->iterations < s->working_set ? s->iterations : s->working_set);
	s->bad_words = bad;
	s->verified_words = words;
}

static void keep_pause(uint64_t start_ns, uint64_t len_ns)
{
	struct pause *p = &s->pauses[s->n_pauses % PAUSES];

	p->start_ns = start_ns;
	p->len_ns = len_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)len_ns;
	p->iteration = (uint32_t)s->iterations;
	s->n_pauses++;
	if (len_ns > s->largest_ns) {
		s->largest_ns = len_ns;
		s->largest_start_ns = start_ns;
	}
}

static void work(void)
{
	uint64_t last = wall_ns(), t, ms, last_ms = UINT64_MAX;

	s->start_ns = last;
	for (;;) {
		memory[page_of(s->iterations) * WORDS] = s->iterations;
		s->iterations++;
		t = wall_ns();
		if (__builtin_expect(t - last > s->threshold_ns, 0))
			keep_pause(last, t - last);
		last = t;
		s->now_ns = t;
		ms = (t - s->start_ns) / 1000000;
		if (ms != last_ms) {
			s->marks[ms % MARKS] = (struct mark){ (uint32_t)ms + 1, (uint32_t)s->iterations };
			last_ms = ms;
		}
		if (__builtin_expect(__atomic_load_n(&s->command, __ATOMIC_RELAXED), 0)) {
			if (s->command == COMMAND_END)
				exit(0);
			verify();
			last = wall_ns();
			__atomic_store_n(&s->command, COMMAND_NONE, __ATOMIC_RELEASE);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t pages, i;

	if (argc != 5 && argc != 6) {
		fprintf(stderr, "usage: gap MIB WORKING_SET_PAGES cycle|sequential|random THRESHOLD_US [threads|processes|mappings|descriptors=N]\n");
		return 2;
	}
	if (argc == 6 && crowd_make(argv[5]) < 0)
		return 1;
	pages = strtoul(argv[1], NULL, 10) * 256;
	pattern = argv[3][0] == 's' ? SEQUENTIAL : argv[3][0] == 'r' ? RANDOM : CYCLE;
	s = mmap((void *)STATS_ADDRESS, sizeof(*s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s == MAP_FAILED || memory == MAP_FAILED || !pages) {
		perror("gap: mmap");
		return 1;
	}
	memset(s, 0, sizeof(*s));
	s->pages = pages;
	s->working_set = strtoul(argv[2], NULL, 10);
	if (!s->working_set || s->working_set > pages)
		s->working_set = pages;
	s->threshold_ns = strtoul(argv[4], NULL, 10) * 1000;
	for (i = 0; i < pages * WORDS; i++)
		memory[i] = hash(i);
	__atomic_store_n(&s->magic, MAGIC, __ATOMIC_RELEASE);
	work();
}
