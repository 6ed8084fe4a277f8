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

/* ---- locks that the program takes back while its pages are still coming ---- */

#define BULK (96u << 20)

enum lock { UNLOCKED, ON_FAULT, LOCKED, LOCKS };

static const char *const lock_flags[LOCKS] = { "", " lo lf", " lo" };
static enum lock locks[PLACES];

static void set_lock(int i, enum lock lock)
{
	char *p = area + (size_t)i * PAGE;

	must(!(lock == UNLOCKED ? munlock(p, PAGE) : mlock2(p, PAGE, lock == ON_FAULT ? MLOCK_ONFAULT : 0)));
	locks[i] = lock;
}

static void relock_setup(void)
{
	char *bulk = map_anon(BULK, PROT_READ | PROT_WRITE, 0); /* many of its pages come behind those of the area */

	fill(bulk, BULK, 5);
	must(!mlock(bulk, BULK / 2));
	area = map_anon((PLACES + 2) * PAGE, PROT_NONE, 0) + PAGE;
	for (int i = 0; i < PLACES; i++) {
		must(!mprotect(area + i * PAGE, PAGE, i % 5 ? PROT_READ | PROT_WRITE : PROT_READ));
		if (i % 5)
			fill(area + i * PAGE, PAGE, (uint64_t)i);
		set_lock(i, (enum lock)(mix((uint64_t)i) % LOCKS));
	}
}

static enum lock lock_at(const char *p)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from, end;
	bool here = false;
	enum lock found = UNLOCKED;
	char line[1024], c;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %c", &from, &end, &c) == 3)
			here = (uintptr_t)p >= from && (uintptr_t)p < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, " lf") ? ON_FAULT : strstr(line, " lo") ? LOCKED : UNLOCKED;
	}
	fclose(f);
	return found;
}

static void relock_look(const char *when)
{
	for (int i = 0; i < PLACES; i++) {
		enum lock got = lock_at(area + i * PAGE);

		if (got != locks[i])
			fail("lock of page %d %s, expected \"%s\", got \"%s\"", i, when, lock_flags[locks[i]], lock_flags[got]);
	}
}

static void relock_work(void)
{
	static bool done;

	if (done || !moved()) {
		usleep(200);
		return;
	}
	done = true;
	for (int i = 0; i < PLACES; i += 2)
		set_lock(i, (enum lock)((locks[i] + 1 + mix((uint64_t)i + 99) % 2) % LOCKS));
	relock_look("when it had been moved");
}

static void relock_check(void)
{
	relock_look("when all was there");
	for (int i = 0; i < PLACES; i++)
		if (i % 5)
			verify("a page with a lock", area + i * PAGE, PAGE, (uint64_t)i);
		else
			verify_zero("a page that nobody wrote", area + i * PAGE, PAGE);
}

VICTIM(mem_late_relock, V_MOVE, relock_setup, relock_work, relock_check);

static void locked_zeros_setup(void)
{
	area = map_anon(2 * PLACES * PAGE, PROT_READ | PROT_WRITE, 0);
	must(!mlock(area, PLACES * PAGE));
}

static void locked_zeros_check(void)
{
	unsigned char resident[2 * PLACES];

	must(!mincore(area, sizeof(resident) * PAGE, resident));
	for (int i = 0; i < PLACES; i++)
		if (!(resident[i] & 1))
			fail("page %d of locked memory is missing", i);
}

VICTIM(mem_late_zeros, 0, locked_zeros_setup, NULL, locked_zeros_check);
