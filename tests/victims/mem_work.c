// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mem_work.c - victims that change their memory all the time, and those that change their address space after the move
 *
 * The storms start when the host name changes, so that with post-copy most pages are still at the source.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define MIB (1024ul * 1024)
#define PAGE 4096ul

/* ---- working sets with a model ---- */

static uint64_t *pages, *model;
static size_t n_pages, working_set;
static uint64_t step, random_state = 88172645463325252ull;

static void stamp(size_t page, uint64_t version)
{
	uint64_t *w = pages + page * 512;

	for (int i = 0; i < 512; i += 37)
		w[i] = mix(version * 1000003 + page * 512 + (size_t)i);
	model[page] = version;
}

static void check_stamp(size_t page)
{
	const uint64_t *w = pages + page * 512;

	for (size_t i = 0; i < 512; i += 37) {
		uint64_t want = mix(model[page] * 1000003 + page * 512 + i);

		if (w[i] != want) {
			fail("page %zu (%p), word %zu, version %llu: expected %#llx, got %#llx", page, (void *)&w[i], i,
			     (unsigned long long)model[page], (unsigned long long)want, (unsigned long long)w[i]);
			return;
		}
	}
}

static void ws_setup(void)
{
	n_pages = (size_t)victim_arg(0, 32) * 256;
	working_set = (size_t)victim_arg(1, (long)n_pages);
	pages = map_anon(n_pages * PAGE, PROT_READ | PROT_WRITE, 0);
	model = map_anon(n_pages * 8, PROT_READ | PROT_WRITE, 0);
	for (size_t i = 0; i < n_pages; i++)
		stamp(i, 1);
}

static size_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % working_set;
}

static void ws_random_work(void)
{
	for (int i = 0; i < 100 && !failed(); i++) {
		size_t page = next_random();

		check_stamp(page);
		stamp(page, ++step);
	}
}

static void ws_sequential_work(void)
{
	for (int i = 0; i < 100 && !failed(); i++) {
		size_t page = step % working_set;

		check_stamp(page);
		stamp(page, ++step);
	}
}

static void ws_check(void)
{
	for (size_t i = 0; i < n_pages && !failed(); i++)
		check_stamp(i);
}

VICTIM(ws_random, 0, ws_setup, ws_random_work, ws_check);
VICTIM(ws_sequential, 0, ws_setup, ws_sequential_work, ws_check);

static void ws_small_setup(void)
{
	ws_setup();
	working_set = 64;
}

VICTIM(ws_small, 0, ws_small_setup, ws_random_work, ws_check);

/* Many threads write the same pages; each has words of its own. */
#define SHARERS 8
static uint64_t sharer_rounds[SHARERS];

static void *sharer(void *arg)
{
	size_t me = (size_t)arg;
	uint64_t round = 0;

	while (!victim_stopping && !failed()) {
		for (size_t p = 0; p < n_pages; p++) {
			uint64_t *w = pages + p * 512 + me * 64;

			if (w[0] != mix(round ^ p ^ me << 32) || w[63] != ~w[0]) {
				fail("thread %zu, page %zu, round %llu: expected %#llx, got %#llx and %#llx", me, p,
				     (unsigned long long)round, (unsigned long long)mix(round ^ p ^ me << 32), (unsigned long long)w[0],
				     (unsigned long long)w[63]);
				return NULL;
			}
			w[0] = mix((round + 1) ^ p ^ me << 32);
			w[63] = ~w[0];
		}
		sharer_rounds[me] = ++round;
	}
	return NULL;
}

static void ws_threads_setup(void)
{
	n_pages = 2048;
	pages = map_anon(n_pages * PAGE, PROT_READ | PROT_WRITE, 0);
	for (size_t me = 0; me < SHARERS; me++) {
		for (size_t p = 0; p < n_pages; p++) {
			pages[p * 512 + me * 64] = mix(p ^ me << 32);
			pages[p * 512 + me * 64 + 63] = ~mix(p ^ me << 32);
		}
	}
	for (size_t me = 0; me < SHARERS; me++)
		spawn(sharer, (void *)me, NULL);
}

VICTIM(ws_threads, 0, ws_threads_setup, NULL, join_all);

/* ---- mapping and unmapping all the time ---- */

#define RING 64
static struct {
	char *p;
	size_t len;
	uint64_t seed;
	bool hidden, emptied;
} ring[RING];

static void churn_verify(size_t i)
{
	static const char zeros[PAGE];

	if (ring[i].hidden)
		must(!mprotect(ring[i].p, ring[i].len, PROT_READ));
	if (!ring[i].emptied)
		verify("mapping that comes and goes", ring[i].p, ring[i].len, ring[i].seed);
	for (size_t at = 0; ring[i].emptied && at < ring[i].len; at += PAGE)
		if (memcmp(ring[i].p + at, zeros, PAGE))
			fail("page %zu of a mapping that was emptied is not", at / PAGE);
}

static void churn_work(void)
{
	size_t i = step % RING;
	uint64_t r = mix(step++);

	if (ring[i].p) {
		churn_verify(i);
		must(!munmap(ring[i].p, ring[i].len));
	}
	ring[i].len = PAGE * (1 + r % 64);
	ring[i].seed = r;
	ring[i].p = map_anon(ring[i].len, PROT_READ | PROT_WRITE, 0);
	fill(ring[i].p, ring[i].len, r);
	if (r % 5 == 0)
		must(!mprotect(ring[i].p, ring[i].len, PROT_READ));
	if (r % 7 == 0) {
		char *p = mremap(ring[i].p, ring[i].len, ring[i].len + 8 * PAGE, MREMAP_MAYMOVE);

		must(p != MAP_FAILED);
		must(!munmap(p + ring[i].len, 8 * PAGE));
		ring[i].p = p;
	}
	/* Written just now, and then out of sight or gone: what has been sent of them is not what is to arrive. */
	ring[i].emptied = r % 11 == 0;
	if (ring[i].emptied)
		must(!madvise(ring[i].p, ring[i].len, MADV_DONTNEED));
	ring[i].hidden = r % 6 == 1;
	if (ring[i].hidden)
		must(!mprotect(ring[i].p, ring[i].len, PROT_NONE));
}

static void churn_setup(void)
{
	for (int i = 0; i < RING; i++)
		churn_work();
}

static void churn_check(void)
{
	for (size_t i = 0; i < RING; i++)
		churn_verify(i);
}

VICTIM(mem_churn, 0, churn_setup, churn_work, churn_check);

/* The heap through malloc, in four threads: brk, arenas, trimming. */
static void *malloc_thread(void *arg)
{
	uint64_t r = (uintptr_t)arg, *v[64] = { 0 };
	size_t len[64];

	while (!victim_stopping && !failed()) {
		size_t i = (r = mix(r)) % 64;

		if (v[i]) {
			verify("malloc'ed block", v[i], len[i], (uintptr_t)v[i]);
			free(v[i]);
		}
		len[i] = 8 * (1 + mix(r) % (r % 10 ? 1000 : 40000));
		v[i] = malloc(len[i]);
		must(v[i]);
		fill(v[i], len[i], (uintptr_t)v[i]);
	}
	return NULL;
}

static void malloc_setup(void)
{
	for (uintptr_t i = 1; i <= 4; i++)
		spawn(malloc_thread, (void *)i, NULL);
}

VICTIM(mem_malloc, 0, malloc_setup, NULL, join_all);

/* ---- storms after the move ---- */

static char *sea;
static size_t sea_len;
static bool storm_done;

static void sea_setup(void)
{
	sea_len = (size_t)victim_arg(0, 64) * MIB;
	sea = map_anon(sea_len, PROT_READ | PROT_WRITE, 0);
	fill(sea, sea_len, 0);
}

static void sea_verify(size_t from, size_t to)
{
	verify("memory after the storm", sea + from, to - from, from / 8);
}

static bool storm_time(void)
{
	if (storm_done)
		sleep_ms(20);
	if (storm_done || !moved())
		return false;
	storm_done = true;
	return true;
}

/* A child verifies what it got at the fork; returns its pid. */
static pid_t fork_verifier(size_t from, size_t to)
{
	pid_t child = fork();

	must(child >= 0);
	if (child)
		return child;
	sea_verify(from, to);
	if (failed())
		_exit(9);
	memset(sea + from, 0x5a, to - from); /* must not reach the parent */
	_exit(0);
}

static void reap(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR) {
			fail("waitpid: errno %d", errno);
			return;
		}
	}
	if (status)
		fail("child's verification of its memory, expected status 0, got %#x", (unsigned)status);
}

static void fork_storm(void)
{
	pid_t child[4];

	if (!storm_time())
		return;
	for (int i = 0; i < 4; i++) {
		child[i] = fork_verifier(sea_len / 4 * (size_t)i, sea_len / 4 * (size_t)(i + 1));
		fill(sea + sea_len / 8 * (size_t)i, PAGE, sea_len / 8 * (size_t)i / 8); /* the same contents: copies the page */
	}
	for (int i = 0; i < 4; i++)
		reap(child[i]);
	sea_verify(0, sea_len);
}

static void storm_check(void)
{
	if (!storm_done && !getenv("VICTIM_EXPECT_MOVE"))
		return;
	expect(storm_done);
}

VICTIM(storm_fork, V_MOVE, sea_setup, fork_storm, storm_check);

static void mremap_storm(void)
{
	size_t piece = sea_len / 16;
	char *parts[16], *elsewhere;

	if (!storm_time())
		return;
	elsewhere = map_anon(sea_len * 2, PROT_NONE, MAP_NORESERVE);
	for (size_t i = 0; i < 16; i++) { /* every piece to a new address, then back, growing on the way */
		parts[i] = mremap(sea + i * piece, piece, i % 3 ? piece : piece * 2, MREMAP_MAYMOVE | MREMAP_FIXED,
				  elsewhere + i * 2 * piece);
		must(parts[i] != MAP_FAILED);
		if (i % 3 == 0)
			verify_zero("tail grown by mremap", parts[i] + piece, piece);
	}
	for (size_t i = 0; i < 16; i++)
		verify("piece moved by mremap", parts[i], piece, i * piece / 8);
	for (size_t i = 0; i < 16; i++)
		must(mremap(parts[i], i % 3 ? piece : piece * 2, piece, MREMAP_MAYMOVE | MREMAP_FIXED, sea + i * piece) != MAP_FAILED);
	sea_verify(0, sea_len);
}

VICTIM(storm_mremap, V_MOVE, sea_setup, mremap_storm, storm_check);

static void munmap_storm(void)
{
	size_t piece = sea_len / 16;

	if (!storm_time())
		return;
	for (size_t i = 1; i < 16; i += 2)
		must(!munmap(sea + i * piece, piece));
	for (size_t i = 1; i < 16; i += 2) {
		char *p = mmap(sea + i * piece, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		must(p == sea + i * piece);
		verify_zero("new mapping where an old one was", p, piece);
	}
	for (size_t i = 0; i < 16; i += 2)
		sea_verify(i * piece, (i + 1) * piece);
	for (size_t i = 1; i < 16; i += 2)
		verify_zero("new mapping, later", sea + i * piece, piece);
}

VICTIM(storm_munmap, V_MOVE, sea_setup, munmap_storm, storm_check);

static void dontneed_storm(void)
{
	size_t piece = sea_len / 16;

	if (!storm_time())
		return;
	for (size_t i = 0; i < 16; i += 2)
		must(!madvise(sea + i * piece, piece, MADV_DONTNEED));
	for (size_t i = 0; i < 16; i++) {
		if (i % 2)
			sea_verify(i * piece, (i + 1) * piece);
		else
			verify_zero("memory given back by MADV_DONTNEED", sea + i * piece, piece);
	}
	for (size_t i = 0; i < 16; i += 2)
		fill(sea + i * piece, piece, i * piece / 8);
	sea_verify(0, sea_len);
}

VICTIM(storm_dontneed, V_MOVE, sea_setup, dontneed_storm, storm_check);

static void mprotect_storm(void)
{
	size_t piece = sea_len / 64;

	if (!storm_time())
		return;
	for (size_t i = 0; i < 64; i++)
		must(!mprotect(sea + i * piece, piece, i % 3 == 0 ? PROT_NONE : i % 3 == 1 ? PROT_READ : PROT_READ | PROT_WRITE));
	for (size_t i = 0; i < 64; i++) {
		if (i % 3)
			sea_verify(i * piece, (i + 1) * piece);
	}
	must(!mprotect(sea, sea_len, PROT_READ | PROT_WRITE));
	sea_verify(0, sea_len);
	fill(sea, sea_len, 0);
	sea_verify(0, sea_len);
}

VICTIM(storm_mprotect, V_MOVE, sea_setup, mprotect_storm, storm_check);

/* Everything at once, from two threads over halves of their own, with children that fork children. */
static void storm_half(size_t from, size_t to)
{
	size_t quarter = (to - from) / 4;
	pid_t child = fork_verifier(from, to);
	char *p;

	must(!madvise(sea + from, quarter, MADV_DONTNEED));
	verify_zero("given back", sea + from, quarter);
	must(!munmap(sea + from + quarter, quarter));
	p = mmap(sea + from + quarter, quarter, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	verify_zero("mapped anew", p, quarter);
	p = mremap(sea + from + 2 * quarter, quarter, quarter + PAGE, MREMAP_MAYMOVE);
	must(p != MAP_FAILED);
	verify("moved", p, quarter, (from + 2 * quarter) / 8);
	must(!mprotect(sea + from + 3 * quarter, quarter, PROT_READ));
	sea_verify(from + 3 * quarter, to);
	reap(child);
	must(!munmap(p, quarter + PAGE));
}

static void *storm_thread(void *arg)
{
	while (!moved() && !victim_stopping)
		usleep(1000);
	if (!victim_stopping || moved())
		storm_half((size_t)arg, (size_t)arg + sea_len / 2);
	return NULL;
}

static void storm_all_setup(void)
{
	sea_setup();
	spawn(storm_thread, (void *)0, NULL);
	spawn(storm_thread, (void *)(sea_len / 2), NULL);
}

VICTIM(storm_all, V_MOVE, storm_all_setup, NULL, join_all);

/* exec soon after the move: the address space with missing pages goes away as a whole. */
static void exec_storm(void)
{
	static char *argv[] = { "/proc/self/exe", "exec_second", NULL, NULL };

	if (!storm_time())
		return;
	argv[2] = (char *)victim_out;
	execv(argv[0], argv);
	fail("execv: errno %d", errno);
}

VICTIM(storm_exec, V_MOVE, sea_setup, exec_storm, storm_check);

static void second_setup(void)
{
	unsetenv("VICTIM_EXPECT_MOVE"); /* the new image has seen one host only */
	sea_setup();
}

static void second_check(void)
{
	sea_verify(0, sea_len);
}

VICTIM(exec_second, V_HIDDEN, second_setup, NULL, second_check);

/* ---- pages of a private mapping of a file that are changed, and given back again ---- */

#define GIVEN_PAGES 256ul

static uint64_t *given;
static uint64_t given_model[GIVEN_PAGES], given_steps; /* 0: as in the file */

static void given_setup(void)
{
	int fd = open(beside("given"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t page[512];

	must(fd >= 0);
	for (uint64_t i = 0; i < GIVEN_PAGES; i++) {
		fill(page, PAGE, i);
		must(write(fd, page, PAGE) == (ssize_t)PAGE);
	}
	given = mmap(NULL, GIVEN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(given != MAP_FAILED && !close(fd));
	for (uint64_t i = 0; i < GIVEN_PAGES; i++)
		fill(given + i * 512, PAGE, given_model[i] = 1000 + i);
}

static void given_verify(uint64_t i)
{
	verify(given_model[i] ? "page of a private mapping that was changed" : "page that was given back", given + i * 512, PAGE, given_model[i] ? given_model[i] : i);
}

static void given_work(void)
{
	uint64_t n = given_steps++, i = mix(n) % GIVEN_PAGES;

	given_verify(i);
	if (n % 3 == 0) {
		fill(given + i * 512, PAGE, given_model[i] = 5000 + n);
	} else if (n % 3 == 1) {
		given_model[i] = 0;
		must(!madvise(given + i * 512, PAGE, MADV_DONTNEED));
	} else {
		usleep(200);
	}
}

static void given_check(void)
{
	for (uint64_t i = 0; i < GIVEN_PAGES && !failed(); i++)
		given_verify(i);
	unlink(beside("given"));
}

VICTIM(mem_given, 0, given_setup, given_work, given_check);

/* A few pages are written all the time, and now and then many beside them: a small last round, and then much to send in the freeze. */
#define FEW 64
#define MANY 1500
static uint64_t *pages_of_bursts, *written_last;
static unsigned bursts;
static void bursts_write(size_t i)
{
	uint64_t *p = pages_of_bursts + i * (PAGE / 8);

	if (p[0] != written_last[i] || p[511] != mix(written_last[i]))
		fail("page %zu: expected version %lu, got %lu and %s", i, written_last[i], p[0], p[511] == mix(p[0]) ? "the same" : "another");
	p[0] = ++written_last[i];
	p[511] = mix(p[0]);
}
static void bursts_setup(void)
{
	pages_of_bursts = map_anon(MANY * PAGE, PROT_READ | PROT_WRITE, 0);
	written_last = map_anon(MANY * sizeof(*written_last), PROT_READ | PROT_WRITE, 0);
	must(!madvise(pages_of_bursts, MANY * PAGE, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < MANY; i++)
		pages_of_bursts[i * (PAGE / 8) + 511] = mix(0);
}
static void bursts_work(void)
{
	for (uint64_t end = now_ns(CLOCK_MONOTONIC) + 20000000; now_ns(CLOCK_MONOTONIC) < end;)
		for (size_t i = 0; i < FEW; i++)
			bursts_write(i);
	for (size_t i = 0; i < MANY; i++)
		bursts_write(i);
	bursts++;
}
static void bursts_check(void)
{
	expect(bursts > 0);
	for (size_t i = 0; i < MANY; i++)
		bursts_write(i);
}
VICTIM(mem_bursts, 0, bursts_setup, bursts_work, bursts_check);
