/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_shared.c - objects of memory that mappings share: made anew elsewhere, and what is written to them is found, whoever writes */
#include "layout_move.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/shared.h"
#include "image/shared_watch.h"
#include "image/vma_restore.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"

#define KEY 0x60d11700
#define FUTURE_WRITE 0x10
#define AT_A 0x200000000000ul
#define AT_B 0x300000000000ul

static void segments(void)
{
	int id = shmget(KEY, 5 * 4096 + 100, IPC_CREAT | IPC_EXCL | 0640), other = shmget(IPC_PRIVATE, 64 * 4096, IPC_CREAT | 0600);
	char *p = shmat(id, NULL, 0);

	MUST(id >= 0 && other >= 0 && p != (void *)-1);
	MUST(shmat(id, NULL, SHM_RDONLY) != (void *)-1);
	MUST(mprotect(p + 4096, 4096, PROT_READ) == 0);
	p = shmat(other, NULL, 0);
	MUST(p != (void *)-1 && munmap(p + 8 * 4096, 16 * 4096) == 0);
	MUST(mmap(p + 10 * 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED);
	MUST(shmctl(other, IPC_RMID, NULL) == 0);
}

static void compare_segments(const struct fsfile *f, const struct shmid_ds *there)
{
	struct shmid_ds here;

	MUST(shmctl(f->sysv.id, IPC_STAT, &here) == 0);
	assert_int_equal(here.shm_perm.__key, there->shm_perm.__key);
	assert_int_equal(here.shm_perm.mode, there->shm_perm.mode);
	assert_int_equal(here.shm_segsz, there->shm_segsz);
	assert_int_equal(here.shm_nattch, there->shm_nattch);
	assert_int_equal(here.shm_perm.cuid, there->shm_perm.cuid);
}

/* Source and destination are ipc namespaces of their own, as other hosts would be. */
static void test_segments(void **state)
{
	struct shmid_ds there[2];
	struct refusals taken = { 0 };
	struct err e = ERR_INIT;
	uint32_t index[2], n = 0;
	struct moved m;
	pid_t pid;

	MUST(unshare(CLONE_NEWIPC) == 0);
	pid = start_child(segments);
	read_source(pid, &m);
	for (uint32_t i = 0; i < m.files.n && n < 2; i++) {
		struct fsfile_answer a = FSFILE_ANSWER_INIT;

		if (m.files.v[i].type != FSFILE_SYSV)
			continue;
		MUST(shmctl(m.files.v[i].sysv.id, IPC_STAT, &there[n]) == 0);
		index[n++] = i;
		MUST_OK(fsfile_match(&m.files.v[i], &a, &taken, &e));
		assert_int_equal(a.verdict, FSFILE_REFUSE);
	}
	assert_int_equal(n, 2);
	assert_int_equal(taken.n, 3); /* two numbers, one key */
	MUST(unshare(CLONE_NEWIPC) == 0);
	build(pid, &m);
	compare_layouts(pid, m.b->pid);
	for (uint32_t i = 0; i < n; i++) {
		struct fsfile_answer a = { .verdict = FSFILE_TEMP, .fd = -1 };

		a.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		MUST_OK(fsfile_finish_late(&m.files.v[index[i]], &a, &e));
		compare_segments(&m.files.v[index[i]], &there[i]);
		fsfile_answer_close(&a);
	}
	end_moved(&m);
	end_child(pid);
	refusals_free(&taken);
}

/* A process that maps the file of another one's descriptor, and its tracking. */
static struct batch *start_mapper(uint64_t scratch, int fd, uint64_t at, struct shared_view *view, struct vma_list *l, struct fsfile_table *files)
{
	struct batch *b = calloc(1, sizeof(*b));
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	char path[64];
	int64_t in, uffd;
	int pidfd;

	fake_skeleton_start(b, scratch);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	in = remote_do(b, &e, "open", SYS_open, batch_string(b, path), O_RDWR);
	MUST(in >= 0);
	MUST(remote_do(b, &e, "mmap", SYS_mmap, at, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, (uint64_t)in, 0) > 0);
	uffd = remote_do(b, &e, "userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	pidfd = pidfd_open_process(b->pid, &e);
	*view = (struct shared_view){ .pid = b->pid, .vmas = l };
	view->uffd = pidfd_get(pidfd, (int)uffd, &e);
	MUST_OK(view->uffd);
	MUST(remote_do(b, &e, "close", SYS_close, (uint64_t)uffd) == 0);
	MUST_OK(uffd_enable(view->uffd, UFFD_FEATURES_TRACK_SHARED, &e));
	close(pidfd);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", b->pid);
	view->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	MUST_OK(vma_list_read(b->pid, files, &refusals, l, &e));
	assert_int_equal(refusals.n, 0);
	return b;
}

static void poke(const struct batch *b, uint64_t at)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", b->pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	MUST(pwrite(fd, "x", 1, (off_t)at) == 1);
	close(fd);
}

static void expect_dirty(const struct shared *s, uint32_t file, size_t n, const uint64_t *pages)
{
	assert_int_equal(s->dirty[file].n, n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(s->dirty[file].v[i].start, pages[2 * i] * 4096);
		assert_int_equal(s->dirty[file].v[i].end, pages[2 * i + 1] * 4096);
	}
}

/* All of the file, however long. */
static void expect_all_dirty(const struct shared *s, uint32_t file)
{
	assert_int_equal(s->dirty[file].n, 1);
	assert_int_equal(s->dirty[file].v[0].start, 0);
	assert_true(s->dirty[file].v[0].end == SHARED_END);
}

static void test_tracking(void **state)
{
	cleanup_close int fd = memfd_create("shared", MFD_CLOEXEC);
	struct fsfile_table files = { 0 };
	struct vma_list la = { 0 }, lb = { 0 };
	struct shared_view views[2];
	struct batch *a, *b;
	struct shared s = { 0 };
	struct shared_watch *w;
	struct err e = ERR_INIT;
	uint32_t file;

	MUST(ftruncate(fd, 64 * 4096) == 0);
	a = start_mapper(0x210000000000, fd, AT_A, &views[0], &la, &files);
	b = start_mapper(0x310000000000, fd, AT_B, &views[1], &lb, &files);
	file = (uint32_t)vma_find(&la, AT_A)->file;
	assert_int_equal(vma_find(&lb, AT_B)->file, file);
	for (int i = 0; i < 64; i++)
		poke(i % 2 ? a : b, (i % 2 ? AT_A : AT_B) + i * 4096);
	w = shared_watch_start((const int[]){ views[0].uffd, views[1].uffd }, 2, &e);
	MUST(w);
	MUST_OK(shared_track(&s, views, 2, &e));
	MUST_OK(shared_collect(&s, views, 2, files.n, false, &e));
	expect_dirty(&s, file, 0, NULL);

	/* both write; what one only reads counts as little as what was collected before */
	poke(a, AT_A + 5 * 4096);
	poke(b, AT_B + 6 * 4096);
	poke(b, AT_B + 63 * 4096);
	MUST_OK(shared_collect(&s, views, 2, files.n, false, &e));
	expect_dirty(&s, file, 2, (const uint64_t[]){ 5, 7, 63, 64 });
	shared_clean(&s, file);
	MUST_OK(shared_collect(&s, views, 2, files.n, true, &e));
	expect_dirty(&s, file, 0, NULL);

	/* the mark goes with the entry */
	poke(a, AT_A + 9 * 4096);
	remote_do(a, &e, "madvise", SYS_madvise, AT_A, 64 * 4096, MADV_DONTNEED);
	MUST_OK(shared_collect(&s, views, 2, files.n, true, &e));
	expect_dirty(&s, file, 1, (const uint64_t[]){ 9, 10 });
	shared_clean(&s, file);
	MUST_OK(shared_collect(&s, views, 2, files.n, false, &e));
	shared_clean(&s, file);

	/* a mapping in the same place that is another one; one that is gone */
	remote_do(b, &e, "mmap", SYS_mmap, AT_B, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 3, 0);
	assert_false(shared_watch_take(w, 1, &views[1].unmapped));
	MUST_OK(shared_collect(&s, views, 2, files.n, true, &e));
	expect_dirty(&s, file, 1, (const uint64_t[]){ 0, 64 });
	range_list_free(&views[1].unmapped);
	shared_clean(&s, file);
	MUST_OK(shared_collect(&s, views, 2, files.n, false, &e));
	shared_clean(&s, file);
	MUST_OK(shared_collect(&s, views, 2, files.n, false, &e));
	expect_dirty(&s, file, 0, NULL);
	lb.v[vma_find(&lb, AT_B) - lb.v].content = VMA_CONTENT_NONE;
	MUST(vma_list_index(&lb) == 0);
	MUST_OK(shared_collect(&s, views, 2, files.n, true, &e));
	expect_all_dirty(&s, file);

	shared_clean(&s, file);

	/* a process that has ended */
	MUST_OK(shared_collect(&s, views + 1, 1, files.n, true, &e));
	expect_all_dirty(&s, file);

	shared_watch_stop(w);
	shared_free(&s);
	fake_skeleton_end(a);
	fake_skeleton_end(b);
	for (int i = 0; i < 2; i++) {
		close(views[i].uffd);
		close(views[i].pagemap_fd);
	}
	free(a);
	free(b);
	vma_list_free(&la);
	vma_list_free(&lb);
	fsfile_table_free(&files);
}

/* A mapping that has grown since the list was read can still be moved as a whole. */
static void test_grown(void **state)
{
	cleanup_close int fd = memfd_create("grown", MFD_CLOEXEC);
	struct fsfile_table files = { 0 };
	struct vma_list l = { 0 };
	struct shared_view view;
	struct shared s = { 0 };
	struct shared_watch *w;
	struct err e = ERR_INIT;
	struct batch *b;

	MUST(ftruncate(fd, 128 * 4096) == 0);
	b = start_mapper(0x210000000000, fd, AT_A, &view, &l, &files);
	w = shared_watch_start(&view.uffd, 1, &e);
	MUST(w);
	MUST(remote_do(b, &e, "mremap", SYS_mremap, AT_A, 64 * 4096, 80 * 4096, 0) == AT_A);
	MUST_OK(shared_track(&s, &view, 1, &e));
	MUST(remote_do(b, &e, "mremap", SYS_mremap, AT_A, 80 * 4096, 128 * 4096, MREMAP_MAYMOVE) > 0);
	shared_watch_stop(w);
	close(view.uffd);
	shared_free(&s);
	fake_skeleton_end(b);
	close(view.pagemap_fd);
	free(b);
	vma_list_free(&l);
	fsfile_table_free(&files);
}

/* A mapping that is made from another one after a look, written to, and gone before the next. */
static void test_doubled(void **state)
{
	cleanup_close int fd = memfd_create("doubled", MFD_CLOEXEC);
	struct fsfile_table files = { 0 };
	struct vma_list l = { 0 };
	struct shared_view view;
	struct shared s = { 0 };
	struct shared_watch *w;
	struct err e = ERR_INIT;
	struct batch *b;
	uint32_t file;
	int64_t second;

	MUST(ftruncate(fd, 64 * 4096) == 0);
	b = start_mapper(0x210000000000, fd, AT_A, &view, &l, &files);
	file = (uint32_t)vma_find(&l, AT_A)->file;
	w = shared_watch_start(&view.uffd, 1, &e);
	MUST(w);
	MUST_OK(shared_track(&s, &view, 1, &e));
	MUST_OK(shared_collect(&s, &view, 1, files.n, false, &e));
	shared_clean(&s, file);
	MUST_OK(shared_collect(&s, &view, 1, files.n, false, &e));
	expect_dirty(&s, file, 0, NULL);
	assert_false(shared_watch_take(w, 0, &view.unmapped));
	assert_int_equal(view.unmapped.n, 0);

	second = remote_do(b, &e, "mremap", SYS_mremap, AT_A, 0, 64 * 4096, MREMAP_MAYMOVE);
	MUST(second > 0);
	poke(b, (uint64_t)second + 7 * 4096);
	MUST(remote_do(b, &e, "munmap", SYS_munmap, (uint64_t)second, 64 * 4096) == 0);
	view.remapped = shared_watch_take(w, 0, &view.unmapped);
	assert_true(view.remapped);
	MUST_OK(shared_collect(&s, &view, 1, files.n, true, &e));
	expect_all_dirty(&s, file);
	shared_clean(&s, file);
	range_list_free(&view.unmapped);
	assert_false(shared_watch_take(w, 0, &view.unmapped));

	/* Shorter, and as long again. */
	MUST(remote_do(b, &e, "mremap", SYS_mremap, AT_A, 64 * 4096, 4096, 0) == AT_A);
	MUST(remote_do(b, &e, "mremap", SYS_mremap, AT_A, 4096, 64 * 4096, 0) == AT_A);
	view.remapped = shared_watch_take(w, 0, &view.unmapped);
	assert_false(view.remapped);
	MUST_OK(shared_collect(&s, &view, 1, files.n, true, &e));
	expect_dirty(&s, file, 1, (const uint64_t[]){ 1, 64 });
	range_list_free(&view.unmapped);

	/* When nobody is there to read the event, nobody waits for that. */
	shared_watch_stop(w);
	close(view.uffd);
	MUST(remote_do(b, &e, "mremap", SYS_mremap, AT_A, 0, 64 * 4096, MREMAP_MAYMOVE) > 0);

	shared_free(&s);
	fake_skeleton_end(b);
	close(view.pagemap_fd);
	free(b);
	vma_list_free(&l);
	fsfile_table_free(&files);
}

static struct fsfile_table table_of_mapping(const void *p, size_t len)
{
	struct fsfile_table t = { 0 };
	struct err e = ERR_INIT;
	uint32_t index;
	char link[80];

	snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", (unsigned long)p, (unsigned long)p + len);
	MUST_OK(fsfile_add(&t, link, FSFILE_MAPPED_WRITE, &index, &e));
	return t;
}

/* Shared anonymous memory stays what it is, and keeps its size. */
static void test_anonymous(void **state)
{
	char *p = mmap(NULL, 10 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *q;
	struct fsfile_table t = table_of_mapping(p, 10 * 4096), again;
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;

	assert_int_equal(t.v[0].type, FSFILE_SHARED_ANON);
	MUST_OK(fsfile_match(&t.v[0], &a, &refusals, &e));
	assert_int_equal(a.verdict, FSFILE_TEMP);
	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	MUST_OK(fsfile_put(&t.v[0], &a, 9 * 4096 + 4090, "abcdef", 6, &e));
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	q = mmap(NULL, 10 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
	MUST(q != MAP_FAILED);
	assert_memory_equal(q + 9 * 4096 + 4090, "abcdef", 6);
	again = table_of_mapping(q, 10 * 4096);
	assert_int_equal(again.v[0].type, FSFILE_SHARED_ANON);
	assert_int_equal(again.v[0].size, 10 * 4096);
	assert_string_equal(again.v[0].path, t.v[0].path);
	munmap(p, 10 * 4096);
	munmap(q, 10 * 4096);
	fsfile_answer_undo(&t.v[0], &a);
	fsfile_table_free(&t);
	fsfile_table_free(&again);
}

/* Seals against future writes come when the mappings are there. */
static void test_late_seals(void **state)
{
	cleanup_close int fd = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fsfile_table t = { 0 };
	uint32_t index;
	char link[64];

	MUST(ftruncate(fd, 4096) == 0 && fcntl(fd, F_ADD_SEALS, FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	MUST_OK(fsfile_add(&t, link, FSFILE_MAPPED_WRITE, &index, &e));
	MUST_OK(fsfile_match(&t.v[0], &a, &refusals, &e));
	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0) != MAP_FAILED);
	MUST_OK(fsfile_put(&t.v[0], &a, 0, "x", 1, &e));
	MUST_OK(fsfile_finish_late(&t.v[0], &a, &e));
	assert_int_equal(fcntl(a.fd, F_GET_SEALS), FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SEAL);
	assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0) == MAP_FAILED);
	fsfile_answer_undo(&t.v[0], &a);
	fsfile_table_free(&t);
}

static void huge_layout(void)
{
	int fd = memfd_create("huge", MFD_HUGETLB);
	char *p;

	MUST(fd >= 0 && ftruncate(fd, 2 << 20) == 0);
	p = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(p != MAP_FAILED);
	p[5000] = 1;
	p = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	MUST(p != MAP_FAILED);
	p = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	MUST(p != MAP_FAILED);
	p[0] = 1;
}

static int huge_pages_before = -1;

static int put_huge_pages_back(void **state)
{
	FILE *f = huge_pages_before < 0 ? NULL : fopen("/proc/sys/vm/nr_hugepages", "we");

	(void)state;
	if (f) {
		fprintf(f, "%d", huge_pages_before);
		fclose(f);
	}
	return 0;
}

static int huge_pages_free(void)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	int n = 0;

	if (f && fscanf(f, "%d", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n;
}

/* Six pages are free, whatever somebody has left: three for each side, so that a third one is refused. */
static void test_huge(void **state)
{
	int was = 0, now = 0, used;
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+e");
	struct refusals refusals = { 0 };
	const struct vma_list *lists[1];
	struct moved m;
	pid_t pid;

	if (!f || fscanf(f, "%d", &was) != 1)
		skip();
	huge_pages_before = was;
	used = was - huge_pages_free();
	rewind(f);
	fprintf(f, "%d", used + 6);
	fflush(f);
	rewind(f);
	if (fscanf(f, "%d", &now) != 1 || now < used + 6) {
		print_message("no huge pages to be had\n");
		skip();
	}
	pid = start_child(huge_layout);
	read_source(pid, &m);
	lists[0] = &m.list;
	vma_validate_here(lists, 1, &m.files, &refusals);
	assert_int_equal(refusals.n, 0);
	build(pid, &m);
	compare_layouts(pid, m.b->pid);
	vma_validate_here(lists, 1, &m.files, &refusals);
	assert_int_equal(refusals.n, 1);
	end_moved(&m);
	end_child(pid);
	fclose(f);
	refusals_free(&refusals);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tracking),
		cmocka_unit_test(test_grown), cmocka_unit_test(test_doubled),
		cmocka_unit_test(test_anonymous),
		cmocka_unit_test(test_late_seals),
		cmocka_unit_test_teardown(test_huge, put_huge_pages_back),
		cmocka_unit_test(test_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
