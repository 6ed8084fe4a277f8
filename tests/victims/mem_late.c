// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mem_late.c - victims that change what no list of mappings shows, all the time: guard pages in page tables, advice and locks
 *
 * Each writes down what it has done; from the move on nothing is changed any more, so that what was last done before it is still to be found.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "victim.h"

#define PAGE 4096u
#define PLACES 64

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static char *area;
static volatile int is[PLACES], now; /* now: what is being changed */
static uint64_t steps;

static int next_place(void)
{
	now = (int)(mix(++steps) % PLACES);
	return now;
}

/* ---- guards ---- */

static void guard(int i)
{
	must(!madvise(area + i * PAGE, PAGE, is[i] ? MADV_GUARD_REMOVE : MADV_GUARD_INSTALL));
	is[i] = !is[i];
	if (!is[i])
		fill(area + i * PAGE, PAGE, (uint64_t)i);
}

static void guards_setup(void)
{
	area = map_anon(PLACES * PAGE, PROT_READ | PROT_WRITE, 0);
	fill(area, PLACES * PAGE, 1);
	for (int i = 0; i < PLACES; i++) {
		fill(area + i * PAGE, PAGE, (uint64_t)i);
		if (i % 2)
			guard(i);
	}
}

static void guards_work(void)
{
	for (int k = 0; k < 64 && !moved(); k++)
		guard(next_place());
}

static void guards_check(void)
{
	char byte;

	for (int i = 0; i < PLACES; i++) {
		struct iovec to = { &byte, 1 }, from = { area + i * PAGE, 1 };
		bool readable = process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;

		if (readable == !!is[i])
			fail("guard of page %d (last changed %d), expected %d, got %d", i, now, is[i], !readable);
		if (readable && !is[i])
			verify("page without a guard", area + i * PAGE, PAGE, (uint64_t)i);
	}
}

VICTIM(mem_late_guards, 0, guards_setup, guards_work, guards_check);

/* A guard in a mapping that is new. */
static void new_guard_setup(void)
{
	area = map_anon(2 * PLACES * PAGE, PROT_NONE, MAP_NORESERVE);
}

static void new_guard_work(void)
{
	for (int k = 0; k < 64 && !moved(); k++) {
		int i = next_place();
		char *p = area + 2 * (size_t)i * PAGE;

		if (is[i]) {
			must(mmap(p, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == p);
		} else {
			must(mmap(p, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
			must(!madvise(p, PAGE, MADV_GUARD_INSTALL));
			p[PAGE] = (char)i;
		}
		is[i] = !is[i];
	}
}

static void new_guard_check(void)
{
	for (int i = 0; i < PLACES; i++) {
		char *p = area + 2 * (size_t)i * PAGE, byte = 0;
		struct iovec to = { &byte, 1 }, first = { p, 1 }, second = { p + PAGE, 1 };

		if (process_vm_readv(getpid(), &to, 1, &first, 1, 0) == 1)
			fail("place %d: its guard can be read", i);
		if (process_vm_readv(getpid(), &to, 1, &second, 1, 0) != (is[i] ? 1 : -1) || (is[i] && byte != (char)i))
			fail("place %d (last changed %d), expected mapped %d, got a byte %d", i, now, is[i], byte);
	}
}

VICTIM(mem_late_stacks, 0, new_guard_setup, new_guard_work, new_guard_check);

/* ---- advice and locks ---- */

struct change {
	const char *flag; /* in VmFlags */
	int set, undo;    /* of madvise; 0: mlock and munlock */
};

static const struct change changes[] = {
	{ "dc", MADV_DONTFORK, MADV_DOFORK }, { "dd", MADV_DONTDUMP, MADV_DODUMP }, { "wf", MADV_WIPEONFORK, MADV_KEEPONFORK }, { "lo", 0, 0 },
	{ "rr", MADV_RANDOM, MADV_NORMAL }, { "sr", MADV_SEQUENTIAL, MADV_NORMAL },
};
#define CHANGES (sizeof(changes) / sizeof(*changes))

static bool map_anew; /* the whole mapping is made anew each time, and has the flag from then on */

/* Every other page has no access: each page is a mapping of its own. */
static void advice_setup(void)
{
	area = map_anon(2 * PLACES * PAGE, PROT_NONE, 0);
	for (int i = 0; i < PLACES; i++)
		must(!mprotect(area + 2 * (size_t)i * PAGE, PAGE, PROT_READ | PROT_WRITE));
}

static void anew_setup(void)
{
	map_anew = true;
	advice_setup();
}

static void advice_work(void)
{
	for (int k = 0; k < 64 && !moved(); k++) {
		int i = next_place();
		const struct change *c = &changes[(size_t)i % CHANGES];
		char *p = area + 2 * (size_t)i * PAGE;

		if (map_anew)
			must(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		if (c->set && (!map_anew || !is[i]))
			must(!madvise(p, PAGE, is[i] ? c->undo : c->set));
		else if (!map_anew || !is[i])
			must(!(is[i] ? munlock(p, PAGE) : mlock(p, PAGE)));
		is[i] = !is[i];
	}
}

static void advice_check(void)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[1024];
	unsigned long start = 0, from, end;
	char prot;
	int seen = 0;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		size_t i;
		char *p = area;
		const struct change *c;

		if (sscanf(line, "%lx-%lx %c", &from, &end, &prot) == 3)
			start = from;
		if (strncmp(line, "VmFlags:", 8))
			continue;
		i = (start - (uintptr_t)p) / (2 * PAGE);
		if (start < (uintptr_t)p || i >= PLACES || (start - (uintptr_t)p) % (2 * PAGE))
			continue;
		seen++;
		c = &changes[i % CHANGES];
		if ((strstr(line, c->flag) != NULL) != is[i])
			fail("place %zu (last changed %d), flag %s, expected %d, got %s", i, now, c->flag, is[i], line);
	}
	fclose(f);
	expect_u64("mappings", PLACES, (uint64_t)seen);
}

VICTIM(mem_late_advice, 0, advice_setup, advice_work, advice_check);
VICTIM(mem_late_anew, 0, anew_setup, advice_work, advice_check);
