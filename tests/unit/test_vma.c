/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_vma.c - reads layouts of live processes, builds them anew in another one, follows changes, refuses what cannot move */
#include "layout_move.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/vdso.h"
#include "kern/vma_peek.h"
#include "image/vma_restore.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static char *region(size_t pages, int prot, int flags)
{
	char *p = mmap(NULL, (pages + 2) * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED);
	munmap(p, (pages + 2) * 4096);
	p = mmap(p + 4096, pages * 4096, prot, flags | MAP_FIXED_NOREPLACE, -1, 0);
	MUST(p != MAP_FAILED);
	return p;
}

static void odd_layout(void)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	int zero = open("/dev/zero", O_RDWR), memfd = memfd_create("odd", 0), program = open("/proc/self/exe", O_RDONLY);
	static const int advice[] = { MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_RANDOM,
				      MADV_SEQUENTIAL, MADV_MERGEABLE };
	char *p;

	for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
		MUST(madvise(region(3, PROT_READ | PROT_WRITE, anon), 3 * 4096, advice[i]) == 0);
	region(4, PROT_NONE, anon);
	region(4, PROT_READ | PROT_WRITE, anon | MAP_NORESERVE);
	region(4, PROT_READ | PROT_WRITE, anon | MAP_GROWSDOWN);
	region(5, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS);
	p = region(9, PROT_READ | PROT_WRITE, anon);
	MUST(mprotect(p + 2 * 4096, 4096, PROT_READ) == 0);
	MUST(mprotect(p + 4 * 4096, 4096, PROT_NONE) == 0);
	MUST(munmap(p + 6 * 4096, 4096) == 0);
	p = region(9, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	MUST(mprotect(p + 2 * 4096, 4096, PROT_READ) == 0);
	MUST(mlock(region(2, PROT_READ | PROT_WRITE, anon), 8192) == 0);
	MUST(mlock2(region(2, PROT_READ | PROT_WRITE, anon), 8192, MLOCK_ONFAULT) == 0);
	MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, program, 4096) != MAP_FAILED);
	MUST(mmap(NULL, 8192, PROT_READ, MAP_SHARED, program, 4096) != MAP_FAILED);
	MUST(ftruncate(memfd, 65536) == 0);
	MUST(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0) != MAP_FAILED);
	MUST(mmap(NULL, 8192, PROT_READ, MAP_SHARED, memfd, 8192) != MAP_FAILED);
	MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0) != MAP_FAILED);
	MUST(zero >= 0 && mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0) != MAP_FAILED);
	MUST(sbrk(123457) != (void *)-1);
	p = region(16, PROT_READ | PROT_WRITE, anon);
	memset(p, 1, 16 * 4096);
	madvise(p + 3 * 4096, 2 * 4096, MADV_GUARD_INSTALL);
	p = region(4, PROT_READ | PROT_WRITE, anon);
	memset(p, 2, 4 * 4096);
	syscall(462, p, 2 * 4096, 0); /* mseal */
	p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, anon, -1, 0);
	p = (char *)(((uintptr_t)p + (2 << 20) - 1) & ~((2ul << 20) - 1));
	madvise(p, 2 << 20, MADV_HUGEPAGE);
	memset(p, 1, 2 << 20);
}

/* The guards or the huge pages of pid. */
static struct range_list scan(pid_t pid, bool guards)
{
	struct vma_list list = { 0 };
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct range_list ranges = { 0 };
	struct err e = ERR_INIT;

	MUST_OK(vma_list_read(pid, &files, &refusals, &list, &e));
	ranges = guards ? list.guards : list.huge;
	if (guards)
		list.guards = (struct range_list){ 0 };
	else
		list.huge = (struct range_list){ 0 };
	vma_list_free(&list);
	fsfile_table_free(&files);
	refusals_free(&refusals);
	return ranges;
}

static void compare_ranges(pid_t a, pid_t b, bool guards)
{
	struct range_list x = scan(a, guards), y = scan(b, guards);

	assert_int_equal(x.n, y.n);
	if (x.n)
		assert_memory_equal(x.v, y.v, x.n * sizeof(*x.v));
	else
		print_message("no %s on this kernel\n", guards ? "guards" : "huge pages");
	range_list_free(&x);
	range_list_free(&y);
}

/* Fills what the source has in huge pages. */
static void copy_huge(pid_t from, const struct moved *m)
{
	cleanup_free char *data = malloc(2 << 20);
	char path[64];
	int in, out;

	snprintf(path, sizeof(path), "/proc/%d/mem", from);
	in = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/mem", m->b->pid);
	out = open(path, O_RDWR);
	for (size_t i = 0; i < m->list.huge.n; i++)
		for (uint64_t at = m->list.huge.v[i].start; at < m->list.huge.v[i].end; at += 2 << 20)
			MUST(pread(in, data, 2 << 20, at) == 2 << 20 && pwrite(out, data, 2 << 20, at) == 2 << 20);
	close(in);
	close(out);
}

/* /dev/zero and private anonymous memory are the same but for the name. */
static void test_odd_layout(void **state)
{
	pid_t pid = start_child(odd_layout);
	struct err e = ERR_INIT;
	struct moved m;

	read_source(pid, &m);
	build(pid, &m);
	copy_huge(pid, &m);
	vma_plan_finish(m.b, &m.list);
	vma_plan_seals(m.b, &m.list);
	MUST_OK(batch_run(m.b, &e));
	compare_layouts(pid, m.b->pid);
	compare_ranges(pid, m.b->pid, true);
	compare_ranges(pid, m.b->pid, false);
	check_proc_link(pid, m.b->pid);
	compare_mm(pid, &m);
	end_moved(&m);
	end_child(pid);
}

/* Changes something at random in [arena, arena + 64 pages) of a process that runs batches. */
static void change(struct batch *b, uint64_t arena)
{
	static const int advice[] = { MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP, MADV_DODUMP,
				      MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_RANDOM, MADV_SEQUENTIAL, MADV_NORMAL };
	uint64_t at = arena + random() % 60 * 4096, len = (1 + random() % 8) * 4096, prot = random() % 8;
	uint64_t flags = MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE | (random() % 3 ? 0 : MAP_NORESERVE);

	switch (random() % 7) {
	case 0:
	case 1:
		batch_try(b, "mmap", SYS_mmap, at, len, prot, flags, -1, 0);
		break;
	case 2:
		batch_try(b, "munmap", SYS_munmap, at, len);
		break;
	case 3:
		batch_try(b, "mprotect", SYS_mprotect, at, len, prot);
		break;
	case 4:
		batch_try(b, "madvise", SYS_madvise, at, len, advice[random() % ARRAY_SIZE(advice)]);
		break;
	case 5:
		batch_try(b, "mlock2", random() % 2 ? SYS_mlock2 : SYS_munlock, at, len, MLOCK_ONFAULT);
		break;
	case 6:
		batch_try(b, "mremap", SYS_mremap, at, 4096, len, MREMAP_MAYMOVE | MREMAP_FIXED, arena + random() % 60 * 4096);
		break;
	}
}

static bool with_flags; /* they can be read without smaps */

/* One round: change the source, read it again, bring the skeleton after it. */
static void follow(struct batch *source, struct moved *m, uint64_t arena)
{
	struct range_list mapped = { 0 };
	struct vma_list quick = { 0 }, exact = { 0 };
	struct err e = ERR_INIT;
	bool changed;

	for (int n = random() % 4 + 1; n; n--)
		change(source, arena);
	batch_run(source, NULL);
	batch_reset(source);
	MUST_OK(vma_list_reread(source->pid, &m->list, false, &m->files, &m->refusals, &quick, &changed, &e));
	if (changed) {
		MUST_OK(vma_list_validate(&quick, m->files.n, &e));
		MUST_OK(vma_plan_sync(m->b, &m->list, &quick, m->fds, m->files.n, &mapped, &e));
		vma_list_free(&m->list);
		m->list = quick;
	}
	MUST_OK(vma_list_reread(source->pid, &m->list, true, &m->files, &m->refusals, &exact, &changed, &e));
	assert_false(changed && with_flags); /* they say what smaps says */
	if (changed) {
		MUST_OK(vma_plan_sync(m->b, &m->list, &exact, m->fds, m->files.n, &mapped, &e));
		vma_list_free(&m->list);
		m->list = exact;
	}
	MUST_OK(batch_run(m->b, &e));
	batch_reset(m->b);
	range_list_free(&mapped);
}

static void test_sync(void **state)
{
	const uint64_t arena = 0x200000000000;
	struct err e = ERR_INIT;
	struct batch *source = calloc(1, sizeof(*source));
	struct moved m;

	srandom(7);
	fake_skeleton_start(source, 0x210000000000);
	remote_do(source, &e, "mmap", SYS_mmap, arena, 64 * 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	read_source(source->pid, &m);
	build(source->pid, &m);
	compare_layouts(source->pid, m.b->pid);
	for (int i = 0; i < 300; i++) {
		cleanup_free char *a = NULL, *b = NULL;

		follow(source, &m, arena);
		a = layout_text(source->pid, false);
		b = layout_text(m.b->pid, false);
		assert_string_equal(a, b);
	}
	end_moved(&m);
	fake_skeleton_end(source);
	free(source);
}

/* Pieces that did not change keep their pages, and a layout that did not change costs no call. */
static void test_sync_keeps_pages(void **state)
{
	const uint64_t arena = 0x200000000000;
	struct batch *source = calloc(1, sizeof(*source));
	struct range_list mapped = { 0 };
	struct vma_list now = { 0 };
	struct err e = ERR_INIT;
	char byte = 42;
	struct moved m;
	bool changed;
	char path[64];
	int mem;

	fake_skeleton_start(source, 0x210000000000);
	remote_do(source, &e, "mmap", SYS_mmap, arena, 64 * 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	read_source(source->pid, &m);
	build(source->pid, &m);
	MUST_OK(vma_plan_sync(m.b, &m.list, &m.list, m.fds, m.files.n, &mapped, &e));
	assert_int_equal(m.b->n_calls, 0);
	MUST_OK(vma_list_reread(source->pid, &m.list, false, &m.files, &m.refusals, &now, &changed, &e));
	assert_false(changed);
	MUST_OK(vma_list_reread(source->pid, &m.list, true, &m.files, &m.refusals, &now, &changed, &e));
	assert_false(changed);
	remote_do(source, &e, "madvise", SYS_madvise, arena, 64 * 4096, MADV_DONTFORK);
	if (with_flags) {
		MUST_OK(vma_list_reread(source->pid, &m.list, false, &m.files, &m.refusals, &now, &changed, &e));
		assert_true(changed);
		vma_list_free(&now);
	}
	MUST_OK(vma_list_reread(source->pid, &m.list, true, &m.files, &m.refusals, &now, &changed, &e));
	assert_true(changed);
	vma_list_free(&now);
	remote_do(source, &e, "madvise", SYS_madvise, arena, 64 * 4096, MADV_DOFORK);
	snprintf(path, sizeof(path), "/proc/%d/mem", m.b->pid);
	mem = open(path, O_RDWR);
	MUST(pwrite(mem, &byte, 1, arena) == 1 && pwrite(mem, &byte, 1, arena + 63 * 4096) == 1);

	remote_do(source, &e, "mprotect", SYS_mprotect, arena + 63 * 4096, 4096, PROT_READ);
	remote_do(source, &e, "munmap", SYS_munmap, arena + 4 * 4096, 4096);
	remote_do(source, &e, "mmap", SYS_mmap, arena + 64 * 4096, 8192, PROT_READ | PROT_WRITE,
		  MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	MUST_OK(vma_list_reread(source->pid, &m.list, false, &m.files, &m.refusals, &now, &changed, &e));
	assert_true(changed);
	MUST_OK(vma_plan_sync(m.b, &m.list, &now, m.fds, m.files.n, &mapped, &e));
	assert_int_equal(m.b->n_calls, 3);
	assert_int_equal(mapped.n, 1);
	assert_int_equal(mapped.v[0].start, arena + 64 * 4096);
	assert_int_equal(mapped.v[0].end, arena + 66 * 4096);
	MUST_OK(batch_run(m.b, &e));
	byte = 0;
	MUST(pread(mem, &byte, 1, arena) == 1 && byte == 42);
	byte = 0;
	MUST(pread(mem, &byte, 1, arena + 63 * 4096) == 1 && byte == 42);
	close(mem);
	vma_list_free(&now);
	range_list_free(&mapped);
	end_moved(&m);
	fake_skeleton_end(source);
	free(source);
}

/* One mapping where two lay that have been touched at the destination: the kernel would not join those, and mremap(2) of the whole would fail. */
static void test_sync_joins(void **state)
{
	const uint64_t arena = 0x200000000000, far = arena + 0x100000;
	const uint64_t flags = MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE;
	struct batch *source = calloc(1, sizeof(*source));
	struct range_list mapped = { 0 };
	struct vma_list now = { 0 };
	struct err e = ERR_INIT;
	struct moved m;
	bool changed;
	char path[64];
	int mem;

	fake_skeleton_start(source, 0x210000000000);
	remote_do(source, &e, "mmap", SYS_mmap, arena, 8 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	remote_do(source, &e, "mmap", SYS_mmap, arena + 9 * 4096, 7 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	read_source(source->pid, &m);
	build(source->pid, &m);
	snprintf(path, sizeof(path), "/proc/%d/mem", m.b->pid);
	mem = open(path, O_RDWR);
	MUST(pwrite(mem, "x", 1, arena) == 1 && pwrite(mem, "x", 1, arena + 9 * 4096) == 1);

	remote_do(source, &e, "munmap", SYS_munmap, arena, 16 * 4096);
	remote_do(source, &e, "mmap", SYS_mmap, arena + 4096, 14 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	MUST_OK(vma_list_reread(source->pid, &m.list, true, &m.files, &m.refusals, &now, &changed, &e));
	assert_true(changed);
	MUST_OK(vma_plan_sync(m.b, &m.list, &now, m.fds, m.files.n, &mapped, &e));
	MUST_OK(batch_run(m.b, &e));
	batch_reset(m.b);
	assert_int_equal(mapped.v[0].start, arena + 4096);
	assert_int_equal(mapped.v[mapped.n - 1].end, arena + 15 * 4096);
	MUST(remote_do(m.b, &e, "mremap", SYS_mremap, arena + 4096, 14 * 4096, 15 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, far) == (int64_t)far);
	close(mem);
	vma_list_free(&now);
	range_list_free(&mapped);
	end_moved(&m);
	fake_skeleton_end(source);
	free(source);
}

static bool refused(const struct refusals *r, const char *code)
{
	for (size_t i = 0; i < r->n; i++)
		if (!strcmp(r->v[i].code, code) && r->v[i].thing[0] && r->v[i].cause[0] && r->v[i].way_out[0])
			return true;
	return false;
}

static int perf_works, secret_works, uffd_works;

/* Everything that cannot move; what this kernel does not have is left out. */
static void refused_layout(void)
{
	struct { uint64_t api, features, ioctls; } uffd_api = { 0xaa, 0, 0 };
	struct { uint64_t start, len, mode, ioctls; } uffd_register = { 0 };
	unsigned char perf[128] = { 0 };
	int fd;

	perf[0] = 1; /* PERF_TYPE_SOFTWARE */
	perf[4] = sizeof(perf);
	fd = syscall(SYS_perf_event_open, perf, 0, -1, -1, 0);
	perf_works = fd >= 0 && mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED;
	fd = syscall(447, 0);
	secret_works = fd >= 0 && ftruncate(fd, 4096) == 0 && mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED;
	fd = syscall(SYS_userfaultfd, 0);
	uffd_register.start = (uintptr_t)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uffd_register.len = 4096;
	uffd_register.mode = 1;
	uffd_works = fd >= 0 && ioctl(fd, 0xc018aa3f, &uffd_api) == 0 && ioctl(fd, 0xc020aa00, &uffd_register) == 0;
}

static int *shared_flags;

static void refused_layout_reported(void)
{
	refused_layout();
	int flags[] = { perf_works, secret_works, uffd_works };

	memcpy(shared_flags, flags, sizeof(flags));
}

static void test_refusals(void **state)
{
	static const char *const codes[] = { "vma.perf", "vma.secretmem", "vma.userfaultfd" };
	const struct vma_list *lists[1];
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct vma_list list = { 0 };
	struct err e = ERR_INIT;
	pid_t pid;

	shared_flags = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = start_child(refused_layout_reported);
	MUST_OK(vma_list_read(pid, &files, &refusals, &list, &e));
	assert_false(list.complete);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (!shared_flags[i])
			print_message("this kernel does not let a program have %s\n", codes[i]);
		else if (!refused(&refusals, codes[i]))
			fail_msg("%s was not refused: %s", codes[i], refusals_text(&refusals));
	}
	/* the flags themselves are shared with this test */
	lists[0] = &list;
	assert_false(refused(&refusals, "vma.shared-elsewhere"));
	assert_int_equal(vma_check_sharing(&pid, lists, 1, &refusals), 0);
	assert_true(refused(&refusals, "vma.shared-elsewhere"));
	end_child(pid);
	vma_list_free(&list);
	fsfile_table_free(&files);
	refusals_free(&refusals);
	munmap(shared_flags, 4096);
}

/* The vdso goes to a place that overlaps the one it is at. */
static void test_vdso_overlap(void **state)
{
	struct batch *source = calloc(1, sizeof(*source));
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct vma_list own = { 0 }, moved = { 0 }, now = { 0 };
	struct err e = ERR_INIT;

	fake_skeleton_start(source, 0x210000000000);
	MUST(remote_do(source, &e, "getpid", SYS_getpid) == source->pid);
	MUST_OK(vma_list_read(source->pid, &files, &refusals, &own, &e));
	vma_plan_empty(source, &own, NULL);
	MUST_OK(batch_run(source, &e));
	batch_reset(source);
	for (int64_t shift = -3; shift <= 3; shift++) {
		vma_list_free(&own);
		vma_list_free(&moved);
		MUST_OK(vma_list_read(source->pid, &files, &refusals, &own, &e));
		assert_int_equal(own.n, 3);
		for (size_t i = 0; i < own.n; i++) {
			struct vma v = own.v[i];

			v.start += shift * 4096;
			v.end += shift * 4096;
			MUST(vma_list_append(&moved, &v) == 0);
		}
		MUST_OK(vdso_plan_move(source, &moved, &own, &e));
		MUST_OK(batch_run(source, &e));
		batch_reset(source);
		MUST_OK(vma_list_read(source->pid, &files, &refusals, &now, &e));
		assert_int_equal(now.n, 3);
		for (size_t i = 0; i < now.n; i++)
			assert_int_equal(now.v[i].start, moved.v[i].start);
		vma_list_free(&now);
	}
	vma_list_free(&own);
	vma_list_free(&moved);
	fsfile_table_free(&files);
	fake_skeleton_end(source);
	free(source);
}

/* Maps, splits and unmaps without end. */
static void restless(void)
{
	raise(SIGSTOP);
	for (unsigned i = 0;; i++) {
		char *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		int fd = open("/proc/self/exe", O_RDONLY);
		char *q = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);

		mprotect(p + (i % 60) * 4096, 4096, PROT_READ);
		mprotect(p + (i % 60) * 4096, 4096, PROT_READ | PROT_WRITE);
		munmap(q, 4096);
		munmap(p, 64 * 4096);
		close(fd);
	}
}

static void test_running(void **state)
{
	pid_t pid = start_child(restless);
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct vma_list list = { 0 }, next;
	struct err e = ERR_INIT;
	bool changed;

	kill(pid, SIGCONT);
	MUST_OK(vma_list_read(pid, &files, &refusals, &list, &e));
	for (int i = 0; i < 200; i++) {
		MUST_OK(vma_list_reread(pid, &list, i % 2, &files, &refusals, &next, &changed, &e));
		if (!changed)
			continue;
		MUST_OK(vma_list_validate(&next, files.n, &e));
		vma_list_free(&list);
		list = next;
	}
	assert_int_equal(refusals.n, 0);
	end_child(pid);
	vma_list_free(&list);
	fsfile_table_free(&files);
}

static struct vma_digest digest_now(void)
{
	struct vma_digest d;
	struct err e = ERR_INIT;

	MUST_OK(vma_peek_digest(getpid(), &d, &e));
	return d;
}

static bool same_digest(struct vma_digest a, struct vma_digest b)
{
	return !memcmp(&a, &b, sizeof(a));
}

/* What can be changed, and changed back. */
static int alter(char *at, int what, bool back)
{
	static const int advice[][2] = { { MADV_DONTDUMP, MADV_DODUMP }, { MADV_DONTFORK, MADV_DOFORK }, { MADV_RANDOM, MADV_NORMAL } };

	if (what < (int)ARRAY_SIZE(advice))
		return madvise(at, 4096, advice[what][back]);
	switch (what) {
	case 3:
		return mprotect(at, 4096, back ? PROT_READ : PROT_NONE);
	case 4:
		return back ? munlock(at, 4096) : mlock2(at, 4096, MLOCK_ONFAULT);
	case 5:
		return back ? mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED : munmap(at, 4096);
	}
	return -1;
}

/* The digest is another one whatever has changed, and the same one again when it is as it was, however often the kernel has counted a change. */
static void test_digest(void **state)
{
	const int one = memfd_create("one", 0), other = memfd_create("other", 0);
	struct vma_digest unused, was;
	struct err e = ERR_INIT;
	char *at;

#ifdef __SANITIZE_ADDRESS__
	skip(); /* it changes its own address space all the time */
#endif
	if (vma_peek_digest(getpid(), &unused, &e) == -ENOSYS) {
		print_message("no digest of mappings: %s\n", e.message);
		skip();
	}
	for (int i = 0; i < 3000; i++)
		region(1, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	at = region(3, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS) + 4096;
	was = digest_now();
	assert_true(was.count > 3000);
	for (int what = 0; what < 6; what++) {
		MUST(alter(at, what, false) == 0);
		assert_false(same_digest(was, digest_now()));
		MUST(alter(at, what, true) == 0);
		assert_true(same_digest(was, digest_now()));
	}
	MUST(ftruncate(one, 8192) == 0 && ftruncate(other, 8192) == 0);
	MUST(mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, one, 0) == at);
	was = digest_now();
	MUST(mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, one, 4096) == at);
	assert_false(same_digest(was, digest_now()));
	MUST(mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, other, 0) == at);
	assert_false(same_digest(was, digest_now()));
	MUST(mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, one, 0) == at);
	assert_true(same_digest(was, digest_now()));
}

/* What /proc says of a layout has the digest that the kernel tells of it. */
static void test_digest_of_a_list(void **state)
{
	pid_t pid = start_child(odd_layout);
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct vma_list list = { 0 }, next = { 0 };
	struct vma_digest known, now;
	struct err e = ERR_INIT;
	bool changed = true;

	if (vma_peek_digest(pid, &now, &e) == -ENOSYS) {
		end_child(pid);
		skip();
	}
	MUST_OK(vma_list_read(pid, &files, &refusals, &list, &e));
	assert_int_equal(vma_list_digest(pid, &list, &known, &e), -EAGAIN);
	MUST_OK(vma_list_reread(pid, &list, false, &files, &refusals, &next, &changed, &e));
	assert_false(changed);
	MUST_OK(vma_list_digest(pid, &list, &known, &e));
	MUST_OK(vma_peek_digest(pid, &now, &e));
	assert_int_equal(known.count, now.count);
	assert_true(known.digest == now.digest);
	end_child(pid);
	vma_list_free(&list);
	fsfile_table_free(&files);
}

/* The scratch's place leaves the stack and the heap their room. */
static void test_find_free(void **state)
{
	struct vma_list a = { 0 }, b = { 0 };
	struct vma v = { .start = 0x6fff80000000, .end = 0x700000000000 };
	struct vma stack = { .start = 0x6fff00000000, .end = 0x6fff00001000, .bits = VMA_GROWSDOWN };
	uint64_t at;

	at = vma_find_free(&a, NULL, 1);
	assert_int_equal(at % 4096, 0);
	assert_in_range(at, 0x600000000000, 0x700000000000);
	MUST(vma_list_append(&a, &v) == 0);
	at = vma_find_free(&b, &a, 1 << 20);
	assert_true(at + (1 << 20) < v.start && at > v.start - (1 << 24));
	MUST(vma_list_append(&b, &stack) == 0);
	at = vma_find_free(&a, &b, 4ull << 30);
	assert_true(at + (4ull << 30) <= stack.start - (1 << 30));
	vma_list_free(&a);
	vma_list_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_odd_layout),
		cmocka_unit_test(test_sync),
		cmocka_unit_test(test_sync_keeps_pages),
		cmocka_unit_test(test_sync_joins),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_vdso_overlap),
		cmocka_unit_test(test_find_free),
		cmocka_unit_test(test_running),
	};
	const struct CMUnitTest digests[] = { cmocka_unit_test(test_digest), cmocka_unit_test(test_digest_of_a_list) };

	int failed = cmocka_run_group_tests_name("flags from smaps", tests, NULL, NULL);
	struct err e = ERR_INIT;
	int fds[VMA_PEEK_FDS];

	with_flags = vma_peek_prepare(fds, &e) >= 0;
	if (!with_flags)
		print_message("no BPF here: %s\n", e.message);
	if (with_flags)
		failed += cmocka_run_group_tests_name("flags by BPF", tests, NULL, NULL) + cmocka_run_group_tests_name("digests of mappings", digests, NULL, NULL);
	return failed;
}
