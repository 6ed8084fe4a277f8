// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_tree_files.c - a victim whose processes have files open, and sockets bound, on mounts of several mount namespaces: each stays on its own */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tree.h"

static char place[4096];
static pid_t elsewhere, jailed;
static int listener, before, dgram;
static int open_before[4];

static const char *in(const char *name)
{
	static char path[4][4200];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", place, name);
	return p;
}

/* On which of the caller's mounts it is. */
static void add_mount_of(struct text *t, int fd)
{
	char line[8192], where[4096];
	struct statx sx;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	bool found = false;

	must(f && !statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &sx));
	while (fgets(line, sizeof(line), f)) {
		unsigned long long id;

		if (sscanf(line, "%llu %*d %*s %*s %4095s", &id, where) != 2 || id != sx.stx_mnt_id)
			continue;
		text_add(t, "descriptor %d is on %s\n", fd, where);
		found = true;
	}
	fclose(f);
	if (!found)
		text_add(t, "descriptor %d is on no mount of the caller's\n", fd);
}

static int bind_to(const char *path, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	must(strlen(path) < sizeof(a.sun_path));
	strcpy(a.sun_path, path);
	must(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)) && (type == SOCK_DGRAM || !listen(fd, 4)));
	return fd;
}

static int connect_to(const char *path, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	if (connect(fd, (void *)&a, sizeof(a)) < 0)
		fail("%s: connecting to it: errno %d", path, errno);
	return fd;
}

/* Whether who connects to the path comes to that listener. */
static void expect_served(const char *path, int by)
{
	int client = connect_to(path, SOCK_STREAM), server = accept4(by, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (server < 0)
		fail("%s: somebody else is connected to: errno %d", path, errno);
	close(server);
	close(client);
}

static void live_elsewhere(int told)
{
	struct text was = { 0 }, is = { 0 };
	int own, server, fds[6];
	char got[8] = "";

	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(!mount(in("sub"), in("other"), NULL, MS_BIND, NULL) && !mount("run", in("run"), "tmpfs", 0, "size=1m") && !mount("run", in("hidden"), "tmpfs", 0, "size=1m"));
	fds[0] = open(in("common"), O_RDONLY | O_CLOEXEC);       /* which is the same file by the same path for the first */
	fds[1] = open(in("other/file"), O_RDWR | O_CLOEXEC);     /* which the first has open, too, by another path */
	fds[2] = make_text_file(in("other/gone"), "without a name");
	fds[3] = open(in("common"), O_PATH | O_CLOEXEC);
	fds[4] = open(in("other"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds[5] = before;                                         /* of the first one's */
	must(!unlink(in("other/gone")));
	own = bind_to(in("run/socket"), SOCK_STREAM);
	server = bind_to(in("run/datagrams"), SOCK_DGRAM);
	for (size_t i = 0; i < 6; i++)
		add_mount_of(&was, fds[i]);
	member_ready(told);
	member_wait();
	for (size_t i = 0; i < 6; i++)
		add_mount_of(&is, fds[i]);
	expect_text("mounts of descriptors elsewhere", was.s, is.s);
	expect(lseek(fds[2], 0, SEEK_CUR) == 14);
	expect_served(in("run/socket"), own);
	expect(recv(server, got, sizeof(got) - 1, 0) == 4);
	expect_text("a datagram", "sent", got);
	got[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) >= 0;
	expect(got[0]); /* of the first, by a path that is hidden here */
	member_fail("the one elsewhere");
	_exit(0);
}

static void live_in_jail(int told)
{
	int own;

	must(!chroot(in("jail")) && !chdir("/"));
	own = bind_to("/socket", SOCK_STREAM);
	member_ready(told);
	member_wait();
	expect_served("/socket", own);
	member_fail("the jailed one");
	_exit(0);
}

static void elsewhere_setup(void)
{
	static const char *const dirs[] = { "sub", "other", "run", "hidden", "jail" };
	char path[4200];

	snprintf(place, sizeof(place), "%s", beside("p"));
	must(!mkdir(place, 0755));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		must(!mkdir(in(dirs[i]), 0755));
	before = make_text_file(in("common"), "of both");
	make_text_file(in("sub/file"), "by two paths");
	listener = bind_to(in("hidden/socket"), SOCK_STREAM);
	elsewhere = member_fork(live_elsewhere, true);
	jailed = member_fork(live_in_jail, true);
	close(listener); /* which the other one has */
	listener = bind_to(in("run/socket"), SOCK_STREAM);
	snprintf(path, sizeof(path), "/proc/%d/root%s", elsewhere, in("other/file"));
	open_before[0] = open(path, O_RDONLY | O_CLOEXEC); /* on a mount of the other one's */
	must(open_before[0] >= 0 && !chdir("/proc"));
	snprintf(path, sizeof(path), "%d/root%s", elsewhere, in("run/datagrams"));
	if (strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		dgram = connect_to(path, SOCK_DGRAM);
	must(dgram && !chdir("/"));
}

static void elsewhere_check(void)
{
	struct text own = { 0 };

	expect(send(dgram, "sent", 4, 0) == 4);
	close(connect_to(in("hidden/socket"), SOCK_STREAM));
	expect_served(in("run/socket"), listener);
	add_mount_of(&own, before);
	expect(!strstr(own.s, "no mount"));
	own = (struct text){ 0 };
	add_mount_of(&own, open_before[0]);
	expect(strstr(own.s, "no mount") != NULL);
	member_ask("the one elsewhere", elsewhere);
	member_ask("the jailed one", jailed);
}

VICTIM(ns_elsewhere, V_KEEP_OUT | V_HIDDEN, elsewhere_setup, NULL, elsewhere_check);

static void elsewhere_below_setup(void)
{
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	elsewhere_setup();
}

/* The first process has its own, too. */
VICTIM(ns_elsewhere_below, V_KEEP_OUT | V_HIDDEN, elsewhere_below_setup, NULL, elsewhere_check);
