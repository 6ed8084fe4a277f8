// SPDX-License-Identifier: GPL-2.0-or-later
/* file.c - victims about files: offsets, shared descriptions, flags, directories, unlinked files, devices, locks */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "victim.h"

/* What the kernel tells about every descriptor; positions of directories and timers are left out. */
static void snapshot_fds(struct text *t)
{
	for (int fd = 0; fd < 1024; fd++) {
		char path[64], target[4096] = "";
		struct stat st;
		int flags = fcntl(fd, F_GETFL);

		if (flags < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) < 0 || strchr(target, '[') || !strncmp(target, "pipe:", 5))
			strcpy(target, "(no path)");
		memset(&st, 0, sizeof(st));
		must(!fstat(fd, &st));
		text_add(t, "fd %d: %s flags %#o cloexec %d mode %#o size %lld offset %lld rdev %#lx owner %d sig %d\n", fd, target, flags,
			 fcntl(fd, F_GETFD), st.st_mode, S_ISREG(st.st_mode) ? (long long)st.st_size : 0,
			 S_ISREG(st.st_mode) ? (long long)lseek(fd, 0, SEEK_CUR) : 0, st.st_rdev, fcntl(fd, F_GETOWN), fcntl(fd, F_GETSIG));
	}
}

static struct text before;

static void compare_fds(void)
{
	struct text after = { 0 };

	snapshot_fds(&after);
	expect_text("descriptors", before.s, after.s);
}

static int make_file(const char *name, int flags, size_t len_bytes, uint64_t seed)
{
	int fd = open(beside(name), O_CREAT | O_TRUNC | flags, 0640);
	char *buf = malloc(len_bytes);

	must(fd >= 0 && buf);
	fill(buf, len_bytes, seed);
	must(write(fd, buf, len_bytes) == (ssize_t)len_bytes);
	free(buf);
	return fd;
}

static void expect_at(const char *what, int fd, uint64_t word, uint64_t seed)
{
	uint64_t got = 0;

	if (read(fd, &got, 8) != 8)
		fail("%s: read of 8 bytes at word %llu: errno %d", what, (unsigned long long)word, errno);
	expect_u64(what, mix(seed + word), got);
}

/* ---- offsets, flags, numbers ---- */

static int fds[16];

static void offsets_setup(void)
{
	fds[0] = make_file("a", O_RDWR, 65536, 1);
	lseek(fds[0], 8000, SEEK_SET);
	fds[1] = open(beside("a"), O_RDONLY | O_CLOEXEC);
	lseek(fds[1], 16, SEEK_SET);
	fds[2] = open(beside("a"), O_WRONLY | O_APPEND);
	fds[3] = open(beside("a"), O_RDONLY | O_NONBLOCK | O_NOATIME);
	lseek(fds[3], 1l << 40, SEEK_SET); /* far beyond the end */
	fds[4] = open(beside("a"), O_PATH);
	fds[5] = fcntl(fds[0], F_DUPFD_CLOEXEC, 700);
	fds[6] = open(beside("a"), O_RDWR | O_SYNC);
	fds[7] = open(beside("b"), O_RDWR | O_CREAT | O_DSYNC, 0600);
	must(!fcntl(fds[1], F_SETOWN, getpid()) && !fcntl(fds[1], F_SETSIG, SIGUSR1));
	for (int i = 0; i < 8; i++)
		must(fds[i] >= 0);
	snapshot_fds(&before);
}

static void offsets_check(void)
{
	struct stat st;

	compare_fds();
	expect_at("read at a kept offset", fds[0], 1000, 1);
	expect_at("read at a kept offset", fds[1], 2, 1);
	expect_at("read through the duplicate", fds[5], 1001, 1);
	expect(write(fds[2], "12345678", 8) == 8);
	expect(!fstat(fds[0], &st));
	expect_u64("size after an append", 65544, (uint64_t)st.st_size);
	unlink(beside("a"));
	unlink(beside("b"));
}

VICTIM(file_offsets, 0, offsets_setup, NULL, offsets_check);

static void shared_setup(void)
{
	fds[0] = make_file("a", O_RDWR, 65536, 2);
	fds[1] = dup(fds[0]);
	fds[2] = open(beside("a"), O_RDWR);
	fds[3] = fcntl(fds[2], F_DUPFD_CLOEXEC, 0);
	fds[4] = open(beside("a"), O_RDWR);
	must(!fcntl(fds[1], F_SETFD, FD_CLOEXEC));
	snapshot_fds(&before);
}

static void shared_check(void)
{
	static const int group[] = { 0, 0, 1, 1, 2 };

	compare_fds();
	for (int i = 0; i < 5; i++) {
		lseek(fds[i], 1000 + i * 8, SEEK_SET);
		for (int j = 0; j < 5; j++) {
			bool same = lseek(fds[j], 0, SEEK_CUR) == 1000 + i * 8;

			if (same != (group[i] == group[j]))
				fail("descriptors %d and %d %s their offset", fds[i], fds[j], same ? "share" : "do not share");
		}
	}
	unlink(beside("a"));
}

VICTIM(file_shared, 0, shared_setup, NULL, shared_check);

static void many_setup(void)
{
	for (int i = 0; i < 400; i++) {
		int fd = i % 10 ? open(beside("many"), O_RDWR | O_CREAT | (i % 3 ? O_CLOEXEC : 0), 0600) : dup(0);

		must(fd >= 0);
		if (i % 10)
			lseek(fd, i * 11, SEEK_SET);
	}
	for (int i = 50; i < 100; i += 3)
		close(i);
	snapshot_fds(&before);
}

static void many_check(void)
{
	compare_fds();
	unlink(beside("many"));
}

VICTIM(file_many, 0, many_setup, NULL, many_check);

/* ---- writing all the time: nothing lost, nothing twice ---- */

static uint64_t records;

static void writer_setup(void)
{
	fds[0] = open(beside("log"), O_CREAT | O_TRUNC | O_RDWR | O_APPEND, 0600);
	fds[1] = open(beside("plain"), O_CREAT | O_TRUNC | O_RDWR, 0600);
	must(fds[0] >= 0 && fds[1] >= 0);
}

static void writer_work(void)
{
	for (int i = 0; i < 20; i++) {
		uint64_t word = mix(records++);

		if (write(fds[0], &word, 8) != 8 || write(fds[1], &word, 8) != 8)
			fail("write of record %llu: errno %d", (unsigned long long)records, errno);
	}
	usleep(500);
}

static void writer_check(void)
{
	for (int f = 0; f < 2; f++) {
		expect_u64("size of a file", records * 8, (uint64_t)lseek(fds[f], 0, SEEK_END));
		lseek(fds[f], 0, SEEK_SET);
		for (uint64_t i = 0; i < records && !failed(); i++)
			expect_at("record", fds[f], i, 0);
	}
	unlink(beside("log"));
	unlink(beside("plain"));
}

VICTIM(file_writer, 0, writer_setup, writer_work, writer_check);

/* ---- directories ---- */

static DIR *dir;
static bool seen[200];

static void read_names(int count)
{
	struct dirent *d;

	while (count-- && (d = readdir(dir))) {
		int n = atoi(d->d_name + 1);

		if (d->d_name[0] != 'f')
			continue;
		if (n < 0 || n >= 200 || seen[n]) {
			fail("directory entry %s, seen twice or unknown", d->d_name);
			return;
		}
		seen[n] = true;
	}
}

static void dir_setup(void)
{
	char path[9000];

	must(!mkdir(beside("dir"), 0755));
	for (int i = 0; i < 200; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/f%03d-with-a-long-name-so-that-one-buffer-does-not-hold-the-whole-directory-"
			 "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789", beside("dir"), i);
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		must(fd >= 0);
		close(fd);
	}
	dir = opendir(beside("dir"));
	must(dir);
	read_names(20);
}

static void dir_check(void)
{
	read_names(-1);
	for (int i = 0; i < 200; i++) {
		if (!seen[i])
			fail("directory entry f%03d, expected once, got none", i);
	}
	expect(openat(dirfd(dir), "new", O_CREAT | O_WRONLY | O_CLOEXEC, 0600) >= 0);
}

VICTIM(file_dir, 0, dir_setup, NULL, dir_check);

/* ---- unlinked while open ---- */

static void unlinked_setup(void)
{
	fds[0] = make_file("gone", O_RDWR, 100000, 3);
	lseek(fds[0], 808, SEEK_SET);
	fds[1] = open(beside("gone"), O_RDONLY | O_CLOEXEC); /* a second description of the same file */
	must(!unlink(beside("gone")));
	fds[2] = make_file("gone2", O_RDWR, 3 << 20, 4);
	must(!unlink(beside("gone2")));
	fds[3] = make_file("gone3", O_RDWR, 8, 5); /* another file takes the name */
	must(!unlink(beside("gone3")));
	fds[4] = make_file("gone3", O_RDWR, 16, 6);
}

static void unlinked_check(void)
{
	struct stat a, b;
	char *buf = malloc(3 << 20);

	expect_at("unlinked file at its offset", fds[0], 101, 3);
	expect(pread(fds[0], buf, 100000, 0) == 100000);
	verify("contents of an unlinked file", buf, 100000, 3);
	expect(pread(fds[2], buf, 3 << 20, 0) == 3 << 20);
	verify("contents of a large unlinked file", buf, 3 << 20, 4);
	expect_u64("size of the unlinked file whose name was taken", 8, (uint64_t)lseek(fds[3], 0, SEEK_END));
	expect_u64("size of the file that took the name", 16, (uint64_t)lseek(fds[4], 0, SEEK_END));
	expect(pwrite(fds[0], "written after the move", 22, 0) == 22);
	memset(buf, 0, 22);
	expect(pread(fds[1], buf, 22, 0) == 22 && !memcmp(buf, "written after the move", 22)); /* the same file still */
	expect(!fstat(fds[0], &a) && !fstat(fds[1], &b));
	expect_u64("inode of both descriptions", a.st_ino, b.st_ino);
	expect_u64("links", 0, a.st_nlink);
	unlink(beside("gone3"));
}

VICTIM(file_unlinked, 0, unlinked_setup, NULL, unlinked_check);

#define SPARSE_LEN (40 << 20)
#define SPARSE_STEP 40960

static void sparse_setup(void)
{
	fds[0] = open(beside("sparse"), O_CREAT | O_EXCL | O_RDWR, 0600);
	must(fds[0] >= 0 && !unlink(beside("sparse")) && !ftruncate(fds[0], SPARSE_LEN));
	for (uint64_t at = 4096; at < 1 << 20; at += SPARSE_STEP)
		must(pwrite(fds[0], &(uint64_t){ mix(at) }, 8, (off_t)at) == 8);
}

static void sparse_check(void)
{
	struct stat st;

	expect(!fstat(fds[0], &st));
	expect_u64("size of a sparse file", SPARSE_LEN, (uint64_t)st.st_size);
	for (uint64_t at = 4096; at < 1 << 20; at += SPARSE_STEP) {
		uint64_t got = 0;

		expect_u64("data behind a hole", at, (uint64_t)lseek(fds[0], (off_t)(at - 4096), SEEK_DATA));
		expect_u64("hole behind data", at + 4096, (uint64_t)lseek(fds[0], (off_t)at, SEEK_HOLE));
		expect(pread(fds[0], &got, 8, (off_t)at) == 8);
		expect_u64("data of a sparse file", mix(at), got);
	}
}

VICTIM(file_sparse, 0, sparse_setup, NULL, sparse_check);

static void tmpfile_setup(void)
{
	char path[8192];
	uint64_t data[512];

	snprintf(path, sizeof(path), "%s", beside("x"));
	*strrchr(path, '/') = 0;
	fds[0] = open(path, O_TMPFILE | O_RDWR, 0600);
	must(fds[0] >= 0);
	fill(data, sizeof(data), 7);
	must(write(fds[0], data, sizeof(data)) == sizeof(data));
}

static void tmpfile_check(void)
{
	uint64_t data[512];

	expect_u64("offset", 4096, (uint64_t)lseek(fds[0], 0, SEEK_CUR));
	expect(pread(fds[0], data, sizeof(data), 0) == sizeof(data));
	verify("O_TMPFILE file", data, sizeof(data), 7);
}

VICTIM(file_tmpfile, 0, tmpfile_setup, NULL, tmpfile_check);

/* ---- devices ---- */

static void device_setup(void)
{
	static const char *const names[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom" };

	for (int i = 0; i < 5; i++) {
		fds[i] = open(names[i], O_RDWR | (i % 2 ? O_CLOEXEC | O_NONBLOCK : 0));
		must(fds[i] >= 0);
	}
	snapshot_fds(&before);
}

static void device_check(void)
{
	char buf[8] = "xxxxxxx";

	compare_fds();
	expect(read(fds[0], buf, 8) == 0);
	expect(read(fds[1], buf, 8) == 8 && !buf[0]);
	expect(write(fds[2], buf, 1) < 0 && errno == ENOSPC);
	expect(read(fds[3], buf, 8) == 8);
	expect(read(fds[4], buf, 8) == 8);
}

VICTIM(file_devices, 0, device_setup, NULL, device_check);

/* ---- locks ---- */

static void set_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	must(!fcntl(fd, cmd, &l));
}

static void expect_locked(int by_other, off_t at, short type)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int status;
	pid_t child = fork();

	if (!child) {
		int fd = open(beside("none"), O_RDWR);

		if (fd >= 0)
			close(fd);
		if (fcntl(by_other, F_GETLK, &l) || l.l_type != type)
			_exit(1 + l.l_type);
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		fail("lock at byte %ld as another process sees it, expected type %d, got status %#x", (long)at, type, (unsigned)status);
}

static void posix_lock_setup(void)
{
	fds[0] = make_file("locked", O_RDWR, 4096, 8);
	set_lock(fds[0], F_SETLK, F_WRLCK, 0, 10);
	set_lock(fds[0], F_SETLK, F_RDLCK, 20, 10);
	set_lock(fds[0], F_SETLK, F_WRLCK, 1000, 0);
}

static void posix_lock_check(void)
{
	expect_locked(fds[0], 0, F_WRLCK);
	expect_locked(fds[0], 9, F_WRLCK);
	expect_locked(fds[0], 10, F_UNLCK);
	expect_locked(fds[0], 25, F_RDLCK);
	expect_locked(fds[0], 100000, F_WRLCK);
	unlink(beside("locked"));
}

VICTIM(file_posix_lock, 0, posix_lock_setup, NULL, posix_lock_check);

static void ofd_lock_setup(void)
{
	fds[0] = make_file("locked", O_RDWR, 4096, 8);
	set_lock(fds[0], F_OFD_SETLK, F_WRLCK, 100, 10);
	fds[1] = make_file("flocked", O_RDWR, 4096, 8);
	must(!flock(fds[1], LOCK_EX));
}

static void ofd_lock_check(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 105, .l_len = 1 };
	int fd = open(beside("locked"), O_RDWR | O_CLOEXEC);

	expect(!fcntl(fd, F_OFD_GETLK, &l));
	expect_u64("open-description lock", F_WRLCK, (uint64_t)l.l_type);
	fd = open(beside("flocked"), O_RDWR | O_CLOEXEC);
	expect(flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	unlink(beside("locked"));
	unlink(beside("flocked"));
}

VICTIM(file_ofd_lock, 0, ofd_lock_setup, NULL, ofd_lock_check);

/* ---- extended attributes, also changed when it moves, of what is made at the destination ---- */

static int attributed[3];
static uint64_t attribute_rounds;

static void set_attribute(int fd, const char *name, uint64_t value)
{
	expect(!fsetxattr(fd, name, &value, sizeof(value), 0));
}

static void expect_attribute(int fd, const char *name, uint64_t value)
{
	uint64_t got = ~value;

	expect(fgetxattr(fd, name, &got, sizeof(got)) == sizeof(got));
	expect_u64(name, value, got);
}

static void attributes_setup(void)
{
	attributed[0] = memfd_create("attributed", MFD_CLOEXEC);
	attributed[1] = open(beside("unlinked"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	attributed[2] = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0640);
	must(!unlink(beside("unlinked")));
	for (int i = 0; i < 3; i++) {
		must(attributed[i] >= 0);
		set_attribute(attributed[i], "user.a", 1);
		set_attribute(attributed[i], "user.gone", 1);
		set_attribute(attributed[i], "trusted.b", 2);
	}
}

static void attributes_work(void)
{
	attribute_rounds++;
	for (int i = 0; i < 3; i++) {
		set_attribute(attributed[i], "user.round", attribute_rounds);
		if (attribute_rounds == 100)
			expect(!fremovexattr(attributed[i], "user.gone"));
	}
	usleep(1000);
}

static void attributes_check(void)
{
	char names[256];

	while (attribute_rounds < 200)
		attributes_work();
	for (int i = 0; i < 3; i++) {
		expect_attribute(attributed[i], "user.a", 1);
		expect_attribute(attributed[i], "user.round", attribute_rounds);
		expect_attribute(attributed[i], "trusted.b", 2);
		expect_u64("their names", sizeof("user.a") + sizeof("user.round") + sizeof("trusted.b"), (uint64_t)flistxattr(attributed[i], names, sizeof(names)));
	}
}

VICTIM(file_attributes, 0, attributes_setup, attributes_work, attributes_check);
