// SPDX-License-Identifier: GPL-2.0-or-later
/* shm_tree.c - victims with children that share memory with them: what one writes the others see, before, while and after they are moved, and nothing is lost */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define PAGE 4096ul
#define MIB (1024ul * 1024)
#define MEMBERS 4          /* the parent is the first */
#define AREA_PAGES 256ul   /* of each object */
#define OBJECTS 5

/* At the beginning of each object. */
struct common {
	uint64_t total;             /* what all have added, with atomic operations */
	uint64_t steps[MEMBERS];    /* how far each has come: only grows */
	uint64_t added[MEMBERS];    /* what each has added in all, written at its end */
	uint32_t stop, failed;
	char text[400];             /* of the first failure */
};

static struct common *objects[OBJECTS];
static pid_t children[MEMBERS];
static uint64_t steps_seen[OBJECTS][MEMBERS], my_steps[OBJECTS], my_added[OBJECTS];
static const char *const names[OBJECTS] = { "shared anonymous memory", "a memfd", "a System V segment", "POSIX shared memory", "memory mapped after fork" };

/* Each member owns every fourth page behind the first. */
static char *page_of(int object, int member, uint64_t i)
{
	uint64_t n = (AREA_PAGES - 1) / MEMBERS;

	return (char *)objects[object] + (1 + (i % n) * MEMBERS + (uint64_t)member) * PAGE;
}

static void complain(int object, const char *what, uint64_t expected, uint64_t got)
{
	struct common *c = objects[0];

	if (!__atomic_exchange_n(&c->failed, 1, __ATOMIC_SEQ_CST))
		snprintf(c->text, sizeof(c->text), "%s: %s, expected %llu, got %llu", names[object], what, (unsigned long long)expected,
			 (unsigned long long)got);
}

static void check_page(int object, int member, uint64_t step)
{
	const uint64_t *p = (const uint64_t *)page_of(object, member, step);

	for (size_t k = 0; k < PAGE / 8; k++)
		if (p[k] != mix(step * 8 + (uint64_t)member + k))
			return complain(object, "a word of its own page", mix(step * 8 + (uint64_t)member + k), p[k]);
}

/* One page written, an earlier one looked at, a number added for all. */
static void member_step(int member)
{
	for (int o = 0; o < OBJECTS; o++) {
		struct common *c = objects[o];
		uint64_t n = my_steps[o]++, back = mix(n) % ((AREA_PAGES - 1) / MEMBERS), add = mix(n) % 100;
		uint64_t *p = (uint64_t *)page_of(o, member, n);

		for (size_t k = 0; k < PAGE / 8; k++)
			p[k] = mix(n * 8 + (uint64_t)member + k);
		check_page(o, member, n - (back < n ? back : n));
		__atomic_fetch_add(&c->total, add, __ATOMIC_SEQ_CST);
		my_added[o] += add;
		__atomic_store_n(&c->steps[member], n + 1, __ATOMIC_SEQ_CST);
		for (int m = 0; m < MEMBERS; m++) {
			uint64_t seen = __atomic_load_n(&c->steps[m], __ATOMIC_SEQ_CST);

			if (seen < steps_seen[o][m])
				complain(o, "the steps of another went back", steps_seen[o][m], seen);
			steps_seen[o][m] = seen;
		}
	}
}

static void publish(int member)
{
	for (int o = 0; o < OBJECTS; o++)
		objects[o]->added[member] = my_added[o];
}

static void *map_file(int fd)
{
	void *p = mmap(NULL, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must(p != MAP_FAILED);
	return p;
}

static void child_main(int member, int late_fd)
{
	signal(SIGTERM, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	objects[4] = map_file(late_fd); /* another address than the parent's */
	while (!__atomic_load_n(&objects[0]->stop, __ATOMIC_SEQ_CST)) {
		member_step(member);
		usleep(300);
	}
	publish(member);
	_exit(0);
}

static void tree_setup(void)
{
	int memfd = memfd_create("tree", MFD_CLOEXEC), late = memfd_create("late", MFD_CLOEXEC), segment, posix;
	char name[64];

	must(memfd >= 0 && !ftruncate(memfd, AREA_PAGES * PAGE) && late >= 0 && !ftruncate(late, AREA_PAGES * PAGE));
	objects[0] = mmap(NULL, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(objects[0] != MAP_FAILED);
	objects[1] = map_file(memfd);
	segment = shmget(IPC_PRIVATE, AREA_PAGES * PAGE, 0600);
	objects[2] = shmat(segment, NULL, 0);
	must(objects[2] != (void *)-1 && !shmctl(segment, IPC_RMID, NULL));
	snprintf(name, sizeof(name), "/victim-tree-%d", getpid());
	posix = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	must(posix >= 0 && !ftruncate(posix, AREA_PAGES * PAGE));
	objects[3] = map_file(posix);
	must(!close(posix) && !shm_unlink(name) && !close(memfd));
	objects[4] = map_file(late);
	for (int m = 1; m < MEMBERS; m++) {
		children[m] = fork();
		must(children[m] >= 0);
		if (!children[m])
			child_main(m, late);
	}
}

static void tree_work(void)
{
	member_step(0);
	usleep(300);
}

static void tree_check(void)
{
	__atomic_store_n(&objects[0]->stop, 1, __ATOMIC_SEQ_CST);
	publish(0);
	for (int m = 1; m < MEMBERS; m++) {
		int status = -1;

		if (waitpid(children[m], &status, 0) != children[m] || status)
			fail("child %d: status %#x (errno %d)", m, (unsigned)status, errno);
	}
	if (objects[0]->failed)
		fail("%s", objects[0]->text);
	for (int o = 0; o < OBJECTS; o++) {
		uint64_t sum = 0;

		for (int m = 0; m < MEMBERS; m++) {
			sum += objects[o]->added[m];
			if (!objects[o]->steps[m])
				fail("%s: member %d has not worked", names[o], m);
		}
		expect_u64(names[o], sum, objects[o]->total);
	}
}

VICTIM(tree_shared, 0, tree_setup, tree_work, tree_check);

/* ---- what a child has inherited, and what it has written since ---- */

#define COW_LEN (16 * MIB)
static char *inherited;
static int say[2], hear[2];
static long pss_before;

/* The sum over all members of what each has of it, pages that are shared counted in parts: how much memory there is. */
static long proportional_kib(void)
{
	long sum = 0;

	for (int m = 0; m < MEMBERS; m++) {
		char path[64], line[4096];
		bool in = false;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/smaps", m ? children[m] : getpid());
		f = fopen(path, "re");
		must(f);
		while (fgets(line, sizeof(line), f)) {
			unsigned long a, b;

			if (sscanf(line, "%lx-%lx ", &a, &b) == 2 && strchr(line, '-') < line + 17)
				in = a < (uintptr_t)inherited + COW_LEN && b > (uintptr_t)inherited;
			else if (in && !strncmp(line, "Pss:", 4))
				sum += strtol(line + 4, NULL, 10);
		}
		fclose(f);
	}
	return sum;
}

static void cow_child(int member)
{
	char c;

	signal(SIGTERM, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t at = (size_t)member * PAGE; at < COW_LEN; at += 64 * PAGE)
		fill(inherited + at, PAGE, 1000 * (uint64_t)member + at);
	must(write(hear[1], "x", 1) == 1);
	must(read(say[0], &c, 1) == 1);
	for (size_t at = 0; at < COW_LEN && !failed(); at += PAGE)
		verify("memory of a child", inherited + at, PAGE, at / PAGE % 64 == (size_t)member ? 1000 * (uint64_t)member + at : at / 8);
	_exit(failed() ? 1 : 0);
}

static void cow_fork(void)
{
	char c;

	must(!pipe2(say, O_CLOEXEC) && !pipe2(hear, O_CLOEXEC));
	fill(inherited, COW_LEN, 0);
	for (int m = 1; m < MEMBERS; m++) {
		children[m] = fork();
		must(children[m] >= 0);
		if (!children[m])
			cow_child(m);
	}
	for (int m = 1; m < MEMBERS; m++)
		must(read(hear[0], &c, 1) == 1);
	for (size_t at = 0; at < COW_LEN; at += 64 * PAGE)
		fill(inherited + at, PAGE, 77 + at);
	pss_before = proportional_kib();
	report("info pss_kib=%ld", pss_before);
}

static void cow_setup(void)
{
	inherited = map_anon(COW_LEN, PROT_READ | PROT_WRITE, 0);
	cow_fork();
}

static void cow_file_setup(void)
{
	int fd = open(beside("mapped"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	must(fd >= 0 && !ftruncate(fd, COW_LEN));
	inherited = mmap(NULL, COW_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(inherited != MAP_FAILED && !close(fd));
	cow_fork();
}

/* As programs with garbage collectors and sandboxes have it: most of what is reserved is never touched. */
#define VAST_LEN (8ull << 40)

static void cow_vast_setup(void)
{
	char *vast = mmap(NULL, VAST_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(vast != MAP_FAILED);
	inherited = vast + VAST_LEN / 2;
	must(!madvise(inherited, COW_LEN, MADV_NOHUGEPAGE));
	cow_fork();
}

static void cow_check(void)
{
	long pss;

	for (size_t at = 0; at < COW_LEN && !failed(); at += PAGE)
		verify("memory of the parent", inherited + at, PAGE, at / PAGE % 64 ? at / 8 : 77 + at);
	pss = proportional_kib();
	report("info pss_kib_after=%ld", pss);
	if (pss > pss_before + pss_before / 8)
		fail("memory that is shared copy-on-write: KiB in all, expected at most %ld, got %ld", pss_before + pss_before / 8, pss);
	for (int m = 1; m < MEMBERS; m++)
		must(write(say[1], "x", 1) == 1);
	for (int m = 1; m < MEMBERS; m++) {
		int status = -1;

		if (waitpid(children[m], &status, 0) != children[m] || status)
			fail("child %d: status %#x (errno %d)", m, (unsigned)status, errno);
	}
}

VICTIM(tree_cow, 0, cow_setup, NULL, cow_check);
VICTIM(tree_cow_file, 0, cow_file_setup, NULL, cow_check);
VICTIM(tree_cow_vast, 0, cow_vast_setup, NULL, cow_check);

/* ---- memory that was inherited, and that all go on writing ---- */

#define BUSY_PAGES 2048ul
static char *busy;
static uint64_t busy_model[BUSY_PAGES], busy_steps;
static int busy_member;
static volatile uint32_t *busy_stop;

static void busy_step(void)
{
	uint64_t n = busy_steps++, i = mix(n * MEMBERS + (uint64_t)busy_member) % BUSY_PAGES;

	verify("page of inherited memory", busy + i * PAGE, PAGE, busy_model[i]);
	busy_model[i] = mix(n + 1000000 * (uint64_t)busy_member);
	fill(busy + i * PAGE, PAGE, busy_model[i]);
}

static void busy_verify(void)
{
	for (uint64_t i = 0; i < BUSY_PAGES && !failed(); i++)
		verify("inherited memory at the end", busy + i * PAGE, PAGE, busy_model[i]);
}

static void busy_child(int member)
{
	signal(SIGTERM, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	busy_member = member;
	if (member == 2) { /* a grandchild, too */
		pid_t child = fork();

		must(child >= 0);
		busy_member = child ? member : MEMBERS;
		children[0] = child;
		if (!child)
			prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	while (!__atomic_load_n(busy_stop, __ATOMIC_SEQ_CST)) {
		busy_step();
		usleep(busy_member == 3 ? 20000 : 700);
	}
	busy_verify();
	if (children[0] > 0) {
		int status = -1;

		if (waitpid(children[0], &status, 0) != children[0] || status)
			_exit(2);
	}
	_exit(failed() ? 1 : 0);
}

static void busy_setup(void)
{
	busy_stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(busy_stop != MAP_FAILED);
	busy = map_anon(BUSY_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	for (uint64_t i = 0; i < BUSY_PAGES; i++)
		fill(busy + i * PAGE, PAGE, busy_model[i] = i);
	for (int m = 1; m < MEMBERS; m++) {
		children[m] = fork();
		must(children[m] >= 0);
		if (!children[m])
			busy_child(m);
	}
}

static void busy_work(void)
{
	busy_step();
	usleep(500);
}

static void busy_check(void)
{
	__atomic_store_n(busy_stop, 1, __ATOMIC_SEQ_CST);
	busy_verify();
	for (int m = 1; m < MEMBERS; m++) {
		int status = -1;

		if (waitpid(children[m], &status, 0) != children[m] || status)
			fail("child %d: status %#x (errno %d)", m, (unsigned)status, errno);
	}
}

VICTIM(tree_cow_busy, 0, busy_setup, busy_work, busy_check);

/* ---- a POSIX object that nobody has open: its name still leads to the memory that is mapped ---- */

static char *named;
static char object[64];

static void named_setup(void)
{
	int fd;

	snprintf(object, sizeof(object), "/victim-named-%d", getpid());
	fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
	must(fd >= 0 && !ftruncate(fd, 8 * (long)PAGE));
	named = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(named != MAP_FAILED && !close(fd));
	fill(named, 8 * PAGE, 77);
}

static void named_check(void)
{
	int fd = shm_open(object, O_RDWR, 0);
	uint64_t word = 0x1122334455667788ull;

	verify("mapped object", named, 8 * PAGE, 77);
	if (fd < 0) {
		fail("shm_open(%s): errno %d", object, errno);
		return;
	}
	expect(pwrite(fd, &word, sizeof(word), (long)PAGE) == sizeof(word));
	expect_u64("what was written by name", word, *(uint64_t *)(named + PAGE));
	expect(!shm_unlink(object));
}

VICTIM(shm_named, 0, named_setup, NULL, named_check);

/* Names that come and go all the time: those that are there when the program is stopped lead where they led. */
#define RECENT 6u
static char *recent[RECENT];
static uint64_t n_names;

static const char *name_of(uint64_t n)
{
	static char text[64];

	snprintf(text, sizeof(text), "/victim-new-%d-%llu", getpid(), (unsigned long long)n);
	return text;
}

static void named_new_work(void)
{
	uint64_t n = n_names++;
	char **at = &recent[n % RECENT];
	int fd = shm_open(name_of(n), O_RDWR | O_CREAT | O_EXCL, 0600);

	must(fd >= 0 && !ftruncate(fd, 2 * (long)PAGE));
	if (*at) {
		verify("object with a name", *at, PAGE, n - RECENT);
		if (shm_unlink(name_of(n - RECENT))) /* a name that nothing of the program leads to would stay behind */
			fail("shm_unlink(%s): errno %d", name_of(n - RECENT), errno);
		must(!munmap(*at, 2 * PAGE));
	}
	*at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(*at != MAP_FAILED && !close(fd));
	fill(*at, PAGE, n);
}

static void named_new_check(void)
{
	for (uint64_t n = n_names < RECENT ? 0 : n_names - RECENT; n < n_names && !failed(); n++)
		if (shm_unlink(name_of(n)))
			fail("shm_unlink(%s) at the end: errno %d", name_of(n), errno);
}

VICTIM(shm_named_new, V_OPENS, named_setup, named_new_work, named_new_check);

/* ---- shared memory of which one process maps now more and now less; the other one has never touched it ---- */

#define STRETCH_PAGES 2048u
static char *stretched, *whole;
static uint64_t stretch_model[STRETCH_PAGES], stretch_now = 1, stretch_steps;

static void stretch_setup(void)
{
	stretched = mmap(NULL, STRETCH_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(stretched != MAP_FAILED);
	whole = mremap(stretched, 0, STRETCH_PAGES * PAGE, MREMAP_MAYMOVE); /* its page table stays empty */
	must(whole != MAP_FAILED);
	stretched = mremap(stretched, STRETCH_PAGES * PAGE, PAGE, 0);
	must(stretched != MAP_FAILED);
}

/* One page longer each time, and that page is written; at the end short again. */
static void stretch_work(void)
{
	for (int i = 0; i < 64; i++) {
		uint64_t next = stretch_now < STRETCH_PAGES ? stretch_now + 1 : 1;

		stretched = mremap(stretched, stretch_now * PAGE, next * PAGE, MREMAP_MAYMOVE);
		must(stretched != MAP_FAILED);
		stretch_now = next;
		stretch_model[next - 1] = mix(++stretch_steps);
		*(uint64_t *)(void *)(stretched + (next - 1) * PAGE) = stretch_model[next - 1];
	}
}

static void stretch_check(void)
{
	for (uint64_t i = 0; i < STRETCH_PAGES; i++)
		expect_u64("page of memory that was mapped for a moment", stretch_model[i], *(uint64_t *)(void *)(whole + i * PAGE));
}

VICTIM(shm_stretched, 0, stretch_setup, stretch_work, stretch_check);
