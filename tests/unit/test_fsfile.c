/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_fsfile.c - files: what the destination answers, contents, bytes; and the decoders of layouts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "image/fsfile.h"
#include "image/mm.h"
#include "image/sha256.h"
#include "image/vdso.h"

#define MUST(x)                                                                    \
	do {                                                                       \
		if (!(x))                                                          \
			fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #x, strerror(errno)); \
	} while (0)
#define MUST_OK(x)                                                        \
	do {                                                              \
		if ((x) < 0)                                              \
			fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #x, e.message); \
	} while (0)

static char directory[] = "/tmp/godwit-fsfile-XXXXXX";

static char *in_directory(const char *name)
{
	static char path[2][256];
	static int n;

	n = !n;
	snprintf(path[n], sizeof(path[n]), "%s/%s", directory, name);
	return path[n];
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	MUST(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

/* A table of one: the open file fd. */
static struct fsfile_table table_of(int fd, uint32_t uses)
{
	struct fsfile_table t = { 0 };
	struct err e = ERR_INIT;
	uint32_t index = 99;
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	MUST_OK(fsfile_add(&t, link, uses, &index, &e));
	assert_int_equal(index, 0);
	return t;
}

static enum fsfile_verdict verdict_of(const struct fsfile *f)
{
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	enum fsfile_verdict verdict;

	MUST_OK(fsfile_match(f, &a, &refusals, &e));
	assert_int_equal(a.verdict == FSFILE_REFUSE, refusals.n == 1);
	assert_int_equal(a.verdict == FSFILE_HAVE, a.fd >= 0);
	verdict = a.verdict;
	fsfile_answer_close(&a);
	refusals_free(&refusals);
	return verdict;
}

static void test_same_file(void **state)
{
	cleanup_close int fd = write_file(in_directory("same"), "content");
	struct fsfile_table t = table_of(fd, FSFILE_OPEN_READ);
	struct err e = ERR_INIT;
	uint32_t index = 7;
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	MUST_OK(fsfile_add(&t, link, FSFILE_OPEN_WRITE, &index, &e));
	assert_int_equal(t.n, 1);
	assert_int_equal(index, 0);
	assert_int_equal(t.v[0].uses, FSFILE_OPEN_READ | FSFILE_OPEN_WRITE);
	assert_string_equal(t.v[0].path, in_directory("same"));
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_HAVE);
	assert_int_equal(fsfile_add(&t, "/dev/null", 0, &index, &e), -ENODEV);
	fsfile_table_free(&t);
}

/* The same path on another kernel holds another file: content decides for what is read, writing is refused. */
static void test_other_file(void **state)
{
	cleanup_close int fd = write_file(in_directory("other"), "content");
	struct fsfile_table t = table_of(fd, FSFILE_MAPPED_PRIVATE);
	struct err e = ERR_INIT;

	t.v[0].boot_id[3] ^= 1;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	MUST_OK(fsfile_prepare_offer(&t, false, &e));
	assert_true(t.v[0].has_sha256);
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_HAVE);
	t.v[0].sha256[0] ^= 1;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	t.v[0].uses = FSFILE_OPEN_WRITE;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_REFUSE);
	fsfile_table_free(&t);
}

static void test_build_id(void **state)
{
	cleanup_close int fd = open("/usr/bin/true", O_RDONLY | O_CLOEXEC);
	struct fsfile_table t = table_of(fd, FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM);
	struct err e = ERR_INIT;

	MUST_OK(fsfile_prepare_offer(&t, false, &e));
	assert_int_equal(t.v[0].build_id_len, 20);
	assert_false(t.v[0].has_sha256);
	t.v[0].boot_id[3] ^= 1;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_HAVE);
	t.v[0].build_id[0] ^= 1;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	t.v[0].build_id[0] ^= 1;
	t.v[0].size++;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	fsfile_table_free(&t);
}

/* Sends the whole content of f into answer a. */
static void send_content(struct fsfile *f, struct fsfile_answer *a, unsigned *ret_chunks)
{
	uint64_t at = 0, offset, len;
	struct err e = ERR_INIT;
	char data[65536];

	*ret_chunks = 0;
	for (;; at = offset + len, (*ret_chunks)++) {
		MUST_OK(fsfile_content_next(f, at, sizeof(data), &offset, &len, &e));
		if (!len)
			break;
		MUST(pread(fsfile_read_fd(f, &e), data, len, offset) == (ssize_t)len);
		MUST_OK(fsfile_put(f, a, offset, data, len, &e));
	}
}

static void test_create(void **state)
{
	char *path = in_directory("created");
	cleanup_close int fd = write_file(path, "start");
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fsfile_table t;
	struct stat st;
	unsigned chunks;
	char text[8] = "";

	MUST(pwrite(fd, "end", 3, 1 << 20) == 3);
	t = table_of(fd, FSFILE_OPEN_READ | FSFILE_OPEN_WRITE);
	MUST(rename(path, in_directory("elsewhere")) == 0);
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_REFUSE); /* on the very file system: gone, not to be made */
	t.v[0].fsid ^= 1;
	MUST_OK(fsfile_match(&t.v[0], &a, &refusals, &e));
	assert_int_equal(a.verdict, FSFILE_CREATE);
	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	send_content(&t.v[0], &a, &chunks);
	assert_int_equal(chunks, 2);
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	MUST(stat(path, &st) == 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_size, (1 << 20) + 3);
	assert_true(st.st_blocks < 100);
	assert_int_equal(st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec, t.v[0].mtime_ns);
	MUST(pread(a.fd, text, 3, 1 << 20) == 3);
	assert_string_equal(text, "end");
	assert_int_equal(fsfile_put(&t.v[0], &a, 1 << 20, text, 4, &e), -EBADMSG);
	fsfile_answer_undo(&t.v[0], &a);
	assert_int_equal(stat(path, &st), -1);
	t.v[0].uses = FSFILE_MAPPED_PRIVATE;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	fsfile_table_free(&t);
}

static void test_no_directory(void **state)
{
	cleanup_close int fd = write_file(in_directory("plain"), "x");
	struct fsfile_table t = table_of(fd, FSFILE_OPEN_WRITE);

	free(t.v[0].path);
	t.v[0].path = strdup(in_directory("not/here"));
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_REFUSE);
	t.v[0].uses = FSFILE_OPEN_READ;
	assert_int_equal(verdict_of(&t.v[0]), FSFILE_STAND_IN);
	fsfile_table_free(&t);
}

static void test_unlinked(void **state)
{
	char *path = in_directory("unlinked");
	cleanup_close int fd = write_file(path, "gone");
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fsfile_table t;
	struct stat st;
	bool changed;
	unsigned chunks;
	char text[8] = "";

	unlink(path);
	t = table_of(fd, FSFILE_OPEN_READ | FSFILE_OPEN_WRITE);
	assert_true(t.v[0].unlinked);
	assert_string_equal(t.v[0].path, path);
	MUST_OK(fsfile_match(&t.v[0], &a, &refusals, &e));
	assert_int_equal(a.verdict, FSFILE_TEMP);
	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	MUST_OK(fsfile_changed(&t.v[0], &changed, &e));
	assert_false(changed);
	MUST(pwrite(fd, "more", 4, 4) == 4);
	MUST_OK(fsfile_changed(&t.v[0], &changed, &e));
	assert_true(changed);
	send_content(&t.v[0], &a, &chunks);
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	MUST(fstat(a.fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 8);
	MUST(pread(a.fd, text, 8, 0) == 8);
	assert_memory_equal(text, "gonemore", 8);
	fsfile_answer_undo(&t.v[0], &a);
	fsfile_table_free(&t);
}

static void test_memfd(void **state)
{
	cleanup_close int fd = memfd_create("some name", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	struct fsfile_answer a = FSFILE_ANSWER_INIT;
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	struct fsfile_table t;
	char path[64], link[256] = "";
	unsigned chunks;

	MUST(write(fd, "abc", 3) == 3 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) == 0);
	t = table_of(fd, FSFILE_OPEN_READ);
	assert_int_equal(t.v[0].type, FSFILE_MEMFD);
	assert_string_equal(t.v[0].path, "/memfd:some name");
	MUST_OK(fsfile_match(&t.v[0], &a, &refusals, &e));
	assert_int_equal(a.verdict, FSFILE_TEMP);
	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	send_content(&t.v[0], &a, &chunks);
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	assert_int_equal(fcntl(a.fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_WRITE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", a.fd);
	MUST(readlink(path, link, sizeof(link) - 1) > 0);
	assert_string_equal(link, "/memfd:some name (deleted)");
	fsfile_answer_undo(&t.v[0], &a);
	fsfile_table_free(&t);
}

static void test_program_stand_in(void **state)
{
	cleanup_close int fd = open("/usr/bin/true", O_RDONLY | O_CLOEXEC);
	struct fsfile_table t = table_of(fd, FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM);
	struct fsfile_answer a = { .verdict = FSFILE_STAND_IN, .mapped_only = true, .fd = -1 };
	char link[64], path[512] = "";
	struct err e = ERR_INIT;
	unsigned chunks;

	MUST_OK(fsfile_open_lacking(&t.v[0], &a, &e));
	send_content(&t.v[0], &a, &chunks);
	MUST_OK(fsfile_finish(&t.v[0], &a, &e));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", a.fd);
	MUST(readlink(link, path, sizeof(path) - 1) > 0);
	assert_int_equal(access(path, X_OK), 0);
	assert_int_equal(system(path), 0);
	fsfile_answer_undo(&t.v[0], &a);
	assert_int_equal(access(path, F_OK), -1);
	fsfile_table_free(&t);
}

static void test_sha256(void **state)
{
	static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
					 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	uint8_t hash[32], again[32];
	struct sha256 s;
	char text[1000];

	sha256_start(&s);
	sha256_add(&s, "a", 1);
	sha256_add(&s, "bc", 2);
	sha256_end(&s, hash);
	assert_memory_equal(hash, abc, 32);
	memset(text, 'x', sizeof(text));
	sha256_start(&s);
	sha256_add(&s, text, sizeof(text));
	sha256_end(&s, hash);
	sha256_start(&s);
	for (size_t at = 0, n = 1; at < sizeof(text); at += n, n = MIN(n + 7, sizeof(text) - at))
		sha256_add(&s, text + at, n);
	sha256_end(&s, again);
	assert_memory_equal(hash, again, 32);
}

/* The image of this very process, decoded again. */
static void test_bytes(void **state)
{
	struct fsfile_table files = { 0 }, files_again = { 0 };
	struct vma_list list = { 0 }, again = { 0 };
	struct refusals refusals = { 0 };
	struct mm_fields mm, mm_again;
	struct vdso vdso, vdso_again;
	struct err e = ERR_INIT;
	uint8_t *data[4];
	size_t len[4];

	MUST_OK(vma_list_read(getpid(), &files, &refusals, &list, &e));
	MUST_OK(mm_read(getpid(), &list, &files, &mm, &e));
	MUST_OK(vdso_read(getpid(), &list, &vdso, &e));
	MUST_OK(fsfile_prepare_offer(&files, true, &e));
	MUST_OK(fsfile_table_encode(&files, &data[0], &len[0], &e));
	MUST_OK(vma_list_encode(&list, &data[1], &len[1], &e));
	MUST_OK(mm_encode(&mm, &data[2], &len[2], &e));
	MUST_OK(vdso_encode(&vdso, &data[3], &len[3], &e));
	MUST_OK(fsfile_table_decode(data[0], len[0], &files_again, &e));
	MUST_OK(vma_list_decode(data[1], len[1], files.n, &again, &e));
	MUST_OK(mm_decode(data[2], len[2], files.n, &mm_again, &e));
	MUST_OK(vdso_decode(data[3], len[3], &vdso_again, &e));
	assert_int_equal(files.n, files_again.n);
	assert_int_equal(list.n, again.n);
	assert_memory_equal(&mm, &mm_again, sizeof(mm));
	assert_memory_equal(&vdso, &vdso_again, sizeof(vdso));
	for (uint32_t i = 0; i < files.n; i++) {
		assert_string_equal(files.v[i].path, files_again.v[i].path);
		assert_memory_equal(files.v[i].build_id, files_again.v[i].build_id, FSFILE_BUILD_ID_MAX);
	}
	for (size_t i = 0; i < list.n; i++) {
		again.v[i].dev = list.v[i].dev;
		again.v[i].ino = list.v[i].ino;
		assert_memory_equal(&list.v[i], &again.v[i], sizeof(list.v[i]));
	}
	assert_true(vma_list_decode(data[1], len[1], 1, &again, &e) < 0); /* file indices out of range */
	for (int i = 0; i < 4; i++)
		free(data[i]);
	vma_list_free(&list);
	vma_list_free(&again);
	fsfile_table_free(&files);
	fsfile_table_free(&files_again);
	refusals_free(&refusals);
}

static void test_answers(void **state)
{
	struct fsfile_answer answers[3] = { { FSFILE_HAVE }, { FSFILE_STAND_IN, true }, { FSFILE_TEMP } }, *again = NULL;
	struct err e = ERR_INIT;
	uint8_t *data;
	size_t len;

	MUST_OK(fsfile_answers_encode(answers, 3, &data, &len, &e));
	MUST_OK(fsfile_answers_decode(data, len, 3, &again, &e));
	assert_int_equal(again[1].verdict, FSFILE_STAND_IN);
	assert_true(again[1].mapped_only);
	assert_int_equal(again[1].fd, -1);
	free(again);
	assert_int_equal(fsfile_answers_decode(data, len, 4, &again, &e), -EBADMSG);
	free(data);
}

/* One of a network is the same when its type and number are; one of this host never is by these alone. */
static void test_network_file_system(void **state)
{
	const uint64_t number = 0x1122334455667788;
	struct statfs here = { .f_type = NFS_SUPER_MAGIC }, memory = { .f_type = TMPFS_MAGIC };

	memcpy(&here.f_fsid, &number, sizeof(number));
	memcpy(&memory.f_fsid, &number, sizeof(number));
	assert_true(fsfile_is_network_same(NFS_SUPER_MAGIC, number, &here));
	assert_false(fsfile_is_network_same(NFS_SUPER_MAGIC, number + 1, &here));
	assert_false(fsfile_is_network_same(V9FS_MAGIC, number, &here));
	assert_false(fsfile_is_network_same(TMPFS_MAGIC, number, &memory));
}

static int setup(void **state)
{
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_file),
		cmocka_unit_test(test_other_file),
		cmocka_unit_test(test_build_id),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_no_directory),
		cmocka_unit_test(test_unlinked),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_program_stand_in),
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_network_file_system),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
