// SPDX-License-Identifier: GPL-2.0-or-later
/* file_kinds.c - victims about less usual descriptors: O_PATH, names removed, files of /proc and /sys, namespaces, directory notification */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "victim.h"

static int fds[32];
static struct text before;

static void add_fd(struct text *t, int fd, bool with_link)
{
	char path[64], link[4200] = "";
	struct stat st;

	must(!fstat(fd, &st));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must(readlink(path, link, sizeof(link) - 1) > 0);
	/* A file whose name was removed gets none back, not even for a moment: another name is shown. */
	if (S_ISREG(st.st_mode) && !st.st_nlink)
		with_link = false;
	text_add(t, "fd %d: %s mode %o uid %d gid %d links %d size %lld flags %#o position %lld\n", fd, with_link ? link : "", st.st_mode, st.st_uid, st.st_gid,
		 S_ISDIR(st.st_mode) ? (int)!st.st_nlink : (int)st.st_nlink, S_ISREG(st.st_mode) ? (long long)st.st_size : 0, fcntl(fd, F_GETFL),
		 (long long)lseek(fd, 0, SEEK_CUR));
}

static void add_all(struct text *t, int n)
{
	for (int i = 0; i < n; i++)
		add_fd(t, fds[i], true);
}

static void compare_all(int n)
{
	struct text after = { 0 };

	add_all(&after, n);
	expect_text("descriptors", before.s, after.s);
}

static void opened(int n)
{
	for (int i = 0; i < n; i++)
		must(fds[i] >= 0);
	add_all(&before, n);
}

static int make(const char *path, int flags)
{
	int fd = open(path, O_CREAT | O_EXCL | O_CLOEXEC | flags, 0640);

	must(fd >= 0 && write(fd, "some text", 9) == 9);
	return fd;
}

/* ---- O_PATH ---- */

static void path_setup(void)
{
	close(make(beside("plain"), O_WRONLY));
	close(make(beside("gone"), O_WRONLY));
	must(!symlink("/etc/passwd", beside("link")) && !mkdir(beside("dir"), 0751));
	fds[0] = open(beside("plain"), O_PATH | O_CLOEXEC);
	fds[1] = open(beside("link"), O_PATH | O_NOFOLLOW);
	fds[2] = open(beside("dir"), O_PATH | O_DIRECTORY);
	fds[3] = open("/dev/null", O_PATH);
	fds[4] = open("/proc/self/status", O_PATH);
	fds[5] = open("/proc/self", O_PATH | O_NOFOLLOW);
	fds[6] = open(beside("gone"), O_PATH);
	must(!unlink(beside("gone")));
	must(!mkdir(beside("gone-dir"), 0700));
	fds[7] = open(beside("gone-dir"), O_PATH | O_DIRECTORY);
	must(!rmdir(beside("gone-dir")));
	must(!symlink("no/where", beside("gone-link")) && !lchown(beside("gone-link"), 7, 8));
	fds[8] = open(beside("gone-link"), O_PATH | O_NOFOLLOW);
	must(!unlink(beside("gone-link")));
	opened(9);
}

static void path_check(void)
{
	char path[64], text[100] = "";
	struct stat st;
	int fd;

	compare_all(9);
	expect(readlinkat(fds[1], "", text, sizeof(text)) == 11);
	memset(text, 0, sizeof(text));
	expect(readlinkat(fds[8], "", text, sizeof(text)) == 8);
	expect_text("where a link without a name leads", "no/where", text);
	fd = openat(fds[2], "new", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	expect(fd >= 0);
	expect(!unlinkat(fds[2], "new", 0));
	for (int i = 0; i < 7; i += 6) { /* the file, and the one whose name was removed */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		memset(text, 0, sizeof(text));
		expect(fd >= 0 && read(fd, text, sizeof(text)) == 9);
		expect_text("what is in it", "some text", text);
	}
	expect(!fstat(fds[3], &st) && st.st_rdev == makedev(1, 3));
	unlink(beside("plain"));
	unlink(beside("link"));
	rmdir(beside("dir"));
}

VICTIM(kinds_path, 0, path_setup, NULL, path_check);

/* ---- names removed ---- */

static void gone_setup(void)
{
	must(!mkdir(beside("dir"), 0711) && !chown(beside("dir"), 5, 6));
	fds[0] = open(beside("dir"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds[1] = dup(fds[0]);
	must(!rmdir(beside("dir")));
	must(!mkfifo(beside("fifo"), 0620) && !chown(beside("fifo"), 7, 8));
	fds[2] = open(beside("fifo"), O_RDWR | O_NONBLOCK);
	fds[3] = open(beside("fifo"), O_WRONLY | O_CLOEXEC);
	must(!unlink(beside("fifo")));
	must(write(fds[3], "left", 4) == 4);
	fds[4] = make(beside("taken"), O_RDWR);
	must(!unlink(beside("taken")) && !mkdir(beside("taken"), 0700)); /* something else has the name */
	must(!mknod(beside("node"), S_IFCHR | 0640, makedev(1, 5)));
	fds[5] = open(beside("node"), O_RDWR);
	must(!unlink(beside("node")));
	opened(6);
}

static void gone_check(void)
{
	char text[16] = "";
	struct stat st;

	compare_all(6);
	expect(openat(fds[0], "x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
	expect(stat(beside("dir"), &st) < 0 && errno == ENOENT);
	expect(stat(beside("fifo"), &st) < 0 && errno == ENOENT);
	expect(!fstat(fds[0], &st) && S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0711);
	expect(read(fds[2], text, sizeof(text)) == 4);
	expect_text("what was in the FIFO", "left", text);
	expect(write(fds[3], "more", 4) == 4 && read(fds[2], text, sizeof(text)) == 4);
	expect(read(fds[5], text, 4) == 4 && !text[0]);
	expect(!rmdir(beside("taken")));
}

VICTIM(kinds_gone, 0, gone_setup, NULL, gone_check);

static char cwd_link[4200];

static void cwd_setup(void)
{
	must(!mkdir(beside("cwd"), 0755) && !chdir(beside("cwd")) && !rmdir(beside("cwd")));
	must(readlink("/proc/self/cwd", cwd_link, sizeof(cwd_link) - 1) > 0);
}

static void cwd_check(void)
{
	char link[4200] = "", path[4200];
	struct stat st;

	expect(readlink("/proc/self/cwd", link, sizeof(link) - 1) > 0);
	expect_text("working directory", cwd_link, link);
	expect(!getcwd(path, sizeof(path)) && errno == ENOENT);
	expect(!stat(".", &st) && S_ISDIR(st.st_mode) && !st.st_nlink);
	expect(stat(beside("cwd"), &st) < 0);
}

VICTIM(kinds_cwd, 0, cwd_setup, NULL, cwd_check);

/* A working directory that changes all the time: by name, relative to the one before, by descriptor; and the umask with it. */
#define CWD_DIRS 16
static char cwd_paths[CWD_DIRS][4200];
static int cwd_fds[CWD_DIRS];
static uint64_t cwd_steps;

static const char *cwd_name(unsigned i)
{
	static char name[32];

	snprintf(name, sizeof(name), "cwd-%u", i);
	return name;
}

static void cwd_walk_setup(void)
{
	for (unsigned i = 0; i < CWD_DIRS; i++) {
		must(!mkdir(beside(cwd_name(i)), 0755));
		cwd_fds[i] = open(beside(cwd_name(i)), O_PATH | O_DIRECTORY | O_CLOEXEC);
		must(cwd_fds[i] >= 0 && !fchdir(cwd_fds[i]) && getcwd(cwd_paths[i], sizeof(cwd_paths[i])));
	}
	cwd_steps = CWD_DIRS - 1;
}

static void cwd_walk_work(void)
{
	unsigned last = (unsigned)(cwd_steps % CWD_DIRS), next = (unsigned)(++cwd_steps % CWD_DIRS);
	char path[4200];

	expect(getcwd(path, sizeof(path)));
	expect_text("working directory", cwd_paths[last], path);
	snprintf(path, sizeof(path), "..%s", strrchr(cwd_paths[next], '/'));
	switch (cwd_steps % 3) {
	case 0:
		expect(!chdir(path));
		break;
	case 1:
		expect(!chdir(cwd_paths[next]));
		break;
	case 2:
		expect(!fchdir(cwd_fds[next]));
		break;
	}
	umask((mode_t)(next * 9));
	if (cwd_steps % 64 == 0)
		usleep(100);
}

static void cwd_walk_check(void)
{
	for (int i = 0; i < 100 && !failed(); i++)
		cwd_walk_work();
	expect_u64("umask", cwd_steps % CWD_DIRS * 9, umask(0));
}

VICTIM(kinds_cwd_walk, 0, cwd_walk_setup, cwd_walk_work, cwd_walk_check);

/* ---- holes, flags ---- */

static off_t map[16];
static int n_map;

static int read_map(int fd, off_t *to)
{
	off_t at = 0;
	int n = 0;

	while (n < 14 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		to[n++] = at;
		at = lseek(fd, at, SEEK_HOLE);
		to[n++] = at;
	}
	return n;
}

static void sparse_setup(void)
{
	fds[0] = open(beside("sparse"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	must(fds[0] >= 0 && pwrite(fds[0], "begin", 5, 0) == 5 && pwrite(fds[0], "middle", 6, 10 << 20) == 6);
	must(!ftruncate(fds[0], 1l << 33));
	must(!unlink(beside("sparse")));
	n_map = read_map(fds[0], map);
	must(n_map >= 4);
	lseek(fds[0], 10 << 20, SEEK_SET);
}

static void sparse_check(void)
{
	char text[16] = "";
	off_t now[16];
	struct stat st;

	expect(lseek(fds[0], 0, SEEK_CUR) == 10 << 20);
	expect(read(fds[0], text, 6) == 6 && !strcmp(text, "middle"));
	expect_u64("parts with data", (uint64_t)n_map, (uint64_t)read_map(fds[0], now));
	for (int i = 0; i < n_map; i++)
		expect_u64("where data begins or ends", (uint64_t)map[i], (uint64_t)now[i]);
	expect(!fstat(fds[0], &st) && st.st_size == 1l << 33);
	if (st.st_blocks > 2048)
		fail("blocks of a file with holes: %lld", (long long)st.st_blocks);
}

VICTIM(kinds_sparse, 0, sparse_setup, NULL, sparse_check);

static void flags_setup(void)
{
	char dir[8192];

	snprintf(dir, sizeof(dir), "%s", beside("x"));
	*strrchr(dir, '/') = 0;
	fds[0] = make(beside("f"), O_RDWR | O_APPEND);
	fds[1] = open(beside("f"), O_RDONLY | O_DIRECT);
	if (fds[1] < 0)
		fds[1] = open(beside("f"), O_RDONLY);
	fds[2] = open(beside("f"), O_RDWR | O_NOATIME | O_SYNC);
	fds[3] = open(beside("f"), O_WRONLY | O_DSYNC | O_NONBLOCK);
	fds[4] = open(dir, O_TMPFILE | O_RDWR, 0600);
	fds[5] = open(dir, O_RDONLY | O_DIRECTORY);
	must(write(fds[4], "temporary", 9) == 9);
	opened(6);
}

static void flags_check(void)
{
	char text[16] = "";

	compare_all(6);
	expect(pread(fds[4], text, 9, 0) == 9 && !strcmp(text, "temporary"));
	expect(write(fds[0], "!", 1) == 1 && lseek(fds[0], 0, SEEK_END) == 10);
	unlink(beside("f"));
}

VICTIM(kinds_flags, 0, flags_setup, NULL, flags_check);

/* ---- what each kernel has of its own ---- */

static void kernel_setup(void)
{
	char text[64], path[64];

	fds[0] = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	must(read(fds[0], text, 8) == 8);
	snprintf(path, sizeof(path), "/proc/%d/maps", getpid());
	fds[1] = open(path, O_RDONLY);
	fds[2] = open("/proc/self/mem", O_RDWR);
	fds[3] = open("/proc/sys/kernel/ostype", O_RDONLY);
	must(read(fds[3], text, 2) == 2);
	fds[4] = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	fds[5] = open("/sys/kernel", O_RDONLY | O_DIRECTORY);
	fds[6] = open("/proc/meminfo", O_RDONLY);
	fds[7] = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
	fds[8] = open("/dev/kmsg", O_WRONLY);
	if (fds[8] < 0)
		fds[8] = open("/dev/zero", O_RDONLY);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[3]);
	fds[9] = open(path, O_RDONLY);
	opened(10);
}

static void kernel_check(void)
{
	static volatile int value = 4711;
	char text[4096] = "", name[64];
	long long at = -1;
	int got = 0;

	compare_all(10);
	expect(read(fds[0], text, 5) > 0);
	expect(!strncmp(text, "ctim", 4)); /* "Name:\tvi" has been read */
	memset(text, 0, sizeof(text));
	expect(read(fds[1], text, sizeof(text) - 1) > 0 && strstr(text, "victim"));
	expect(pread(fds[2], &got, sizeof(got), (off_t)(uintptr_t)&value) == sizeof(got) && got == 4711);
	memset(text, 0, sizeof(text));
	expect(pread(fds[9], text, sizeof(text) - 1, 0) > 0 && sscanf(text, "pos:%lld", &at) == 1 && at == lseek(fds[3], 0, SEEK_CUR));
	memset(text, 0, sizeof(text));
	expect(read(fds[3], text, sizeof(text)) == 4);
	expect_text("rest of ostype", "nux\n", text);
	snprintf(name, sizeof(name), "%d", fds[0]);
	expect(!faccessat(fds[4], name, F_OK, AT_SYMLINK_NOFOLLOW));
	expect(!faccessat(fds[5], "mm", F_OK, 0));
	snprintf(name, sizeof(name), "%d/stat", getpid());
	expect(!faccessat(fds[7], name, F_OK, 0));
}

VICTIM(kinds_kernel, 0, kernel_setup, NULL, kernel_check);

static const char *const namespaces[] = { "net", "uts", "ipc", "mnt", "user", "cgroup", "pid" };

static void namespace_setup(void)
{
	char path[64];

	for (int i = 0; i < 7; i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		must(fds[i] >= 0);
	}
	fds[7] = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fds[7] < 0)
		fds[7] = open("/dev/full", O_RDWR | O_CLOEXEC);
}

static void namespace_check(void)
{
	struct stat a, b;
	char path[64];

	for (int i = 0; i < 7; i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
		expect(!fstat(fds[i], &a) && !stat(path, &b));
		if (a.st_ino != b.st_ino)
			fail("namespace %s: not this host's", namespaces[i]);
	}
	expect(!setns(fds[1], CLONE_NEWUTS));
	expect(!fstat(fds[7], &a) && S_ISCHR(a.st_mode));
}

VICTIM(kinds_namespace, 0, namespace_setup, NULL, namespace_check);

/* ---- signals for changes in a directory ---- */

static volatile sig_atomic_t signals, signal_fd;

static void on_change(int sig, siginfo_t *info, void *context)
{
	signals++;
	signal_fd = info->si_fd;
}

static void notify_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_change, .sa_flags = SA_SIGINFO };

	must(!mkdir(beside("watched"), 0700));
	must(!sigaction(SIGRTMIN + 5, &sa, NULL));
	fds[0] = open(beside("watched"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(!fcntl(fds[0], F_SETSIG, SIGRTMIN + 5) && !fcntl(fds[0], F_NOTIFY, DN_CREATE | DN_DELETE | DN_MULTISHOT));
}

static void expect_signals(int expected)
{
	for (int i = 0; i < 100 && signals != expected; i++)
		usleep(5000);
	expect_u64("signals", (uint64_t)expected, (uint64_t)signals);
}

static void notify_check(void)
{
	int fd;

	expect_signals(0);
	fd = openat(fds[0], "new", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	expect(fd >= 0);
	expect_signals(1);
	expect_u64("descriptor", (uint64_t)fds[0], (uint64_t)signal_fd);
	expect(write(fd, "x", 1) == 1 && !close(fd)); /* not asked for */
	expect_signals(1);
	expect(!unlinkat(fds[0], "new", 0));
	expect_signals(2);
	expect(!fcntl(fds[0], F_NOTIFY, 0));
	rmdir(beside("watched"));
}

VICTIM(kinds_notify, 0, notify_setup, NULL, notify_check);

/* ---- leases ---- */

static void lease(int i, const char *name, int flags, int type)
{
	close(make(beside(name), O_WRONLY));
	fds[i] = open(beside(name), flags | O_CLOEXEC);
	must(fds[i] >= 0 && !fcntl(fds[i], F_SETSIG, SIGRTMIN + 5) && !fcntl(fds[i], F_SETLEASE, type));
}

/* Whether another process is kept from opening it, at least for now. */
static bool kept_out(const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EWOULDBLOCK;
}

static void lease_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_change, .sa_flags = SA_SIGINFO };

	must(!sigaction(SIGRTMIN + 5, &sa, NULL));
	lease(0, "read", O_RDONLY, F_RDLCK);
	lease(1, "write", O_RDWR, F_WRLCK);
	lease(2, "broken", O_RDONLY, F_RDLCK);
	lease(3, "down", O_RDONLY, F_WRLCK);
	lseek(fds[1], 5, SEEK_SET);
	must(kept_out(beside("broken"), O_WRONLY) && kept_out(beside("down"), O_RDONLY));
	must(signals == 2);
	must(fcntl(fds[2], F_GETLEASE) == F_UNLCK && fcntl(fds[3], F_GETLEASE) == F_RDLCK);
	opened(4);
}

static void lease_check(void)
{
	static const int types[] = { F_RDLCK, F_WRLCK, F_UNLCK, F_RDLCK };
	char text[16] = "";

	for (int i = 0; i < 4; i++) {
		/* A write lease comes back when nobody at the source has the file open any more. */
		for (int k = 0; k < 600 && fcntl(fds[i], F_GETLEASE) != types[i]; k++)
			usleep(5000);
		expect_u64("lease", (uint64_t)types[i], (uint64_t)fcntl(fds[i], F_GETLEASE));
	}
	compare_all(4);
	expect(read(fds[1], text, 4) == 4);
	expect_text("what is in it", "text", text);
	expect_signals(2);
	expect(kept_out(beside("read"), O_WRONLY));
	expect_signals(3);
	expect_u64("descriptor", (uint64_t)fds[0], (uint64_t)signal_fd);
	expect(kept_out(beside("write"), O_RDONLY));
	expect_signals(4);
	expect_u64("descriptor", (uint64_t)fds[1], (uint64_t)signal_fd);
	expect(kept_out(beside("broken"), O_WRONLY) && kept_out(beside("down"), O_RDONLY));
	expect_signals(4);
	expect(!fcntl(fds[2], F_SETLEASE, F_UNLCK) && !kept_out(beside("broken"), O_WRONLY));
	expect(!fcntl(fds[3], F_SETLEASE, F_RDLCK) && !kept_out(beside("down"), O_RDONLY));
	unlink(beside("read"));
	unlink(beside("write"));
	unlink(beside("broken"));
	unlink(beside("down"));
}

VICTIM(kinds_lease, 0, lease_setup, NULL, lease_check);

/* ---- the console: every host's own, by its name ---- */

static void console_setup(void)
{
	fds[0] = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fds[0] < 0)
		report("info console=0");
}

static void console_check(void)
{
	struct stat st;

	if (fds[0] < 0)
		return;
	expect(!fstat(fds[0], &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 1));
	expect((fcntl(fds[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK));
	expect(isatty(fds[0]));
}

VICTIM(kinds_console, 0, console_setup, NULL, console_check);
