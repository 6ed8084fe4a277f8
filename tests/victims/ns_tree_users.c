// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_tree_users.c - a victim whose processes are in user namespaces of their own, one within another: ids, capabilities, threads, and what belongs to each */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "tree.h"

static char place[4096];
static pid_t outer, unmapped;

/* A new user namespace, whose maps a child writes from outside. */
static void enter_new(const char *uids, const char *gids)
{
	int go[2];
	char byte;
	pid_t self = getpid(), child;

	must(!pipe(go));
	child = fork();
	if (child == 0) {
		must(read(go[0], &byte, 1) == 1);
		write_proc(self, "gid_map", gids);
		write_proc(self, "uid_map", uids);
		_exit(0);
	}
	must(!unshare(CLONE_NEWUSER) && !prctl(PR_SET_DUMPABLE, 1) && write(go[1], "", 1) == 1);
	member_expect_end("who writes the maps", child, 0);
	close(go[0]);
	close(go[1]);
}

static void add_file(struct text *t, const char *path, const char *only)
{
	char line[512];
	FILE *f = fopen(path, "re");

	must(f);
	while (fgets(line, sizeof(line), f))
		if (!only || !strncmp(line, only, strlen(only)))
			text_add(t, "%s %s", path, line);
	fclose(f);
}

static ino_t ns_of(int fd)
{
	struct stat st;

	must(!fstat(fd, &st));
	close(fd);
	return st.st_ino;
}

/* Whether one belongs to its own user namespace; nobody sees those further up. */
static void add_owner(struct text *t, const char *kind)
{
	char path[64];
	int fd, user, own = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && own >= 0);
	user = ioctl(fd, NS_GET_USERNS);
	text_add(t, "%s belongs to %s\n", kind, user >= 0 && ns_of(user) == ns_of(own) ? "its own" : "another");
	close(fd);
}

static void look(struct text *t)
{
	static const char *const kinds[] = { "net", "ipc", "uts", "mnt", "pid", "cgroup", "time" };
	int fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	gid_t groups[64];
	uid_t ids[6], owner;
	char name[65];
	int n = getgroups(64, groups);

	must(n >= 0 && !getresuid(&ids[0], &ids[1], &ids[2]) && !getresgid(&ids[3], &ids[4], &ids[5]) && !gethostname(name, sizeof(name)));
	text_add(t, "%d is %u %u %u, %u %u %u, on %s, of", getpid(), ids[0], ids[1], ids[2], ids[3], ids[4], ids[5], name);
	for (int i = 0; i < n; i++)
		text_add(t, " %u", groups[i]);
	must(fd >= 0 && !ioctl(fd, NS_GET_OWNER_UID, &owner));
	close(fd);
	text_add(t, "\nmade by %u\n", owner);
	add_file(t, "/proc/self/uid_map", NULL);
	add_file(t, "/proc/self/gid_map", NULL);
	add_file(t, "/proc/self/setgroups", NULL);
	add_file(t, "/proc/self/status", "Cap");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		add_owner(t, kinds[i]);
}

static volatile pid_t thread_id;
static volatile int thread_asked;
static int thread_pipe[2];

static void *second(void *arg)
{
	char byte;

	thread_id = gettid();
	must(read(thread_pipe[0], &byte, 1) == 1);
	thread_asked = thread_id == gettid();
	return arg;
}

/* Unix sockets of a network namespace that the first process is not in. */
static struct {
	int pair[2], listener, client, dgram, waiting;
} sockets;

static int abstract(int type, const char *name, int (*call)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path + 1, name);
	if (call(fd, (void *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) < 0)
		fail("the abstract name %s: errno %d", name, errno);
	return fd;
}

static void open_sockets(void)
{
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.pair) && write(sockets.pair[0], "queued", 6) == 6);
	sockets.listener = abstract(SOCK_STREAM, "boxed", bind);
	must(!listen(sockets.listener, 4));
	sockets.client = abstract(SOCK_STREAM, "boxed", connect);
	sockets.dgram = abstract(SOCK_DGRAM, "boxed-too", bind);
	sockets.waiting = abstract(SOCK_DGRAM, "boxed-too", connect);
	must(write(sockets.client, "hello", 5) == 5 && write(sockets.waiting, "waits", 5) == 5);
}

static void expect_read(int fd, const char *text)
{
	char got[16] = "";

	expect(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT) == (ssize_t)strlen(text));
	expect_text("what a socket has received", text, got);
}

static void check_sockets(void)
{
	int accepted = accept4(sockets.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), another;

	expect_read(sockets.pair[1], "queued");
	expect(accepted >= 0);
	expect_read(accepted, "hello");
	expect(write(accepted, "back", 4) == 4);
	expect_read(sockets.client, "back");
	expect_read(sockets.dgram, "waits");
	another = abstract(SOCK_STREAM, "boxed", connect); /* names are the network namespace's */
	expect(another >= 0 && accept4(sockets.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) >= 0);
}

/* In the outer one's, which has mapped a part of its ids. */
static void live_inside(int told)
{
	struct text was = { 0 }, is = { 0 };
	int user, fd;

	enter_new("0 10 5\n", "0 20 5\n");
	must(!setresgid(1, 1, 1) && !unshare(CLONE_NEWIPC));
	user = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	look(&was);
	member_ready(told);
	member_wait();
	look(&is);
	expect_text("the inner one", was.s, is.s);
	fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	expect(ns_of(user) == ns_of(fd));
	member_fail("the inner one");
	_exit(0);
}

static void live_outside(int told)
{
	static const gid_t groups[] = { 3, 7 };
	struct text was = { 0 }, is = { 0 };
	char path[4200];
	pthread_t thread;
	struct stat st;
	pid_t child;
	int fd;

	enter_new("0 100000 1000\n5000 5000 1\n", "0 100000 1000\n");
	must(!setgroups(2, groups) && !setresgid(0, 0, 0) && !setresuid(0, 0, 0));
	must(!unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP) && !sethostname("boxed", 5));
	must(!mount("boxed", place, "tmpfs", MS_NOSUID, "size=1m,mode=750,uid=3,gid=4"));
	snprintf(path, sizeof(path), "%s/file", place);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	must(fd >= 0 && write(fd, "text", 4) == 4 && !fchown(fd, 5, 6));
	child = member_fork(live_inside, true);
	open_sockets();
	must(!pipe(thread_pipe) && !pthread_create(&thread, NULL, second, NULL));
	while (!thread_id)
		usleep(1000);
	must(!setresgid(1, 2, 3) && !setresuid(0, 5, 0));
	look(&was);
	member_ready(told);
	member_wait();
	look(&is);
	expect_text("the outer one", was.s, is.s);
	expect(!fstat(fd, &st) && st.st_uid == 5 && st.st_gid == 6 && lseek(fd, 0, SEEK_CUR) == 4);
	expect(!setresuid(0, 0, 0) && !stat(path, &st) && st.st_uid == 5 && st.st_gid == 6 && st.st_size == 4);
	expect(!mount(NULL, place, NULL, MS_REMOUNT, "size=2m") && !umount2(place, MNT_DETACH)); /* it is its own */
	check_sockets();
	must(write(thread_pipe[1], "", 1) == 1 && !pthread_join(thread, NULL));
	expect(thread_asked && thread_id != getpid());
	member_ask("the inner one", child);
	member_fail("the outer one");
	_exit(0);
}

/* Nobody has written its maps. */
static void live_unmapped(int told)
{
	struct text was = { 0 }, is = { 0 };

	must(!setresgid(1001, 1001, 1001) && !setresuid(1000, 1000, 1000) && !unshare(CLONE_NEWUSER));
	look(&was);
	member_ready(told);
	member_wait();
	look(&is);
	expect_text("the unmapped one", was.s, is.s);
	member_fail("the unmapped one");
	_exit(0);
}

static void users_setup(void)
{
	snprintf(place, sizeof(place), "%s", beside("p"));
	must(!mkdir(place, 0755));
	outer = member_fork(live_outside, true);
	unmapped = member_fork(live_unmapped, true);
}

static void users_check(void)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", unmapped);
	expect(!stat(path, &st));
	member_ask("the outer one", outer);
	member_ask("the unmapped one", unmapped);
}

VICTIM(ns_users, V_KEEP_OUT | V_HIDDEN, users_setup, NULL, users_check);
