// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mem_replace.c - memory that is replaced by other memory of the same look, all the time
 *
 * Places of a few pages lie close together; large ones are alone in their page tables, which go with them. Each is mapped anew where it lies, moved away or exchanged, dropped, guarded, protected and
 * written to, and a table says what each page has to hold: from the move on nothing is changed any more.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define PAGE 4096ul
#define SMALL 24
#define LARGE 6
#define PLACES (SMALL + LARGE)
#define SMALL_BYTES (4 * PAGE)
#define LARGE_BYTES (4ul << 20)
#define POINTS 4u /* pages of each that are used */

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

struct place {
	char *at;
	size_t len;
	int prot;
	uint64_t holds[POINTS]; /* what a page is filled with; 0: zeros */
	bool guarded[POINTS];
	const char *last;
};

static struct place places[PLACES];
static uint64_t steps;
static bool with_children;

static char *point(const struct place *p, unsigned k)
{
	return p->at + k * (p->len / POINTS);
}

static void map_at(struct place *p)
{
	must(mmap(p->at, p->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p->at);
	p->prot = PROT_READ | PROT_WRITE;
	memset(p->holds, 0, sizeof(p->holds));
	memset(p->guarded, 0, sizeof(p->guarded));
}

static void write_point(struct place *p, unsigned k, uint64_t random)
{
	uint64_t seed = random | 1; /* 0 says zeros */

	if (p->guarded[k] || !(p->prot & PROT_WRITE))
		return;
	fill(point(p, k), PAGE, seed);
	p->holds[k] = seed;
}

/* ---- what is done to a place ---- */

static void map_anew(struct place *p, uint64_t random)
{
	(void)random;
	map_at(p);
}

static void map_and_write(struct place *p, uint64_t random)
{
	map_at(p);
	for (unsigned k = 0; k < POINTS; k++)
		if (random >> k & 1)
			write_point(p, k, random);
}

/* The same bytes each time: those that the other side has seen before. */
static void map_and_repeat(struct place *p, uint64_t random)
{
	map_at(p);
	write_point(p, random % POINTS, (uint64_t)(uintptr_t)p->at);
}

static void unmap_first(struct place *p, uint64_t random)
{
	must(!munmap(p->at, p->len));
	map_and_write(p, random);
}

static void write_again(struct place *p, uint64_t random)
{
	write_point(p, random % POINTS, random);
}

static void drop(struct place *p, uint64_t random)
{
	(void)random;
	must(!madvise(p->at, p->len, MADV_DONTNEED));
	memset(p->holds, 0, sizeof(p->holds));
}

static void drop_one(struct place *p, uint64_t random)
{
	must(!madvise(point(p, random % POINTS), PAGE, MADV_DONTNEED));
	p->holds[random % POINTS] = 0;
}

static void guard(struct place *p, uint64_t random)
{
	unsigned k = random % POINTS;

	must(!madvise(point(p, k), PAGE, p->guarded[k] ? MADV_GUARD_REMOVE : MADV_GUARD_INSTALL));
	p->guarded[k] = !p->guarded[k];
	p->holds[k] = 0;
	if (random >> 3 & 1)
		write_point(p, k, random);
}

static void protect(struct place *p, uint64_t random)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
	int prot = p->prot == prots[0] ? prots[1 + random % 2] : prots[0];

	must(!mprotect(p->at, p->len, prot));
	p->prot = prot;
}

static struct place *another(struct place *p, uint64_t random)
{
	size_t i = (size_t)(p - places);

	return i < SMALL ? &places[(i + 1 + random % (SMALL - 1)) % SMALL] : &places[SMALL + (i - SMALL + 1 + random % (LARGE - 1)) % LARGE];
}

static void copy_contents(struct place *to, const struct place *from)
{
	to->prot = from->prot;
	memcpy(to->holds, from->holds, sizeof(to->holds));
	memcpy(to->guarded, from->guarded, sizeof(to->guarded));
	to->last = from->last;
}

/* Over another one, and fresh memory here. */
static void move_away(struct place *p, uint64_t random)
{
	struct place *to = another(p, random >> 8);

	must(mremap(p->at, p->len, p->len, MREMAP_MAYMOVE | MREMAP_FIXED, to->at) == to->at);
	copy_contents(to, p);
	map_and_write(p, random);
}

/* The mapping stays, without its pages. */
static void move_pages(struct place *p, uint64_t random)
{
	struct place *to = another(p, random >> 8);
	int prot = p->prot;

	must(mremap(p->at, p->len, p->len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to->at) == to->at);
	copy_contents(to, p);
	memset(p->holds, 0, sizeof(p->holds));
	memset(p->guarded, 0, sizeof(p->guarded));
	p->prot = prot;
	write_point(p, random % POINTS, random);
}

/* A child that has the pages for a moment; who writes first takes a copy. */
static void share(struct place *p, uint64_t random)
{
	pid_t child = fork();

	must(child >= 0);
	if (!child) {
		write_point(p, 0, 1);
		_exit(0);
	}
	write_point(p, random % POINTS, random);
	while (waitpid(child, NULL, 0) < 0) /* the signal to end interrupts it */
		must(errno == EINTR);
}

static const struct action {
	const char *name;
	void (*f)(struct place *p, uint64_t random);
} actions[] = {
	{ "mapped anew", map_anew }, { "mapped anew and written", map_and_write }, { "mapped anew with the same bytes", map_and_repeat }, { "unmapped and mapped", unmap_first },
	{ "written", write_again }, { "dropped", drop }, { "dropped in part", drop_one }, { "guarded or not", guard }, { "protected or not", protect }, { "moved away", move_away },
	{ "moved, its mapping left", move_pages }, { "shared with a child", share },
};
#define ACTIONS (sizeof(actions) / sizeof(*actions))

static void replace_setup(void)
{
	char *small = map_anon(2 * SMALL * SMALL_BYTES, PROT_NONE, MAP_NORESERVE);
	char *large = map_anon(2 * (LARGE + 1) * LARGE_BYTES, PROT_NONE, MAP_NORESERVE);

	large = (char *)(((uintptr_t)large + LARGE_BYTES - 1) & ~(LARGE_BYTES - 1));
	for (int i = 0; i < PLACES; i++) {
		places[i].len = i < SMALL ? SMALL_BYTES : LARGE_BYTES;
		places[i].at = i < SMALL ? small + 2 * (size_t)i * SMALL_BYTES : large + 2 * (size_t)(i - SMALL) * LARGE_BYTES;
		map_at(&places[i]);
		places[i].last = "made";
		for (unsigned k = 0; k < POINTS; k++)
			write_point(&places[i], k, mix(++steps));
	}
}

static void children_setup(void)
{
	with_children = true;
	replace_setup();
}

static void step(void)
{
	uint64_t random = mix(++steps);
	struct place *p = &places[random % PLACES];
	const struct action *a = &actions[(random >> 16) % (ACTIONS - 1)];

	if (with_children && random >> 32 & 1)
		a = &actions[ACTIONS - 1];
	a->f(p, random >> 40);
	p->last = a->name;
}

static void replace_work(void)
{
	for (int k = 0; k < 64 && !moved(); k++)
		step();
}

/* Seldom enough that most pages have been sent before they are replaced. */
static void slow_work(void)
{
	for (int k = 0; k < 8 && !moved(); k++)
		step();
	usleep(2000);
}

static void check_point(const struct place *p, unsigned k)
{
	static char page[PAGE];
	struct iovec to = { page, PAGE }, from = { point(p, k), PAGE };
	bool readable = process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)PAGE, may = (p->prot & PROT_READ) && !p->guarded[k];
	char what[128];

	snprintf(what, sizeof(what), "page %u of place %d (%s)", k, (int)(p - places), p->last);
	if (readable != may) {
		fail("%s: readable %d, expected %d", what, readable, may);
		return;
	}
	if (readable && p->holds[k])
		verify(what, page, PAGE, p->holds[k]);
	else if (readable)
		verify_zero(what, page, PAGE);
}

static void replace_check(void)
{
	for (int i = 0; i < PLACES; i++) {
		struct place *p = &places[i];

		for (unsigned k = 0; k < POINTS; k++)
			check_point(p, k);
		/* What a protection hides must be there, too. */
		if (p->prot & PROT_READ)
			continue;
		must(!mprotect(p->at, p->len, PROT_READ));
		p->prot = PROT_READ;
		for (unsigned k = 0; k < POINTS; k++)
			check_point(p, k);
	}
}

VICTIM(mem_late_replace, 0, replace_setup, replace_work, replace_check);
VICTIM(mem_late_replace_slow, 0, replace_setup, slow_work, replace_check);
VICTIM(mem_late_replace_share, 0, children_setup, slow_work, replace_check);
