// SPDX-License-Identifier: GPL-2.0-or-later
/* gone.c - victims about directories whose name was removed, and who has the same one; files that have another name; files about processes that have ended */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tree.h"

static int fds[5]; /* of the working directory twice; of another one twice; of a third one once */
static pid_t fellow;
static struct stat before[6];

static void compare(const char *what, const struct stat *a, const struct stat *b)
{
	if (a->st_dev != b->st_dev || a->st_ino != b->st_ino)
		fail("%s: %#lx:%lu and %#lx:%lu are one directory no more", what, (unsigned long)a->st_dev, (unsigned long)a->st_ino,
			(unsigned long)b->st_dev, (unsigned long)b->st_ino);
}

static void look(struct stat st[6])
{
	for (int i = 0; i < 5; i++)
		expect(!fstat(fds[i], &st[i]));
	expect(!stat(".", &st[5]));
}

static void fellow_main(int told)
{
	struct stat own, parents;

	member_ready(told);
	member_wait();
	expect(!stat(".", &own) && !fstat(fds[0], &parents));
	compare("working directory of a child and a descriptor of its parent", &own, &parents);
	member_fail("child");
	_exit(0);
}

static int open_removed(const char *name, int n, int *ret)
{
	if (mkdir(beside(name), 0700) || chown(beside(name), 7, 8) || chmod(beside(name), 01711))
		return -1;
	while (n--)
		ret[n] = open(beside(name), n ? O_RDONLY | O_DIRECTORY : O_PATH | O_DIRECTORY);
	return rmdir(beside(name));
}

static void setup(void)
{
	must(!mkdir(beside("here"), 0700) && !chown(beside("here"), 5, 6) && !chmod(beside("here"), 0750) && !chdir(beside("here")));
	fds[0] = open(".", O_RDONLY | O_DIRECTORY);
	fds[1] = open(".", O_PATH | O_DIRECTORY);
	must(!rmdir(beside("here")));
	must(!open_removed("there", 2, &fds[2]) && !open_removed("else", 1, &fds[4]));
	fellow = member_fork(fellow_main, true);
	look(before);
}

static void check(void)
{
	struct stat now[6];

	look(now);
	for (int i = 0; i < 6; i++)
		expect(now[i].st_mode == before[i].st_mode && now[i].st_uid == before[i].st_uid && now[i].st_gid == before[i].st_gid && !now[i].st_nlink);
	compare("two descriptors of the working directory", &now[0], &now[1]);
	compare("a descriptor and the working directory", &now[0], &now[5]);
	compare("two descriptors of a directory", &now[2], &now[3]);
	expect(now[0].st_ino != now[2].st_ino && now[2].st_ino != now[4].st_ino);
	member_ask("child", fellow);
}

VICTIM(gone_directories, 0, setup, NULL, check);

/* ---- a file that was opened by a name that is gone, and has another one ---- */

static int written;
static struct stat file_was;
static char other[4200];

static void name_setup(void)
{
	char path[4300];

	snprintf(other, sizeof(other), "%s", beside("other"));
	must(!mkdir(beside("below"), 0700));
	snprintf(path, sizeof(path), "%s/name", beside("below"));
	written = open(path, O_RDWR | O_CREAT | O_EXCL, 0640);
	must(written >= 0 && !link(path, other) && !unlink(path) && write(written, "before ", 7) == 7);
	must(!rmdir(beside("below")));
	must(!fstat(written, &file_was));
}

static void name_check(void)
{
	struct stat by_name, now;
	char text[32] = "";
	int fd;

	expect(write(written, "after", 5) == 5);
	expect(!fstat(written, &now) && now.st_nlink == 1 && now.st_ino == file_was.st_ino);
	fd = open(other, O_RDONLY);
	expect(fd >= 0 && read(fd, text, sizeof(text) - 1) == 12);
	expect_text("by its other name", "before after", text);
	expect(!fstat(fd, &by_name));
	compare("by name and by descriptor", &by_name, &now);
	close(fd);
}

VICTIM(gone_name, 0, name_setup, NULL, name_check);

/* ---- files of /proc about processes that have ended ---- */

#define PROC_FILES 7
static const char *const proc_names[PROC_FILES] = { "", "/stat", "/status", "/mountinfo", "/task", "/maps", "/cmdline" };

static struct proc_look {
	char link[64];
	int error;
} proc_was[PROC_FILES];
static int proc_fds[PROC_FILES];
static char proc_cwd[64], proc_getcwd[64];

static struct proc_look look_at(int fd)
{
	struct proc_look l = { 0 };
	char path[64], text[512];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	expect(readlink(path, l.link, sizeof(l.link) - 1) > 0);
	if (lseek(fd, 0, SEEK_CUR) == 0)
		l.error = read(fd, text, sizeof(text)) < 0 ? errno : 0;
	return l;
}

static pid_t start_child(pid_t number)
{
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = number ? (uintptr_t)&number : 0, .set_tid_size = number ? 1 : 0 };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (child == 0) {
		pause();
		_exit(0);
	}
	must(child > 0);
	return child;
}

static void end_child(pid_t child)
{
	must(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
}

static void proc_setup(void)
{
	pid_t child = start_child(0);
	char path[64], text[10];

	for (int i = 0; i < PROC_FILES; i++) {
		snprintf(path, sizeof(path), "/proc/%d%s", child, proc_names[i]);
		proc_fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		must(proc_fds[i] >= 0);
	}
	must(read(proc_fds[3], text, sizeof(text)) == (ssize_t)sizeof(text)); /* of this one something has been read */
	snprintf(path, sizeof(path), "/proc/%d/task", child);
	must(!chdir(path));
	end_child(child);
	for (int i = 0; i < PROC_FILES; i++)
		proc_was[i] = look_at(proc_fds[i]);
	must(readlink("/proc/self/cwd", proc_cwd, sizeof(proc_cwd) - 1) > 0);
	if (!getcwd(proc_getcwd, sizeof(proc_getcwd)))
		proc_getcwd[0] = 0;
}

static void proc_check(void)
{
	char text[64] = "";

	for (int i = 0; i < PROC_FILES; i++) {
		struct proc_look now = look_at(proc_fds[i]);

		expect_text("name of a file about a process that has ended", proc_was[i].link, now.link);
		if (now.error != proc_was[i].error)
			fail("%s, expected error %d, got %d", now.link, proc_was[i].error, now.error);
	}
	expect_u64("how much has been read", 10, (uint64_t)lseek(proc_fds[3], 0, SEEK_CUR));
	if (!getcwd(text, sizeof(text)))
		text[0] = 0;
	expect_text("getcwd()", proc_getcwd, text);
	expect(readlink("/proc/self/cwd", text, sizeof(text) - 1) > 0);
	expect_text("working directory", proc_cwd, text);
}

VICTIM(gone_process, 0, proc_setup, NULL, proc_check);

/* ---- the same when its number is another process's by now ---- */

static pid_t namesake;

static void namesake_setup(void)
{
	pid_t child = start_child(0);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	proc_fds[0] = open(path, O_RDONLY | O_CLOEXEC);
	must(proc_fds[0] >= 0);
	end_child(child);
	namesake = start_child(child);
	proc_fds[1] = open(path, O_RDONLY | O_CLOEXEC);
	must(proc_fds[1] >= 0);
}

static void namesake_check(void)
{
	char text[512];

	expect(read(proc_fds[0], text, sizeof(text)) < 0 && errno == ESRCH);
	expect(read(proc_fds[1], text, sizeof(text)) > 0 && atoi(text) == namesake);
	end_child(namesake);
}

VICTIM(gone_namesake, 0, namesake_setup, NULL, namesake_check);

/* ---- unix sockets bound to relative names: a file that is another one by now; and one of a directory that is not the working directory any more ---- */

static int sockets[4];
static bool finds_inodes; /* by their numbers: not every file system does */

static int bound(int type, const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", name);
	must(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)));
	return fd;
}

static int call(int type, const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", name);
	return fd < 0 || connect(fd, (void *)&a, sizeof(a)) < 0 ? -1 : fd;
}

static void relative_setup(void)
{
	struct statfs fs;

	must(!mkdir(beside("sockets"), 0700) && !chdir(beside("sockets")) && !statfs(".", &fs));
	finds_inodes = fs.f_type == EXT4_SUPER_MAGIC;
	if (!finds_inodes)
		report("info inodes=0");
	if (finds_inodes) {
		sockets[0] = bound(SOCK_DGRAM, "replaced");
		sockets[1] = call(SOCK_DGRAM, "replaced");
		must(sockets[1] >= 0 && !unlink("replaced") && !mkfifo("replaced", 0600));
	}
	sockets[2] = bound(SOCK_STREAM, "left");
	must(!listen(sockets[2], 3) && (!finds_inodes || !chdir("/")));
}

static void relative_check(void)
{
	struct sockaddr_un a = { 0 };
	socklen_t len = sizeof(a);
	char byte = 'x';
	int fd;

	if (finds_inodes) {
		expect(send(sockets[1], "y", 1, MSG_DONTWAIT) == 1 && recv(sockets[0], &byte, 1, MSG_DONTWAIT) == 1 && byte == 'y');
		expect(!getsockname(sockets[0], (void *)&a, &len));
		expect_text("name of the socket whose file was replaced", "replaced", a.sun_path);
	}
	memset(&a, 0, sizeof(a));
	len = sizeof(a);
	expect(!getsockname(sockets[2], (void *)&a, &len));
	expect_text("relative name of a socket", "left", a.sun_path);
	expect(!chdir(beside("sockets")));
	expect(!finds_inodes || (call(SOCK_DGRAM, "replaced") < 0 && errno == ECONNREFUSED));
	fd = call(SOCK_STREAM, "left");
	expect(fd >= 0 && write(fd, "z", 1) == 1);
	fd = accept(sockets[2], NULL, NULL);
	expect(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'z');
	unlink("left");
	unlink("replaced");
	expect(!chdir("/") && !rmdir(beside("sockets")));
}

VICTIM(gone_socket_names, 0, relative_setup, NULL, relative_check);
